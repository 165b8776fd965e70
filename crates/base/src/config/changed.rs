//! Changed defaults, for operators whose configuration is older than the program.
//!
//! The one rule: a key that the file or the environment sets is not reported, because the operator has decided.
//! `fedgate check` prints the others, and CHANGELOG.md lists the same defaults.

use super::connection::ConnectionString;
use super::overrides::KeyOverride;

/// A changed default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangedDefault {
    /// The section of the file; for a list of tables, each table.
    pub section: &'static str,
    /// The key in the section.
    pub key: &'static str,
    /// The value that restores the old behaviour, as written in the file.
    pub restored_by: &'static str,
    /// The present behaviour.
    pub now: &'static str,
    /// Another key of the section without which this one has no effect, if there is one.
    only_with: Option<&'static str>,
}

const fn changed(
    section: &'static str,
    key: &'static str,
    restored_by: &'static str,
    now: &'static str,
) -> ChangedDefault {
    ChangedDefault { section, key, restored_by, now, only_with: None }
}

#[rustfmt::skip]
const CHANGED: &[ChangedDefault] = &[
    ChangedDefault {
        only_with: Some("client_ca"),
        ..changed("tls", "client_ca_expired", r#""warn""#, "an authority whose certificate has expired admits nobody")
    },
    ChangedDefault {
        only_with: Some("client_crl"),
        ..changed("tls", "client_crl_unknown_issuer", r#""accept""#, "a revocation list whose issuer is not in `tls.client_ca` is refused")
    },
    changed("gateway", "exposed_secrets", r#""warn""#, "a secret that everybody on the machine can read or write is \
                                                        refused"),
    changed("gateway", "core_dumps", "true", "neither program leaves a dump of its memory, and none of its own user \
                                              can look into it"),
    changed("authentication", "upgrade_hashes", "true", "on a PostgreSQL database that a Thalamus made, hashes of \
                                                         passwords stay such as it reads"),
    changed("limits", "half_closed_seconds", "0", "a client that closes its sending half behind a whole request is \
                                                   answered for 10 s"),
    changed("cors", "refuse_foreign_writes", "false", "a write that a page of another origin may have caused unasked \
                                                       is refused"),
    ChangedDefault {
        only_with: Some("name"),
        ..changed("upstream", "request_headers", r#"["*"]"#, "of a client's request, the headers that docs/SECURITY.md lists reach an upstream; `*` adds all others except known identity headers, which can be written out")
    },
    ChangedDefault {
        only_with: Some("name"),
        ..changed("upstream", "host", r#""pass""#, "without `gateway.hosts`, an upstream is asked by its own name, \
                                                    and the client's is in X-Forwarded-Host")
    },
    changed("records", "anonymous_of_source_per_minute", "0", "over 60 requests a minute of anonymous callers at one address share a record"),
    changed("records", "anonymous_per_minute", "0", "over 600 requests a minute of all anonymous callers share a \
                                                     record"),
    changed("records", "reserve_mib", "0", "with less than 64 MiB free, anonymous callers share a record"),
    changed("store", "lock_timeout_ms", "10000", "a statement waits 2 s at most for a lock (before: 10 s; in an \
                                                  embedded store 5 s)"),
    changed("his", "connections", "0", "the HIS holds 4096 connections at most; where there is no room, the one that \
                                        has been silent for the longest is closed"),
    // A year, which is practically no limit.
    changed("his", "head_timeout_seconds", "31536000", "the HIS closes a connection whose head takes longer than 10 s"),
    changed("his", "idle_timeout_seconds", "31536000", "the HIS closes a connection that is silent for 600 s"),
    changed("his", "max_record_bytes", "0", "a record has 4 MiB at most"),
    changed("his", "max_pages_per_person", "0", "a person has 100,000 pages at most"),
    changed("his", "max_documents_per_person", "0", "a person has 10,000 documents at most"),
    changed("his", "max_bytes_in_flight", "0", "documents, lists, records and JSON bodies on their way share 32 MiB, \
                                                a quarter for one caller; parsed bodies share as much, half for one \
                                                caller"),
    changed("his", "ask_current_password", "false", "`/password/…` asks for the caller's own current password"),
    changed("his", "refuse_common_passwords", "false", "`/password/…` refuses the commonest 10,000 passwords"),
    changed("his", "caller_share_percent", "100", "one account uses half of the store's connections at most"),
    changed("his", "write_share_percent", "100", "writes use three quarters of the store's connections at most"),
];

/// Parameters of `store.uri` whose defaults changed: the name, whether it applies only to a single host, and the
/// parameter that restores the old behaviour.
#[rustfmt::skip]
const CHANGED_PARAMETERS: &[(&str, bool, ChangedDefault)] = &[
    ("connect_timeout", true, changed("store", "uri", r#""…connect_timeout=2""#, "the only host of `store.uri` has 4 s to connect and to answer")),
    ("keepalives_idle", false, changed("store", "uri", r#""…keepalives_idle=10""#, "an idle connection to PostgreSQL is probed after 5 s")),
];

/// The changed defaults that a connection string leaves open. For several hosts, `fedgate check` reports separately.
pub(super) fn unsettled_parameters(uri: &str) -> impl Iterator<Item = ChangedDefault> {
    let hosts = |read: ConnectionString| read.settings.get_hosts().len().max(read.settings.get_hostaddrs().len());
    let has_one_host = ConnectionString::parse(uri).is_ok_and(|read| hosts(read) == 1);
    let is_unsettled =
        move |parameter: &str, of_one_host: bool| !uri.contains(parameter) && (has_one_host || !of_one_host);
    let changed = CHANGED_PARAMETERS.iter();
    changed.filter(move |(name, of_one_host, _)| is_unsettled(name, *of_one_host)).map(|(.., changed)| *changed)
}

/// The changed defaults that a configuration leaves open.
pub(super) fn unsettled(file: &toml::Table, overrides: &[KeyOverride]) -> Vec<ChangedDefault> {
    let in_file = |section: &str, key: &str| match file.get(section) {
        // Among several tables, any that omits the key has the default.
        Some(toml::Value::Array(tables)) => tables.iter().all(|table| table.get(key).is_some()),
        Some(section) => section.get(key).is_some(),
        None => false,
    };
    let named =
        |section: &str, key: &str| in_file(section, key) || overrides.iter().any(|over| over.names(section, key));
    let is_unsettled = |default: &ChangedDefault| {
        !named(default.section, default.key) && default.only_with.is_none_or(|key| named(default.section, key))
    };
    CHANGED.iter().filter(|default| is_unsettled(default)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_that_a_key_overrides_is_not_reported() {
        let unsettled_of = |text: &str| {
            let told = unsettled(&toml::from_str(text).unwrap(), &[]);
            told.into_iter().map(|default| default.key).collect::<Vec<_>>()
        };
        let all = unsettled_of("");
        assert!(all.contains(&"max_record_bytes") && !all.contains(&"client_ca_expired"), "{all:?}");
        assert!(!unsettled_of("[his]\nmax_record_bytes = 4194304").contains(&"max_record_bytes"));
        assert!(!all.contains(&"request_headers"), "the HIS needs no more than what passes: {all:?}");
        let two = "[[upstream]]\nname = \"a\"\nrequest_headers = []\n[[upstream]]\nname = \"b\"\n";
        assert!(unsettled_of(two).contains(&"request_headers"), "one of two leaves it out");
        assert!(!unsettled_of(&format!("{two}request_headers = []")).contains(&"request_headers"));
        assert!(unsettled_of("[tls]\nclient_ca = \"ca.pem\"").contains(&"client_ca_expired"));
    }

    #[test]
    fn a_parameter_of_the_connection_string_settles_its_default_alone() {
        let told = |uri: &str| {
            let told = unsettled_parameters(uri).map(|default| default.restored_by);
            told.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told("postgres://u@h/d"), r#""…connect_timeout=2" "…keepalives_idle=10""#);
        assert_eq!(told("postgres://u@h,i/d"), r#""…keepalives_idle=10""#);
        assert_eq!(told("postgres://u@h/d?connect_timeout=3&keepalives_idle=5"), "");
    }

    #[test]
    fn each_value_that_restores_what_was_before_is_one_that_the_key_takes() {
        for default in CHANGED {
            let head = if default.section == "upstream" {
                "[[upstream]]\nname = \"a\""
            } else {
                &format!("[{}]", default.section)
            };
            let text = format!("{head}\n{} = {}", default.key, default.restored_by);
            let table: toml::Table = toml::from_str(&text).unwrap();
            assert!(super::super::written::from_table(table.clone()).is_ok(), "{text}");
            assert!(!unsettled(&table, &[]).contains(default), "{text}");
        }
    }
}
