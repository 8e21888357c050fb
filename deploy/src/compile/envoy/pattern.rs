//! Regular expressions as RE2 reads them, which is what Envoy has.
//!
//! # Invariants
//! - A pattern that RE2 would read in another way, or not at all, is refused.
//!
//! # Not here
//! `\d`, `\w` and `\s` know all of Unicode in a sidecar and only ASCII in RE2: it shows in values
//! of header fields that are not ASCII, and nowhere else.

use serde_json::{Value, json};

use super::Refusals;

/// Refuses what RE2 does not have in the pattern at `at`.
pub(super) fn refuse(at: &str, pattern: &str, refusals: &mut Refusals) {
    if let Some(what) = outside_re2(pattern) {
        refusals.refuse(at, what, "Envoy's expressions are those of RE2");
    }
}

/// The first construct of a valid pattern that RE2 does not have.
fn outside_re2(pattern: &str) -> Option<&'static str> {
    let mut rest = pattern;
    let mut is_class = false;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let escaped = rest.chars().next()?;
                rest = &rest[escaped.len_utf8()..];
                let found = match escaped {
                    'u' | 'U' => Some("\\u"),
                    '<' | '>' => Some("\\<"),
                    'b' | 'B' if rest.starts_with('{') => Some("\\b{"),
                    _ => None,
                };
                if found.is_some() {
                    return found;
                }
            }
            '[' if is_class && !rest.starts_with(':') => return Some("[ in a class"),
            '[' if is_class => rest = rest.split_once(":]").map_or("", |(_, rest)| rest),
            '[' => {
                is_class = true;
                rest = rest.strip_prefix('^').unwrap_or(rest);
                rest = rest.strip_prefix(']').unwrap_or(rest);
            }
            ']' => is_class = false,
            '&' if is_class && rest.starts_with('&') => return Some("&& in a class"),
            '-' if is_class && rest.starts_with('-') => return Some("-- in a class"),
            '~' if is_class && rest.starts_with('~') => return Some("~~ in a class"),
            '{' if !is_class && rest.starts_with(',') => return Some("{,"),
            '(' if !is_class && rest.starts_with('?') => {
                let flags = rest[1..].split([':', ')', '<', '>']).next().unwrap_or("");
                if flags.contains(['x', 'u', 'R']) {
                    return Some("flags x, u and R");
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether a byte means the same with and without its escape (RFC 3986 section 2.3).
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// A pattern for a path in normal form. Envoy leaves the digits of an escape as they came.
pub(super) fn path(text: &str) -> String {
    let mut pattern = String::new();
    let mut of_escape = 0;
    for letter in text.chars() {
        match letter {
            '%' => of_escape = 3,
            'A'..='F' if of_escape > 0 => {
                pattern.extend(['[', letter, letter.to_ascii_lowercase(), ']']);
                of_escape -= 1;
                continue;
            }
            _ => {}
        }
        of_escape = usize::saturating_sub(of_escape, 1);
        literal(letter, &mut pattern);
    }
    pattern
}

/// What is compared with a query parameter, which Envoy does not decode: each byte as it is or
/// escaped.
pub(super) fn parameter(text: &str) -> Value {
    if text.bytes().all(is_unreserved) {
        return json!({"exact": text});
    }
    let mut pattern = String::new();
    for letter in text.chars() {
        let mut buffer = [0; 4];
        let bytes = letter.encode_utf8(&mut buffer).as_bytes();
        if bytes.iter().all(|byte| is_unreserved(*byte)) {
            literal(letter, &mut pattern);
            continue;
        }
        pattern.push_str("(?:");
        if !matches!(letter, '%' | '&' | '#') {
            literal(letter, &mut pattern);
            pattern.push('|');
        }
        for byte in bytes {
            pattern.push_str(&path(&format!("%{byte:02X}")));
        }
        pattern.push(')');
    }
    json!({"safe_regex": {"regex": pattern}})
}

fn literal(letter: char, pattern: &mut String) {
    if r"\.+*?()|[]{}^$".contains(letter) {
        pattern.push('\\');
    }
    pattern.push(letter);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_reads_otherwise_is_found() {
        for pattern in ["[a&&b]", "[a[bc]]", "[a--b]", r"\u{41}", r"(?x)a b", r"(?i-u:a)", "a{,3}"]
        {
            assert!(outside_re2(pattern).is_some(), "{pattern}");
        }
        for pattern in ["[^]a]", "[[:alpha:]x]", "(?P<ux>a)", "(?:x|u)", r"\[a&&b", "(?i)a{2,3}"] {
            assert_eq!(outside_re2(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn escapes_match_in_either_case_and_nothing_else_changes() {
        assert_eq!(path("/a%2FAb.c%C3%A9"), r"/a%2[Ff]Ab\.c%[Cc]3%[Aa]9");
        assert_eq!(parameter("x-1"), json!({"exact": "x-1"}));
        assert_eq!(parameter("a b"), json!({"safe_regex": {"regex": "a(?: |%20)b"}}));
    }
}
