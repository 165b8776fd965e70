//! Screens the head of an HTTP/1 request, whose bytes may not all have arrived yet.

use crate::framing::{self, BodyFraming, FramingError, head_end, head_start, in_origin_form};
use crate::host::HostList;

/// A head that is whole and has one reading; it begins where the bytes begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldHead {
    /// Its end.
    pub end: usize,
    /// How its body is delimited.
    pub body: BodyFraming,
}

/// Screens the head at the beginning of `held`, if it is there whole. Then `held` begins with it, in origin form.
///
/// # Errors
/// See [`FramingError`]. `held` is as it came, but for a head that was brought into origin form before.
pub fn screen_bytes(held: &mut Vec<u8>, most: usize, hosts: &HostList) -> Result<Option<HeldHead>, FramingError> {
    let start = head_start(held);
    let Some(mut end) = head_end(held.get(start..).unwrap_or_default(), most)? else { return Ok(None) };
    // RFC 9112, 2.2: one empty line before a request is skipped. Old clients send one after a body.
    held.drain(..start);
    // Rewritten before the proxy library sees it: the decided target and the forwarded target are the same bytes.
    if let Some(origin) = in_origin_form(held.get(..end).unwrap_or_default(), hosts)? {
        held.splice(..end, origin.iter().copied());
        end = origin.len();
    }
    let body = framing::check_head(held.get(..end).unwrap_or_default())?;
    Ok(Some(HeldHead { end, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_held_until_it_is_whole_and_then_has_one_form() {
        let hosts = HostList::default();
        let whole = b"\r\nGET http://a/people?x HTTP/1.1\r\nHost: a\r\n\r\nnext";
        for end in 0..whole.len() - 4 {
            let mut held = whole[..end].to_vec();
            assert_eq!(screen_bytes(&mut held, 1000, &hosts), Ok(None), "{end}");
            assert_eq!(held, whole[..end]);
        }
        let mut held = whole.to_vec();
        let head = screen_bytes(&mut held, 1000, &hosts).unwrap().unwrap();
        assert_eq!(held, b"GET /people?x HTTP/1.1\r\nHost: a\r\n\r\nnext");
        assert_eq!((&held[head.end..], head.body), (&b"next"[..], BodyFraming::None));
        assert_eq!(screen_bytes(&mut held, 10, &hosts), Err(FramingError::HeadTooLarge));
    }
}
