//! Links to further pages of a list: the gateway leads them back to itself.
//!
//! The one rule: a link is followed if the routes can judge what it says, as any request is; or if this gateway, or
//! another instance with its key, has signed it for the same caller, endpoint, path, reach and person, less than an
//! hour ago. The right is asked anew each time, and the page is judged as the first one was.
//!
//! The gateway keeps nothing of a link: all is in it. It is signed, not encrypted, because the service itself shows
//! what is in it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::permit::scope_of;
use super::{Permit, Pipeline, Refusal};
use crate::assertion_signer::AssertionSigner;
use crate::authn::Principal;
use crate::routes::RouteResolution;
use fedgate_core::assertion::{RecordScope, unix_seconds};
use fedgate_core::path::parse_target;
use fedgate_core::policy::{EndpointId, Method, PolicyDecision, PolicyReach};
use fedgate_core::subject::{PAGE_PARAMETER, RequestSubject};

/// How long a link can be followed.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The longest target that is signed.
const MAX_TARGET_BYTES: usize = 2048;
/// The longest signed part of a link.
const MAX_TOKEN_BYTES: usize = 4096;
/// The length that stands for no person.
const NOBODY: u16 = u16::MAX;
const TAG_BYTES: usize = 32;

/// The key of links.
pub struct PageLinkKey(hmac::Key);

/// What a link is signed for.
#[derive(Clone, Copy)]
struct PageClaims<'a> {
    account: &'a str,
    endpoint: &'a str,
    /// The path that showed the link.
    path: &'a str,
    scope: RecordScope,
}

/// A page that a signed link leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedPage {
    /// The person whom the first page concerned, if it was clear from the request.
    pub(super) subject: Option<String>,
    /// What the service is asked.
    pub(super) target: String,
}

/// The addresses of an exchange.
pub struct PageAddresses<'a> {
    /// The origin that the client asked, such as `https://hospital.example`.
    pub origin: &'a str,
    /// The names of the service: its own, and the one by which it was asked.
    pub authorities: &'a [&'a str],
    /// The path that the client asked.
    pub path: &'a str,
}

impl PageLinkKey {
    /// The key of all instances that sign with this one.
    pub fn of(signer: &AssertionSigner) -> Self {
        Self(signer.key_for("links to pages"))
    }

    fn sign(&self, claims: PageClaims<'_>, page: &SignedPage, now: SystemTime) -> Option<String> {
        let subject = page.subject.as_deref();
        let length =
            subject.map_or(Some(NOBODY), |subject| u16::try_from(subject.len()).ok().filter(|of| *of != NOBODY))?;
        let until = unix_seconds(now).saturating_add(LIFETIME.as_secs());
        let mut payload = until.to_be_bytes().to_vec();
        payload.extend_from_slice(&length.to_be_bytes());
        payload.extend_from_slice(subject.unwrap_or_default().as_bytes());
        payload.extend_from_slice(page.target.as_bytes());
        let tag = hmac::sign(&self.0, &claims.with(&payload));
        Some(URL_SAFE_NO_PAD.encode([tag.as_ref(), &payload].concat()))
    }

    fn open(&self, claims: PageClaims<'_>, token: &str, now: SystemTime) -> Option<SignedPage> {
        let token = URL_SAFE_NO_PAD.decode(Some(token).filter(|token| token.len() <= MAX_TOKEN_BYTES)?).ok()?;
        let (tag, payload) = token.split_at_checked(TAG_BYTES)?;
        hmac::verify(&self.0, &claims.with(payload), tag).ok()?;
        let (until, rest) = payload.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        if unix_seconds(now) >= u64::from_be_bytes(*until) {
            return None;
        }
        let length = Some(u16::from_be_bytes(*length)).filter(|length| *length != NOBODY);
        let (subject, target) = rest.split_at_checked(length.unwrap_or_default().into())?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        Some(SignedPage {
            subject: length.map(|_| text(subject)).map_or(Some(None), |subject| subject.map(Some))?,
            target: text(target)?,
        })
    }
}

impl PageClaims<'_> {
    /// The claims and the payload as one text that has no second reading.
    fn with(&self, payload: &[u8]) -> Vec<u8> {
        let scope = match self.scope {
            RecordScope::Public => "public",
            RecordScope::Own => "own",
            RecordScope::Global => "global",
        };
        let mut text = Vec::new();
        for part in [self.account, self.endpoint, self.path, scope] {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        text.extend_from_slice(payload);
        text
    }
}

impl Permit {
    /// Whether links in the answer lead back to the gateway.
    pub fn leads_links(&self) -> bool {
        self.linked.is_some()
    }
}

impl Pipeline {
    /// Signs links with this key. Without one, no such link is made or followed.
    #[must_use]
    pub fn with_page_links(mut self, key: PageLinkKey) -> Self {
        self.page_links = Some(key);
        self
    }

    /// The page that a link leads to; `path` is that of the request.
    pub(super) fn followed_page(
        &self,
        token: &str,
        principal: &Arc<Principal>,
        endpoint: EndpointId,
        path: &str,
        reach: PolicyReach,
    ) -> Result<SignedPage, Refusal> {
        let endpoint_name = self.routes.endpoints().name(endpoint);
        let scope = scope_of(reach);
        let claims = PageClaims { account: principal.account(), endpoint: endpoint_name, path, scope };
        let refusal = || Refusal::PageLink { principal: Arc::clone(principal), endpoint: endpoint_name.to_owned() };
        let page = self.page_links.as_ref().and_then(|key| key.open(claims, token, SystemTime::now()));
        let page = page.ok_or_else(refusal)?;
        // What was right an hour ago is asked anew.
        let own = self.routes.own(endpoint, principal.own());
        match principal.rights().decide(own, Method::Get, endpoint, page.subject.as_deref()) {
            PolicyDecision::Allow(_) => Ok(page),
            PolicyDecision::Deny(_) => Err(refusal()),
        }
    }

    /// The answer with links to the service replaced by links to the gateway; none if nothing changes, or if a link has
    /// no single reading.
    pub fn led_back(&self, permit: &Permit, addresses: &PageAddresses<'_>, answer: &[u8]) -> Option<String> {
        let rule = permit.linked.as_ref()?;
        rule.edits.lead(std::str::from_utf8(answer).ok()?, |link| self.lead(permit, addresses, link)).ok()?
    }

    /// The link to the gateway for a link to the service; none for other links.
    fn lead(&self, permit: &Permit, addresses: &PageAddresses<'_>, link: &str) -> Option<String> {
        let target = target_at(link, addresses.authorities)?;
        let (path, query) = parse_target(target.as_bytes()).ok()?;
        let led = |target: &str| Some([addresses.origin, target].concat());
        // Only a link to another page can need a signature; to whatever else it leads, the routes judge who follows it.
        let is_page =
            addresses.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if !is_page {
            return led(target);
        }
        let endpoint = permit.endpoint?;
        if let RouteResolution::Found(found) = self.routes.resolve("GET", &path, query) {
            let is_signed = permit.linked.as_ref().is_some_and(|rule| rule.page_token(Method::Get, query).is_some());
            let is_clear = match (permit.scope(), &found.subject) {
                (RecordScope::Global, _) => !is_signed,
                (RecordScope::Own | RecordScope::Public, RequestSubject::One(id)) => self.may_see(permit, id),
                (RecordScope::Own | RecordScope::Public, _) => false,
            };
            if found.endpoint == Some(endpoint) && is_clear {
                return led(target);
            }
        }
        let claims = PageClaims {
            account: permit.principal.as_ref()?.account(),
            endpoint: self.routes.endpoints().name(endpoint),
            path: addresses.path,
            scope: permit.scope(),
        };
        let is_short = target.len() <= MAX_TARGET_BYTES;
        let page = SignedPage { subject: permit.subject.as_deref().map(str::to_owned), target: target.to_owned() };
        let token = self.page_links.as_ref().filter(|_| is_short)?.sign(claims, &page, SystemTime::now())?;
        led(&format!("{}?{PAGE_PARAMETER}={token}", addresses.path))
    }
}

/// The path and query of a link to one of these hosts; none for a link to elsewhere.
fn target_at<'l>(link: &'l str, authorities: &[&str]) -> Option<&'l str> {
    let target = match link.strip_prefix("http://").or_else(|| link.strip_prefix("https://")) {
        Some(rest) => authorities.iter().find_map(|authority| rest.strip_prefix(authority))?,
        None => link,
    };
    // `//host` and `/\\host` would lead elsewhere once they stand alone.
    let is_path = target.starts_with('/') && !target.starts_with("//") && !target.starts_with("/\\");
    (is_path && !target.contains('#')).then_some(target)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const CLAIMS: PageClaims<'_> =
        PageClaims { account: "ANA", endpoint: "observation", path: "/fhir/Observation", scope: RecordScope::Own };

    fn key(secret: &[u8]) -> PageLinkKey {
        PageLinkKey(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn page(subject: Option<&str>) -> SignedPage {
        SignedPage { subject: subject.map(str::to_owned), target: "/fhir?_getpages=7&_getpagesoffset=2".to_owned() }
    }

    #[test]
    fn a_link_is_followed_by_its_caller_on_its_route_until_it_expires() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let ours = key(b"one");
        for subject in [Some("ANA"), Some(""), None] {
            let token = ours.sign(CLAIMS, &page(subject), now).unwrap();
            assert_eq!(ours.open(CLAIMS, &token, now), Some(page(subject)));
            assert_eq!(key(b"one").open(CLAIMS, &token, now + LIFETIME - Duration::from_secs(1)), Some(page(subject)));
            assert_eq!(ours.open(CLAIMS, &token, now + LIFETIME), None);
            assert_eq!(key(b"another").open(CLAIMS, &token, now), None);
            for other in [
                PageClaims { account: "BOB", ..CLAIMS },
                PageClaims { endpoint: "encounter", ..CLAIMS },
                PageClaims { path: "/fhir/Observatio", ..CLAIMS },
                PageClaims { scope: RecordScope::Global, ..CLAIMS },
                PageClaims { account: "ANAo", endpoint: "bservation", ..CLAIMS },
            ] {
                assert_eq!(ours.open(other, &token, now), None);
            }
            let whole = URL_SAFE_NO_PAD.decode(&token).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut altered = whole.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(ours.open(CLAIMS, &URL_SAFE_NO_PAD.encode(altered), now), None, "bit {bit}");
            }
            for length in 0..whole.len() {
                assert_eq!(ours.open(CLAIMS, &URL_SAFE_NO_PAD.encode(&whole[..length]), now), None);
            }
        }
        for token in ["", "A", "====", &"A".repeat(MAX_TOKEN_BYTES + 4)] {
            assert_eq!(ours.open(CLAIMS, token, now), None);
        }
    }

    #[test]
    fn only_links_to_the_service_are_led_back() {
        let hosts = ["10.0.0.7:8080", "hospital.example"];
        for (link, target) in [
            ("http://10.0.0.7:8080/fhir?a=1", Some("/fhir?a=1")),
            ("https://hospital.example/fhir", Some("/fhir")),
            ("/fhir?a=1", Some("/fhir?a=1")),
            ("http://10.0.0.7:80801/fhir", None),
            ("http://10.0.0.7:8080.evil.example/fhir", None),
            ("http://10.0.0.7:8080@evil.example/fhir", None),
            ("http://10.0.0.7:8080", None),
            ("http://10.0.0.7:8080//evil.example/", None),
            ("//10.0.0.7:8080/fhir", None),
            ("/\\evil.example", None),
            ("http://10.0.0.7:8080/fhir#x", None),
            ("https://other.example/fhir", None),
            ("ftp://hospital.example/fhir", None),
            ("Observation?a=1", None),
            ("", None),
        ] {
            assert_eq!(target_at(link, &hosts), target, "{link}");
        }
    }
}
