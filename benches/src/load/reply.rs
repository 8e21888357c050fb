//! One reply from its first byte to its last: an HTTP/1.1 response, or raw bytes of known length.
//!
//! ```text
//! Head ──▶ Body ──▶ Done        content-length or chunked; interim responses are skipped
//! Head ──▶ UntilClose           neither: the end of the connection is the end
//! ```
//! Sans-IO: bytes in, how many were used out.

use std::io;

use crate::{
    body::{Framing, Reader},
    limits::{HEAD_BYTES_MAX, HEADERS_MAX},
};

/// Progress through one reply.
#[derive(Debug)]
pub(super) struct Reply {
    state: State,
    /// The status of the response; 200 for raw bytes.
    pub(super) status: u16,
    /// Whether the connection ends with this reply.
    pub(super) last: bool,
}

#[derive(Debug)]
enum State {
    Head,
    Body(Reader),
    UntilClose,
}

impl Reply {
    /// A response of HTTP/1.1 to a request that is not HEAD.
    pub(super) fn http() -> Self {
        Self { state: State::Head, status: 0, last: false }
    }

    /// `bytes` bytes.
    pub(super) fn raw(bytes: u64) -> Self {
        Self { state: State::Body(Reader::new(Framing::Length(bytes))), status: 200, last: false }
    }

    /// Whether the last byte was taken.
    pub(super) fn is_done(&self) -> bool {
        matches!(&self.state, State::Body(body) if body.is_done())
    }

    /// The connection ended: whether that is the proper end of this reply.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Takes what it can from the start of `input` and says how many bytes that were.
    ///
    /// # Errors
    /// When the bytes are no HTTP response.
    pub(super) fn take(&mut self, input: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        loop {
            match &mut self.state {
                State::Body(body) => {
                    let used = body.take(&input[at..]).map_err(|_| invalid("a broken chunk"))?;
                    return Ok(at + used);
                }
                State::UntilClose => return Ok(input.len()),
                State::Head => match self.head(&input[at..])? {
                    Some(used) => at += used,
                    None if input.len() - at > HEAD_BYTES_MAX => {
                        return Err(invalid("a head without end"));
                    }
                    None => return Ok(at),
                },
            }
        }
    }

    fn head(&mut self, input: &[u8]) -> io::Result<Option<usize>> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let used = match response.parse(input).map_err(|_| invalid("not an HTTP head"))? {
            httparse::Status::Complete(used) => used,
            httparse::Status::Partial => return Ok(None),
        };
        self.status = response.code.unwrap_or(0);
        if (100..200).contains(&self.status) {
            return Ok(Some(used));
        }
        let field = |name: &str| {
            let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            found.and_then(|field| std::str::from_utf8(field.value).ok())
        };
        let token = |name: &str, token: &str| {
            field(name).is_some_and(|value| {
                value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
            })
        };
        let http10 = response.version == Some(0);
        self.last = token("connection", "close") || http10 && !token("connection", "keep-alive");
        let framing = if matches!(self.status, 204 | 304) {
            Some(Framing::Length(0))
        } else if token("transfer-encoding", "chunked") {
            Some(Framing::Chunked)
        } else {
            let length = field("content-length").map(|value| value.trim().parse());
            length.transpose().map_err(|_| invalid("a bad length"))?.map(Framing::Length)
        };
        self.last |= framing.is_none();
        self.state = framing.map_or(State::UntilClose, |framing| State::Body(Reader::new(framing)));
        Ok(Some(used))
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, whether it is the last, and what was left over, at every cut the same.
    fn read(input: &[u8]) -> (u16, bool, Vec<u8>) {
        let mut found = None;
        for cut in 0..=input.len() {
            let mut reply = Reply::http();
            let used = reply.take(&input[..cut]).unwrap();
            let rest =
                if reply.is_done() { used } else { used + reply.take(&input[used..]).unwrap() };
            assert!(reply.is_done() || reply.may_end(), "cut at {cut}");
            let now = (reply.status, reply.last, input[rest..].to_vec());
            assert_eq!(*found.get_or_insert(now.clone()), now, "cut at {cut}");
        }
        found.unwrap()
    }

    #[test]
    fn every_framing_ends_where_it_should() {
        let next = b"HTTP/1.1 200".to_vec();
        let with_next = |text: &str| [text.as_bytes(), &next].concat();
        let length = with_next("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(read(&length), (200, false, next.clone()));
        let chunked = with_next(
            "HTTP/1.1 100 Continue\r\n\r\n\
             HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\nT: 1\r\n\r\n",
        );
        assert_eq!(read(&chunked), (500, true, next.clone()));
        let empty = with_next("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(read(&empty), (204, false, next));
        assert_eq!(read(b"HTTP/1.0 200 OK\r\n\r\nabc"), (200, true, Vec::new()));
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(Reply::http().take(b"SSH-2.0-x\r\n\r\n").is_err());
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n";
        assert!(Reply::http().take(length).is_err());
    }
}
