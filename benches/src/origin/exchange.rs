//! One request of HTTP/2 or gRPC and its answer.
//!
//! ```text
//! Receiving ──▶ [Pausing] ──▶ Sending ──▶ done
//! ```
//!
//! # Invariants
//! - Nothing is kept of a request's body but its length.
//! - A body is not copied: it is parts of one static block, as many as flow control lets through.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName},
};

use super::{
    answer::{self, Body, Plan, Variant},
    head::Head,
};
use crate::{
    body::Framing,
    limits::{BODY_BYTES_MAX, HEADERS_MAX, READY_BODY_BYTES_MAX},
    pattern,
};

// Made once: a name that is given as text is looked up for every answer.
const X_VARIANT: HeaderName = HeaderName::from_static("x-variant");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Bytes in front of a message of gRPC: whether it is compressed, and its length.
const GRPC_PREFIX_BYTES: u64 = 5;
/// `UNAVAILABLE`: what a failure on purpose is in gRPC.
const GRPC_UNAVAILABLE: &str = "14";

/// One exchange.
pub(super) struct Exchange {
    respond: SendResponse<Bytes>,
    reply: Reply,
    stage: Stage,
}

/// What is to be answered.
enum Reply {
    Http(Plan),
    /// With a message of this length, or of the request's message's.
    Grpc {
        message_bytes: Option<u64>,
        fails: bool,
        pause: Duration,
    },
}

enum Stage {
    Receiving { body: RecvStream, bytes: u64 },
    Pausing { bytes: u64 },
    Paused { bytes: u64 },
    Sending { stream: SendStream<Bytes>, sent: u64, bytes: u64, trailers: Option<HeaderMap> },
}

/// What an exchange has come to.
pub(super) enum Step {
    /// It waits to be woken.
    Waits,
    /// It waits for its pause to be ended.
    Pauses(Duration),
    /// It is over, well or not.
    Done,
}

impl Exchange {
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        variant: &Variant,
    ) -> Self {
        let (head, body) = request.into_parts();
        let kind = head.headers.get(CONTENT_TYPE);
        let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let reply = if is_grpc {
            let (fails, pause) = variant.draw();
            Reply::Grpc { message_bytes: message_bytes(head.uri.path()), fails, pause }
        } else {
            Reply::Http(plan(&head, variant))
        };
        Self { respond, reply, stage: Stage::Receiving { body, bytes: 0 } }
    }

    /// Goes on as far as it can.
    pub(super) fn step(&mut self, context: &mut Context<'_>, variant: &Variant) -> Step {
        // A client that resets its stream has no use for an answer.
        self.try_step(context, variant).unwrap_or(Step::Done)
    }

    pub(super) fn end_pause(&mut self) {
        if let Stage::Pausing { bytes } = self.stage {
            self.stage = Stage::Paused { bytes };
        }
    }

    fn try_step(
        &mut self,
        context: &mut Context<'_>,
        variant: &Variant,
    ) -> Result<Step, h2::Error> {
        loop {
            match &mut self.stage {
                Stage::Receiving { body, bytes } => {
                    match receive(body, bytes, context) {
                        Poll::Ready(result) => result?,
                        Poll::Pending => return Ok(Step::Waits),
                    }
                    let bytes = *bytes;
                    let pause = match &self.reply {
                        Reply::Http(plan) => plan.pause,
                        Reply::Grpc { pause, .. } => *pause,
                    };
                    if !pause.is_zero() {
                        self.stage = Stage::Pausing { bytes };
                        return Ok(Step::Pauses(pause));
                    }
                    self.stage = Stage::Paused { bytes };
                }
                Stage::Pausing { .. } => return Ok(Step::Waits),
                Stage::Paused { bytes } => {
                    let received = *bytes;
                    match self.respond(received, variant)? {
                        Some(stage) => self.stage = stage,
                        None => return Ok(Step::Done),
                    }
                }
                Stage::Sending { stream, sent, bytes, trailers } => {
                    match send(stream, sent, *bytes, trailers, context) {
                        Poll::Ready(result) => return result.map(|()| Step::Done),
                        Poll::Pending => return Ok(Step::Waits),
                    }
                }
            }
        }
    }

    /// Sends the head and, if it is small, the body. `None` if that was all.
    fn respond(&mut self, received: u64, variant: &Variant) -> Result<Option<Stage>, h2::Error> {
        match &self.reply {
            Reply::Http(plan) => {
                let parts = answer::parts(plan, variant, received);
                let bytes = match &parts.body {
                    Body::Text(text) => text.len() as u64,
                    Body::Pattern(bytes) => *bytes,
                };
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(parts.status).unwrap_or_default();
                let fields = response.headers_mut();
                fields.reserve(3);
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
                fields.insert(X_VARIANT, variant.field());
                if parts.has_length {
                    fields.insert(CONTENT_LENGTH, bytes.into());
                }
                if parts.is_head_only || bytes == 0 && !parts.has_trailers {
                    self.respond.send_response(response, true)?;
                    return Ok(None);
                }
                let mut stream = self.respond.send_response(response, false)?;
                let mut trailers = HeaderMap::new();
                trailers.insert(answer::TRAILER, bytes.into());
                let trailers = parts.has_trailers.then_some(trailers);
                if let Body::Text(text) = parts.body {
                    stream.send_data(text, true)?;
                    return Ok(None);
                }
                Ok(Some(Stage::Sending { stream, sent: 0, bytes, trailers }))
            }
            Reply::Grpc { message_bytes, fails, .. } => {
                let mut response = Response::new(());
                let fields = response.headers_mut();
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                if *fails {
                    fields.insert(GRPC_STATUS, HeaderValue::from_static(GRPC_UNAVAILABLE));
                    self.respond.send_response(response, true)?;
                    return Ok(None);
                }
                let echoed = received.saturating_sub(GRPC_PREFIX_BYTES);
                let bytes = message_bytes.unwrap_or(echoed).min(u64::from(u32::MAX));
                let mut stream = self.respond.send_response(response, false)?;
                let mut trailers = HeaderMap::new();
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                let mut data =
                    BytesMut::with_capacity(READY_BODY_BYTES_MAX.min(bytes + 5) as usize);
                data.put_u8(0);
                data.put_u32(bytes as u32);
                if bytes + GRPC_PREFIX_BYTES <= READY_BODY_BYTES_MAX {
                    data.extend_from_slice(pattern::part(0, bytes));
                    stream.send_data(data.freeze(), false)?;
                    stream.send_trailers(trailers)?;
                    return Ok(None);
                }
                stream.send_data(data.freeze(), false)?;
                Ok(Some(Stage::Sending { stream, sent: 0, bytes, trailers: Some(trailers) }))
            }
        }
    }
}

/// The answer of HTTP/1.1 to the same request.
fn plan(head: &http::request::Parts, variant: &Variant) -> Plan {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut count = 0;
    // Only the echo has a use for them.
    if head.uri.path().starts_with("/echo") {
        let host = head.uri.authority().map(|host| ("host", host.as_str().as_bytes()));
        let others = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        for (field, (name, value)) in fields.iter_mut().zip(host.into_iter().chain(others)) {
            *field = httparse::Header { name, value };
            count += 1;
        }
    }
    let head = Head {
        method: head.method.as_str(),
        target: head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        minor: 1,
        protocol: "HTTP/2",
        framing: Framing::Length(0),
        keep_alive: true,
        expects_continue: false,
        fields: &fields[..count],
        length: 0,
    };
    answer::plan(&head, variant)
}

/// The length that a method named `BytesN` asks for.
fn message_bytes(path: &str) -> Option<u64> {
    let (_, method) = path.rsplit_once('/')?;
    method.strip_prefix("Bytes")?.parse().ok().filter(|&bytes| bytes <= BODY_BYTES_MAX)
}

/// Counts the body to its end.
fn receive(
    body: &mut RecvStream,
    bytes: &mut u64,
    context: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    while !body.is_end_stream() {
        match body.poll_data(context) {
            Poll::Ready(Some(data)) => {
                let length = data?.len();
                *bytes += length as u64;
                body.flow_control().release_capacity(length)?;
            }
            Poll::Ready(None) => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(()))
}

/// Sends the rest of a body of the pattern, as much as flow control lets through.
fn send(
    stream: &mut SendStream<Bytes>,
    sent: &mut u64,
    bytes: u64,
    trailers: &mut Option<HeaderMap>,
    context: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    loop {
        let mut part = pattern::part(*sent, bytes - *sent);
        // What is small may wait within h2.
        if bytes > READY_BODY_BYTES_MAX {
            stream.reserve_capacity(part.len());
            if stream.capacity() == 0 {
                match stream.poll_capacity(context) {
                    Poll::Ready(Some(capacity)) => drop(capacity?),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
            part = &part[..part.len().min(stream.capacity())];
        }
        *sent += part.len() as u64;
        let is_last = *sent == bytes;
        stream.send_data(Bytes::from_static(part), is_last && trailers.is_none())?;
        if is_last {
            if let Some(trailers) = trailers.take() {
                stream.send_trailers(trailers)?;
            }
            return Poll::Ready(Ok(()));
        }
    }
}
