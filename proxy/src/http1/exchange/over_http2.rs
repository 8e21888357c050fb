//! A request of HTTP/1.1 on a stream of an endpoint that speaks HTTP/2, and its response.
//!
//! # Invariants
//! - As for exchanges of HTTP/1.1: one final response or a broken connection, one outcome.
//! - A request is sent twice only if the endpoint did nothing with it, and what was sent of its
//!   body is still known.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http::response::Parts;
use ringway_router::{Field, HeaderEdits};
use ringway_stats::clock::now_ns;

use super::{Exchange, Flow, chunk_cause, client_gone};
use crate::http1::body::Body;
use crate::http1::compose::{self, Overflow, Persistence, Writer};
use crate::http1::connection::widen;
use crate::http1::fields::content_length;
use crate::http1::plan::Forward;
use crate::http1::request::Fields;
use crate::http1::response::ResponseHead;
use crate::http1::scan::{Scan, Scanner};
use crate::http2::body::{Pace, send_frame};
use crate::http2::client::{self, Lease};
use crate::http2::forward::{broken_cause, truncated};
use crate::http2::head::Composed;
use crate::http2::stream::Fault;
use crate::http2::translate;
use crate::http2::upload::{Sent, UploadFault};
use crate::io::deadlines::Expiry;
use crate::io::notify::Notify;
use crate::io::race::{self, Either};
use crate::io::socket::{Arrival, Socket};
use crate::limits::{HTTP2_REPEATS_MAX, TRAILER_BYTES_MAX};
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;
use crate::tls::handshake::Side;

/// What a chunk adds to its data.
const CHUNK_OVERHEAD: usize = 20;

/// A response that went over whole.
struct Done {
    status: u16,
    keep_alive: bool,
}

/// The body of a request on its way from a client to a stream.
struct Upload<'a> {
    down: &'a Socket,
    body: Body,
    /// The request has no body at all.
    bodiless: bool,
    /// What has come and not been taken; at the end what follows the request.
    block: Cell<Block>,
    done: Cell<bool>,
    stop: Cell<bool>,
    /// All of it has gone.
    whole: Notify,
    /// What has been sent, as long as it is little.
    sent: Option<Sent>,
}

/// What the endpoint says next.
enum Said {
    Interim(Parts),
    Final(Result<http::Response<RecvStream>, h2::Error>),
}

impl Exchange<'_> {
    /// Sends the request of `head` to a cluster of HTTP/2. `input` has what came behind it.
    pub(super) async fn forward_http2(
        &self,
        forward: Forward,
        head: Composed,
        input: Block,
    ) -> Flow {
        let worker = &self.connection.worker;
        let down = &self.connection.socket;
        let deadline_ns = self.deadline_ns(&forward);
        let idle = self.snapshot.running.table.rule(forward.rule).idle_timeout();
        let pace = Pace::new(down, &worker.deadlines, idle, deadline_ns);
        let secure = self.snapshot.running.credentials.cluster(forward.cluster).is_some();
        let mut upload = Upload::new(down, &forward, input);
        let request = match head.into_request(http::HeaderMap::new(), secure) {
            Ok(request) => request,
            Err(failure) => return self.fail(&forward, &failure, upload.rest()).await,
        };
        let bodiless = upload.bodiless;
        let mut repeats = 0;
        loop {
            let (snapshot, peer) = (&self.snapshot, &self.connection.peer);
            let leased = client::lease(worker, snapshot, forward.cluster, peer, deadline_ns);
            let lease = match leased.await {
                Ok(lease) => lease,
                Err(failure) => return self.fail(&forward, &failure, upload.rest()).await,
            };
            self.progress.attempts.set(self.progress.attempts.get() + 1);
            self.progress.endpoint.set(Some(lease.address()));
            self.progress.sent_ns.set(now_ns());
            let result = self.attempt(&forward, &lease, request.clone(), &mut upload, &pace).await;
            drop(lease);
            let failure = match result {
                Ok(done) => return self.finish_http2(&forward, &done, upload).await,
                Err(fault)
                    if fault.unanswered
                        && repeats < HTTP2_REPEATS_MAX
                        && (bodiless || upload.rewind()) =>
                {
                    worker.shard.retries.increment();
                    repeats += 1;
                    continue;
                }
                Err(fault) => fault,
            };
            let Fault { failure, started, .. } = failure;
            return self.give_up(&forward, failure, started, upload.rest()).await;
        }
    }

    async fn finish_http2(&self, forward: &Forward, done: &Done, upload: Upload<'_>) -> Flow {
        let cluster = Some(forward.cluster_series);
        self.record(forward.route_series, cluster, done.status, None);
        match upload.rest().filter(|_| done.keep_alive) {
            Some(rest) => Flow::Next(rest),
            None => {
                self.connection.socket.linger().await;
                Flow::Close
            }
        }
    }

    async fn attempt(
        &self,
        forward: &Forward,
        lease: &Lease,
        request: http::Request<()>,
        upload: &mut Upload<'_>,
        pace: &Pace,
    ) -> Result<Done, Fault> {
        let unsent = |error: &h2::Error| {
            lease.leaves();
            let failure = Failure::with(Cause::UpstreamClosed, error);
            Fault { failure, started: false, unanswered: true }
        };
        let mut sender = lease.sender();
        match pace.timely(0, poll_fn(|context| sender.poll_ready(context))).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(unsent(&error)),
            None => return Err(Fault::before(pace.stall_cause().into())),
        }
        let begun = sender.send_request(request, upload.bodiless);
        let (response, mut stream) = begun.map_err(|error| unsent(&error))?;
        let client_fault = Cell::new(None);
        let abandoned = Notify::default();
        let (done, stop, whole) = (&upload.done, &upload.stop, &upload.whole);
        let (body, block, down) = (&mut upload.body, &upload.block, upload.down);
        let kept = &mut upload.sent;
        let (sent, reply) = {
            let sending = pin!(async {
                let mut moving = Moving { body, block, down, stop, pace, kept };
                let sent = moving.run(&mut stream, done).await;
                if sent.is_ok() {
                    whole.notify();
                }
                sent
            });
            let answering =
                pin!(self.reply_http2(forward, response, pace, (done, whole), &abandoned));
            race::both(sending, answering, |first| match first {
                Either::Left(Err(UploadFault::Client(failure))) => {
                    client_fault.set(Some(failure.clone()));
                    abandoned.notify();
                }
                Either::Left(_) => {}
                Either::Right(Ok(done)) if done.status < 400 => {}
                Either::Right(_) => {
                    stop.set(true);
                    down.receiving().set(0, Expiry::Cancel);
                }
            })
            .await
        };
        if sent.is_err() {
            stream.send_reset(Reason::CANCEL);
        }
        match client_fault.take() {
            Some(failure) => reply.map_err(|fault| Fault { failure, unanswered: false, ..fault }),
            // It leaves, or refuses more.
            None => reply.inspect_err(|fault| {
                if fault.unanswered {
                    lease.leaves();
                }
            }),
        }
    }

    async fn reply_http2(
        &self,
        forward: &Forward,
        response: ResponseFuture,
        pace: &Pace,
        (uploaded, whole): (&Cell<bool>, &Notify),
        abandoned: &Notify,
    ) -> Result<Done, Fault> {
        let down = &self.connection.socket;
        let mut response = response;
        let mut gone = pin!(async {
            if !uploaded.get() {
                whole.wait().await;
            }
            client_gone(down).await;
        });
        let mut given_up = pin!(abandoned.wait());
        let received = loop {
            let said = pin!(pace.timely(1, next(&mut response)));
            let ended = pin!(race::first(gone.as_mut(), given_up.as_mut()));
            let said = match race::first(said, ended).await {
                Either::Left(said) => said,
                Either::Right(over) => {
                    if matches!(over, Either::Left(())) {
                        self.progress.client_gone.set(true);
                    }
                    return Err(Fault::before(Cause::ClientReset.into()));
                }
            };
            pace.moved();
            match said {
                Some(Said::Interim(parts)) if forward.is_http10 => drop(parts),
                Some(Said::Interim(parts)) => {
                    let edits = HeaderEdits::default();
                    let head = self.compose(&parts, Body::Done, Persistence::Open, &edits, None)?;
                    if down.send_until(head, pace.due_ns()).await.0.is_err() {
                        return Err(Fault::before(Cause::ClientReset.into()));
                    }
                }
                Some(Said::Final(Ok(received))) => break received,
                Some(Said::Final(Err(error))) => return Err(broken(&error)),
                None => return Err(Fault::before(pace.stall_cause().into())),
            }
        };
        let upstream_ns = now_ns().saturating_sub(self.progress.sent_ns.get());
        self.progress.upstream_ns.set(upstream_ns);
        let (parts, incoming) = received.into_parts();
        self.relay_http2(forward, &parts, incoming, pace, uploaded).await
    }

    async fn relay_http2(
        &self,
        forward: &Forward,
        parts: &Parts,
        incoming: RecvStream,
        pace: &Pace,
        uploaded: &Cell<bool>,
    ) -> Result<Done, Fault> {
        let status = parts.status.as_u16();
        let down = &self.connection.socket;
        let mut incoming = incoming;
        let ends = incoming.is_end_stream();
        let length = parts.headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|value| content_length(value.as_bytes()));
        let (body, claimed) = framing(forward, status, length, ends);
        let chunked = matches!(body, Body::Chunked(_));
        let keep_alive = forward.keep_alive
            && uploaded.get()
            && !self.connection.closing()
            && !matches!(body, Body::UntilClose);
        let persistence = Persistence::of(keep_alive, forward.is_http10);
        let rule = self.snapshot.running.table.rule(forward.rule);
        let head = self.compose(parts, body, persistence, rule.response_headers(), claimed)?;
        let started = |failure| Fault { failure, started: true, unanswered: false };
        let lost = |error| started(Failure::of_io(Side::Downstream, &error));
        down.send_until(head, pace.due_ns()).await.0.map_err(lost)?;
        if ends {
            return Ok(Done { status, keep_alive });
        }
        loop {
            let data = pace.timely(1, poll_fn(|context| incoming.poll_data(context))).await;
            let data = match data {
                Some(Some(Ok(data))) => data,
                Some(Some(Err(error))) => return Err(started(truncated(&error))),
                Some(None) => break,
                None => return Err(started(pace.stall_cause().into())),
            };
            pace.moved();
            if !data.is_empty() {
                let mut block = Block::with_room(data.len() + CHUNK_OVERHEAD);
                write_chunk(&data, chunked, &mut block);
                self.connection.worker.shard.copy_bytes.add(data.len() as u64);
                down.send_until(block, pace.due_ns()).await.0.map_err(lost)?;
                pace.moved();
            }
            // Fails only for a stream that is over.
            let _ = incoming.flow_control().release_capacity(data.len());
        }
        if chunked {
            let trailers = pace.timely(1, poll_fn(|context| incoming.poll_trailers(context))).await;
            let trailers = match trailers {
                Some(Ok(trailers)) => trailers,
                Some(Err(error)) => return Err(started(truncated(&error))),
                None => return Err(started(pace.stall_cause().into())),
            };
            let mut block = Block::small();
            if !translate::write_trailers(trailers.as_ref(), &mut block) {
                let detail = "the trailer section is too long";
                return Err(started(Failure::with(Cause::UpstreamMalformed, detail)));
            }
            down.send_until(block, pace.due_ns()).await.0.map_err(lost)?;
        }
        Ok(Done { status, keep_alive })
    }

    /// A head of the endpoint as the client gets it.
    fn compose(
        &self,
        parts: &Parts,
        body: Body,
        persistence: Persistence,
        edits: &HeaderEdits,
        claimed_length: Option<u64>,
    ) -> Result<Block, Fault> {
        let unfit = |what: &str| Fault::before(Failure::with(Cause::UpstreamMalformed, what));
        let mut fields = Fields::new_const();
        for (name, value) in &parts.headers {
            if name == http::header::CONTENT_LENGTH {
                continue;
            }
            let field = Field { name: name.as_str(), value: value.as_bytes() };
            fields.try_push(field).map_err(|_| unfit("too many fields"))?;
        }
        let head = ResponseHead {
            status: parts.status.as_u16(),
            reason: parts.status.canonical_reason().unwrap_or_default(),
            fields: fields.as_slice(),
            dropped: 0,
            body,
            claimed_length,
            keep_alive: true,
            dated: parts.headers.contains_key(http::header::DATE),
            upgrade: None,
        };
        let date = self.connection.worker.date.now();
        let mut out = Block::small();
        if compose::response(&head, &body, persistence, &date, edits, &mut out).is_err() {
            out = Block::large();
            compose::response(&head, &body, persistence, &date, edits, &mut out)
                .map_err(|Overflow| Fault::before(Cause::HeadGrowth.into()))?;
        }
        Ok(out)
    }
}

async fn next(response: &mut ResponseFuture) -> Said {
    poll_fn(|context| {
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
            return Poll::Ready(Said::Interim(interim.into_parts().0));
        }
        Pin::new(&mut *response).poll(context).map(Said::Final)
    })
    .await
}

/// How the body of a response goes to the client, and the length that its head states.
fn framing(forward: &Forward, status: u16, length: Option<u64>, ends: bool) -> (Body, Option<u64>) {
    match (length, ends) {
        _ if forward.to_head || matches!(status, 204 | 304) => (Body::Done, length),
        (Some(length), _) => (Body::of_length(length), Some(length)),
        (None, true) => (Body::Done, Some(0)),
        (None, false) if forward.is_http10 => (Body::UntilClose, None),
        (None, false) => (Body::chunked(), None),
    }
}

/// Why the endpoint did not answer.
fn broken(error: &h2::Error) -> Fault {
    let unanswered = error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR));
    let failure = Failure::with(broken_cause(error, Cause::UpstreamClosed), error);
    Fault { failure, started: false, unanswered }
}

fn write_chunk(data: &[u8], chunked: bool, out: &mut Block) {
    let mut writer = Writer::new(out);
    if chunked {
        writer.bytes(format!("{:x}\r\n", data.len()).as_bytes());
    }
    writer.bytes(data);
    if chunked {
        writer.bytes(b"\r\n");
    }
    let fits = writer.finish().is_ok();
    debug_assert!(fits, "room was made for it");
}

impl<'a> Upload<'a> {
    fn new(down: &'a Socket, forward: &Forward, input: Block) -> Self {
        let body = forward.body;
        Self {
            down,
            done: Cell::new(body.is_done()),
            body,
            block: Cell::new(input),
            stop: Cell::new(false),
            whole: Notify::default(),
            sent: Some(Sent::default()),
            bodiless: body.is_done(),
        }
    }

    /// Goes back to its beginning, for another attempt. False if that is not known any more, or
    /// the client was in the middle of sending more.
    fn rewind(&mut self) -> bool {
        // A client that has gone wrong has lost its block.
        let Some(sent) = &mut self.sent else { return false };
        sent.rewind();
        self.stop.set(false);
        self.down.receiving().clear();
        true
    }

    /// What came behind the request, if that came whole.
    fn rest(self) -> Option<Block> {
        let rest = self.block.into_inner();
        self.done.get().then_some(rest)
    }
}

/// The body while it moves.
struct Moving<'a> {
    body: &'a mut Body,
    block: &'a Cell<Block>,
    down: &'a Socket,
    stop: &'a Cell<bool>,
    pace: &'a Pace,
    kept: &'a mut Option<Sent>,
}

impl Moving<'_> {
    async fn run(
        &mut self,
        stream: &mut SendStream<Bytes>,
        done: &Cell<bool>,
    ) -> Result<(), UploadFault> {
        if self.resend(stream).await? {
            return Ok(());
        }
        while !done.get() {
            let mut block = self.block.replace(Block::with_room(0));
            let at_trailers = matches!(self.body, Body::Trailers);
            let (consumed, payload) = if at_trailers { (0, 0) } else { self.take(&mut block)? };
            let data = Bytes::copy_from_slice(&block.data()[..payload]);
            block.consume(consumed);
            let ends = self.body.is_done();
            if payload > 0 {
                Sent::data(self.kept, &data);
            }
            if ends {
                Sent::end(self.kept, None);
            }
            self.block.set(block);
            done.set(ends);
            if payload > 0 {
                let sent = send_frame(stream, data, ends, self.pace).await;
                sent.map_err(|_| UploadFault::Upstream)?;
            } else if ends {
                stream.send_data(Bytes::new(), true).map_err(|_| UploadFault::Upstream)?;
            }
            if matches!(self.body, Body::Trailers) {
                let block = self.block.replace(Block::with_room(0));
                let (block, fields) = self.trailers(block).await?;
                *self.body = Body::Done;
                Sent::end(self.kept, fields.clone());
                self.block.set(block);
                done.set(true);
                end(stream, fields)?;
            } else if !ends {
                let block = self.block.replace(Block::with_room(0));
                let block = self.receive(block).await?;
                self.pace.moved();
                self.block.set(block);
            }
        }
        Ok(())
    }

    /// Sends what an earlier attempt has sent. Whether that was all.
    async fn resend(&mut self, stream: &mut SendStream<Bytes>) -> Result<bool, UploadFault> {
        while let Some(data) = self.kept.as_mut().and_then(Sent::again) {
            let sent = send_frame(stream, data, false, self.pace).await;
            sent.map_err(|_| UploadFault::Upstream)?;
        }
        let ended = self.kept.as_ref().and_then(Sent::ended).cloned();
        match ended {
            Some(fields) => end(stream, fields).map(|()| true),
            None => Ok(false),
        }
    }

    /// Bytes of `block` that belong to the body, and how many of them, at its front, are data.
    fn take(&mut self, block: &mut Block) -> Result<(usize, usize), UploadFault> {
        let malformed = |fault| UploadFault::Client(Failure::with(chunk_cause(fault), fault));
        if let Body::Chunked(chunked) = &mut *self.body {
            let advance = chunked.strip(block.data_mut()).map_err(malformed)?;
            if advance.at_trailers {
                *self.body = Body::Trailers;
            }
            return Ok((advance.consumed, advance.payload));
        }
        let taken = self.body.take(block.data()).map_err(malformed)?;
        Ok((taken, taken))
    }

    async fn receive(&self, block: Block) -> Result<Block, UploadFault> {
        let mut block = block;
        block.compact();
        if block.spare() == 0 {
            block = widen(block);
        }
        let arrival = self.down.recv_until(block, self.pace.due_ns()).await;
        match arrival {
            // For another attempt, should there be one.
            Arrival::Data(block) | Arrival::Silence(block) if self.stop.get() => {
                self.block.set(block);
                Err(UploadFault::Stopped)
            }
            _ if self.stop.get() => Err(UploadFault::Stopped),
            Arrival::Data(block) => Ok(block),
            Arrival::End(_) => Err(UploadFault::Client(Cause::ClientClosed.into())),
            Arrival::Silence(_) => Err(UploadFault::Client(Cause::RequestTimeout.into())),
            Arrival::Broken(error) => {
                Err(UploadFault::Client(Failure::of_io(Side::Downstream, &error)))
            }
        }
    }

    /// Collects the trailer section. Gives back what came behind it.
    async fn trailers(&self, block: Block) -> Result<(Block, Option<HeaderMap>), UploadFault> {
        let malformed =
            || UploadFault::Client(Failure::with(Cause::RequestMalformed, "the trailer section"));
        let mut block = block;
        let mut scanner = Scanner::trailers();
        let length = loop {
            match scanner.scan(block.data()) {
                Ok(Scan::Complete { end, .. }) => break end,
                Ok(Scan::Partial) if block.len() <= TRAILER_BYTES_MAX => {}
                Ok(Scan::Partial) | Err(_) => return Err(malformed()),
            }
            block = self.receive(block).await?;
        };
        if length > TRAILER_BYTES_MAX {
            return Err(malformed());
        }
        let fields = translate::trailers(&block.data()[..length]).map_err(|_| malformed())?;
        block.consume(length);
        Ok((block, fields))
    }
}

/// Ends a stream, perhaps with trailers.
fn end(stream: &mut SendStream<Bytes>, trailers: Option<HeaderMap>) -> Result<(), UploadFault> {
    let ended = match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    };
    ended.map_err(|_| UploadFault::Upstream)
}
