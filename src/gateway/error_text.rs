//! Errors of pingora in plain words, for the log and for `fedgate check`.
//!
//! The one rule: the text names the operation that failed, and the root cause from the system or a library. The layers
//! between repeat both.

use pingora_core::{Error, ErrorType};

/// The operation that failed and its cause, in one line.
pub(crate) fn in_words(error: &Error) -> String {
    let what = match error.etype() {
        ErrorType::ConnectRefused => "the connection was refused",
        ErrorType::ConnectTimedout => "no connection came about in time",
        ErrorType::ConnectNoRoute => "no route leads there",
        ErrorType::ConnectError | ErrorType::ConnectProxyFailure | ErrorType::SocketError | ErrorType::BindError => {
            "no connection came about"
        }
        ErrorType::TLSHandshakeFailure => "the TLS handshake failed",
        ErrorType::TLSHandshakeTimedout => "the TLS handshake took too long",
        ErrorType::InvalidCert => "its certificate is not trusted",
        ErrorType::HandshakeError => "the HTTP/2 handshake failed",
        ErrorType::ConnectionClosed => "the connection was closed",
        ErrorType::ReadTimedout => "no answer came in time",
        ErrorType::WriteTimedout => "the request could not be sent in time",
        ErrorType::ReadError => "the answer could not be read",
        ErrorType::WriteError => "the request could not be sent",
        ErrorType::InvalidHTTPHeader => "the answer's head cannot be read",
        ErrorType::H1Error | ErrorType::H2Error | ErrorType::H2Downgrade | ErrorType::InvalidH2 => {
            "HTTP was not spoken as it should be"
        }
        // The gateway's own errors are in plain words already.
        other => other.as_str(),
    };
    let root = error.root_cause();
    let root = match root.downcast_ref::<Error>() {
        Some(innermost) => innermost.context.as_ref().map(|context| context.as_str().to_owned()),
        None => Some(root.to_string()),
    };
    match root.filter(|root| !root.is_empty()) {
        Some(root) => format!("{what} ({root})"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use pingora_core::OrErr;

    use super::*;

    #[test]
    fn an_error_of_the_library_names_the_failed_step_and_the_root_cause() {
        let refused: Result<(), _> = Err(std::io::Error::from_raw_os_error(111));
        let error = refused.or_err(ErrorType::ConnectRefused, "connecting to a server").unwrap_err();
        assert_eq!(in_words(&error), "the connection was refused (Connection refused (os error 111))");
        let error = error.more_context("to the upstream");
        assert_eq!(in_words(&error), "the connection was refused (Connection refused (os error 111))");
        assert_eq!(in_words(&Error::new(ErrorType::ReadTimedout)), "no answer came in time");
    }
}
