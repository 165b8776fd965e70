//! The sections of a PEM file (RFC 7468), found so that none is lost.
//!
//! The one rule: text outside of sections must not be a broken section, or the file is refused. A revocation list that
//! is ignored revokes nothing, and nobody would notice.
//!
//! Messages identify lines only by number, because a line may hold a private key.

use fedgate_core::escape;

/// Labels of sections that callers read.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";
pub(super) const LIST: &str = "X509 CRL";
pub(super) const KEYS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

/// The label of an encrypted key, which cannot be read and has its own message.
pub(super) const ENCRYPTED_KEY: &str = "ENCRYPTED PRIVATE KEY";

/// Labels of other sections that may be in the same file, and are never mistaken for those above.
const OTHERS: [&str; 9] = [
    ENCRYPTED_KEY,
    "DSA PRIVATE KEY",
    "PUBLIC KEY",
    "RSA PUBLIC KEY",
    "CERTIFICATE REQUEST",
    "NEW CERTIFICATE REQUEST",
    "DH PARAMETERS",
    "EC PARAMETERS",
    "ECHCONFIG",
];

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// Windows editors write it before the first character.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The shortest line that counts as base64; lines of a certificate or list have 64 or 76 characters.
const LONG_LINE: usize = 40;

/// One section, from its first dash to its last.
#[derive(Debug)]
pub(super) struct PemSection<'a> {
    pub(super) label: &'a str,
    pub(super) text: &'a [u8],
}

/// The sections of a file, in order.
///
/// # Errors
/// The part that is neither a section nor harmless text, as words that follow the file's name.
pub(super) fn sections(file: &[u8]) -> Result<Vec<PemSection<'_>>, String> {
    let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    let (mut found, mut open) = (vec![], None::<OpenSection<'_>>);
    let mut rest = file;
    for number in 1.. {
        let line = line_of(rest);
        let after = rest.get(line.len()..).unwrap_or_default();
        match &open {
            None => open = judge(line, number)?.map(|label| OpenSection { label, number, text: rest }),
            Some(section) if line.starts_with(DASHES) => {
                section.check_end(line, number)?;
                let length = section.text.len().saturating_sub(after.len());
                found.push(PemSection { label: section.label, text: section.text.get(..length).unwrap_or_default() });
                open = None;
            }
            Some(_) => {}
        }
        rest = after.strip_prefix(b"\r\n").or(after.get(1..)).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
    }
    match open {
        None => Ok(found),
        Some(section) => {
            let number = section.number;
            Err(refused(format!("the section that begins in line {number} has no end: the file is cut off")))
        }
    }
}

/// A section without its end so far.
struct OpenSection<'a> {
    label: &'a str,
    number: usize,
    /// From its beginning to the end of the file.
    text: &'a [u8],
}

impl OpenSection<'_> {
    fn check_end(&self, line: &[u8], number: usize) -> Result<(), String> {
        let end = line.strip_prefix(END).and_then(|line| line.strip_prefix(self.label.as_bytes()));
        match end.and_then(|end| end.strip_prefix(DASHES)).map(<[u8]>::trim_ascii) {
            Some(b"") => Ok(()),
            Some(_) => Err(refused(format!(
                "line {number} ends a section and does not end there: the end of a line is missing, as where files \
                 were joined"
            ))),
            None => {
                Err(refused(format!("the section that begins in line {} has no end before line {number}", self.number)))
            }
        }
    }
}

/// The label of the section that a line begins; none if the line is text beside sections.
fn judge(line: &[u8], number: usize) -> Result<Option<&str>, String> {
    if let Some(label) = line.strip_prefix(BEGIN) {
        let label = label.trim_ascii_end().strip_suffix(DASHES).and_then(|label| str::from_utf8(label).ok());
        let Some(label) = label else {
            return Err(refused(format!(
                "line {number} begins a section and does not end with its label and five dashes"
            )));
        };
        return match is_known(label) {
            true => Ok(Some(label)),
            // An unknown label may be a misspelled one, so the section is not ignored.
            false => Err(refused(format!(
                "line {number} begins a section of `{}`, a label that is not read",
                escape::name(label)
            ))),
        };
    }
    let text = line.trim_ascii();
    if !is_text(line) {
        let told = "is no text (DER after PEM, or UTF-16): write it in PEM and in UTF-8";
        return Err(refused(format!("line {number} {told}")));
    }
    if text.starts_with(b"#") {
        return Ok(None);
    }
    if has_mark(text) {
        return Err(refused(format!(
            "line {number} begins or ends a section and is not whole: `-----BEGIN` and `-----END` must begin a line, \
             with nothing before them (an indentation, a byte order mark), and in turn"
        )));
    }
    // Base64 outside of a section is a section that has lost its marks.
    if is_base64(text) {
        return Err(refused(format!("line {number} holds base64 outside of any section")));
    }
    Ok(None)
}

fn refused(problem: String) -> String {
    format!("is not PEM throughout ({problem})")
}

fn is_known(label: &str) -> bool {
    label == CERTIFICATE || label == LIST || KEYS.contains(&label) || OTHERS.contains(&label)
}

/// The line up to its end, without the line end.
fn line_of(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// Whether a line can be text in some old encoding, in which comments may be written: without the beginning of DER (a
/// SEQUENCE of more than 127 bytes, or of unstated length), and without controls.
fn is_text(line: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\x0c');
    !line.iter().any(is_control) && !line.windows(2).any(|pair| matches!(pair, [0x30, 0x80..=0x84]))
}

/// Whether it contains dashes followed by BEGIN or END.
fn has_mark(text: &[u8]) -> bool {
    (0..text.len()).filter_map(|at| text.get(at..)?.strip_prefix(b"--")).any(|rest| {
        let word = rest.trim_ascii_start();
        word.starts_with(b"BEGIN") || word.starts_with(b"END")
    })
}

/// Whether it is the first base64 line of a certificate, key or list, whose first two characters are those of a
/// SEQUENCE.
fn is_base64(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    text.starts_with(b"MI") && text.len() >= LONG_LINE && text.iter().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "MIIBszCCAVmgAwIBAgIUZ0EXAMPLE0EXAMPLE0EXAMPLE0EXAMPLE0EXAMPLE0EX";

    fn block(label: &str) -> String {
        format!("-----BEGIN {label}-----\n{LINE}\nAAAA\n-----END {label}-----\n")
    }

    fn told(file: &[u8]) -> String {
        sections(file).err().unwrap_or_default()
    }

    #[test]
    fn every_section_is_found_with_harmless_text_around_it() {
        let (list, certificate) = (block(LIST), block(CERTIFICATE));
        let text =
            "Certificate Revocation List (CRL):\n        Issuer: CN = Pi\u{f1}a\n    30:82:01:0a\n---\n=====\n\n";
        let files = [
            format!("{list}{certificate}"),
            format!("\u{feff}{list}\n\n{certificate}\n# a comment -----BEGIN X509 CRL-----"),
            format!("{text}{list}{text}{certificate}{text}"),
            format!("{list}{certificate}").replace('\n', "\r\n"),
            format!("{list}{certificate}").replace('\n', "\r"),
            format!("{list}{certificate}").replace("-----\n", "-----  \n"),
            format!("{}{}", list, certificate.trim_end()),
        ];
        for file in files {
            let found = sections(file.as_bytes()).unwrap();
            let labels: Vec<_> = found.iter().map(|section| section.label).collect();
            assert_eq!(labels, [LIST, CERTIFICATE], "{file}");
            assert!(found.iter().all(|section| section.text.starts_with(BEGIN) && section.text.len() >= 100), "{file}");
        }
        // A comment in an encoding older than UTF-8.
        assert!(sections(&[b"# H\xf4pital\n", list.as_bytes()].concat()).is_ok());
        assert!(sections(b"").unwrap().is_empty() && sections(b"<html>404</html>").unwrap().is_empty());
    }

    #[test]
    fn a_section_that_would_be_ignored_refuses_the_file_and_no_line_is_quoted() {
        let list = block(LIST);
        let lines = |from: &str, to: &str| format!("{list}{}", list.replace(from, to)).into_bytes();
        let der = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82];
        #[rustfmt::skip]
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (format!("{}{list}", list.trim_end()).into_bytes(),   "line 4 ends a section and does not end there"),
            ([list.as_bytes(), &der].concat(),                    "line 5 is no text"),
            ([b"# by hand ", &der[..], b"\n", list.as_bytes()].concat(), "line 1 is no text"),
            (list.encode_utf16().flat_map(u16::to_le_bytes).collect(),   "line 1 is no text"),
            (format!("{list}\u{feff}{list}").into_bytes(),        "line 5 begins or ends a section and is not whole"),
            (list.replace("-----BEGIN", " -----BEGIN").into_bytes(), "line 1 begins or ends"),
            (list.replace('\n', "\n  ").into_bytes(),             "has no end"),
            (list.replace("-----BEGIN", "> -----BEGIN").into_bytes(), "line 1 begins or ends"),
            (list.replace("-----BEGIN", "----BEGIN").into_bytes(), "line 1 begins or ends"),
            (list.replace("-----BEGIN", "-----begin").into_bytes(), "line 2 holds base64 outside of any section"),
            (format!("# the end{list}").into_bytes(),             "line 2 holds base64"),
            (format!("# the end{}", list.replace(LINE, "AAAA")).into_bytes(), "line 4 begins or ends"),
            (lines("X509 CRL", "CRL"),                            "line 5 begins a section of `CRL`, a label that is not read"),
            (lines("BEGIN X509", "BEGIN  X509"),                  "a section of ` X509 CRL`"),
            (lines("-----BEGIN X509 CRL-----\n", ""),             "line 5 holds base64"),
            (lines("-----END X509 CRL-----\n", ""),               "the section that begins in line 5 has no end"),
            (lines("END X509 CRL", "END CERTIFICATE"),            "begins in line 5 has no end before line 8"),
            (format!("{}{list}", list.replace("-----END X509 CRL-----\n", "")).into_bytes(), "has no end before line 4"),
            (list.replace('\n', "\\n").into_bytes(),              "line 1 begins a section"),
            (LINE.as_bytes().to_vec(),                            "line 1 holds base64"),
            (list.replace("X509 CRL", &"X".repeat(9000)).into_bytes(), "a label that is not read"),
        ];
        for (file, expected) in cases {
            let told = told(&file);
            let shown = String::from_utf8_lossy(&file);
            assert!(told.contains(expected) && told.starts_with("is not PEM"), "{told:?} is not {expected}: {shown}");
            assert!(!told.contains("MII") && told.len() < 330, "{told}");
        }
    }
}
