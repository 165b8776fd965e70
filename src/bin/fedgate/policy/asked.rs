//! The question that a request puts to the policy, or the gateway's answer without asking it.
//!
//! The one rule: nothing is decided here. The steps are those of [`fedgate_core::admission`], which the gateway takes
//! in the same order. This module puts their outcome into words.

use fedgate::routes::{RouteAction, RouteTable};
use fedgate_core::admission::{
    EarlyAnswer, EarlyOutcome, GuardedRequest, OpenedRequest, ParsedHead, answer_early, open, screen_bytes,
};
use fedgate_core::framing::{AbsoluteTarget, FramingError};
use fedgate_core::host::HostList;
use fedgate_core::path::parse_target;
use fedgate_core::policy::{Method, OwnIds, PolicyQuestion, ReviewedQuestion};
use http::{HeaderMap, HeaderValue, Version, header};

/// The host of a request whose target names none: one that is served.
const SERVED_HOST: &str = "gateway.example";
/// Most bytes of a head, as the gateway has it where no configuration says otherwise.
const HEAD_BYTES: usize = 16 * 1024;

/// Characters in a target at which the HTTP/2 library resets the stream before the gateway sees the request.
const RESET_OVER_HTTP2: [char; 3] = ['<', '>', '"'];

/// The gateway that is asked, as far as its configuration is known.
#[derive(Clone, Copy)]
pub(super) struct AskedGateway<'a> {
    pub(super) routes: &'a RouteTable,
    /// The hosts that are served; none where every host is.
    pub(super) hosts: Option<&'a HostList>,
    /// Most bytes of a head.
    pub(super) head_bytes: Option<usize>,
}

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

impl<'a> AskedGateway<'a> {
    /// One that serves every host, and has the usual limits.
    pub(super) fn with(routes: &'a RouteTable) -> Self {
        Self { routes, hosts: None, head_bytes: None }
    }

    /// The target of a request line in origin form, if the gateway reads the line so. A target in absolute form is
    /// assumed to come with the same `Host`, as clients must send it (RFC 9112, 3.2.2).
    pub(super) fn screen(&self, method: &str, target: &str) -> Result<ScreenedLine, UnreadQuestion> {
        let named = AbsoluteTarget::parse(target).map(|target| target.authority().to_owned());
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n\r\n", named.as_deref().unwrap_or(SERVED_HOST));
        let every = HostList::default();
        // The host is asked about where one is named, and supposed to be served otherwise.
        let hosts = self.hosts.filter(|_| named.is_some()).unwrap_or(&every);
        let mut held = head.clone().into_bytes();
        // A line end in the arguments would begin a header.
        let is_one_line = head.matches('\r').count() == 3;
        let screened = match is_one_line.then(|| screen_bytes(&mut held, self.head_bytes.unwrap_or(HEAD_BYTES), hosts))
        {
            Some(Ok(Some(_))) => Ok(()),
            Some(Err(fault)) => Err(fault),
            Some(Ok(None)) | None => Err(FramingError::RequestLine),
        };
        if let Err(fault) = screened {
            let mut answered = answered(fault.answer().status(), &fault);
            if target.contains(RESET_OVER_HTTP2) {
                answered
                    .sentence
                    .push_str(" over HTTP/1; over HTTP/2 the stream is reset, without an answer and a record");
            }
            return Err(answered);
        }
        let line = String::from_utf8(held).unwrap_or_default();
        let origin = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let authority = named.unwrap_or_else(|| SERVED_HOST.to_owned());
        match self.early(method, &origin, &authority, hosts) {
            Some(early) => Err(without_decision(&early, method)),
            None => Ok(ScreenedLine { origin }),
        }
    }

    fn early(&self, method: &str, origin: &str, authority: &str, hosts: &HostList) -> Option<EarlyAnswer<'a>> {
        let host = HeaderValue::from_str(authority).ok()?;
        let headers = HeaderMap::from_iter([(header::HOST, host)]);
        let head = ParsedHead { version: Version::HTTP_11, method, authority, headers: &headers };
        answer_early(&head, origin.as_bytes(), hosts, |path| self.routes.allowed_methods(path))
    }

    /// The part of the decision that follows authentication.
    pub(super) fn open<'l>(
        &self,
        method: &str,
        line: &'l ScreenedLine,
    ) -> Result<GuardedRequest<'a, 'l, RouteAction>, UnreadQuestion> {
        let (path, query) =
            parse_target(line.origin.as_bytes()).map_err(|fault| answered(fault.answer().status(), &fault))?;
        match open(self.routes.resolve(method, &path, query)) {
            Ok(OpenedRequest::Guarded(guarded)) => Ok(guarded),
            Ok(OpenedRequest::Public(_)) => {
                Err(UnreadQuestion::to_everybody(None, "public: the route needs no authentication".into()))
            }
            Err(allow) => Err(not_served(method, allow)),
        }
    }

    /// The question that a request puts to the policy; an error if it puts none.
    pub(super) fn question<'q>(
        &self,
        principal: impl Into<OwnIds<'q>>,
        roles: &'q [String],
        guarded: &'q GuardedRequest<'a, '_, RouteAction>,
    ) -> Result<PolicyQuestion<'q>, UnreadQuestion>
    where
        'a: 'q,
    {
        let Some((endpoint, target)) = guarded.target() else {
            return Err(UnreadQuestion {
                status: Some(404),
                sentence: "no route has this path: 404 for authenticated callers, 401 for others".into(),
                to_everybody: false,
            });
        };
        Ok(PolicyQuestion {
            principal: principal.into(),
            roles,
            method: target.method,
            endpoint: self.routes.endpoints().name(endpoint),
            subject: target.subject.id(),
        })
    }
}

/// A request line that has one reading and needs a decision.
pub(super) struct ScreenedLine {
    /// The target in origin form.
    origin: String,
}

fn answered(status: u16, fault: &impl std::fmt::Display) -> UnreadQuestion {
    UnreadQuestion::to_everybody(status, format!("{fault}: the gateway answers {status}"))
}

fn not_served(method: &str, allow: &str) -> UnreadQuestion {
    UnreadQuestion::to_everybody(405, format!("the path does not serve {method} (405); it serves {allow}"))
}

/// The gateway's answer to everybody, in words.
fn without_decision(early: &EarlyAnswer<'_>, method: &str) -> UnreadQuestion {
    let status = early.status();
    match early.outcome {
        EarlyOutcome::Malformed(answer) => answered(status, &answer.text()),
        EarlyOutcome::HostNotServed => answered(status, &"`gateway.hosts` does not list this host"),
        EarlyOutcome::Options { allow } => UnreadQuestion::to_everybody(
            status,
            format!("answered without authentication and without asking the policy (200); the path serves {allow}"),
        ),
        EarlyOutcome::WholeServer => UnreadQuestion::to_everybody(
            status,
            "for the server as a whole: answered to everybody without asking the policy (200)".into(),
        ),
        EarlyOutcome::MethodUnknown { allow } => not_served(method, allow),
        EarlyOutcome::NoPath(fault) => answered(status, &format!("{fault}, and no path serves {method}")),
        EarlyOutcome::NotFound => {
            UnreadQuestion::to_everybody(status, "no route has this path: 404 for everybody".into())
        }
    }
}

/// Whether a route asks the policy for this endpoint under this method.
pub(super) fn is_asked(asked: &ReviewedQuestion<'_>, endpoint: &str, method: &str) -> bool {
    let methods = asked.get(endpoint);
    methods.is_some_and(|methods| Method::of_key(method).is_some_and(|method| methods.contains(&method)))
}
