//! The `Date` field, written once per second.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;
use ringway_stats::clock::unix_seconds;

/// Length of an IMF-fixdate (RFC 9110 section 5.6.7).
pub const DATE_BYTES: usize = 29;

/// The current second as an IMF-fixdate.
#[derive(Debug, Default)]
pub struct DateCache {
    second: Cell<u64>,
    text: RefCell<[u8; DATE_BYTES]>,
}

impl DateCache {
    /// The date now.
    #[must_use]
    pub fn now(&self) -> [u8; DATE_BYTES] {
        let second = unix_seconds();
        if self.second.replace(second) != second {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            // Straight into place: not one allocation a second.
            let written = write!(&mut self.text.borrow_mut()[..], "{}", HttpDate::from(at));
            debug_assert!(written.is_ok(), "a date has a fixed length");
        }
        *self.text.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_an_imf_fixdate() {
        let date = DateCache::default().now();
        let text = std::str::from_utf8(&date).unwrap();
        assert!(text.ends_with(" GMT"), "{text}");
        assert!(httpdate::parse_http_date(text).is_ok(), "{text}");
    }
}
