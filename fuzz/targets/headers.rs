//! Heads: the strict reading, the slow one and that of httparse agree.
#![no_main]

use fedgate_core::framing::{BodyFraming, check_head, head_end};
use fedgate_fuzz::reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let end = head_end(bytes, reference::MOST);
    assert_eq!(end.map_err(drop), reference::head_end(bytes));
    let Ok(Some(end)) = end else { return };
    // The end of a head is found with its last byte, not before, and does not move.
    assert_eq!(head_end(&bytes[..end - 1], reference::MOST), Ok(None));
    assert_eq!(head_end(&bytes[..end], reference::MOST), Ok(Some(end)));

    let head = &bytes[..end];
    let body = check_head(head);
    let same = match body {
        Ok(BodyFraming::None) => Ok(reference::Body::None),
        Ok(BodyFraming::Length(length)) => Ok(reference::Body::Length(length)),
        Ok(BodyFraming::Chunked) => Ok(reference::Body::Chunked),
        Err(_) => Err(()),
    };
    assert_eq!(same, reference::head(head));
    if body.is_err() {
        return;
    }

    // The parser that pingora uses sees the same lines and the same end.
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    assert_eq!(request.parse(bytes), Ok(httparse::Status::Complete(end)));
    let mut written = format!(
        "{} {} HTTP/1.{}\r\n",
        request.method.expect("a method"),
        request.path.expect("a target"),
        request.version.expect("a version")
    )
    .into_bytes();
    for header in request.headers.iter() {
        written.extend_from_slice(header.name.as_bytes());
        written.push(b':');
        written.extend_from_slice(header.value);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"\r\n");
    let blanks = |bytes: &[u8]| bytes.iter().copied().filter(|byte| !b" \t".contains(byte)).collect::<Vec<_>>();
    assert_eq!(blanks(&written), blanks(head));
});
