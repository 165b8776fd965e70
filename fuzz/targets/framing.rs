//! The framing of HTTP/1: the end of each request of a connection does not depend on how its bytes arrive, and is where
//! the slow reading finds it.
#![no_main]

use fedgate_core::framing::{BodyFraming, BodyReader, check_head, head_end, head_start};
use fedgate_fuzz::reference;
use libfuzzer_sys::fuzz_target;

/// The ends of heads and bodies, in turn, and whether the connection was refused.
type Ends = (Vec<usize>, bool);

fuzz_target!(|bytes: &[u8]| {
    let whole = follow(bytes, bytes.len().max(1));
    assert_eq!(whole, slow(bytes));
    assert_eq!(whole, follow(bytes, 1));
    assert_eq!(whole, follow(bytes, bytes.len() % 13 + 2));
});

/// Follows the bytes in pieces, as the gateway's `strict_http1` does.
fn follow(bytes: &[u8], step: usize) -> Ends {
    let (mut ends, mut held, mut at) = (Vec::new(), Vec::new(), 0);
    let mut body: Option<BodyReader> = None;
    for piece in bytes.chunks(step) {
        held.extend_from_slice(piece);
        loop {
            let taken = match &mut body {
                None => {
                    let start = head_start(&held);
                    match head_end(&held[start..], reference::MOST) {
                        Ok(None) => break,
                        Ok(Some(end)) => match check_head(&held[start..start + end]) {
                            Ok(found) => {
                                body = Some(BodyReader::new(found));
                                start + end
                            }
                            Err(_) => return (ends, true),
                        },
                        Err(_) => return (ends, true),
                    }
                }
                Some(reader) => match reader.feed(&held) {
                    Ok(taken) if reader.is_done() => {
                        body = None;
                        taken
                    }
                    Ok(taken) => {
                        assert_eq!(taken, held.len(), "a body that goes on takes all there is");
                        at += taken;
                        held.clear();
                        break;
                    }
                    Err(_) => return (ends, true),
                },
            };
            at += taken;
            held.drain(..taken);
            ends.push(at);
        }
    }
    (ends, false)
}

fn slow(bytes: &[u8]) -> Ends {
    let (mut ends, mut at) = (Vec::new(), 0);
    loop {
        // One empty line before a request line does not belong to it.
        let empty = if bytes[at..].starts_with(b"\r\n") { 2 } else { 0 };
        at += empty;
        let head = match reference::head_end(&bytes[at..]) {
            Ok(Some(end)) => end,
            Ok(None) => return (ends, false),
            Err(()) => return (ends, true),
        };
        let Ok(body) = reference::head(&bytes[at..at + head]) else { return (ends, true) };
        assert_eq!(body == reference::Body::None, check_head(&bytes[at..at + head]) == Ok(BodyFraming::None));
        at += head;
        ends.push(at);
        match reference::body_end(body, &bytes[at..]) {
            Ok(Some(end)) => at += end,
            Ok(None) => return (ends, false),
            Err(()) => return (ends, true),
        }
        ends.push(at);
    }
}
