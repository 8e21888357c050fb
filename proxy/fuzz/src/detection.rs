//! First bytes of a connection: more of them change no verdict, and while there is none more of
//! them could still make it HTTP or TLS.

use ringway::detect::verdict::{self, Verdict};
use ringway::http1::request::{self, Fields};
use ringway::http1::scan::Scanner;
use ringway::limits::{DETECTED_BYTES_MAX, METHOD_BYTES_DETECTED_MAX};
use ringway_tls::hello::looks_like_tls;

use super::{cuts, wire};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HELLO: &[u8] = &[22, 3, 1, 0, 5, 1];

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let whole = verdict::of(input);
    assert!(whole.is_some() || input.len() < DETECTED_BYTES_MAX, "more is not read");
    for cut in cuts(input).filter(|cut| *cut < DETECTED_BYTES_MAX) {
        let front = verdict::of(&input[..cut]);
        assert!(front.is_none() || front == whole, "cut at {cut}: {front:?}, then {whole:?}");
    }
    assert_eq!(whole == Some(Verdict::Tls), looks_like_tls(input) == Some(true));
    assert_eq!(whole == Some(Verdict::Http2), input.starts_with(PREFACE));
    if input.len() < DETECTED_BYTES_MAX {
        let is_request = whole == Some(Verdict::Http1);
        assert_eq!(is_request, has_request_line(input), "{whole:?}");
        assert!(whole.is_some() || may_become_more(input), "nothing is waited for");
    }
    check_requests(input, whole);
}

/// Whether the first words are those of a request line of HTTP/1, by the letter.
fn has_request_line(input: &[u8]) -> bool {
    let start = input.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(input.len());
    let mut words = input[start..].splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target), Some(rest)) = (words.next(), words.next(), words.next())
    else {
        return false;
    };
    let is_method = (1..=METHOD_BYTES_DETECTED_MAX).contains(&method.len())
        && method.iter().all(|byte| wire::is_token(*byte));
    let is_target =
        !target.is_empty() && target.iter().all(|byte| byte.is_ascii_graphic() || *byte >= 0x80);
    let is_version = rest.len() > 7 && rest.starts_with(b"HTTP/1.") && rest[7].is_ascii_digit();
    is_method && is_target && is_version
}

/// Whether some end makes `input` a request, the preface or a hello.
fn may_become_more(input: &[u8]) -> bool {
    let line = b"G / HTTP/1.1";
    let ends = [PREFACE, HELLO, line].into_iter().flat_map(|text| {
        // The end of a text that begins as the input ends, or a part of it that follows.
        (0..text.len()).map(move |at| &text[at..])
    });
    let mut known = ends.map(|end| verdict::of(&[input, end].concat()));
    known.any(|verdict| verdict.is_some_and(|verdict| verdict != Verdict::Opaque))
}

/// What HTTP/1 accepts is found to be HTTP/1.
fn check_requests(input: &[u8], whole: Option<Verdict>) {
    let Some(head) = wire::scan(input, Scanner::new) else { return };
    let mut fields = Fields::new_const();
    let Ok(parsed) = request::parse(head, &mut fields) else { return };
    if parsed.method.len() <= METHOD_BYTES_DETECTED_MAX {
        assert_eq!(whole, Some(Verdict::Http1));
    }
}
