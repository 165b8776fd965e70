//! The built-in routes.

use super::ACCOUNT_ENDPOINT;
use fedgate_base::config::GuardConfig;

/// Path, methods, endpoint (empty: public), and whether `person_id` is the subject.
type BuiltInRoute = (&'static str, &'static str, &'static str, bool);

/// Routes that Thalamus does not have. They yield together where the operator has a route of one of their paths: what was
/// served before fedgate had them is served as before.
pub(super) struct AddedRoutes {
    /// What they are, for messages.
    pub(super) name: &'static str,
    pub(super) routes: &'static [BuiltInRoute],
}

/// The routes that fedgate adds.
#[rustfmt::skip]
pub(super) const ADDED: &[AddedRoutes] = &[
    AddedRoutes { name: "the description of the interface", routes: &[
        ("/openapi.json",                                "GET",                   "",                 false),
    ] },
    AddedRoutes { name: "messages", routes: &[
        ("/messages",                                    "GET POST",              "messages",         false),
        ("/messages/{position}",                         "GET POST",              "messages",         false),
        ("/messages/cursors/{cursor}",                   "GET PUT DELETE",        "messages",         false),
        ("/messages/webhooks/{webhook_id}",              "GET PATCH DELETE",      "messages",         false),
        ("/messages/webhooks/{webhook_id}/keys",         "POST",                  "messages",         false),
    ] },
    AddedRoutes { name: "the index of persons", routes: &[
        ("/index/match",                                 "POST",                  "match",            false),
        ("/index/duplicates",                            "GET",                   "match",            false),
        ("/index/duplicates/{pair}",                     "GET PATCH",             "match",            false),
        ("/index/merges",                                "GET POST",              "merge",            false),
        ("/index/merges/{merge_id}",                     "GET DELETE",            "merge",            false),
    ] },
    // No subject: the id is FHIR's, so the service compares it. An id of FHIR is plain, so no pattern overlaps another.
    AddedRoutes { name: FHIR, routes: &[
        ("/fhir/metadata",                               "GET",                   "",                 false),
        ("/fhir/Patient",                                "GET",                   "people",           false),
        ("/fhir/Patient/_search",                        "POST",                  "people",           false),
        ("/fhir/Patient/$match",                         "POST",                  "match",            false),
        ("/fhir/Patient/{patient_id:plain}",             "GET",                   "person",           false),
    ] },
];
/// The routes of FHIR, which the configuration can switch off.
pub(super) const FHIR: &str = "FHIR";

/// The routes of Thalamus.
#[rustfmt::skip]
pub(super) const ROUTES: &[BuiltInRoute] = &[
    ("/",                                                "GET",                   "",                 false),
    ("/static/{file}",                                   "GET",                   "",                 false),
    ("/login",                                           "GET",                   "login",            false),
    ("/people",                                          "GET",                   "people",           false),
    ("/people/{person_id}",                              "GET POST PATCH DELETE", "person",           true),
    ("/pols/{person_id}",                                "GET",                   "book",             true),
    ("/pols/{person_id}/{page_id}",                      "GET POST PATCH DELETE", "page",             true),
    ("/personal_docs/{person_id}",                       "GET",                   "personaldocs",     true),
    ("/personal_docs/{person_id}/{pol_id}",              "GET",                   "poldocs",          true),
    ("/personal_docs/{person_id}/{pol_id}/{document_id}", "GET POST DELETE",      "poldocs",          true),
    ("/domiciliary-units",                               "GET",                   "domiciliaryunits", false),
    ("/domiciliary-units/{unit_id}",                     "GET POST PATCH DELETE", "domiciliaryunits", false),
    ("/institutions",                                    "GET",                   "institutions",     false),
    ("/institutions/{institution_id}",                   "GET POST PATCH DELETE", "institutions",     false),
    ("/password/{person_id}",                            "GET POST",              "password",         true),
];

/// Whether answers are streams or long polls.
pub(super) fn is_stream(path: &str, method: &str) -> bool {
    (path, method) == ("/messages", "GET")
}

/// Whether a write must be an object. Thalamus appends a list to the stored document (`data || patch`), and the
/// document is no account any more.
pub(super) fn takes_objects_alone(endpoint: &str, method: &str) -> bool {
    matches!((endpoint, method), ("person" | "page", "POST" | "PATCH"))
}

/// The member in which a record names its person, where Thalamus finds the record by its id alone. Thalamus reads and
/// changes any person's page through any person's path. It stores a new page in the book of the path.
pub(super) fn owner_member(endpoint: &str, method: &str) -> Option<&'static str> {
    matches!((endpoint, method), ("page", "GET" | "PATCH" | "DELETE")).then_some("book")
}

/// The members that a write of a person or page may not carry, because the upstream would write them for any caller.
///
/// A new person may carry the default values of an account and a password, because the Federation Portal sends all
/// three. A password by PATCH would be stored as it is, in clear, so no caller may send one. A page belongs to the
/// book that its writer names, so a writer may name no other book than that of the path; clients do send none.
pub(super) fn guards(endpoint: &str, method: &str) -> Vec<GuardConfig> {
    let guard = |members: &[&str], permission: Option<&str>, may_name_subject| GuardConfig {
        may_be_empty: false,
        may_be_default: false,
        members: members.iter().map(|name| (*name).to_owned()).collect(),
        permission: permission.map(str::to_owned),
        may_name_subject,
        anywhere: false,
    };
    let account = Some(ACCOUNT_ENDPOINT);
    match (endpoint, method) {
        ("person", "POST") => {
            let of_account = guard(&["roles", "active", "password"], account, false);
            vec![GuardConfig { may_be_default: true, ..of_account }, guard(&["id"], account, true)]
        }
        ("person", "PATCH") => {
            vec![
                guard(&["roles", "active"], account, false),
                guard(&["id"], account, true),
                guard(&["password"], None, false),
            ]
        }
        ("page", "POST" | "PATCH") => vec![GuardConfig { may_be_empty: true, ..guard(&["book"], None, true) }],
        _ => Vec::new(),
    }
}
