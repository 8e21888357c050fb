//! What a load asks for and how often, as the options or another module put it together.
//!
//! # Invariants
//! - There is at least one request, and each is encoded once, before the load begins.

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    arrivals::Arrivals,
    reply::Reply,
    tls::{ClientTls, Terms},
};
use crate::error::Error;

/// A request in no protocol's form.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) host: String,
    /// Path and query; begins with `/`.
    pub(crate) path: String,
    /// Further fields, as `Name: value`.
    pub(crate) fields: Vec<String>,
    /// Length of the body. POST if it is not 0, else GET.
    pub(crate) body_bytes: u64,
}

impl Request {
    /// A GET without further fields.
    pub(crate) fn get(host: impl Into<String>, path: impl Into<String>) -> Self {
        Self { host: host.into(), path: path.into(), fields: Vec::new(), body_bytes: 0 }
    }

    fn method(&self) -> &'static str {
        if self.body_bytes > 0 { "POST" } else { "GET" }
    }
}

/// A request of HTTP/2.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(super) head: http::Request<()>,
    pub(super) body: Bytes,
}

/// What is sent and what comes back.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// Encoded requests, sent in turn.
    Http1(Vec<Vec<u8>>),
    /// Requests of HTTP/2 or gRPC, sent in turn on so many streams of each connection.
    Http2 { requests: Vec<Encoded>, streams: u32, is_grpc: bool },
    /// A length, answered with so many bytes.
    Tcp { request: [u8; 8], bytes: u64 },
}

impl Exchange {
    /// HTTP/1.1: `requests` in turn, over and over.
    pub(crate) fn http1(requests: &[Request]) -> Self {
        Self::Http1(requests.iter().map(encode_http1).collect())
    }

    /// HTTP/2: `requests` in turn, at most `streams` at once on each connection.
    ///
    /// # Errors
    /// When a host, path or field is none.
    pub(crate) fn http2(requests: &[Request], streams: u32) -> Result<Self, Error> {
        let encode = |request| encode_http2(request, false);
        let requests = requests.iter().map(encode).collect::<Result<_, _>>()?;
        Ok(Self::Http2 { requests, streams, is_grpc: false })
    }

    /// Unary calls of gRPC: `path` is `/package.Service/Method`, `body_bytes` the message's length.
    ///
    /// # Errors
    /// When a host, path or field is none.
    pub(crate) fn grpc(requests: &[Request], streams: u32) -> Result<Self, Error> {
        let encode = |request| encode_http2(request, true);
        let requests = requests.iter().map(encode).collect::<Result<_, _>>()?;
        Ok(Self::Http2 { requests, streams, is_grpc: true })
    }

    /// Bodies of a raw TCP origin.
    pub(crate) fn tcp(bytes: u64) -> Self {
        Self::Tcp { request: bytes.to_be_bytes(), bytes }
    }

    /// The bytes of the request with this number; none for HTTP/2, which has no such form.
    pub(super) fn request(&self, number: u64) -> &[u8] {
        match self {
            Self::Http1(requests) => &requests[(number % requests.len() as u64) as usize],
            Self::Tcp { request, .. } => request,
            Self::Http2 { .. } => &[],
        }
    }

    /// What is to be read after `request`.
    pub(super) fn reply(&self) -> Reply {
        match self {
            Self::Http1(_) | Self::Http2 { .. } => Reply::http(),
            Self::Tcp { bytes, .. } => Reply::raw(*bytes),
        }
    }

    /// Requests that a connection carries at once.
    pub(super) fn streams(&self) -> u32 {
        match self {
            Self::Http1(_) | Self::Tcp { .. } => 1,
            Self::Http2 { streams, .. } => *streams,
        }
    }

    /// Its name by RFC 7301.
    fn alpn(&self) -> Option<&'static [u8]> {
        match self {
            Self::Http1(_) => Some(b"http/1.1"),
            Self::Http2 { .. } => Some(b"h2"),
            Self::Tcp { .. } => None,
        }
    }

    pub(super) fn is_grpc(&self) -> bool {
        matches!(self, Self::Http2 { is_grpc: true, .. })
    }
}

fn encode_http2(request: &Request, is_grpc: bool) -> Result<Encoded, Error> {
    let Request { host, path, fields, body_bytes } = request;
    let method = if is_grpc { "POST" } else { request.method() };
    let mut head = http::Request::builder()
        .version(http::Version::HTTP_2)
        .method(method)
        .uri(format!("http://{host}{path}"));
    for field in fields {
        let (name, value) = field.split_once(':').unwrap_or((field, ""));
        head = head.header(name.trim(), value.trim());
    }
    let mut body = BytesMut::new();
    if is_grpc {
        head = head.header("content-type", "application/grpc").header("te", "trailers");
        // Not compressed, and the message's length.
        body.put_u8(0);
        body.put_u32(*body_bytes as u32);
    } else if *body_bytes > 0 {
        head = head.header("content-length", *body_bytes);
    }
    body.put_bytes(b'x', *body_bytes as usize);
    let head = head
        .body(())
        .map_err(|error| Error::Usage(format!("{host}{path} cannot be asked for: {error}")))?;
    Ok(Encoded { head, body: body.freeze() })
}

fn encode_http1(request: &Request) -> Vec<u8> {
    let Request { host, path, fields, body_bytes } = request;
    let mut head = format!("{} {path} HTTP/1.1\r\nHost: {host}\r\n", request.method());
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    if *body_bytes > 0 {
        head.push_str(&format!("Content-Length: {body_bytes}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + *body_bytes as usize, b'x');
    bytes
}

/// A load, but for its pace.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) target: SocketAddr,
    pub(crate) exchange: Exchange,
    pub(crate) tls: Option<ClientTls>,
    pub(crate) connections: u32,
    /// Requests after which a connection is closed and another opened.
    pub(crate) requests_per_connection: Option<u32>,
    /// Load before the time that counts.
    pub(crate) warm_up: Duration,
    /// The time that counts.
    pub(crate) duration: Duration,
}

impl Wanted {
    /// One connection without TLS that is kept, for a second that counts from the start.
    pub(crate) fn new(target: SocketAddr, exchange: Exchange) -> Self {
        Self {
            target,
            exchange,
            tls: None,
            connections: 1,
            requests_per_connection: None,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
        }
    }

    /// The same over TLS. The protocol follows from the exchange and is offered by ALPN.
    ///
    /// # Errors
    /// When the terms cannot be met by this side alone.
    pub(crate) fn with_tls(mut self, terms: &Terms) -> Result<Self, Error> {
        self.tls = Some(ClientTls::new(terms, self.target, self.exchange.alpn())?);
        if let Exchange::Http2 { requests, .. } = &mut self.exchange {
            for Encoded { head, .. } in requests {
                let mut parts = head.uri().clone().into_parts();
                parts.scheme = Some(http::uri::Scheme::HTTPS);
                *head.uri_mut() = http::Uri::from_parts(parts)
                    .map_err(|error| Error::Usage(format!("not a host: {error}")))?;
            }
        }
        Ok(self)
    }

    pub(super) fn begin_ns(&self) -> u64 {
        self.warm_up.as_nanos() as u64
    }

    pub(super) fn end_ns(&self) -> u64 {
        (self.warm_up + self.duration).as_nanos() as u64
    }
}

/// When requests are begun.
#[derive(Debug)]
pub(crate) enum Pace {
    /// At times that stand beforehand.
    Open(Arrivals),
    /// When a connection is free.
    Closed,
}

impl Pace {
    pub(super) fn next(&mut self, end_ns: u64) -> Option<u64> {
        match self {
            Self::Open(arrivals) => arrivals.next().filter(|&at_ns| at_ns < end_ns),
            Self::Closed => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}
