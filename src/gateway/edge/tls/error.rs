//! Errors of TLS files: which file, and what it should be.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a certificate cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{}: {problem}; `{key}` must name {wanted}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The fault.
        problem: String,
        /// The configuration key that names it.
        key: &'static str,
        /// The content that it should have.
        wanted: &'static str,
    },
    /// A certificate and a key do not belong together.
    #[error(
        "{}: is not the key of the certificate in {}; `tls.key` must name the key it was made with",
        .key.display(),
        .certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls does not accept the settings.
    #[error("TLS cannot be set up: {0}")]
    Settings(String),
}

/// The fault of a file, as an error that names it.
pub(super) fn file_fault(path: &Path, key: &'static str, wanted: &'static str) -> impl Fn(String) -> TlsError {
    move |problem| TlsError::File { path: path.to_owned(), problem, key, wanted }
}
