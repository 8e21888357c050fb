//! The head of a request for a stream, from what a client of either version sent.
//!
//! # Invariants
//! - What a client's own stream brought is passed on as it is, without a copy; only what changes is
//!   built anew.
//! - A field that HTTP/2 cannot carry is an error, never sent in part.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, MAX_FORWARDS, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};
use ringway_router::Field;

use crate::http1::body::Body;
use crate::http1::compose::{Line, RequestSink};
use crate::http1::request::{RequestHead, had_length};
use crate::outcome::{Cause, Failure};

/// What is composed of a request for a stream.
#[derive(Debug, Default)]
pub struct StreamHead<'u> {
    /// Where the client's own stream leads.
    uri: Option<&'u Uri>,
    method: Method,
    authority: Option<Authority>,
    target: Option<PathAndQuery>,
    /// Names of fields of the client's stream that do not go on.
    ended: Vec<HeaderName>,
    /// Fields that its stream did not bring; all of them for a client of HTTP/1.
    added: Vec<(HeaderName, HeaderValue)>,
    /// The field that is being written.
    name: Option<HeaderName>,
    value: Vec<u8>,
    /// What HTTP/2 cannot carry.
    unfit: Option<Box<str>>,
}

/// The parts of a composed head that borrow nothing.
#[derive(Debug)]
pub struct Composed {
    authority: Option<Authority>,
    target: Option<PathAndQuery>,
    method: Method,
    ended: Vec<HeaderName>,
    added: Vec<(HeaderName, HeaderValue)>,
}

impl<'u> StreamHead<'u> {
    /// For a client whose own stream leads to `uri`, if it came by one.
    #[must_use]
    pub fn new(uri: Option<&'u Uri>) -> Self {
        Self { uri, ..Self::default() }
    }

    /// What was composed.
    ///
    /// # Errors
    /// When HTTP/2 cannot carry it.
    pub fn finish(self) -> Result<Composed, Failure> {
        let Self { method, authority, target, ended, added, unfit, .. } = self;
        match unfit {
            Some(what) => Err(Failure::with(
                Cause::RequestMalformed,
                format_args!("HTTP/2 cannot carry {what}"),
            )),
            None => Ok(Composed { method, authority, target, ended, added }),
        }
    }

    fn cannot_carry(&mut self, what: &str) {
        self.unfit.get_or_insert_with(|| what.into());
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) {
        if self.added.capacity() == 0 {
            self.added.reserve(8);
        }
        self.added.push((name, value));
    }

    fn is_of_stream(&self) -> bool {
        self.uri.is_some()
    }
}

impl Composed {
    /// The request, with `fields` of the client's own stream, if it had one.
    ///
    /// # Errors
    /// When the parts make no URI.
    pub fn into_request(self, fields: HeaderMap, secure: bool) -> Result<Request<()>, Failure> {
        let mut fields = fields;
        for name in self.ended {
            fields.remove(name);
        }
        fields.reserve(self.added.len());
        for (name, value) in self.added {
            fields.append(name, value);
        }
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = self.authority;
        parts.path_and_query = self.target;
        let unfit = |_| Failure::with(Cause::RequestMalformed, "HTTP/2 cannot carry the target");
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_parts(parts).map_err(unfit)?;
        *request.method_mut() = self.method;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = fields;
        Ok(request)
    }
}

impl RequestSink for StreamHead<'_> {
    fn line(&mut self, method: &str, line: &Line<'_>) {
        match Method::from_bytes(method.as_bytes()) {
            Ok(method) => self.method = method,
            Err(_) => self.cannot_carry("the method"),
        }
        let known = self.uri.and_then(Uri::authority).filter(|known| known.as_str() == line.host);
        self.authority = match known {
            Some(known) => Some(known.clone()),
            None => line.host.parse().ok(),
        };
        let known = self.uri.and_then(Uri::path_and_query).filter(|known| is_target(known, line));
        self.target = match known {
            Some(known) => Some(known.clone()),
            None => target(line),
        };
        if self.authority.is_none() {
            self.cannot_carry("the host");
        }
        if self.target.is_none() {
            self.cannot_carry("the target");
        }
    }

    fn kept(&mut self, field: &Field<'_>) {
        if self.is_of_stream() {
            return;
        }
        let name = HeaderName::from_bytes(field.name.as_bytes());
        match (name, HeaderValue::from_bytes(field.value)) {
            (Ok(name), Ok(value)) => self.add(name, value),
            _ => self.cannot_carry(field.name),
        }
    }

    fn ended(&mut self, field: &Field<'_>) {
        // The length of a stream's body and `te: trailers` are what they were.
        if !self.is_of_stream() || matches!(field.name, "content-length" | "te") {
            return;
        }
        match HeaderName::from_bytes(field.name.as_bytes()) {
            Ok(name) => self.ended.push(name),
            Err(_) => self.cannot_carry(field.name),
        }
    }

    fn begin(&mut self, name: &str) {
        self.value.clear();
        self.name = match known_name(name) {
            Some(known) => Some(known),
            None => HeaderName::from_bytes(name.as_bytes()).ok(),
        };
        if self.name.is_none() {
            self.cannot_carry(name);
        }
    }

    fn value(&mut self, bytes: &[u8]) {
        self.value.extend_from_slice(bytes);
    }

    fn end(&mut self, unique: bool) {
        let Some(name) = self.name.take() else { return };
        let value = match self.value.as_slice() {
            b"http" => Ok(HeaderValue::from_static("http")),
            b"https" => Ok(HeaderValue::from_static("https")),
            value => HeaderValue::from_bytes(value),
        };
        match value {
            Ok(mut value) => {
                // It would push out of the peer's table what other requests have in common.
                value.set_sensitive(unique);
                self.add(name, value);
            }
            Err(_) => self.cannot_carry(name.as_str()),
        }
    }

    fn framing(&mut self, head: &RequestHead<'_>) {
        let length = match head.body {
            _ if self.is_of_stream() => return,
            Body::Length(length) => length,
            Body::Done if had_length(head.fields) => 0,
            _ => return,
        };
        self.add(CONTENT_LENGTH, length.into());
    }

    fn next_hop(&mut self, head: &RequestHead<'_>) {
        if head.wants_trailers && !self.is_of_stream() {
            self.add(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Whether `known` is the target of `line`.
fn is_target(known: &PathAndQuery, line: &Line<'_>) -> bool {
    known.path().as_bytes() == line.path && known.query() == line.query
}

fn target(line: &Line<'_>) -> Option<PathAndQuery> {
    let mut text = line.path.to_vec();
    if let Some(query) = line.query {
        text.push(b'?');
        text.extend_from_slice(query.as_bytes());
    }
    PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).ok()
}

/// The names that the proxy itself writes.
fn known_name(name: &str) -> Option<HeaderName> {
    Some(match name {
        "X-Forwarded-For" => HeaderName::from_static("x-forwarded-for"),
        "X-Forwarded-Proto" => HeaderName::from_static("x-forwarded-proto"),
        "X-Forwarded-Host" => HeaderName::from_static("x-forwarded-host"),
        "X-Forwarded-Client-Cert" => HeaderName::from_static("x-forwarded-client-cert"),
        "X-Request-Id" => HeaderName::from_static("x-request-id"),
        "Max-Forwards" => MAX_FORWARDS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use ringway_router::HeaderEdits;

    use super::*;
    use crate::http1::compose::{Hop, request_to};
    use crate::http1::request::{self, Fields};
    use crate::http2::translate;

    const HOP: Hop<'_> =
        Hop { peer: "10.0.0.1", trusted: false, request_id: 7, secure: false, certificate: None };

    fn of_text(text: &[u8], path: &[u8]) -> Result<Request<()>, Failure> {
        let mut fields = Fields::new_const();
        let head = request::parse(text, &mut fields).unwrap();
        let line = Line { path, query: head.query, host: head.host };
        let mut sink = StreamHead::new(None);
        request_to(&head, &line, &HOP, &HeaderEdits::default(), &mut sink);
        sink.finish()?.into_request(HeaderMap::new(), true)
    }

    #[test]
    fn a_request_of_http_1_becomes_one_of_http_2() {
        let text = b"POST /a/b?c=d HTTP/1.1\r\nHost: x.example:8\r\nContent-Type: a/b\r\n\
                     Transfer-Encoding: chunked\r\nX-Forwarded-For: 1.1.1.1\r\n\
                     Connection: TE, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\r\n";
        let request = of_text(text, b"/a/b").unwrap();
        assert_eq!(request.uri(), "https://x.example:8/a/b?c=d");
        assert_eq!(request.method(), "POST");
        let headers = request.headers();
        assert_eq!(headers.len(), 6, "{headers:?}");
        assert_eq!(headers["content-type"], "a/b");
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "x.example:8");
        assert_eq!(headers["x-request-id"], "00000000000000000000000000000007");
        let of =
            |text: &[u8]| of_text(text, b"/").unwrap().headers().get("content-length").cloned();
        assert_eq!(of(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n").unwrap(), "7");
        assert_eq!(of(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap(), "0");
        assert_eq!(of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
    }

    #[test]
    fn what_a_stream_brought_goes_on_and_what_ends_here_does_not() {
        let given = Request::post("http://x.example/a?b=c")
            .header("content-length", "3")
            .header("te", "trailers")
            .header("x-kept", "1")
            .header("x-kept", "2")
            .header("x-forwarded-for", "1.1.1.1")
            .header("x-request-id", "theirs")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        let (parts, ()) = given.into_parts();
        let compose = |path: &[u8], host: &str| {
            let cookie = translate::joined_cookie(&parts.headers);
            let mut fields = Fields::new_const();
            let head = translate::request_head(&parts, cookie.as_deref(), false, &mut fields);
            let head = head.unwrap();
            let line = Line { path, query: head.query, host };
            let mut sink = StreamHead::new(Some(&parts.uri));
            request_to(&head, &line, &HOP, &HeaderEdits::default(), &mut sink);
            let composed = sink.finish().unwrap();
            composed.into_request(parts.headers.clone(), false).unwrap()
        };
        let request = compose(b"/a", "x.example");
        assert_eq!(request.uri(), "http://x.example/a?b=c");
        let headers = request.headers();
        let all = |name: &str| {
            let values = headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(all("content-length"), ["3"]);
        assert_eq!(all("te"), ["trailers"]);
        assert_eq!(all("x-kept"), ["1", "2"]);
        assert_eq!(all("cookie"), ["a=1", "b=2"]);
        assert_eq!(all("x-forwarded-for"), ["10.0.0.1"]);
        assert_eq!(all("x-request-id"), ["00000000000000000000000000000007"]);
        assert!(headers["x-request-id"].is_sensitive(), "it is in no table");
        assert_eq!(compose(b"/other", "y:1").uri(), "http://y:1/other?b=c");
    }

    #[test]
    fn what_http_2_cannot_carry_is_refused() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(of_text(text, b"/\xff").is_err());
    }
}
