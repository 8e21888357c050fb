//! A connection of the load: one request at a time, or the streams of HTTP/2.
//!
//! ```text
//! engine ──begin, drive──▶ Serial | Http2 ──▶ Transport ──▶ socket
//!    ▲                            │
//!    └───────── Done ◀────────────┘
//! ```
//!
//! # Invariants
//! - Each request that was begun comes back as one [`Done`], or is taken back with `cancel`.
//! - A request is never sent twice.

use std::{borrow::Cow, fmt, io};

use super::{Exchange, Wanted, http2::Http2, serial::Serial, transport::Shared};

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With a status of HTTP; 200 for raw bytes.
    Status(u16),
    /// With a status of gRPC.
    Grpc(u32),
    /// A response to gRPC that does not say how the call went.
    NoGrpcStatus,
}

impl Answer {
    pub(super) fn is_good(self) -> bool {
        match self {
            Self::Status(status) => (200..300).contains(&status),
            Self::Grpc(status) => status == 0,
            Self::NoGrpcStatus => false,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(out, "status {status}"),
            Self::Grpc(status) => write!(out, "grpc-status {status}"),
            Self::NoGrpcStatus => write!(out, "no grpc-status"),
        }
    }
}

/// The end of a request.
#[derive(Debug)]
pub(super) struct Done {
    /// Which of the connection's streams it was on.
    pub(super) stream: u32,
    /// The answer, or why there is none.
    pub(super) result: Result<Answer, Cow<'static, str>>,
}

/// One connection, open or not.
#[derive(Debug)]
pub(super) enum Connection {
    Serial(Serial),
    Http2(Box<Http2>),
}

impl Connection {
    pub(super) fn new(wanted: &Wanted) -> Self {
        match &wanted.exchange {
            Exchange::Http1(_) | Exchange::Tcp { .. } => Self::Serial(Serial::new()),
            Exchange::Http2 { streams, .. } => Self::Http2(Box::new(Http2::new(*streams))),
        }
    }

    /// Opens it before the load begins, so that no request pays for it.
    pub(super) fn open_early(&mut self, shared: &mut Shared<'_>, token: u64) -> io::Result<()> {
        match self {
            Self::Serial(serial) => serial.open_early(shared, token),
            Self::Http2(http2) => http2.open_early(shared, token),
        }
    }

    /// Begins the request with this number on a stream that has none. Whatever it comes to is told
    /// by `drive` or `push`, but for an error at once.
    pub(super) fn begin(
        &mut self,
        shared: &mut Shared<'_>,
        token: u64,
        stream: u32,
        number: u64,
    ) -> io::Result<()> {
        match self {
            Self::Serial(serial) => serial.begin(shared, token, number),
            Self::Http2(http2) => http2.begin(shared, token, stream, number),
        }
    }

    /// The socket is ready: goes on as far as it lets it. `hung_up` tells that the target has sent
    /// its last byte.
    pub(super) fn drive(&mut self, shared: &mut Shared<'_>, hung_up: bool, done: &mut Vec<Done>) {
        match self {
            Self::Serial(serial) => {
                let result = serial.drive(shared, hung_up).map_err(|error| describe(&error));
                if result.is_err() {
                    serial.close();
                }
                if let Some(result) = result.transpose() {
                    done.push(Done { stream: 0, result });
                }
            }
            Self::Http2(http2) => http2.drive(shared, hung_up, done),
        }
    }

    /// Sends what requests begun since the last call have left to be sent together.
    pub(super) fn push(&mut self, shared: &mut Shared<'_>, done: &mut Vec<Done>) {
        match self {
            Self::Serial(_) => {}
            Self::Http2(http2) => http2.push(shared, done),
        }
    }

    /// Whether `begin` leaves something for `push`.
    pub(super) fn gathers(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Takes a request back.
    pub(super) fn cancel(&mut self, stream: u32) {
        match self {
            Self::Serial(serial) => serial.close(),
            Self::Http2(http2) => http2.cancel(stream),
        }
    }
}

/// The kind of an error in words that are alike for alike errors.
pub(super) fn describe(error: &io::Error) -> Cow<'static, str> {
    if let Some(inner) = error.get_ref() {
        if inner.is::<rustls::Error>() {
            return Cow::Owned(format!("TLS: {inner}"));
        }
        if error.kind() == io::ErrorKind::Other {
            return Cow::Owned(inner.to_string());
        }
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
            Cow::Borrowed("closed before the answer")
        }
        io::ErrorKind::InvalidData => Cow::Borrowed("not the answer to the request"),
        kind => Cow::Owned(kind.to_string()),
    }
}
