//! One request head: from bytes to method, target, fields and body framing (RFC 9112).
//!
//! # Invariants
//! - Incomplete input is `Ok(None)`, never an error; where the network cuts does not matter.
//! - A message whose framing is ambiguous (RFC 9112 section 6.3) is refused and the connection
//!   ends: behind a proxy under test, that refusal is what makes smuggling visible.

use crate::{body::Framing, limits::HEADERS_MAX};

/// A complete request head, borrowed from the connection's input.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    /// Minor version: 0 or 1.
    pub(super) minor: u8,
    /// Name and version, as the echo tells them.
    pub(super) protocol: &'static str,
    pub(super) framing: Framing,
    /// The connection stays open after the answer (RFC 9112 section 9.3).
    pub(super) keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// Fields in the order of arrival, names as written.
    pub(super) fields: &'a [httparse::Header<'a>],
    /// Bytes of the head, the empty line included.
    pub(super) length: usize,
}

/// Why a head is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400: not HTTP, or ambiguous framing.
    Malformed,
    /// 431: too many fields.
    TooLarge,
}

/// Reads one head from the start of `input`; `fields` is the caller's room for the result.
pub(super) fn parse<'a>(
    input: &'a [u8],
    fields: &'a mut [httparse::Header<'a>; HEADERS_MAX],
) -> Result<Option<Head<'a>>, Refusal> {
    let mut request = httparse::Request::new(fields);
    let length = match request.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(_) => return Err(Refusal::Malformed),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Refusal::Malformed);
    };
    let fields: &'a [httparse::Header<'a>] = request.headers;
    let mut seen = Seen::default();
    for field in fields {
        seen.note(field)?;
    }
    Ok(Some(Head {
        method,
        target,
        minor,
        protocol: if minor == 0 { "HTTP/1.0" } else { "HTTP/1.1" },
        framing: seen.framing(minor)?,
        keep_alive: if minor == 0 { seen.keep_alive && !seen.close } else { !seen.close },
        expects_continue: seen.expects_continue && minor == 1,
        fields,
        length,
    }))
}

/// What the fields said that the framing depends on.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Seen {
    fn note(&mut self, field: &httparse::Header<'_>) -> Result<(), Refusal> {
        let name = field.name;
        // The length decides first: almost every field is dismissed without a comparison.
        match name.len() {
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = parse_length(field.value).ok_or(Refusal::Malformed)?;
                if self.length.is_some_and(|earlier| earlier != length) {
                    return Err(Refusal::Malformed);
                }
                self.length = Some(length);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::Malformed);
                }
                self.chunked = true;
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                self.close |= has_token(field.value, b"close");
                self.keep_alive |= has_token(field.value, b"keep-alive");
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                self.expects_continue |= field.value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, minor: u8) -> Result<Framing, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::Malformed),
            (true, None) if minor == 0 => Err(Refusal::Malformed),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

fn parse_length(value: &[u8]) -> Option<u64> {
    // `u64::from_str` would accept a sign.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(text: &str) -> Result<Option<Framing>, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        parse(text.as_bytes(), &mut fields).map(|head| head.map(|head| head.framing))
    }

    #[test]
    fn a_head_cut_anywhere_is_incomplete_not_wrong() {
        let text = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(framing(&text[..cut]), Ok(None), "cut at byte {cut}");
        }
        assert_eq!(framing(text), Ok(Some(Framing::Length(5))));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(framing(&text), Err(Refusal::Malformed), "{fields:?}");
        }
    }

    #[test]
    fn keep_alive_follows_version_and_connection() {
        let keeps = |version: &str, connection: &str| {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
            let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
            parse(text.as_bytes(), &mut fields).unwrap().unwrap().keep_alive
        };
        assert!(keeps("1.1", ""));
        assert!(!keeps("1.1", "Connection: x, Close\r\n"));
        assert!(!keeps("1.0", ""));
        assert!(keeps("1.0", "Connection: keep-alive\r\n"));
    }
}
