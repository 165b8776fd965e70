//! One table of the HTTP methods that a path may have here.
//!
//! The one rule: this table answers every question about a method, so that the framing, the gateway and the policy
//! cannot disagree. Names of methods are case-sensitive (RFC 9110, 9.1).

/// A method that roles.cfg can grant. HEAD is judged as GET, and OPTIONS is answered without a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// GET, and HEAD.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

/// A method that some path here may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestMethod {
    /// The name as on the wire.
    pub name: &'static str,
    /// Whether it changes nothing (RFC 9110, 9.2.1).
    pub is_safe: bool,
    /// Whether a second time changes no more than the first (RFC 9110, 9.2.2).
    pub is_idempotent: bool,
    /// Whether a request with it may have a body.
    pub may_have_body: bool,
    /// The method that roles.cfg grants it by; none for what is answered without a decision.
    pub granted_by: Option<Method>,
}

/// All of them, in the order of `Allow`.
#[rustfmt::skip]
pub const METHODS: [RequestMethod; 7] = [
    //  name      safe   idempotent body   granted by
    row("GET",     true,  true,  false, Some(Method::Get)),
    row("HEAD",    true,  true,  false, Some(Method::Get)),
    row("POST",    false, false, true,  Some(Method::Post)),
    row("PUT",     false, true,  true,  Some(Method::Put)),
    row("PATCH",   false, false, true,  Some(Method::Patch)),
    row("DELETE",  false, true,  false, Some(Method::Delete)),
    row("OPTIONS", true,  true,  false, None),
];

/// The same as a value of `Allow`, for the server as a whole.
pub const ALL_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

const fn row(
    name: &'static str,
    is_safe: bool,
    is_idempotent: bool,
    may_have_body: bool,
    granted_by: Option<Method>,
) -> RequestMethod {
    RequestMethod { name, is_safe, is_idempotent, may_have_body, granted_by }
}

impl RequestMethod {
    /// The method of this name, if some path may have it.
    pub fn find(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.name == name)
    }
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    /// The method that a request is judged by; none for a method that no policy can grant.
    pub fn parse(name: &str) -> Option<Self> {
        RequestMethod::find(name)?.granted_by
    }

    /// The method that a key of roles.cfg names, if it is one.
    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == key)
    }

    /// The name as on the wire and in roles.cfg.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Whether a method changes nothing. An unknown one may do anything.
pub fn is_safe(name: &str) -> bool {
    RequestMethod::find(name).is_some_and(|method| method.is_safe)
}

/// Whether a request may be sent twice. An unknown method may not.
pub fn is_idempotent(name: &str) -> bool {
    RequestMethod::find(name).is_some_and(|method| method.is_idempotent)
}

/// Whether a request with this method may have a body. That of an unknown method is read to its end, to be refused for
/// the method.
pub fn may_have_body(name: &str) -> bool {
    RequestMethod::find(name).is_none_or(|method| method.may_have_body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_rfc_9110_and_with_roles_cfg() {
        assert_eq!(METHODS.map(|method| method.name).join(", "), ALL_METHODS);
        for method in METHODS {
            let known: http::Method = method.name.parse().unwrap();
            assert_eq!((method.is_safe, method.is_idempotent), (known.is_safe(), known.is_idempotent()), "{known}");
            assert_eq!(RequestMethod::find(method.name), Some(&method));
            assert_eq!(Method::parse(method.name), method.granted_by);
        }
        for key in Method::ALL {
            assert_eq!(RequestMethod::find(key.as_str()).and_then(|method| method.granted_by), Some(key));
        }
        for none in ["get", "TRACE", "CONNECT", "", "GET "] {
            assert!(RequestMethod::find(none).is_none() && !is_safe(none) && !is_idempotent(none), "{none}");
        }
    }
}
