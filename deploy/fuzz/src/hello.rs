//! What a sidecar says of itself in a query: what was read is written and read again as the same,
//! and what is not known changes nothing.

use ringway_protocol::limits::{NAME_BYTES_MAX, NAMES_MAX};
use ringway_protocol::{Hello, HelloError, Name};

/// A field that no version knows.
const UNKNOWN: &str = "later=1%20x";

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let Ok(query) = std::str::from_utf8(input) else { return };
    let read = Hello::from_query(query);
    if !query.split('&').any(|pair| pair.starts_with("later=")) {
        let around = format!("{UNKNOWN}&{query}&{UNKNOWN}");
        assert_eq!(Hello::from_query(&around), read, "a field that is not known counts");
    }
    match read {
        Ok(hello) => check_hello(&hello),
        Err(HelloError::Missing(field)) => assert!(
            !query.contains(&format!("&{field}=")) && !query.starts_with(&format!("{field}=")),
            "{field} is there"
        ),
        Err(HelloError::Wrong { field, reason }) => {
            assert!(query.contains(&format!("{field}=")) && !reason.is_empty());
        }
    }
}

fn check_hello(hello: &Hello) {
    let plain = |name: &Name| {
        let text = name.as_str();
        let is_plain =
            text.bytes().all(|byte| byte.is_ascii_graphic() && !b"&,?#%".contains(&byte));
        is_plain && (1..=NAME_BYTES_MAX).contains(&text.len())
    };
    let lists = [&hello.capabilities, &hello.labels];
    assert!(plain(&hello.node) && plain(&hello.version));
    assert!(lists.iter().all(|names| names.len() <= NAMES_MAX && names.iter().all(plain)));
    let written = hello.to_query();
    assert_eq!(Hello::from_query(&written).as_ref(), Ok(hello), "{written}");
}
