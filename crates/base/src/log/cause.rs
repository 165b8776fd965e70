//! An error as one line for the operator.

use std::error::Error;

/// An error with its causes. A cause that the text already contains is not repeated.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut beneath = error.source();
    while let Some(cause) = beneath {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        beneath = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen: {source}; change the address")]
    struct Telling {
        source: Silent,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("taken")]
    struct Silent {
        source: std::fmt::Error,
    }

    #[test]
    fn each_cause_is_logged_once() {
        let error = Telling { source: Silent { source: std::fmt::Error } };
        let words = format!("cannot listen: taken; change the address: {}", std::fmt::Error);
        assert_eq!(with_causes(&error), words);
    }
}
