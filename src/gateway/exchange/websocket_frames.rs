//! Where the frames of a WebSocket end (RFC 6455, 5.2), and the frame that closes it.
//!
//! The one rule: the gateway adds a frame of its own only between two others, or its bytes would be a part of one.
//! Nothing else about frames is known here: their content is the service's and the client's.

use fedgate_core::reasons::StreamEnd;

/// Bytes of the longest header: two, a length of eight, and a mask of four.
const HEADER_BYTES: usize = 14;
/// The operation that closes a WebSocket, as the last frame of its message.
const CLOSE: u8 = 0x88;

/// Follows the frames that one side sends.
#[derive(Debug, Default)]
pub(super) struct FrameBoundary {
    header: Vec<u8>,
    /// Bytes that are missing from the content of a frame.
    missing: u64,
}

impl FrameBoundary {
    /// Follows sent bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.missing > 0 {
                let passed = self.missing.min(bytes.len() as u64);
                self.missing -= passed;
                bytes = bytes.get(passed as usize..).unwrap_or_default();
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let Some(length) = content_length(&self.header) {
                self.missing = length;
                self.header.clear();
            }
        }
    }

    /// Whether the last frame is whole.
    pub(super) fn is_between_frames(&self) -> bool {
        self.header.is_empty() && self.missing == 0
    }
}

/// The length of a frame's content, once its header is whole.
fn content_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let length = header.get(2..2 + extended)?;
    let whole = 2 + extended + mask;
    debug_assert!(whole <= HEADER_BYTES);
    (header.len() >= whole).then(|| match extended {
        0 => u64::from(second & 0x7f),
        _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    })
}

/// The closing frame for a client whose WebSocket the gateway ends (RFC 6455, 7.4).
pub(super) fn closing_frame(end: StreamEnd) -> [u8; 4] {
    let code: u16 = match end {
        // Policy violation: asking again is of no use.
        StreamEnd::AccountChanged | StreamEnd::RightRevoked | StreamEnd::CertificateLapsed => 1008,
        // Going away.
        StreamEnd::GatewayStops | StreamEnd::StreamTooLong | StreamEnd::Idle | StreamEnd::OwnIdsChanged => 1001,
        // Try again later.
        StreamEnd::AccountsUnconfirmed | StreamEnd::UpstreamSilent => 1013,
    };
    let [high, low] = code.to_be_bytes();
    [CLOSE, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_each_length_end_where_their_header_says() {
        let mut sent = vec![];
        let mut ends = vec![0];
        for (length, is_masked) in [(0, false), (5, true), (125, false), (126, false), (300, true), (70_000, false)] {
            let mask = if is_masked { 0x80 } else { 0 };
            sent.push(0x82);
            match length {
                0..=125 => sent.push(mask | length as u8),
                126..=0xffff => {
                    sent.push(mask | 126);
                    sent.extend((length as u16).to_be_bytes());
                }
                _ => {
                    sent.push(mask | 127);
                    sent.extend((length as u64).to_be_bytes());
                }
            }
            sent.extend(vec![0x81; if is_masked { 4 } else { 0 } + length]);
            ends.push(sent.len());
        }
        for step in [1, 3, 7, 4096] {
            let (mut boundary, mut at) = (FrameBoundary::default(), 0);
            for piece in sent.chunks(step) {
                boundary.feed(piece);
                at += piece.len();
                assert_eq!(boundary.is_between_frames(), ends.contains(&at), "{at} in steps of {step}");
            }
        }
    }

    #[test]
    fn a_right_that_is_gone_closes_as_a_violation() {
        assert_eq!(closing_frame(StreamEnd::RightRevoked), [0x88, 2, 0x03, 0xf0]);
        assert_eq!(closing_frame(StreamEnd::GatewayStops), [0x88, 2, 0x03, 0xe9]);
    }
}
