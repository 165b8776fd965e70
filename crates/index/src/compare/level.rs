//! The compared fields, the levels of agreement, and the pattern of a pair.

/// A field that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldName {
    /// Given names.
    Given,
    /// Surnames.
    Family,
    /// The date of birth.
    BirthDate,
    /// The gender.
    Gender,
    /// The postal code.
    PostalCode,
    /// The city or suburb.
    City,
    /// Telephone numbers.
    Phone,
    /// Identifiers of other systems.
    Identifiers,
}

impl FieldName {
    /// All fields, in the order in which they are reported.
    pub const ALL: [Self; 8] = [
        Self::Given,
        Self::Family,
        Self::BirthDate,
        Self::Gender,
        Self::PostalCode,
        Self::City,
        Self::Phone,
        Self::Identifiers,
    ];

    /// The name of the field, as in the table `[index.fields]`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Family => "family",
            Self::BirthDate => "birth_date",
            Self::Gender => "gender",
            Self::PostalCode => "postal_code",
            Self::City => "city",
            Self::Phone => "phone",
            Self::Identifiers => "identifiers",
        }
    }

    /// The levels that the field can have, besides [`Level::Missing`].
    #[must_use]
    pub const fn levels(self) -> &'static [Level] {
        use Level::{
            Close, Crossed, Different, Far, Initial, Month, Near, NearYear, Overlap, Part, Same, Sound, Swapped,
            SwappedClose, Year,
        };
        match self {
            Self::Given => {
                &[Same, Part, Sound, Close, Near, Overlap, Initial, Far, Different, Swapped, SwappedClose, Crossed]
            }
            Self::Family | Self::City => &[Same, Part, Sound, Close, Near, Overlap, Initial, Far, Different],
            Self::BirthDate => &[Same, Swapped, Close, Month, Near, Year, NearYear, Far, Different],
            Self::Gender => &[Same, Different],
            Self::PostalCode => &[Same, Close, Near, Different],
            Self::Phone | Self::Identifiers => &[Same, Close, Different],
        }
    }
}

/// How far two values agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Level {
    /// One of the two records has no value, or another field says it: no evidence.
    #[default]
    Missing,
    /// The same value, in whatever spelling.
    Same,
    /// All words of the shorter name are in the longer one: `García` and `García López`.
    Part,
    /// Another spelling of the same sound: `Mohammed` and `Muhammad`.
    Sound,
    /// One typing error.
    Close,
    /// A name: two typing errors, or a short form. A date: two of its three parts. A code: the same area.
    Near,
    /// Some words are shared, others differ: `Juan José` and `Juan Carlos`.
    Overlap,
    /// An initial of the other name.
    Initial,
    /// A name: some likeness. A date: the same year.
    Far,
    /// Different values.
    Different,
    /// Given name and surname are exchanged; or day and month are.
    Swapped,
    /// Given name and surname are exchanged, with a typing error.
    SwappedClose,
    /// The given name of one is the surname of the other, and the rest differs.
    Crossed,
    /// Dates: year and month agree, and one of them has no day.
    Month,
    /// Dates: the year agrees, and one of them is an estimate.
    Year,
    /// Dates: at most two years apart, and one of them is an estimate.
    NearYear,
}

impl Level {
    /// How many levels there are.
    pub(crate) const COUNT: usize = 16;

    /// The name of the level, as in the file of the model.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Same => "same",
            Self::Part => "part",
            Self::Sound => "sound",
            Self::Close => "close",
            Self::Near => "near",
            Self::Overlap => "overlap",
            Self::Initial => "initial",
            Self::Far => "far",
            Self::Different => "different",
            Self::Swapped => "swapped",
            Self::SwappedClose => "swapped_close",
            Self::Crossed => "crossed",
            Self::Month => "month",
            Self::Year => "year",
            Self::NearYear => "near_year",
        }
    }
}

/// The levels of all fields of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pattern([Level; FieldName::ALL.len()]);

impl Pattern {
    /// The level of a field.
    #[must_use]
    pub fn level(&self, field: FieldName) -> Level {
        self.0.get(field as usize).copied().unwrap_or_default()
    }

    /// Whether the pair may be of relatives. Those of one name have other dates of birth, and twins have other names.
    #[must_use]
    pub fn may_be_of_relatives(&self) -> bool {
        use Level::{Close, Different, Far, Initial, Missing, Near, NearYear, Overlap, Year};
        matches!(self.level(FieldName::Given), Near | Overlap | Initial | Far | Different | Missing)
            || matches!(self.level(FieldName::BirthDate), Near | Far | Year | NearYear | Different | Missing)
            || (self.level(FieldName::Given), self.level(FieldName::BirthDate)) == (Close, Close)
    }

    /// Sets the level of a field.
    pub(super) fn set(&mut self, field: FieldName, level: Level) {
        if let Some(place) = self.0.get_mut(field as usize) {
            *place = level;
        }
    }
}
