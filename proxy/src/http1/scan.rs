//! Finds the end of a head (or trailer section) in bytes that come in pieces.
//!
//! Each byte is looked at once, however small the pieces are, so a client that dribbles costs no
//! more than one that does not. The parser proper runs only on a complete head.
//!
//! # Invariants
//! - Lines end in CR LF. A bare LF is an error here, before any other code could read it as a line
//!   end that the next hop does not see (RFC 9112 section 2.2 allows it; smuggling needs it).
//! - `position <= input length`; the scanner never looks back more than one byte.

use thiserror::Error;

use crate::limits::{HEAD_BYTES_MAX, LEADING_EMPTY_LINES_MAX, REQUEST_LINE_BYTES_MAX};

/// Where a search for the end of a head stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// More bytes are needed.
    Partial,
    /// The head is `input[start..end]`, its final empty line included.
    Complete {
        /// Where the first line begins: after forgiven empty lines.
        start: usize,
        /// One past the final empty line.
        end: usize,
    },
}

/// Why the bytes cannot become a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScanFault {
    /// A line ended in LF alone.
    #[error("a line ends in a bare LF")]
    BareLf,
    /// The first line is over its limit.
    #[error("the first line is longer than {REQUEST_LINE_BYTES_MAX} bytes")]
    FirstLineTooLong,
    /// The head is over its limit.
    #[error("the head is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// More empty lines than are forgiven came before the first line.
    #[error("too many empty lines before the first line")]
    EmptyLines,
}

/// A search for the end of a head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scanner {
    /// Bytes already looked at.
    position: usize,
    /// Start of the line that `position` is in.
    line: usize,
    /// Start of the first line that is not empty.
    first: usize,
    /// Whether the first line has ended.
    in_fields: bool,
}

impl Scanner {
    /// A search for the head of a message: empty lines before it are forgiven.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A search for the end of a trailer section, which may be the empty line alone.
    #[must_use]
    pub fn trailers() -> Self {
        Self { in_fields: true, ..Self::default() }
    }

    /// Looks at the bytes of `input` that were not there at the last call. `input` must begin
    /// with what it began with then.
    ///
    /// # Errors
    /// As soon as the bytes can no longer become a head.
    pub fn scan(&mut self, input: &[u8]) -> Result<Scan, ScanFault> {
        let from = self.position;
        self.position = input.len();
        for found in memchr::memchr_iter(b'\n', &input[from..]) {
            let newline = from + found;
            if newline == 0 || input[newline - 1] != b'\r' || newline == self.line {
                return Err(ScanFault::BareLf);
            }
            let empty = newline == self.line + 1;
            let ended = self.line;
            self.line = newline + 1;
            match (empty, self.in_fields) {
                (true, true) => {
                    return if self.line - self.first > HEAD_BYTES_MAX {
                        Err(ScanFault::HeadTooLong)
                    } else {
                        Ok(Scan::Complete { start: self.first, end: self.line })
                    };
                }
                (true, false) => {
                    self.first = self.line;
                    if self.first > 2 * LEADING_EMPTY_LINES_MAX {
                        return Err(ScanFault::EmptyLines);
                    }
                }
                (false, false) => {
                    self.in_fields = true;
                    if newline - ended > REQUEST_LINE_BYTES_MAX {
                        return Err(ScanFault::FirstLineTooLong);
                    }
                }
                (false, true) => {}
            }
        }
        if !self.in_fields && input.len() - self.line > REQUEST_LINE_BYTES_MAX {
            return Err(ScanFault::FirstLineTooLong);
        }
        if input.len() - self.first > HEAD_BYTES_MAX {
            return Err(ScanFault::HeadTooLong);
        }
        Ok(Scan::Partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the network cuts the bytes must not matter.
    #[test]
    fn the_end_of_a_head_is_found_at_every_cut() {
        let wire: &[u8] = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let end = wire.len() - 4;
        for cut in 0..=wire.len() {
            let mut scanner = Scanner::new();
            let first = scanner.scan(&wire[..cut]).unwrap();
            let result = match first {
                Scan::Partial => scanner.scan(wire).unwrap(),
                complete @ Scan::Complete { .. } => complete,
            };
            assert_eq!(result, Scan::Complete { start: 2, end }, "cut at byte {cut}");
        }
    }

    #[test]
    fn a_bare_lf_is_refused_wherever_it_stands() {
        for wire in [
            &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(Scanner::new().scan(wire), Err(ScanFault::BareLf));
        }
    }

    #[test]
    fn the_first_line_has_a_limit() {
        let mut at = vec![b'a'; REQUEST_LINE_BYTES_MAX - 1];
        at.extend(b"\r\n\r\n");
        assert!(matches!(Scanner::new().scan(&at), Ok(Scan::Complete { .. })));
        let mut past = vec![b'a'; REQUEST_LINE_BYTES_MAX];
        past.extend(b"\r\n\r\n");
        assert_eq!(Scanner::new().scan(&past), Err(ScanFault::FirstLineTooLong));
        let unfinished = vec![b'a'; REQUEST_LINE_BYTES_MAX + 1];
        assert_eq!(Scanner::new().scan(&unfinished), Err(ScanFault::FirstLineTooLong));
    }

    #[test]
    fn the_head_has_a_limit() {
        let mut wire = b"GET / HTTP/1.1\r\nA: ".to_vec();
        wire.resize(HEAD_BYTES_MAX - 4, b'a');
        wire.extend(b"\r\n\r\n");
        assert!(matches!(Scanner::new().scan(&wire), Ok(Scan::Complete { .. })));
        wire.insert(20, b'a');
        assert_eq!(Scanner::new().scan(&wire), Err(ScanFault::HeadTooLong));
    }

    #[test]
    fn empty_lines_before_a_head_are_counted() {
        let wire = |lines: usize| [b"\r\n".repeat(lines), b"A\r\n\r\n".to_vec()].concat();
        assert!(Scanner::new().scan(&wire(LEADING_EMPTY_LINES_MAX)).is_ok());
        let past = Scanner::new().scan(&wire(LEADING_EMPTY_LINES_MAX + 1));
        assert_eq!(past, Err(ScanFault::EmptyLines));
    }
}
