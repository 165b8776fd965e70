//! The right of a webhook's account to read messages now, by the policy of the gateway.
//!
//! The one rule: rights are judged before each attempt, by the policy file as it is and the account's row as it is. A file
//! with a fault changes nothing, as in the gateway. Without any policy, nothing is sent.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;

use crate::store::webhooks::WebhookAccount;
use crate::store::{MessageReach, OwnPersons, RecordReach};
use fedgate_base::regular;
use fedgate_core::policy::{MAX_POLICY_BYTES, Method, PolicyDecision, PolicyQuestion, PolicyReach, PolicySet};

/// How often to look whether the file is another.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The endpoint of messages in the policy.
const ENDPOINT: &str = "messages";

/// The messages that an account may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MessageRights {
    /// These messages.
    Within(MessageReach),
    /// None: why.
    Nothing(&'static str),
    /// There is no policy, so nobody knows.
    Unknown,
}

/// The policy, as the file has it.
pub(super) struct RightsPolicy {
    file: PathBuf,
    known: Mutex<Option<Arc<PolicySet>>>,
}

impl RightsPolicy {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, known: Mutex::default() }
    }

    /// Follows the file. Runs for as long as it is polled.
    pub(super) async fn follow(&self) {
        let (mut seen, mut told) = (None, None);
        loop {
            // Identity, size and times: a file that is replaced or written has another of them.
            let place = |file: Metadata| {
                (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec(), file.ctime_nsec())
            };
            let now = std::fs::metadata(&self.file).map(place).ok();
            // A file that cannot be read is tried again each time.
            if now.is_none() || now != seen {
                let fault = self.read().err();
                seen = if fault.is_none() { now } else { None };
                if fault != told {
                    self.tell(fault.as_deref());
                    told = fault;
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn read(&self) -> Result<(), String> {
        let bytes = regular::read(&self.file, MAX_POLICY_BYTES as u64).map_err(|error| error.to_string())?;
        let policy = PolicySet::parse(&bytes).map_err(|error| error.to_string())?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(policy));
        Ok(())
    }

    fn tell(&self, fault: Option<&str>) {
        let file = self.file.display();
        match fault {
            None => tracing::info!("webhooks are judged by the policy in `{file}`"),
            Some(fault) if self.policy().is_some() => {
                tracing::error!(
                    "the policy for webhooks, `{file}`, cannot be used ({fault}); the last good one still applies"
                );
            }
            Some(fault) => tracing::error!(
                "the policy for webhooks, `{file}`, cannot be used ({fault}), so no messages are sent; let this user read \
                 the file, or name another one with `his.webhook_roles`"
            ),
        }
    }

    fn policy(&self) -> Option<Arc<PolicySet>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The messages that an account may read now.
    pub(super) fn judge(&self, id: &str, account: &WebhookAccount) -> MessageRights {
        match self.policy() {
            Some(policy) => judge(&policy, id, account),
            None => MessageRights::Unknown,
        }
    }
}

fn judge(policy: &PolicySet, id: &str, account: &WebhookAccount) -> MessageRights {
    if !account.exists {
        return MessageRights::Nothing("the account was deleted");
    }
    // As the gateway reads the mark: an account without one is active.
    if !matches!(account.active.as_deref(), None | Some("null" | "true" | "\"True\"" | "\"true\"")) {
        return MessageRights::Nothing("the account is inactive");
    }
    // Roles that are not a list of strings count as none.
    let roles = account.roles.as_deref().unwrap_or("[]");
    let roles = Vec::<String>::deserialize(&mut serde_json::Deserializer::from_str(roles)).unwrap_or_default();
    let question =
        PolicyQuestion { principal: id.into(), roles: &roles, method: Method::Get, endpoint: ENDPOINT, subject: None };
    let within = |records| MessageRights::Within(MessageReach::new(records, id, &roles));
    match policy.decide(question) {
        PolicyDecision::Allow(PolicyReach::Global) => within(RecordReach::Global),
        // As where messages are read: related persons count on routes that name a person.
        PolicyDecision::Allow(PolicyReach::Own | PolicyReach::Related) => {
            within(RecordReach::Own(OwnPersons::new(id, account.same.iter().cloned())))
        }
        PolicyDecision::Deny(_) => MessageRights::Nothing("the account may not read messages"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_has_the_rights_that_its_account_has_now() {
        let policy = PolicySet::parse(
            br#"[{"role": "node", "permissions": {"GET": ["messages"], "global": "True"}},
                 {"role": "end_user", "permissions": {"GET": ["messages", "person"], "global": "False"}},
                 {"role": "clerk", "permissions": {"GET": ["person"], "global": "True"}}]"#,
        );
        let policy = policy.unwrap();
        let rights = |exists, roles: Option<&str>, active: Option<&str>| {
            let [roles, active] = [roles, active].map(|text| text.map(str::to_owned));
            let same = vec!["ANA-OLD".to_owned()];
            judge(&policy, "ANA", &WebhookAccount { exists, roles, active, same, history: 1, history_of_position: 1 })
        };
        let within = |records, roles: &[&str]| {
            let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
            MessageRights::Within(MessageReach::new(records, "ANA", &roles))
        };
        let global = within(RecordReach::Global, &["end_user", "node"]);
        assert_eq!(rights(true, Some(r#"["end_user","node"]"#), None), global);
        let own = within(RecordReach::Own(OwnPersons::new("ANA", ["ANA-OLD".to_owned()])), &["end_user", "clerk"]);
        assert_eq!(rights(true, Some(r#"["end_user","clerk"]"#), Some("true")), own);
        for (exists, roles, active) in [
            (false, Some(r#"["node"]"#), None),
            (true, Some(r#"["node"]"#), Some("false")),
            (true, Some(r#"["node"]"#), Some("0")),
            (true, Some(r#"["clerk"]"#), None),
            (true, Some(r#""node""#), None),
            (true, Some(r#"["node",1]"#), None),
            (true, None, None),
        ] {
            assert!(
                matches!(rights(exists, roles, active), MessageRights::Nothing(_)),
                "{exists} {roles:?} {active:?}"
            );
        }
    }
}
