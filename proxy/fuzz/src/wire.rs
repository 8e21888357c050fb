//! Heads read by the letter: lines split at CR LF, fields at their first colon.
//!
//! Slow and simple on purpose: what the parsers of the proxy accept is compared with this.

use ringway::http1::body::Body;
use ringway::http1::request::RequestHead;
use ringway::http1::scan::{Scan, Scanner};
use ringway_router::{Normalised, normalise_path};

use super::cuts;

/// A field as name and value.
pub(crate) type NameValue<'a> = (&'a [u8], &'a [u8]);

/// The path that a request is sent on with; `None` if it is answered by the proxy itself. `normal`
/// is where one is kept that is written anew.
pub(crate) fn sent_on<'a>(head: &RequestHead<'a>, normal: &'a mut Vec<u8>) -> Option<&'a str> {
    // The last hop answers by itself.
    if head.max_forwards == Some(0) {
        return None;
    }
    match head.path {
        "*" => Some("*"),
        path => match normalise_path(path.as_bytes(), normal).ok()? {
            Normalised::Unchanged => Some(path),
            Normalised::Rewritten => Some(std::str::from_utf8(normal).expect("a path is ASCII")),
        },
    }
}

/// Where a body ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body, or one of length 0.
    None,
    /// So many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// The end of the connection.
    UntilClose,
}

impl Framing {
    pub(crate) fn of(body: &Body) -> Framing {
        match body {
            Body::Done => Framing::None,
            Body::Length(length) => Framing::Length(*length),
            Body::Chunked(_) => Framing::Chunked,
            Body::UntilClose => Framing::UntilClose,
            Body::Trailers => panic!("a body does not begin with its trailers"),
        }
    }

    /// By the fields alone, of which there must not be two that frame.
    pub(crate) fn stated(fields: &[NameValue<'_>]) -> Option<Framing> {
        let mut framing = None;
        for (name, value) in fields {
            let stated = match *name {
                name if name.eq_ignore_ascii_case(b"content-length") => match decimal(value) {
                    0 => Framing::None,
                    length => Framing::Length(length),
                },
                name if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    assert!(value.eq_ignore_ascii_case(b"chunked"), "another coding");
                    Framing::Chunked
                }
                _ => continue,
            };
            assert!(framing.replace(stated).is_none(), "two fields that frame");
        }
        framing
    }
}

fn decimal(value: &[u8]) -> u64 {
    assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit), "not a number");
    let digits = std::str::from_utf8(value).expect("digits are text");
    digits.parse().expect("a length fits in 64 bits")
}

/// Finds a head in `input`, at every cut the same; `None` if there is none or not yet all of it.
pub(crate) fn scan(input: &[u8], scanner: fn() -> Scanner) -> Option<&[u8]> {
    let whole = scanner().scan(input);
    for cut in cuts(input) {
        let mut pieces = scanner();
        let result = match pieces.scan(&input[..cut]) {
            Ok(Scan::Partial) => pieces.scan(input),
            result => result,
        };
        // Which of two limits is named first may depend on the cut; whether one is, may not.
        assert_eq!(result.ok(), whole.ok(), "cut at {cut}");
    }
    match whole {
        Ok(Scan::Complete { start, end }) => Some(&input[start..end]),
        Ok(Scan::Partial) | Err(_) => None,
    }
}

/// The first line and the fields of a complete head.
pub(crate) fn read(head: &[u8]) -> (&[u8], Vec<NameValue<'_>>) {
    let mut rest = head.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let mut lines = Vec::new();
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    assert!(lines.iter().all(|line| is_clean(line)), "a line within a line");
    (lines[0], lines[1..].iter().map(|line| field(line)).collect())
}

/// Name and value of one field line.
pub(crate) fn field(line: &[u8]) -> NameValue<'_> {
    let colon = line.iter().position(|&byte| byte == b':').expect("a field has a colon");
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    assert!(!name.is_empty() && name.iter().all(|&byte| is_token(byte)), "a name that is none");
    let visible = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(visible).unwrap_or(value.len());
    let end = value.iter().rposition(visible).map_or(start, |last| last + 1);
    (name, &value[start..end])
}

pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !br#""(),/:;<=>?@[\]{}"#.contains(&byte)
}

/// Whether nothing in `bytes` could end a line or a string.
pub(crate) fn is_clean(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| b"\r\n\0".contains(byte))
}

/// Whether `name` is among `names`, in any case.
pub(crate) fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// Checks that `written` is what the proxy puts in front, then `kept`, then what it puts behind;
/// what it may put there is in `own`.
pub(crate) fn assert_only_own_added(
    written: &[NameValue<'_>],
    kept: &[NameValue<'_>],
    own: &[&str],
    front: usize,
) {
    let back = front + kept.len();
    assert!(back <= written.len(), "fields are missing: {written:?} of {kept:?}");
    assert_eq!(&written[front..back], kept, "kept fields changed");
    for (name, value) in written[..front].iter().chain(&written[back..]) {
        assert!(is_one_of(name, own), "a field from nowhere: {}", String::from_utf8_lossy(name));
        assert!(is_clean(value));
    }
}
