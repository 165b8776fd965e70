//! The Authorization API 1.0 of OpenID AuthZEN: services ask for decisions.
//!
//! The one rule: nothing is decided here. The pipeline decides, under one policy for a whole question, and no decision
//! is told before its record is kept, if answers wait for records.
//!
//! Called by the listeners of `beside.authzen`. The universe of a search is bounded: subjects are looked for among the
//! accounts, page by page, and resources among the ids of the account's own person.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{Response, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::socket::SocketAddr;
use serde_json::{Value, json};

use super::edge::client_socket::ConnectionFacts;
use super::edge::live_traffic::LiveTraffic;
use super::edge::tls::ServedTls;
use super::exchange::context::RequestContext;
use super::headers::REQUEST_ID;
use super::plain_text;
use crate::authn::Authenticator;
use crate::observe::{RecordDetail, RequestRecord, RequestRecorder};
use crate::pipeline::{AskedAccount, Pipeline};
use fedgate_base::config::ProxyAskers;
use fedgate_core::admission::content_length;
use fedgate_core::assertion::RecordScope;
use fedgate_core::authzen::{
    AskedEvaluations, AskedPage, AskedRight, AskedSearch, SUBJECT_TYPE, SearchKind, action_method,
};
use fedgate_core::codes::AnswerCode;
use fedgate_core::policy::{Method, PolicySet};
use fedgate_core::reasons::{RecordDecision, RecordReason};

/// How long a refused body may keep arriving.
const LINGER: Duration = Duration::from_secs(2);
/// The largest question.
const MOST_BYTES: usize = 256 * 1024;
const METADATA: &str = "/.well-known/authzen-configuration";
const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const SEARCH: [(&str, SearchKind); 3] = [
    ("/access/v1/search/subject", SearchKind::Subject),
    ("/access/v1/search/resource", SearchKind::Resource),
    ("/access/v1/search/action", SearchKind::Action),
];

/// Answers services that ask.
pub(crate) struct AuthzenListener {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) recorder: RequestRecorder,
    pub(crate) traffic: Arc<LiveTraffic>,
    pub(crate) askers: ProxyAskers,
    /// Set where services show certificates.
    pub(crate) tls: Option<Arc<ServedTls>>,
    /// How long a question may take to arrive.
    pub(crate) patience: Duration,
}

/// One question while it is answered.
struct Question {
    ctx: RequestContext,
    method: String,
    path: String,
    client: String,
    /// The id that the asking service chose.
    chosen: Option<String>,
    policy: Arc<PolicySet>,
}

/// One decision, for its record.
struct Told<'a> {
    right: Option<&'a AskedRight>,
    account: Option<&'a AskedAccount>,
    outcome: Result<RecordScope, RecordReason>,
}

#[async_trait]
impl ServeHttp for AuthzenListener {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let peer = match session.client_addr() {
            Some(SocketAddr::Inet(address)) => Some(address.ip()),
            _ => None,
        };
        let head = session.req_header();
        if head.version == http::Version::HTTP_10 {
            session.set_keepalive(None);
        }
        let head = session.req_header();
        let chosen = head.headers.get(REQUEST_ID).cloned();
        let mut question = Question {
            ctx: RequestContext::new(Arc::clone(&self.traffic)),
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            client: peer.map(plain_text::address).unwrap_or_default(),
            chosen: chosen.as_ref().and_then(|id| id.to_str().ok()).map(str::to_owned),
            policy: self.pipeline.policy(),
        };
        question.ctx.origin.client = peer;
        let answered = self.answer(session, &mut question, peer).await;
        let (status, body) = match answered {
            Ok(body) => (200, body.to_string()),
            Err(code) => {
                // Closing while a body arrives would reset the connection, and the answer would be lost.
                let _ = tokio::time::timeout(LINGER, session.drain_request_body()).await;
                session.set_keepalive(None);
                let kept = self.refuse(&question, code).await;
                let code = if kept { code } else { AnswerCode::NotRecorded };
                (code.status(), code.json(&question.ctx.request_id))
            }
        };
        let mut response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, body.len())
            .header(header::CACHE_CONTROL, "no-store");
        if status == AnswerCode::MethodNotAllowed.status() {
            response = response.header(header::ALLOW, if question.path == METADATA { "GET" } else { "POST" });
        }
        // The specification has the caller's own id come back.
        response = match chosen {
            Some(chosen) => response.header(REQUEST_ID, chosen),
            None => response.header(REQUEST_ID, &question.ctx.request_id),
        };
        response.body(body.into_bytes()).unwrap_or_default()
    }
}

impl AuthzenListener {
    /// The answer to a question.
    ///
    /// # Errors
    /// Why there is none.
    async fn answer(
        &self,
        session: &mut ServerSession,
        question: &mut Question,
        peer: Option<IpAddr>,
    ) -> Result<Value, AnswerCode> {
        if !question.ctx.take_seat() {
            return Err(AnswerCode::ServiceBusy);
        }
        if self.recorder.refuses() {
            return Err(AnswerCode::NotRecorded);
        }
        if !self.may_ask(session, peer) {
            return Err(AnswerCode::ProxyUnknown);
        }
        // Services are no browsers: a page that a browser has loaded may not ask, under whichever name it came.
        let headers = &session.req_header().headers;
        if headers.contains_key(header::ORIGIN) || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-")) {
            return Err(AnswerCode::ForeignOrigin);
        }
        let path = question.path.clone();
        let search = SEARCH.into_iter().find(|(known, _)| *known == path).map(|(_, kind)| kind);
        if path == METADATA {
            return match question.method.as_str() {
                "GET" => Ok(metadata(session)),
                _ => Err(AnswerCode::MethodNotAllowed),
            };
        }
        if search.is_none() && ![EVALUATION, EVALUATIONS].contains(&path.as_str()) {
            return Err(AnswerCode::NotFound);
        }
        if question.method != "POST" {
            return Err(AnswerCode::MethodNotAllowed);
        }
        let body = self.body(session).await?;
        match search {
            Some(kind) => self.search(question, AskedSearch::read(&body, kind)?).await,
            None if path == EVALUATION => self.evaluate(question, AskedRight::read(&body)?).await,
            None => match AskedEvaluations::read(&body)? {
                AskedEvaluations::One(right) => self.evaluate(question, right).await,
                AskedEvaluations::Several(rights, semantic) => {
                    let mut answers = vec![];
                    for right in rights {
                        let answer = match right {
                            Some(right) => self.evaluate(question, right).await?,
                            None => self.lacks_a_part(question).await?,
                        };
                        let is_permitted = answer.get("decision").and_then(Value::as_bool) == Some(true);
                        answers.push(answer);
                        if semantic.ends_after(is_permitted) {
                            break;
                        }
                    }
                    Ok(json!({ "evaluations": answers }))
                }
            },
        }
    }

    /// Whether a service may ask.
    fn may_ask(&self, session: &ServerSession, peer: Option<IpAddr>) -> bool {
        let digest = session.digest().and_then(|digest| digest.proxy_digest.as_ref());
        let facts = digest.and_then(|digest| digest.user_data.as_ref()?.downcast_ref::<ConnectionFacts>());
        let shown = facts.and_then(|facts| facts.certificate.as_ref());
        let metrics = self.recorder.metrics();
        let trusts = |tls: &Arc<ServedTls>, shown| tls.still_trusts(shown, peer, metrics);
        let trusted = shown.filter(|shown| self.tls.as_ref().is_some_and(|tls| trusts(tls, shown)));
        self.askers.may_ask(peer, trusted.map(|shown| &shown.sha256))
    }

    /// The body of a question.
    async fn body(&self, session: &mut ServerSession) -> Result<Vec<u8>, AnswerCode> {
        let headers = &session.req_header().headers;
        let kinds: Vec<_> = headers.get_all(header::CONTENT_TYPE).iter().collect();
        let is_json = |kind: &[u8]| {
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            kind.eq_ignore_ascii_case(b"application/json")
        };
        if !matches!(kinds.as_slice(), [kind] if is_json(kind.as_bytes())) {
            return Err(AnswerCode::BadRequest);
        }
        if content_length(headers).is_some_and(|length| length > MOST_BYTES as u64) {
            return Err(AnswerCode::BodyTooLarge);
        }
        let mut body = vec![];
        let read = async {
            while let Some(chunk) = session.read_request_body().await.map_err(|_| AnswerCode::BadFraming)? {
                if body.len() + chunk.len() > MOST_BYTES {
                    return Err(AnswerCode::BodyTooLarge);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(())
        };
        tokio::time::timeout(self.patience, read).await.map_err(|_| AnswerCode::RequestTimeout)??;
        Ok(body)
    }

    async fn evaluate(&self, question: &Question, right: AskedRight) -> Result<Value, AnswerCode> {
        let account = self.account(question, &right.subject.kind, &right.subject.id).await?;
        let outcome = match &account {
            None => Err(RecordReason::UnknownAccount),
            Some(account) => self.pipeline.judge(account, &right.action, &right.resource.kind, &right.resource.id),
        };
        let told = Told { right: Some(&right), account: account.as_ref(), outcome };
        self.keep(question, &told, 200).await?;
        Ok(json!({ "decision": told.outcome.is_ok() }))
    }

    /// The answer to an evaluation among others that lacks a part.
    async fn lacks_a_part(&self, question: &Question) -> Result<Value, AnswerCode> {
        let code = AnswerCode::BadRequest;
        self.keep(question, &Told { right: None, account: None, outcome: Err(code.into()) }, 200).await?;
        let error = json!({ "status": code.status(), "message": code.code() });
        Ok(json!({ "decision": false, "context": { "error": error } }))
    }

    /// The account of a subject; none if subjects of the type are no accounts.
    async fn account(&self, question: &Question, kind: &str, id: &str) -> Result<Option<AskedAccount>, AnswerCode> {
        if kind != SUBJECT_TYPE {
            return Ok(None);
        }
        let account = self.pipeline.asked_account(id, &question.policy).await;
        account.map(Some).map_err(|_| AnswerCode::AccountsUnavailable)
    }

    async fn search(&self, question: &Question, search: AskedSearch) -> Result<Value, AnswerCode> {
        let answer = match search {
            AskedSearch::Subject { kind, action, resource, page } => {
                let (ids, next) = match kind == SUBJECT_TYPE {
                    true => {
                        self.subjects(question, &action, (resource.kind.as_str(), resource.id.as_str()), &page).await?
                    }
                    false => (vec![], String::new()),
                };
                paged(&kind, ids, next)
            }
            AskedSearch::Resource { subject, action, kind, page } => {
                let account = self.account(question, &subject.kind, &subject.id).await?;
                let own = account.map(|account| self.pipeline.permitted_own(&account, &action, &kind));
                let after = |id: &String| page.token.as_ref().is_none_or(|token| id > token);
                let mut ids: Vec<String> = own.unwrap_or_default().into_iter().filter(after).collect();
                let is_more = ids.len() > page.limit;
                ids.truncate(page.limit);
                let next = ids.last().filter(|_| is_more).cloned().unwrap_or_default();
                paged(&kind, ids, next)
            }
            AskedSearch::Action { subject, resource } => {
                let account = self.account(question, &subject.kind, &subject.id).await?;
                let names =
                    account.map(|account| self.pipeline.permitted_actions(&account, &resource.kind, &resource.id));
                let results: Vec<Value> =
                    names.unwrap_or_default().into_iter().map(|name| json!({ "name": name })).collect();
                json!({ "results": results })
            }
        };
        let told = Told { right: None, account: None, outcome: Err(RecordReason::Search) };
        self.keep(question, &told, 200).await?;
        Ok(answer)
    }

    /// The accounts of one page that may do something, and where the next page begins. A page looks at as many accounts
    /// as it may have results, so it may have fewer.
    async fn subjects(
        &self,
        question: &Question,
        action: &str,
        (endpoint, subject): (&str, &str),
        page: &AskedPage,
    ) -> Result<(Vec<String>, String), AnswerCode> {
        let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
        let listed = self.authenticator.accounts().list(page.token.as_deref(), limit).await;
        let listed = listed.map_err(|_| AnswerCode::AccountsUnavailable)?;
        let next = match listed.last() {
            Some(last) if listed.len() == page.limit => last.id.clone(),
            _ => String::new(),
        };
        let mut ids = vec![];
        for account in listed.into_iter().filter(|account| account.active && account.password_hash.is_some()) {
            let asked = self.pipeline.asked_account(&account.id, &question.policy).await;
            let asked = asked.map_err(|_| AnswerCode::AccountsUnavailable)?;
            if self.pipeline.judge(&asked, action, endpoint, subject).is_ok() {
                ids.push(account.id);
            }
        }
        Ok((ids, next))
    }

    /// Records a question that is refused; false if that cannot be recorded.
    async fn refuse(&self, question: &Question, code: AnswerCode) -> bool {
        let told = Told { right: None, account: None, outcome: Err(code.into()) };
        code == AnswerCode::NotRecorded || self.keep(question, &told, code.status()).await.is_ok()
    }

    /// Makes the record of one decision, and waits for it, if answers wait.
    async fn keep(&self, question: &Question, told: &Told<'_>, status: u16) -> Result<(), AnswerCode> {
        let id = plain_text::random_hexadecimal::<16>();
        let decision = match told.outcome {
            Ok(_) => RecordDecision::Allow,
            Err(RecordReason::Search) => RecordDecision::Answer,
            Err(RecordReason::Denied(_)) => RecordDecision::Deny,
            Err(_) => RecordDecision::Refuse,
        };
        let principal = match told.account {
            Some(AskedAccount::Active(principal)) => Some(principal),
            Some(AskedAccount::Rejected(_)) | None => None,
        };
        let is_known = |kind: &&str| self.pipeline.routes().endpoints().find(kind).is_some();
        let action: Option<&str> = told.right.and_then(|right| action_method(&right.action)).map(Method::as_str);
        let subject = told.right.map(|right| right.resource.id.as_str());
        let record = RequestRecord {
            time: SystemTime::now(),
            request_id: if told.right.is_some() { &id } else { &question.ctx.request_id },
            client_request_id: question.chosen.as_deref(),
            client: &question.client,
            method: action.unwrap_or(&question.method),
            path: &question.path,
            account: told.right.map(|right| right.subject.id.as_str()),
            roles: principal.map_or(&[][..], |principal| principal.roles()),
            endpoint: told.right.map(|right| right.resource.kind.as_str()).filter(is_known).unwrap_or_default(),
            subject,
            same_person: false,
            related: false,
            decision,
            reason: told.outcome.map_or_else(|reason| reason, RecordReason::Admitted),
            lacks: None,
            status,
            duration: question.ctx.start.elapsed(),
            is_stream: false,
            policy: question.policy.fingerprint(),
            trace_id: None,
            detail: RecordDetail::Always,
        };
        let kept = self.recorder.keep(&record, None);
        match !self.recorder.answers_wait() || self.recorder.kept(kept).await {
            true => Ok(()),
            false => Err(AnswerCode::NotRecorded),
        }
    }
}

/// A page of results of one type.
fn paged(kind: &str, ids: Vec<String>, next: String) -> Value {
    let count = ids.len();
    let results: Vec<Value> = ids.into_iter().map(|id| json!({ "type": kind, "id": id })).collect();
    json!({ "results": results, "page": { "next_token": next, "count": count } })
}

/// Where each question is answered, at the address by which the service has asked.
fn metadata(session: &ServerSession) -> Value {
    let head = session.req_header();
    let host = fedgate_core::admission::requested_host(&head.uri, &head.headers);
    let scheme = if session.digest().is_some_and(|digest| digest.ssl_digest.is_some()) { "https" } else { "http" };
    let base = format!("{scheme}://{host}");
    let [(subject, _), (resource, _), (action, _)] = SEARCH;
    json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": format!("{base}{EVALUATION}"),
        "access_evaluations_endpoint": format!("{base}{EVALUATIONS}"),
        "search_subject_endpoint": format!("{base}{subject}"),
        "search_resource_endpoint": format!("{base}{resource}"),
        "search_action_endpoint": format!("{base}{action}"),
    })
}
