//! The place of a reader: a position, and the history that it belongs to.
//!
//! The one rule: a reader goes on only from a position that the current history has in common with its own. A promoted
//! standby or a restored store may lack the last messages, and gives their positions to others.

use std::fmt;

use super::super::error::HisError;
use super::super::store::{MessagePlaces, RecordStore};

/// How far a reader came. Written as `POSITION` or `POSITION.HISTORY`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReaderPlace {
    pub(super) position: u64,
    /// None if the reader names none.
    pub(super) history: Option<u64>,
}

impl ReaderPlace {
    /// The most bytes of a written place.
    pub(super) const BYTES: usize = 41;

    pub(super) fn at(position: u64) -> Self {
        Self { position, history: None }
    }

    /// Parses a place.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|value| is_plain && *value <= i64::MAX.unsigned_abs())
        };
        match text.split_once('.') {
            Some((position, history)) => Some(Self { position: number(position)?, history: Some(number(history)?) }),
            None => number(text).map(Self::at),
        }
    }

    /// Goes over to the history of an answer, if the reader may go on in it.
    ///
    /// # Errors
    /// The reader may have seen messages that this history does not have.
    pub(super) async fn follow(&mut self, places: &MessagePlaces, store: &RecordStore) -> Result<(), HisError> {
        if let Some(known) = self.history.filter(|known| *known != places.history) {
            let end = store.history_end(known).await?;
            if end.is_none_or(|end| self.position > end) {
                return Err(HisError::OtherHistory);
            }
        }
        self.history = Some(places.history);
        Ok(())
    }
}

impl fmt::Display for ReaderPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.history {
            Some(history) => write!(f, "{}.{history}", self.position),
            None => write!(f, "{}", self.position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_position_alone_or_with_its_history() {
        for text in ["0", "17", "17.2", "9223372036854775807.9223372036854775807"] {
            assert_eq!(ReaderPlace::parse(text).unwrap().to_string(), text);
            assert!(text.len() <= ReaderPlace::BYTES);
        }
        for text in ["", ".", "1.", ".1", "+1", "1.+1", "-1", "1.2.3", "1e3", "9223372036854775808", " 1"] {
            assert_eq!(ReaderPlace::parse(text), None, "{text}");
        }
    }
}
