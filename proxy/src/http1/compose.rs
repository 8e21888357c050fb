//! Writes heads: requests to the upstream, responses to the client, and trailers to either.
//!
//! # Invariants
//! - What goes out was understood: fields are written one by one as `Name: value`, never as the
//!   raw bytes that came in. Names keep their case and order.
//! - Framing is written by us, from what was parsed.
//! - A head that does not fit is an error, never a shorter head.

use ringway_router::{Field, HeaderEdits};
use thiserror::Error;

use super::body::Body;
use super::fields::forbidden_in_trailers;
use super::request::{FieldSet, RequestHead, had_length};
use super::response::ResponseHead;
use crate::limits::HEAD_FIELDS_MAX;
use crate::sys::block::Block;

/// The head does not fit in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// Where the request came from, as the upstream is told.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The peer's address, in text.
    pub peer: &'a str,
    /// Whether its own forwarding fields are believed.
    pub trusted: bool,
    /// The id given to the request if it brought none that is believed.
    pub request_id: u128,
    /// Whether it came over TLS.
    pub secure: bool,
    /// What the client has proved to be, if it has.
    pub certificate: Option<Certificate<'a>>,
}

/// A client's certificate as the upstream is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    /// Our own identity, to which it was shown.
    pub by: &'a str,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: &'a str,
    /// The identity in it.
    pub uri: &'a str,
}

/// How the request line and `Host` read on the way out.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The path, normalised and rewritten.
    pub path: &'a [u8],
    /// The query, as it came.
    pub query: Option<&'a str>,
    /// The host, as it came or rewritten.
    pub host: &'a str,
}

/// How the connection to the client goes on after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1 and open: says nothing.
    Open,
    /// HTTP/1.0 and open: says `keep-alive`.
    OpenHttp10,
    /// Ends: says `close`.
    Close,
    /// Becomes a tunnel.
    Upgrade,
}

impl Persistence {
    /// Open or not, in the words of the client's version.
    #[must_use]
    pub fn of(keep: bool, is_http10: bool) -> Self {
        match (keep, is_http10) {
            (false, _) => Self::Close,
            (true, true) => Self::OpenHttp10,
            (true, false) => Self::Open,
        }
    }
}

/// Bytes into a block; remembers when one did not fit.
pub struct Writer<'b> {
    block: &'b mut Block,
    overflow: bool,
}

impl<'b> Writer<'b> {
    /// Writes behind the data of `block`.
    #[must_use]
    pub fn new(block: &'b mut Block) -> Self {
        Self { block, overflow: false }
    }

    /// Writes `bytes`.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.overflow |= !self.block.push(bytes);
    }

    /// Writes a number in decimal.
    pub fn decimal(&mut self, number: u64) {
        let (digits, at) = decimal(number);
        self.bytes(&digits[at..]);
    }

    /// Writes one field.
    #[inline]
    pub fn field(&mut self, name: &str, value: &[u8]) {
        self.bytes(name.as_bytes());
        self.bytes(b": ");
        self.bytes(value);
        self.bytes(b"\r\n");
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// When anything did not fit.
    pub fn finish(self) -> Result<(), Overflow> {
        if self.overflow { Err(Overflow) } else { Ok(()) }
    }

    fn kept(&mut self, fields: &[Field<'_>], dropped: FieldSet, edits: &HeaderEdits) {
        let edited = !edits.is_empty();
        for (index, field) in fields.iter().enumerate() {
            let ends_here = dropped & (1 << index) != 0 || (edited && edits.drops(field.name));
            if !ends_here {
                self.field(field.name, field.value);
            }
        }
    }

    fn edits(&mut self, edits: &HeaderEdits) {
        for (name, value) in edits.appended() {
            self.field(name, value.as_bytes());
        }
    }

    fn framing(&mut self, body: &Body) {
        match body {
            Body::Length(length) => self.length(*length),
            Body::Chunked(_) => self.bytes(b"Transfer-Encoding: chunked\r\n"),
            Body::Done | Body::Trailers | Body::UntilClose => {}
        }
    }

    /// Writes `Content-Length`.
    pub fn length(&mut self, length: u64) {
        self.bytes(b"Content-Length: ");
        self.decimal(length);
        self.bytes(b"\r\n");
    }
}

/// Where the head of a request for the upstream goes: text for HTTP/1.1, or fields of a stream.
pub trait RequestSink {
    /// The method and where the request leads.
    fn line(&mut self, method: &str, line: &Line<'_>);
    /// A field of the client's that goes on as it came.
    fn kept(&mut self, field: &Field<'_>);
    /// A field of the client's that ends here.
    fn ended(&mut self, field: &Field<'_>);
    /// Begins a further field, whose value follows by [`Self::value`].
    fn begin(&mut self, name: &str);
    /// More of its value.
    fn value(&mut self, bytes: &[u8]);
    /// Ends it. One that is `unique` is like no other request's.
    fn end(&mut self, unique: bool);
    /// What says how long the body is.
    fn framing(&mut self, head: &RequestHead<'_>);
    /// What is said to the next hop alone.
    fn next_hop(&mut self, head: &RequestHead<'_>);

    /// A further field.
    fn field(&mut self, name: &str, value: &[u8]) {
        self.begin(name);
        self.value(value);
        self.end(false);
    }
}

impl RequestSink for Writer<'_> {
    fn line(&mut self, method: &str, line: &Line<'_>) {
        self.bytes(method.as_bytes());
        self.bytes(b" ");
        self.bytes(line.path);
        if let Some(query) = line.query {
            self.bytes(b"?");
            self.bytes(query.as_bytes());
        }
        self.bytes(b" HTTP/1.1\r\nHost: ");
        self.bytes(line.host.as_bytes());
        self.bytes(b"\r\n");
    }

    #[inline]
    fn kept(&mut self, field: &Field<'_>) {
        Writer::field(self, field.name, field.value);
    }

    #[inline]
    fn ended(&mut self, _: &Field<'_>) {}

    fn begin(&mut self, name: &str) {
        self.bytes(name.as_bytes());
        self.bytes(b": ");
    }

    fn value(&mut self, bytes: &[u8]) {
        self.bytes(bytes);
    }

    fn end(&mut self, _: bool) {
        self.bytes(b"\r\n");
    }

    fn framing(&mut self, head: &RequestHead<'_>) {
        match head.body {
            // A length of 0 that was said is repeated: a POST without a length is another request.
            Body::Done if had_length(head.fields) => self.length(0),
            ref body => Writer::framing(self, body),
        }
    }

    fn next_hop(&mut self, head: &RequestHead<'_>) {
        match (head.upgrade, head.wants_trailers) {
            (Some(protocols), _) => {
                self.bytes(b"Connection: Upgrade\r\n");
                Writer::field(self, "Upgrade", protocols);
            }
            (None, true) => self.bytes(b"Connection: TE\r\nTE: trailers\r\n"),
            (None, false) => {}
        }
    }
}

/// Writes the head of the request for the upstream as text.
///
/// # Errors
/// When it does not fit in `out`.
pub fn request(
    head: &RequestHead<'_>,
    line: &Line<'_>,
    hop: &Hop<'_>,
    edits: &HeaderEdits,
    out: &mut Block,
) -> Result<(), Overflow> {
    let mut writer = Writer::new(out);
    request_to(head, line, hop, edits, &mut writer);
    writer.bytes(b"\r\n");
    writer.finish()
}

/// Says the head of the request for the upstream to `sink`.
pub fn request_to(
    head: &RequestHead<'_>,
    line: &Line<'_>,
    hop: &Hop<'_>,
    edits: &HeaderEdits,
    sink: &mut impl RequestSink,
) {
    sink.line(head.method, line);
    if let Some(left) = head.max_forwards {
        let (digits, at) = decimal(left.saturating_sub(1));
        sink.field("Max-Forwards", &digits[at..]);
    }
    let dropped = head.dropped | head.forwarding;
    let edited = !edits.is_empty();
    for (index, field) in head.fields.iter().enumerate() {
        if dropped & (1 << index) != 0 || (edited && edits.drops(field.name)) {
            sink.ended(field);
        } else {
            sink.kept(field);
        }
    }
    sink.framing(head);
    forwarding(sink, head, hop, edits);
    sink.next_hop(head);
    for (name, value) in edits.appended() {
        sink.field(name, value.as_bytes());
    }
}

/// `X-Forwarded-*` and `X-Request-Id`: a trusted peer's are continued, anybody else's replaced.
fn forwarding(
    sink: &mut impl RequestSink,
    head: &RequestHead<'_>,
    hop: &Hop<'_>,
    edits: &HeaderEdits,
) {
    let edited = !edits.is_empty();
    let given = if hop.trusted && head.forwarding != 0 { head.fields } else { &[] };
    let believed = |name: &'static str| {
        let named = given.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value)
    };
    let wanted = |name: &str| !(edited && edits.drops(name));

    if wanted("x-forwarded-for") {
        sink.begin("X-Forwarded-For");
        for addresses in believed("x-forwarded-for") {
            sink.value(addresses);
            sink.value(b", ");
        }
        sink.value(hop.peer.as_bytes());
        sink.end(false);
    }
    if wanted("x-forwarded-proto") {
        let own: &[u8] = if hop.secure { b"https" } else { b"http" };
        let proto = believed("x-forwarded-proto").next().unwrap_or(own);
        sink.field("X-Forwarded-Proto", proto);
    }
    if wanted("x-forwarded-host") {
        let host = believed("x-forwarded-host").next().unwrap_or(head.host.as_bytes());
        // HTTP/1.0 may come without.
        if !host.is_empty() {
            sink.field("X-Forwarded-Host", host);
        }
    }
    if wanted("x-forwarded-client-cert") {
        client_certificate(sink, believed("x-forwarded-client-cert"), hop.certificate);
    }
    if wanted("x-request-id") {
        let own = hexadecimal(hop.request_id);
        sink.begin("X-Request-Id");
        sink.value(believed("x-request-id").next().unwrap_or(&own));
        sink.end(true);
    }
    for forwarded in believed("forwarded") {
        sink.field("Forwarded", forwarded);
    }
}

/// `X-Forwarded-Client-Cert`, in the form that Envoy has given it: what a trusted peer says of
/// those before it, then who the peer itself is. All of it was parsed, so nothing needs quotes.
fn client_certificate<'v>(
    sink: &mut impl RequestSink,
    believed: impl Iterator<Item = &'v [u8]>,
    certificate: Option<Certificate<'_>>,
) {
    let mut is_open = false;
    for value in believed {
        next_element(sink, &mut is_open);
        sink.value(value);
    }
    if let Some(Certificate { by, sha256, uri }) = certificate {
        next_element(sink, &mut is_open);
        for part in ["By=", by, ";Hash=", sha256, ";URI=", uri] {
            sink.value(part.as_bytes());
        }
    }
    if is_open {
        sink.end(false);
    }
}

/// Begins `X-Forwarded-Client-Cert`, or its next element.
fn next_element(sink: &mut impl RequestSink, is_open: &mut bool) {
    if *is_open {
        sink.value(b",");
    } else {
        sink.begin("X-Forwarded-Client-Cert");
    }
    *is_open = true;
}

/// A number in decimal: the digits, and where they begin.
#[inline(always)]
fn decimal(number: u64) -> ([u8; 20], usize) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return (digits, at);
        }
    }
}

/// A number as 32 hexadecimal digits.
fn hexadecimal(number: u128) -> [u8; 32] {
    let digit = |shift: usize| b"0123456789abcdef"[(number >> (124 - 4 * shift)) as usize & 15];
    std::array::from_fn(digit)
}

/// Writes the head of a response for the client. `body` is how the body goes out, which is not
/// always how it came in.
///
/// # Errors
/// When it does not fit in `out`.
pub fn response(
    head: &ResponseHead<'_>,
    body: &Body,
    persistence: Persistence,
    date: &[u8],
    edits: &HeaderEdits,
    out: &mut Block,
) -> Result<(), Overflow> {
    let mut writer = Writer::new(out);
    writer.bytes(b"HTTP/1.1 ");
    writer.decimal(u64::from(head.status));
    writer.bytes(b" ");
    writer.bytes(head.reason.as_bytes());
    writer.bytes(b"\r\n");
    writer.kept(head.fields, head.dropped, edits);
    let without_body = matches!(head.status, 100..200 | 204);
    match (body, head.claimed_length) {
        _ if without_body => {}
        // The answer to HEAD and 304 pass on the length that the body would have.
        (Body::Done, Some(length)) => writer.length(length),
        (Body::Done, None) => {}
        (body, _) => writer.framing(body),
    }
    if !head.dated && head.status >= 200 {
        writer.field("Date", date);
    }
    // 426 says what to upgrade to (RFC 9110 section 15.5.22).
    if let (426, Some(protocols)) = (head.status, head.upgrade) {
        writer.bytes(b"Connection: Upgrade\r\n");
        writer.field("Upgrade", protocols);
    }
    match persistence {
        Persistence::Open => {}
        Persistence::OpenHttp10 => writer.bytes(b"Connection: keep-alive\r\n"),
        Persistence::Close => writer.bytes(b"Connection: close\r\n"),
        Persistence::Upgrade => {
            writer.bytes(b"Connection: Upgrade\r\n");
            writer.field("Upgrade", head.upgrade.unwrap_or_default());
        }
    }
    writer.edits(edits);
    writer.bytes(b"\r\n");
    writer.finish()
}
/// A trailer section that cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TrailerFault {
    /// It is no list of fields (RFC 9112 section 7.1.2), or one with too many.
    #[error("the trailer section is malformed")]
    Malformed,
    /// It does not fit into the block.
    #[error("the trailer section is too long")]
    TooLong,
}

/// Writes those fields of a trailer section that may stand there (RFC 9110 section 6.5.1), and the
/// empty line behind them. `section` ends with its own empty line.
///
/// # Errors
/// When it is malformed or does not fit.
pub fn trailers(section: &[u8], out: &mut Block) -> Result<(), TrailerFault> {
    let mut slots = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let parsed = httparse::parse_headers(section, &mut slots);
    let Ok(httparse::Status::Complete((length, fields))) = parsed else {
        return Err(TrailerFault::Malformed);
    };
    if length != section.len() {
        return Err(TrailerFault::Malformed);
    }
    let mut writer = Writer::new(out);
    for field in fields.iter().filter(|field| !forbidden_in_trailers(field.name)) {
        writer.field(field.name, field.value);
    }
    writer.bytes(b"\r\n");
    writer.finish().map_err(|Overflow| TrailerFault::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on(section: &[u8]) -> Result<Vec<u8>, TrailerFault> {
        let mut out = Block::small();
        trailers(section, &mut out).map(|()| out.data().to_vec())
    }

    #[test]
    fn trailers_keep_their_order_and_lose_what_would_frame_or_authorize() {
        let section =
            b"Grpc-Status: 0\r\nContent-Length: 9\r\nauthorization: x\r\nX-Sum:  a \r\n\r\n";
        assert_eq!(passed_on(section).unwrap(), b"Grpc-Status: 0\r\nX-Sum: a\r\n\r\n");
        assert_eq!(passed_on(b"\r\n").unwrap(), b"\r\n");
    }

    #[test]
    fn a_trailer_section_that_is_no_list_of_fields_is_refused() {
        for section in
            [&b"A : 1\r\n\r\n"[..], b"A: 1\r\n 2\r\n\r\n", b"A\r\n\r\n", b"A: 1\r2\r\n\r\n"]
        {
            assert_eq!(passed_on(section), Err(TrailerFault::Malformed), "{section:?}");
        }
        let many = |count| [b"A: 1\r\n".repeat(count), b"\r\n".to_vec()].concat();
        assert!(passed_on(&many(HEAD_FIELDS_MAX)).is_ok());
        assert_eq!(passed_on(&many(HEAD_FIELDS_MAX + 1)), Err(TrailerFault::Malformed));
    }
}
