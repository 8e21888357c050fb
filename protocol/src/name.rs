//! Names of nodes, labels and capabilities.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// A name that needs no quoting anywhere: letters, digits, `.`, `_`, `-` and, within it, `=` and
/// `/`; 1 to [`NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: 1 to 253 letters, digits, `.`, `_`, `-`, `=` and `/`")]
pub struct NameError(String);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Name, NameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-=/".contains(&byte);
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Name(text));
        }
        let shown: String = text.chars().take(64).collect();
        Err(NameError(shown.escape_default().to_string()))
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        text.to_owned().try_into()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_need_quoting_is_no_name() {
        for good in ["a", "node-3.rack_1", "canary=true", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "a b", "a&b", "a,b", "a\n", "ä", "a%20", &long] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
