//! Values of a guarded member that every caller may write.
//!
//! The one rule: the decoded value that the service will read is compared, not its spelling. So a value is kept until
//! it ends, up to a bound, and no free value is longer than the bound.

use serde_json::Value;

/// The longest value that is kept, in bytes, where it need not name the subject.
const MOST_BYTES: usize = 1024;

/// The value of a guarded member that every caller may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeValue {
    /// None.
    None,
    /// The subject of the request.
    Subject,
    /// The subject of the request, or nothing: null or an empty text.
    SubjectOrNothing,
    /// The roles of a new account: `["end_user"]`.
    DefaultRoles,
    /// `true`: a new account may sign in.
    Active,
    /// A password in clear, or none. A hash is refused: services store it unchanged, and a hash that takes minutes to
    /// verify would keep a core busy for each attempted login.
    ClearPassword,
}

impl FreeValue {
    /// The value that every caller may write in this member of a new person.
    pub fn default_of(member: &str) -> Self {
        match member {
            "roles" => Self::DefaultRoles,
            "active" => Self::Active,
            "password" => Self::ClearPassword,
            _ => Self::None,
        }
    }

    /// Whether any value can be free for a request about this subject.
    pub(super) fn can_be(self, subject: Option<&str>) -> bool {
        match self {
            Self::None => false,
            Self::Subject | Self::SubjectOrNothing => subject.is_some(),
            Self::DefaultRoles | Self::Active | Self::ClearPassword => true,
        }
    }
}

/// An incomplete value that may be free.
pub(super) struct FreeCandidate {
    /// The member, counted from 0.
    pub(super) at: usize,
    free: FreeValue,
    written: Vec<u8>,
    is_in_list: bool,
}

/// The value is not free, whatever follows.
pub(super) struct NotFree;

impl FreeCandidate {
    pub(super) fn new(at: usize, free: FreeValue) -> Self {
        Self { at, free, written: Vec::new(), is_in_list: false }
    }

    /// Takes the next bytes of a scalar.
    pub(super) fn push(&mut self, part: &[u8], subject: Option<&str>) -> Result<(), NotFree> {
        let most = match self.free {
            // Each byte of UTF-8 takes at most six bytes as written (`\u0041`), and there are two quotes.
            FreeValue::Subject | FreeValue::SubjectOrNothing => 2 + 6 * subject.map_or(0, str::len),
            _ => MOST_BYTES,
        };
        if self.written.len() + part.len() > most {
            return Err(NotFree);
        }
        self.written.extend_from_slice(part);
        Ok(())
    }

    /// A list begins. Only the roles of a new account may be a list.
    pub(super) fn open_list(&mut self) -> Result<(), NotFree> {
        if self.free != FreeValue::DefaultRoles || !self.written.is_empty() {
            return Err(NotFree);
        }
        self.is_in_list = true;
        self.push(b"[", None)
    }

    /// A comma comes. True if it belongs to the value.
    pub(super) fn comma(&mut self) -> Result<bool, NotFree> {
        if self.is_in_list {
            self.push(b",", None)?;
        }
        Ok(self.is_in_list)
    }

    /// A list or an object ends. True if it is the value itself.
    pub(super) fn close(&mut self) -> Result<bool, NotFree> {
        let is_own = std::mem::take(&mut self.is_in_list);
        if is_own {
            self.push(b"]", None)?;
        }
        Ok(is_own)
    }

    /// The value has ended. True if it is free.
    pub(super) fn is_free(&self, subject: Option<&str>) -> bool {
        // Decoded, because the upstream stores the decoded value, however it is spelled.
        let Ok(value) = serde_json::from_slice::<Value>(&self.written) else { return false };
        let is_nothing = value.is_null() || value.as_str() == Some("");
        match self.free {
            FreeValue::None => false,
            FreeValue::Subject => subject.is_some() && value.as_str() == subject,
            FreeValue::SubjectOrNothing => is_nothing || (subject.is_some() && value.as_str() == subject),
            // Exactly this list: `["end_user", "root"]` is not free.
            FreeValue::DefaultRoles => value.as_array().is_some_and(|roles| *roles == ["end_user"]),
            FreeValue::Active => value == Value::Bool(true),
            FreeValue::ClearPassword => is_nothing || value.as_str().is_some_and(|text| !is_like_a_hash(text)),
        }
    }
}

/// Whether a text begins as a bcrypt hash does: `$2b$`, `$2y$`.
fn is_like_a_hash(text: &str) -> bool {
    matches!(text.as_bytes(), [b'$', b'2', _, b'$', ..])
}
