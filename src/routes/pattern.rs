//! The pattern of a route: literal segments, `{parameters}`, `{parameters:plain}`, and `{*rest}` at the end.

use super::RouteError;
use fedgate_core::path::CanonicalPath;

/// The parsed segments of a pattern.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathPattern(Vec<PatternSegment>);

#[derive(Debug, PartialEq, Eq)]
enum PatternSegment {
    Literal(String),
    Parameter(String),
    /// A parameter whose value has letters, digits, `-` and `.` alone, as an id of FHIR (R4, 2.24.0.1).
    Plain(String),
    Rest(String),
}

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The pattern is malformed; the text says where.
    pub(super) fn parse(pattern: &str) -> Result<Self, RouteError> {
        let fault = |problem: &str| RouteError::Pattern(pattern.to_owned(), problem.to_owned());
        if pattern == "/" {
            return Ok(Self(Vec::new()));
        }
        let rest = pattern.strip_prefix('/').ok_or_else(|| fault("the path must begin with `/`"))?;
        let mut segments: Vec<PatternSegment> = Vec::new();
        for text in rest.split('/') {
            if matches!(segments.last(), Some(PatternSegment::Rest(_))) {
                return Err(fault("`{*name}` must be the last segment"));
            }
            let segment = match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
                Some(name) => match name.strip_prefix('*') {
                    Some(name) => PatternSegment::Rest(name.to_owned()),
                    None => match name.strip_suffix(":plain") {
                        Some(name) => PatternSegment::Plain(name.to_owned()),
                        None => PatternSegment::Parameter(name.to_owned()),
                    },
                },
                None => {
                    // A literal must be a segment that a canonical path can have; otherwise the route could never
                    // match.
                    CanonicalPath::parse(&format!("/{text}")).map_err(|e| fault(&format!("segment `{text}`: {e}")))?;
                    if text.is_empty() || text.contains('%') {
                        return Err(fault("a literal segment is empty or percent-encoded"));
                    }
                    PatternSegment::Literal(text.to_owned())
                }
            };
            if let PatternSegment::Parameter(name) | PatternSegment::Plain(name) | PatternSegment::Rest(name) = &segment
            {
                let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let taken = segments.iter().any(|known| known.is_parameter(name));
                if !is_name || taken {
                    return Err(fault("parameters are {names} of letters, digits and `_`, each used once"));
                }
            }
            segments.push(segment);
        }
        Ok(Self(segments))
    }

    /// The literal first segment, if it has one.
    pub(super) fn first(&self) -> Option<&str> {
        match self.0.first() {
            Some(PatternSegment::Literal(first)) => Some(first),
            _ => None,
        }
    }

    /// The position of a parameter among the segments.
    pub(super) fn parameter(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|segment| segment.is_parameter(name))
    }

    /// Whether a path matches. Literals are compared byte for byte, as the path is forwarded.
    pub(super) fn matches(&self, path: &CanonicalPath<'_>) -> bool {
        let mut given = path.segments();
        for segment in &self.0 {
            match (segment, given.next()) {
                (PatternSegment::Literal(literal), Some(given)) if literal == given => {}
                (PatternSegment::Parameter(_), Some(_)) => {}
                (PatternSegment::Plain(_), Some(given)) if is_plain(given) => {}
                // At least one segment: `/files/{*rest}` does not match `/files`.
                (PatternSegment::Rest(_), Some(_)) => return true,
                _ => return false,
            }
        }
        given.next().is_none()
    }

    /// Whether some path matches both patterns.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        overlap(&self.0, &other.0)
    }
}

impl PatternSegment {
    fn is_parameter(&self, name: &str) -> bool {
        matches!(self, Self::Parameter(known) | Self::Plain(known) if known == name)
    }
}

/// The spelling on the wire decides: a canonical path encodes none of these signs.
fn is_plain(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

fn overlap(a: &[PatternSegment], b: &[PatternSegment]) -> bool {
    match (a, b) {
        ([], []) => true,
        // `{*rest}` covers one segment or more, so it overlaps everything that goes on here.
        ([PatternSegment::Rest(_), ..], [_, ..]) | ([_, ..], [PatternSegment::Rest(_), ..]) => true,
        ([PatternSegment::Literal(x), ..], [PatternSegment::Literal(y), ..]) if x != y => false,
        ([PatternSegment::Literal(text), ..], [PatternSegment::Plain(_), ..])
        | ([PatternSegment::Plain(_), ..], [PatternSegment::Literal(text), ..])
            if !is_plain(text) =>
        {
            false
        }
        ([_, a @ ..], [_, b @ ..]) => overlap(a, b),
        _ => false,
    }
}
