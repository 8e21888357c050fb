//! HTTP/2 by h2, polled by hand: as many requests at once as there are streams.
//!
//! ```text
//! begin ──▶ Link ──▶ last request, GOAWAY ──▶ leaving ──▶ no stream left: closed
//!             ▲                                 a new link takes the next request
//!             └── opened by the first request that finds none
//! ```
//! No runtime: h2's wakers only note who is to be polled, see [`Ready`].
//!
//! # Invariants
//! - A stream has at most one request, on whichever link. The streams of all links together are
//!   never more than `--streams`.
//! - A request that a link refused before it was sent goes to a new link; any other error is final.

use std::{
    borrow::Cow,
    future::Future,
    io::{self, ErrorKind, Read, Write},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::HeaderMap;

use super::{
    connection::{Answer, Done, describe},
    transport::{Shared, Transport},
    wanted::{Encoded, Exchange},
};
use crate::{
    limits::{
        HEAD_BYTES_MAX, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES,
        HTTP2_STREAM_WINDOW_BYTES, HTTP2_STREAMS_MAX,
    },
    wire::{Ready, Wire},
};

/// The number of a link's own task on its list; streams have their index.
const LINK: u32 = u32::MAX;

/// One connection of the load: the link that takes requests, and those that take none any more.
#[derive(Debug)]
pub(super) struct Http2 {
    streams: u32,
    link: Option<Link>,
    leaving: Vec<Link>,
}

/// One connection of TCP.
#[derive(Debug)]
struct Link {
    transport: Transport,
    wire: Wire,
    h2: client::Connection<Wire, Bytes>,
    /// One for each stream: h2 keeps a stream that waits for the peer's limit in the sender.
    senders: Vec<SendRequest<Bytes>>,
    streams: Vec<Stream>,
    ready: Ready,
    wakers: Vec<Waker>,
    waker: Waker,
    /// Requests sent on it.
    sent: u32,
    in_flight: u32,
    /// Why it takes no more bytes; its streams have heard of it.
    ended: bool,
}

/// What a stream of a link waits for.
#[derive(Debug)]
enum Stream {
    Idle,
    Head(ResponseFuture),
    Body { body: RecvStream, answer: Answer },
}

impl Http2 {
    pub(super) fn new(streams: u32) -> Self {
        Self { streams, link: None, leaving: Vec::new() }
    }

    pub(super) fn open_early(&mut self, shared: &mut Shared<'_>, token: u64) -> io::Result<()> {
        let transport = Transport::open_early(shared, token)?;
        let mut link = Link::new(transport, self.streams)?;
        link.settle(shared, &mut Vec::new())?;
        self.link = Some(link);
        Ok(())
    }

    /// Hands a request to h2; `push` sends it.
    pub(super) fn begin(
        &mut self,
        shared: &mut Shared<'_>,
        token: u64,
        stream: u32,
        number: u64,
    ) -> io::Result<()> {
        let most = shared.wanted.requests_per_connection.unwrap_or(u32::MAX);
        let Exchange::Http2 { requests, .. } = &shared.wanted.exchange else {
            return Err(ErrorKind::Unsupported.into());
        };
        let request = &requests[(number % requests.len() as u64) as usize];
        if let Some(link) = &mut self.link {
            if link.sent < most && link.send(stream, request).is_ok() {
                return Ok(());
            }
            self.leaving.extend(self.link.take());
        }
        let transport = Transport::connect(shared, token)?;
        let mut link = Link::new(transport, self.streams)?;
        let sent = link.send(stream, request).map_err(io::Error::other);
        self.link = Some(link);
        sent
    }

    pub(super) fn drive(&mut self, shared: &mut Shared<'_>, hung_up: bool, done: &mut Vec<Done>) {
        for link in self.leaving.iter_mut().chain(&mut self.link) {
            if let Err(error) = link.turn(shared, hung_up, done) {
                link.fail(&describe(&error), done);
            }
        }
        self.part();
    }

    /// Lets go of the links that have ended, and of those that were to end with their last stream.
    fn part(&mut self) {
        self.leaving.retain(|link| link.in_flight > 0 && !link.ended);
        self.link.take_if(|link| link.ended);
    }

    pub(super) fn push(&mut self, shared: &mut Shared<'_>, done: &mut Vec<Done>) {
        if let Some(link) = &mut self.link {
            let pushed = link.transport.open(shared).and_then(|open| match open {
                true => link.settle(shared, done),
                false => Ok(()),
            });
            if let Err(error) = pushed {
                link.fail(&describe(&error), done);
            }
        }
        self.part();
    }

    pub(super) fn cancel(&mut self, stream: u32) {
        for link in self.leaving.iter_mut().chain(&mut self.link) {
            // Dropped, h2 resets the stream.
            if !matches!(link.streams[stream as usize], Stream::Idle) {
                link.streams[stream as usize] = Stream::Idle;
                link.in_flight -= 1;
            }
        }
    }
}

impl Link {
    fn new(transport: Transport, streams: u32) -> io::Result<Self> {
        let wire = Wire::default();
        let mut builder = client::Builder::new();
        builder
            .initial_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .initial_max_send_streams(streams as usize)
            .enable_push(false);
        // The preface goes into memory: there is nothing to wait for.
        let opening = pin!(builder.handshake::<_, Bytes>(wire.clone()));
        let Poll::Ready(opened) = opening.poll(&mut Context::from_waker(Waker::noop())) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let (sender, h2) = opened.map_err(io::Error::other)?;
        let ready = Ready::default();
        Ok(Self {
            transport,
            wire,
            h2,
            senders: vec![sender; streams as usize],
            streams: (0..streams).map(|_| Stream::Idle).collect(),
            wakers: (0..streams).map(|number| ready.waker(number)).collect(),
            waker: ready.waker(LINK),
            ready,
            sent: 0,
            in_flight: 0,
            ended: false,
        })
    }

    fn send(&mut self, stream: u32, request: &Encoded) -> Result<(), h2::Error> {
        let index = stream as usize;
        let sender = &mut self.senders[index];
        // Only to let go of the stream that was last sent; an error comes again below.
        let _ = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        let ends = request.body.is_empty();
        let (head, mut body) = sender.send_request(request.head.clone(), ends)?;
        if !ends {
            body.send_data(request.body.clone(), true)?;
        }
        self.streams[index] = Stream::Head(head);
        self.wakers[index].wake_by_ref();
        self.sent += 1;
        self.in_flight += 1;
        Ok(())
    }

    /// Reads, answers and writes as far as the socket lets it.
    fn turn(
        &mut self,
        shared: &mut Shared<'_>,
        hung_up: bool,
        done: &mut Vec<Done>,
    ) -> io::Result<()> {
        if !self.transport.open(shared)? {
            return Ok(());
        }
        loop {
            let drained = match self.transport.read(&mut shared.room) {
                Ok(0) => {
                    self.wire.end();
                    true
                }
                Ok(got) => {
                    self.wire.feed(&shared.room[..got]);
                    // See `read` of `serial`.
                    got < shared.room.len() && self.transport.reads_to_the_end() && !hung_up
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.settle(shared, done)?;
            if drained || self.ended {
                return Ok(());
            }
        }
    }

    /// Polls whoever asked for it until nobody does, and sends what they wrote.
    fn settle(&mut self, shared: &Shared<'_>, done: &mut Vec<Done>) -> io::Result<()> {
        let mut woken = Vec::new();
        loop {
            if !self.ended {
                match Pin::new(&mut self.h2).poll(&mut Context::from_waker(&self.waker)) {
                    Poll::Ready(_) => self.ended = true,
                    Poll::Pending => {}
                }
            }
            let was_full = self.wire.is_full();
            let transport = &mut self.transport;
            self.wire.send_with(|bytes| transport.write(bytes))?;
            woken.clear();
            self.ready.take(&mut woken);
            let nothing = woken.is_empty() && (!was_full || self.wire.is_full());
            if nothing {
                break;
            }
            for &number in woken.iter().filter(|&&number| number != LINK) {
                self.poll_stream(number, shared.wanted.exchange.is_grpc(), done);
            }
        }
        if self.ended && self.in_flight > 0 {
            self.fail("closed before the answer", done);
        }
        Ok(())
    }

    fn poll_stream(&mut self, number: u32, is_grpc: bool, done: &mut Vec<Done>) {
        let stream = &mut self.streams[number as usize];
        if matches!(stream, Stream::Idle) {
            return;
        }
        let mut context = Context::from_waker(&self.wakers[number as usize]);
        if let Poll::Ready(result) = stream.poll(&mut context, is_grpc) {
            *stream = Stream::Idle;
            self.in_flight -= 1;
            let result = result.map_err(|error| words(&error));
            done.push(Done { stream: number, result });
        }
    }

    /// Every request on the link has failed, and the link with them.
    fn fail(&mut self, why: &str, done: &mut Vec<Done>) {
        self.ended = true;
        self.in_flight = 0;
        for (number, stream) in self.streams.iter_mut().enumerate() {
            if !matches!(stream, Stream::Idle) {
                *stream = Stream::Idle;
                let result = Err(Cow::Owned(why.to_owned()));
                done.push(Done { stream: number as u32, result });
            }
        }
    }
}

impl Stream {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        is_grpc: bool,
    ) -> Poll<Result<Answer, h2::Error>> {
        if let Self::Head(head) = self {
            let response = match Pin::new(head).poll(context) {
                Poll::Ready(response) => response?,
                Poll::Pending => return Poll::Pending,
            };
            let status = Answer::Status(response.status().as_u16());
            // A response of trailers only has the call's status in its head.
            let answer = if is_grpc && status.is_good() {
                grpc_status(response.headers()).unwrap_or(Answer::NoGrpcStatus)
            } else {
                status
            };
            *self = Self::Body { body: response.into_body(), answer };
        }
        let Self::Body { body, answer } = self else { return Poll::Pending };
        while let Some(data) = match body.poll_data(context) {
            Poll::Ready(data) => data.transpose()?,
            Poll::Pending => return Poll::Pending,
        } {
            body.flow_control().release_capacity(data.len())?;
        }
        match body.poll_trailers(context) {
            Poll::Ready(trailers) => {
                let status = trailers?.as_ref().and_then(grpc_status);
                Poll::Ready(Ok(match (*answer, status) {
                    (Answer::NoGrpcStatus, Some(status)) => status,
                    (answer, _) => answer,
                }))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<Answer> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok().map(Answer::Grpc)
}

/// What went wrong, in the terms of RFC 9113.
fn words(error: &h2::Error) -> Cow<'static, str> {
    if let Some(error) = error.get_io() {
        return describe(error);
    }
    let reason = error.reason();
    let named = reason.map_or_else(|| error.to_string(), |reason| format!("{reason:?}"));
    Cow::Owned(match (error.is_go_away(), error.is_remote()) {
        (true, true) => format!("GOAWAY {named}"),
        (false, true) => format!("RST_STREAM {named}"),
        (_, false) => format!("not HTTP/2: {named}"),
    })
}

const _: () = assert!(HTTP2_STREAMS_MAX < LINK);
