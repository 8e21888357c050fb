//! Parses a complete request head and decides what it means (RFC 9112 sections 3, 5 and 6).
//!
//! # Invariants
//! - A head that two parsers could understand differently is refused, not repaired: both
//!   `Content-Length` and `Transfer-Encoding`, two lengths, folded lines, blanks before a colon,
//!   a second `Host`, control characters.
//! - The body's extent is known before anything is forwarded.
//!
//! # Not here
//! Finding the end of the head (`scan`), routing (`plan`), writing (`compose`).

use std::mem::MaybeUninit;

use arrayvec::ArrayVec;
use ringway_router::Field;
use thiserror::Error;

use super::body::Body;
use super::fields::{self, Known};
use crate::limits::HEAD_FIELDS_MAX;
use crate::outcome::Cause;

/// Room for the fields of one head. Four kilobytes: it stays where the caller has it.
pub type Fields<'b> = ArrayVec<Field<'b>, HEAD_FIELDS_MAX>;

/// A set of fields of one head, by index.
pub type FieldSet = u128;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestFault {
    /// Not a request line and fields.
    #[error("{0}")]
    Syntax(httparse::Error),
    /// More fields than fit.
    #[error("more than {HEAD_FIELDS_MAX} header fields")]
    TooManyFields,
    /// A version other than 1.0 and 1.1.
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A target with characters that a URI cannot have, or in a form that does not fit the method.
    #[error("the request target is not valid")]
    Target,
    /// HTTP/1.1 without `Host`.
    #[error("the Host field is missing")]
    HostMissing,
    /// More than one `Host`.
    #[error("more than one Host field")]
    HostRepeated,
    /// A `Host` that is no host.
    #[error("the Host field is not a valid host")]
    HostInvalid,
    /// `Content-Length` that is no number, or more than one of them.
    #[error("the Content-Length is not one decimal number")]
    ContentLength,
    /// Both framings at once.
    #[error("both Content-Length and Transfer-Encoding are present")]
    TwoFramings,
    /// `Transfer-Encoding` in HTTP/1.0, repeated, or with chunked elsewhere than at the end.
    #[error("the Transfer-Encoding is not valid here")]
    TransferEncoding,
    /// A coding that is not chunked.
    #[error("a transfer coding other than chunked")]
    Coding,
    /// An expectation that is not 100-continue.
    #[error("an expectation other than 100-continue")]
    Expectation,
    /// CONNECT.
    #[error("CONNECT is not allowed here")]
    Connect,
    /// TRACE with a body, which it must not have (RFC 9110 section 9.3.8).
    #[error("a TRACE request has no body")]
    TraceBody,
    /// `Max-Forwards` that is no number, or more than one of them.
    #[error("the Max-Forwards is not one decimal number")]
    MaxForwards,
}

impl RequestFault {
    /// The cause that the answer and the metrics name.
    #[must_use]
    pub fn cause(self) -> Cause {
        match self {
            Self::TooManyFields => Cause::RequestHeadTooLarge,
            Self::Version => Cause::RequestVersion,
            Self::Coding => Cause::RequestCoding,
            Self::Expectation => Cause::RequestExpectation,
            Self::Connect => Cause::ConnectMethod,
            Self::Syntax(_)
            | Self::Target
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::ContentLength
            | Self::TwoFramings
            | Self::TransferEncoding
            | Self::TraceBody
            | Self::MaxForwards => Cause::RequestMalformed,
        }
    }
}

/// A request head, as slices of the bytes it was parsed from.
#[derive(Debug)]
pub struct RequestHead<'b> {
    /// The method, any token.
    pub method: &'b str,
    /// The path of the target, as it came; `*` for OPTIONS of the whole server.
    pub path: &'b str,
    /// The query, without its question mark.
    pub query: Option<&'b str>,
    /// The host with its port, as it came, from an absolute target or else from `Host`. Empty in
    /// HTTP/1.0 without one.
    pub host: &'b str,
    /// Whether it is HTTP/1.0.
    pub is_http10: bool,
    /// All fields, in their order.
    pub fields: &'b [Field<'b>],
    /// Fields that end here: hop-by-hop ones, those that `Connection` names, and those that the
    /// proxy writes itself.
    pub dropped: FieldSet,
    /// The forwarding fields (`X-Forwarded-*`, `X-Request-Id`, `Forwarded`) among them: passed on
    /// only from a trusted peer.
    pub forwarding: FieldSet,
    /// The body.
    pub body: Body,
    /// Whether the connection may serve another request after this one.
    pub keep_alive: bool,
    /// `Max-Forwards`, where it counts: in TRACE and OPTIONS (RFC 9110 section 7.6.2).
    pub max_forwards: Option<u64>,
    /// The protocols that the client would switch to, if it may: never another version of HTTP or
    /// TLS, never with a body on the way.
    pub upgrade: Option<&'b [u8]>,
    /// Whether the client takes trailers.
    pub wants_trailers: bool,
}

/// Facts gathered in the pass over the fields.
#[derive(Default)]
struct Gathered<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade_named: bool,
    upgrade: Option<&'b [u8]>,
    upgrade_refused: bool,
    max_forwards: Option<u64>,
    wants_trailers: bool,
    named: bool,
}

/// Parses a head that the scanner found complete: `head` ends with its empty line. `fields` is
/// empty before.
///
/// # Errors
/// What is wrong with it. The connection is of no use afterwards.
pub fn parse<'f, 'b: 'f>(
    head: &'b [u8],
    fields: &'f mut Fields<'b>,
) -> Result<RequestHead<'f>, RequestFault> {
    let mut slots = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(RequestFault::Syntax(httparse::Error::NewLine)),
        Err(httparse::Error::TooManyHeaders) => return Err(RequestFault::TooManyFields),
        Err(httparse::Error::Version) => return Err(version_fault(head)),
        Err(error) => return Err(RequestFault::Syntax(error)),
    }
    // A complete parse has all three; the fallbacks are refused below.
    let method = request.method.unwrap_or_default();
    let is_http10 = request.version == Some(0);
    let target = Target::parse(method, request.path.unwrap_or_default())?;

    fields
        .extend(request.headers.iter().map(|field| Field { name: field.name, value: field.value }));
    assemble(method, target, fields.as_slice(), (is_http10, None))
}

/// The head of a request that came as `line` and `fields`, none of it framed by HTTP/1: its body is
/// as long as Content-Length says, or as it turns out. `ended` says that there is none.
///
/// # Errors
/// What is wrong with it.
pub fn of_fields<'f>(
    line: Http2Line<'f>,
    fields: &'f [Field<'f>],
    ended: bool,
) -> Result<RequestHead<'f>, RequestFault> {
    let Http2Line { method, target, authority } = line;
    let target = Target::parse(method, target)?;
    if target.authority.is_some() {
        return Err(RequestFault::Target);
    }
    if authority.is_some_and(|authority| !fields::valid_host(authority.as_bytes())) {
        return Err(RequestFault::HostInvalid);
    }
    let named = fields.iter().find(|field| field.name.eq_ignore_ascii_case("host"));
    if let (Some(authority), Some(host)) = (authority, named)
        && !host.value.eq_ignore_ascii_case(authority.as_bytes())
    {
        // Two names for one request would be routed by one and served by the other.
        return Err(RequestFault::HostInvalid);
    }
    let mut head = assemble(method, target, fields, (false, authority))?;
    head.body = match head.body {
        _ if ended => Body::Done,
        Body::Done if !had_length(fields) => Body::chunked(),
        body => body,
    };
    Ok(head)
}

/// What HTTP/2 has in place of a request line (RFC 9113 section 8.3.1).
#[derive(Debug, Clone, Copy)]
pub struct Http2Line<'b> {
    /// `:method`.
    pub method: &'b str,
    /// `:path`.
    pub target: &'b str,
    /// `:authority`.
    pub authority: Option<&'b str>,
}

/// Whether a length was stated.
#[must_use]
pub fn had_length(fields: &[Field<'_>]) -> bool {
    fields.iter().any(|field| field.name.eq_ignore_ascii_case("content-length"))
}

/// The head that the parts of a request make. A host that is known needs no field.
#[inline]
fn assemble<'f>(
    method: &'f str,
    target: Target<'f>,
    fields: &'f [Field<'f>],
    (is_http10, known_host): (bool, Option<&'f str>),
) -> Result<RequestHead<'f>, RequestFault> {
    let mut dropped = 0;
    let mut forwarding = 0;
    let mut gathered = Gathered::default();
    let counts_forwards = matches!(method, "TRACE" | "OPTIONS");
    for (index, field) in fields.iter().enumerate() {
        let known = match fields::known(field.name) {
            Known::MaxForwards if !counts_forwards => Known::Other,
            known => known,
        };
        gather(&mut gathered, known, field, is_http10)?;
        match known {
            Known::Other | Known::Date | Known::Trailer => {}
            // A client of HTTP/1.0 does not wait (RFC 9110 section 10.1.1).
            Known::Expect if !is_http10 => {}
            Known::XForwardedClientCert
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedProto
            | Known::XRequestId
            | Known::Forwarded => forwarding |= 1 << index,
            _ => dropped |= 1 << index,
        }
    }
    if gathered.named {
        dropped |= named_by_connection(fields);
    }
    let body = body(method, &gathered)?;
    let may_upgrade =
        gathered.upgrade_named && !gathered.upgrade_refused && !is_http10 && body.is_done();
    Ok(RequestHead {
        method,
        path: target.path,
        query: target.query,
        host: match known_host {
            Some(host) => host,
            None => host(target.authority, gathered.host, is_http10)?,
        },
        is_http10,
        dropped,
        forwarding,
        body,
        keep_alive: !gathered.close && (!is_http10 || gathered.keep_alive),
        max_forwards: gathered.max_forwards,
        upgrade: gathered.upgrade.filter(|_| may_upgrade),
        wants_trailers: gathered.wants_trailers,
        fields,
    })
}

fn body(method: &str, gathered: &Gathered<'_>) -> Result<Body, RequestFault> {
    let body = match (gathered.chunked, gathered.length) {
        (true, Some(_)) => return Err(RequestFault::TwoFramings),
        (true, None) => Body::chunked(),
        (false, length) => Body::of_length(length.unwrap_or(0)),
    };
    if method == "TRACE" && !body.is_done() {
        return Err(RequestFault::TraceBody);
    }
    Ok(body)
}

/// Tells a version that is merely not ours from a line that is no request line.
fn version_fault(head: &[u8]) -> RequestFault {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let version = words.nth(2).filter(|_| words.next().is_none());
    match version {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            RequestFault::Version
        }
        _ => RequestFault::Syntax(httparse::Error::Version),
    }
}

fn gather<'b>(
    gathered: &mut Gathered<'b>,
    known: Known,
    field: &Field<'b>,
    is_http10: bool,
) -> Result<(), RequestFault> {
    match known {
        Known::Host if gathered.host.replace(field.value).is_some() => {
            return Err(RequestFault::HostRepeated);
        }
        Known::ContentLength => {
            let length = fields::content_length(field.value).ok_or(RequestFault::ContentLength)?;
            // Repeating the same length is legal and does nothing but confuse (RFC 9110 8.6).
            if gathered.length.replace(length).is_some() {
                return Err(RequestFault::ContentLength);
            }
        }
        Known::TransferEncoding => {
            if is_http10 || gathered.chunked {
                return Err(RequestFault::TransferEncoding);
            }
            if !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(coding_fault(field.value));
            }
            gathered.chunked = true;
        }
        Known::Connection => {
            for option in fields::list(field.value) {
                match option {
                    _ if option.eq_ignore_ascii_case(b"close") => gathered.close = true,
                    _ if option.eq_ignore_ascii_case(b"keep-alive") => gathered.keep_alive = true,
                    _ if option.eq_ignore_ascii_case(b"upgrade") => gathered.upgrade_named = true,
                    _ => gathered.named = true,
                }
            }
        }
        Known::Upgrade => {
            gathered.upgrade_refused |= fields::list(field.value).any(carries_requests);
            gathered.upgrade_refused |= gathered.upgrade.replace(field.value).is_some();
        }
        Known::Expect if !is_http10 && !field.value.eq_ignore_ascii_case(b"100-continue") => {
            return Err(RequestFault::Expectation);
        }
        Known::MaxForwards => {
            let count = fields::content_length(field.value).ok_or(RequestFault::MaxForwards)?;
            if gathered.max_forwards.replace(count).is_some() {
                return Err(RequestFault::MaxForwards);
            }
        }
        Known::Te => {
            let trailers = |coding: &[u8]| coding.eq_ignore_ascii_case(b"trailers");
            gathered.wants_trailers |= fields::list(field.value).any(trailers);
        }
        _ => {}
    }
    Ok(())
}

/// Whether an upgrade to `protocol` would carry requests past every rule of this proxy.
fn carries_requests(protocol: &[u8]) -> bool {
    let begins = |name: &[u8]| {
        protocol.get(..name.len()).is_some_and(|front| front.eq_ignore_ascii_case(name))
    };
    begins(b"h2") || begins(b"http") || begins(b"tls")
}

/// Anything but the one word `chunked`: a list that misuses it is malformed, a coding that we do
/// not speak is not implemented (RFC 9112 section 6.1).
fn coding_fault(value: &[u8]) -> RequestFault {
    let mut last_is_chunked = false;
    let mut chunked = 0;
    for coding in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        if coding.is_empty() || !coding.iter().copied().all(fields::is_token) {
            return RequestFault::TransferEncoding;
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_is_chunked);
    }
    let well_formed = last_is_chunked && chunked == 1;
    if well_formed { RequestFault::Coding } else { RequestFault::TransferEncoding }
}

/// Fields that a `Connection` field names: they are for this hop alone.
#[must_use]
pub fn named_by_connection(fields: &[Field<'_>]) -> FieldSet {
    let mut named = 0;
    let connection = |field: &&Field<'_>| fields::known(field.name) == Known::Connection;
    for option in fields.iter().filter(connection).flat_map(|field| fields::list(field.value)) {
        for (index, field) in fields.iter().enumerate() {
            if field.name.as_bytes().eq_ignore_ascii_case(option) {
                named |= 1 << index;
            }
        }
    }
    named
}

fn host<'b>(
    authority: Option<&'b str>,
    field: Option<&'b [u8]>,
    is_http10: bool,
) -> Result<&'b str, RequestFault> {
    let field = match field {
        Some(value) if fields::valid_host(value) => {
            Some(std::str::from_utf8(value).map_err(|_| RequestFault::HostInvalid)?)
        }
        Some(_) => return Err(RequestFault::HostInvalid),
        None if is_http10 => None,
        None => return Err(RequestFault::HostMissing),
    };
    // An absolute target overrides the field (RFC 9112 section 3.2.2).
    Ok(authority.or(field).unwrap_or_default())
}

#[derive(Clone, Copy)]
struct Target<'b> {
    path: &'b str,
    query: Option<&'b str>,
    authority: Option<&'b str>,
}

impl<'b> Target<'b> {
    fn parse(method: &str, target: &'b str) -> Result<Self, RequestFault> {
        if method == "CONNECT" {
            return Err(RequestFault::Connect);
        }
        if !target.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#') {
            return Err(RequestFault::Target);
        }
        if target == "*" {
            return match method {
                "OPTIONS" => Ok(Self { path: "*", query: None, authority: None }),
                _ => Err(RequestFault::Target),
            };
        }
        let (authority, rest) = match target.as_bytes() {
            [b'/', ..] => (None, target),
            _ => Self::absolute(target)?,
        };
        if method == "OPTIONS" && rest.is_empty() {
            // The whole server, asked for through a proxy (RFC 9112 section 3.2.4).
            return Ok(Self { path: "*", query: None, authority });
        }
        let (path, query) = match memchr::memchr(b'?', rest.as_bytes()) {
            Some(mark) => (&rest[..mark], Some(&rest[mark + 1..])),
            None => (rest, None),
        };
        Ok(Self { path: if path.is_empty() { "/" } else { path }, query, authority })
    }

    fn absolute(target: &'b str) -> Result<(Option<&'b str>, &'b str), RequestFault> {
        let (scheme, rest) = target.split_once("://").ok_or(RequestFault::Target)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(RequestFault::Target);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if !fields::valid_host(authority.as_bytes()) {
            return Err(RequestFault::Target);
        }
        Ok((Some(authority), rest))
    }
}
