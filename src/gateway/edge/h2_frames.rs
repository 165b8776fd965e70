//! The frames of an HTTP/2 client, followed only as far as needed to see whether a head is under way (RFC 9113,
//! 4.1, 6.2).
//!
//! The one rule: an incomplete preface or head is noticed here, because the HTTP library waits for the rest without
//! a time limit. The content of frames is left to that library.

/// Bytes of the preface (3.4) and of the head of a frame.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// The position of a client in its frames.
pub(crate) struct FrameTracker {
    at: FramePosition,
    /// Whether a header block has begun without its last frame.
    is_in_head: bool,
}

enum FramePosition {
    /// This many bytes of the preface are missing.
    Preface(usize),
    /// In the head of a frame: its bytes so far, and their number.
    Head([u8; FRAME_HEAD], usize),
    /// In the payload of a frame: whether it is DATA, and how many bytes are missing.
    Payload { is_data: bool, missing: usize },
}

impl FrameTracker {
    /// A client that has sent nothing yet.
    pub(crate) fn new() -> Self {
        Self { at: FramePosition::Preface(PREFACE), is_in_head: false }
    }

    /// Follows received bytes; true if they completed the preface, or any frame that leaves no header block open.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut completed = false;
        while !bytes.is_empty() {
            let taken = match &mut self.at {
                FramePosition::Preface(missing) | FramePosition::Payload { missing, .. } => {
                    let taken = bytes.len().min(*missing);
                    *missing -= taken;
                    taken
                }
                FramePosition::Head(head, filled) => {
                    let taken = bytes.len().min(FRAME_HEAD - *filled);
                    for (to, from) in head.iter_mut().skip(*filled).zip(bytes) {
                        *to = *from;
                    }
                    *filled += taken;
                    taken
                }
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            if let FramePosition::Head([high, middle, low, kind, flags, ..], FRAME_HEAD) = self.at {
                if matches!(kind, HEADERS | CONTINUATION) {
                    // CONTINUATION flood: a header block stays open over any number of frames until END_HEADERS
                    // (RFC 9113, 6.10).
                    self.is_in_head = flags & END_HEADERS == 0;
                }
                let missing = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.at = FramePosition::Payload { is_data: kind == DATA, missing };
            }
            if let FramePosition::Preface(0) | FramePosition::Payload { missing: 0, .. } = self.at {
                self.at = FramePosition::Head([0; FRAME_HEAD], 0);
                completed |= !self.is_in_head;
            }
        }
        completed
    }

    /// Whether the client has begun something other than DATA and not completed it. DATA has a pace of its own.
    pub(crate) fn is_in_head(&self) -> bool {
        self.is_in_head || !matches!(self.at, FramePosition::Head(_, 0) | FramePosition::Payload { is_data: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_head_is_under_way_from_its_first_byte_to_its_last_however_the_bytes_are_cut() {
        let mut sent: Vec<(u8, bool, bool)> = vec![];
        let mut send = |bytes: &[u8], missing_to_the_end: bool, completes: bool| {
            for (at, byte) in bytes.iter().enumerate() {
                let is_last = at + 1 == bytes.len();
                sent.push((*byte, !is_last || missing_to_the_end, is_last && completes));
            }
        };
        send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false, true);
        send(&frame(4, 0, &[0; 6]), false, true);
        send(&frame(HEADERS, 1, b"block"), true, false);
        send(&frame(CONTINUATION, 0, b""), true, false);
        send(&frame(CONTINUATION, END_HEADERS, b"end"), false, true);
        send(&frame(HEADERS, END_HEADERS, b""), false, true);
        let mut frames = FrameTracker::new();
        assert!(frames.is_in_head(), "of a preface nothing is there");
        for (byte, is_in_head, completes) in &sent {
            assert_eq!(frames.feed(&[*byte]), *completes);
            assert_eq!(frames.is_in_head(), *is_in_head);
        }
        let whole: Vec<u8> = sent.iter().map(|(byte, ..)| *byte).collect();
        for cut in 0..whole.len() {
            let mut frames = FrameTracker::new();
            let (first, rest) = whole.split_at(cut);
            frames.feed(first);
            assert!(frames.feed(rest) && !frames.is_in_head());
        }
    }

    #[test]
    fn data_is_no_head() {
        let mut frames = FrameTracker::new();
        frames.feed(&[0; PREFACE]);
        let data = frame(DATA, 0, &[7; 300]);
        assert!(!frames.feed(&data[..FRAME_HEAD - 1]) && frames.is_in_head(), "what it is, is not known yet");
        assert!(!frames.feed(&data[FRAME_HEAD - 1..200]) && !frames.is_in_head());
        assert!(frames.feed(&data[200..]) && !frames.is_in_head());
    }
}
