//! Paths: an accepted path has one reading, whoever decodes it, and however often.
#![no_main]

use fedgate_core::path::{CanonicalPath, MAX_PATH_BYTES, parse_target};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode;

fuzz_target!(|target: &[u8]| {
    let Ok((path, query)) = parse_target(target) else { return };
    let text = path.as_str();
    assert!(text.starts_with('/') && text.len() <= MAX_PATH_BYTES);

    // The judged path is the one that was sent, byte for byte, and a second judgement changes nothing.
    let sent = query.map_or(text.to_owned(), |query| format!("{text}?{query}"));
    assert_eq!(sent.as_bytes(), target);
    assert_eq!(CanonicalPath::parse(text), Ok(path));
    assert_eq!(parse_target(text.as_bytes()), Ok((path, None)), "the query decides nothing");

    let segments: Vec<&str> = path.segments().collect();
    assert_eq!(format!("/{}", segments.join("/")), text);

    // Decoding before splitting and splitting before decoding read the same resource.
    let decoded = String::from_utf8(percent_decode(text.as_bytes()).collect()).expect("UTF-8");
    let early: Vec<&str> = decoded.split('/').skip(1).filter(|segment| !segment.is_empty()).collect();
    let late: Vec<_> = segments.iter().map(|segment| path.decode(segment)).collect();
    assert_eq!(early, late);

    // A second decoding finds nothing to decode, and no server finds anything to cut off or to resolve.
    assert!(!decoded.contains(['%', '\\', ';', '?', '#', '\0', '\r', '\n']) && !decoded.contains(char::is_control));
    assert!(late.iter().all(|segment| !matches!(segment.as_ref(), "" | "." | "..")));

    // Encoded again, it is another spelling of the same resource, if it is accepted at all.
    let anew: String = late.iter().map(|segment| format!("/{}", encode(segment))).collect();
    if let Ok(anew) = CanonicalPath::parse(&anew) {
        assert!(anew.segments().map(|segment| anew.decode(segment)).eq(late));
    }
});

fn encode(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, percent_encoding::CONTROLS).to_string().replace(' ', "%20")
}
