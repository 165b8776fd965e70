//! The question that a request puts to the policy, or the gateway's answer without asking it.
//!
//! The one rule: the same order as in the gateway (request line, path, method, caller, policy), and the gateway's
//! own code for each.

use std::borrow::Cow;

use fedgate::pipeline::Refusal;
use fedgate::routes::{RouteResolution, RouteTable};
use fedgate_core::framing::{AbsoluteTarget, FramingError, check_head};
use fedgate_core::host::HostList;
use fedgate_core::path::{CanonicalPath, parse_target};
use fedgate_core::policy::{Method, PolicyQuestion, ReviewedQuestion};

/// Why the policy is not asked.
pub(super) struct UnreadQuestion {
    /// The status of the gateway; none if the upstream answers.
    pub(super) status: Option<u16>,
    /// The reason and the answer, in words.
    pub(super) sentence: String,
    /// Whether every caller gets this answer, known or anonymous.
    pub(super) to_everybody: bool,
}

impl UnreadQuestion {
    fn to_everybody(status: impl Into<Option<u16>>, sentence: String) -> Self {
        Self { status: status.into(), sentence, to_everybody: true }
    }

    /// The only answer for a caller that cannot authenticate.
    pub(super) fn barred(why: &str) -> Self {
        Self { status: Some(401), sentence: why.to_owned(), to_everybody: false }
    }
}

/// The target of a request line in origin form. One in absolute form is assumed to come with the same `Host`, as
/// clients must send it (RFC 9112, 3.2.2).
pub(super) fn origin_form<'t>(
    method: &str,
    target: &'t str,
    served: &HostList,
) -> Result<Cow<'t, str>, UnreadQuestion> {
    match AbsoluteTarget::parse(target) {
        None => Ok(Cow::Borrowed(target)),
        Some(absolute) if served.serves(absolute.authority()) => Ok(absolute.origin(method)),
        Some(_) => Err(UnreadQuestion::to_everybody(
            421,
            "`gateway.hosts` does not list this host: the gateway answers 421".into(),
        )),
    }
}

/// The path of a request line, if the gateway reads it as one.
pub(super) fn parse<'p>(method: &str, path: &'p str) -> Result<CanonicalPath<'p>, UnreadQuestion> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: gateway.example\r\n\r\n");
    // A line end in the arguments would begin a header.
    let read =
        if head.matches('\r').count() == 3 { check_head(head.as_bytes()) } else { Err(FramingError::RequestLine) };
    if let Err(fault) = read {
        let status = fault.status();
        return Err(UnreadQuestion::to_everybody(status, format!("{fault}: the gateway answers {status}")));
    }
    parse_target(path.as_bytes()).map(|(path, _)| path).map_err(|fault| {
        if method == "OPTIONS" && path == "*" {
            return UnreadQuestion::to_everybody(
                200,
                "of the whole server: answered to everybody without asking the policy (200)".into(),
            );
        }
        if !is_known(method) {
            return UnreadQuestion::to_everybody(
                405,
                format!("{fault}, and no path serves {method}: the gateway answers 405"),
            );
        }
        let status = Refusal::Path(fault).status();
        UnreadQuestion::to_everybody(status, format!("{fault}: the gateway answers {status}"))
    })
}

/// The question that a request puts to the policy, or why there is none.
pub(super) fn question<'a>(
    routes: &'a RouteTable,
    principal: &'a str,
    roles: &'a [String],
    method: &str,
    resolved: &'a RouteResolution<'a, '_>,
) -> Result<PolicyQuestion<'a>, UnreadQuestion> {
    match resolved {
        RouteResolution::NotFound if method == "OPTIONS" || !is_known(method) => {
            Err(UnreadQuestion::to_everybody(404, "no route has this path: 404 to everybody".into()))
        }
        RouteResolution::NotFound => Err(UnreadQuestion {
            status: Some(404),
            sentence: "no route has this path: 404 to who is authenticated, 401 to others".into(),
            to_everybody: false,
        }),
        RouteResolution::MethodNotAllowed(allow) if method == "OPTIONS" => Err(UnreadQuestion::to_everybody(
            200,
            format!("answered without authentication and without asking the policy (200); the path serves {allow}"),
        )),
        RouteResolution::MethodNotAllowed(allow) => {
            Err(UnreadQuestion::to_everybody(405, format!("the path does not serve {method} (405); it serves {allow}")))
        }
        RouteResolution::Found(target) => match target.action.endpoint {
            None => Err(UnreadQuestion::to_everybody(None, "public: the route needs no authentication".into())),
            Some(endpoint) => Ok(PolicyQuestion {
                principal,
                roles,
                method: target.method,
                endpoint: routes.endpoints().name(endpoint),
                subject: target.subject.as_deref(),
            }),
        },
    }
}

/// Whether a route asks the policy for this endpoint under this method.
pub(super) fn is_asked(asked: &ReviewedQuestion<'_>, endpoint: &str, method: &str) -> bool {
    let methods = asked.get(endpoint);
    methods.is_some_and(|methods| Method::of_key(method).is_some_and(|method| methods.contains(&method)))
}

/// Whether some path may serve a method; method names are case-sensitive (RFC 9110, 9.1).
fn is_known(method: &str) -> bool {
    Method::parse(method).is_some() || method == "OPTIONS"
}
