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

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::response::Parts;
use ringway_router::{Field, HeaderEdits};
use ringway_stats::clock::now_ns;

use super::{Exchange, Flow, client_gone};
use crate::http1::body::Body;
use crate::http1::compose::{self, Overflow, Persistence, Writer};
use crate::http1::fields::content_length;
use crate::http1::plan::Forward;
use crate::http1::request::Fields;
use crate::http1::response::ResponseHead;
use crate::http2::body::{Pace, Wait};
use crate::http2::client::{self, Lease};
use crate::http2::forward::{admit_interim, broken_cause, truncated};
use crate::http2::head::Composed;
use crate::http2::stream::Fault;
use crate::http2::translate;
use crate::http2::upload::UploadFault;
use crate::io::deadlines::after;
use crate::io::notify::Notify;
use crate::io::race::{self, Either};
use crate::limits::{EMPTY_END_TIME, HTTP2_REPEATS_MAX, LARGE_BLOCK_BYTES};
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;
use crate::tls::handshake::Side;

mod upload;

use upload::{Moving, Upload};

/// What a chunk adds to its data.
const CHUNK_OVERHEAD: usize = 20;

/// A response that went over whole.
struct Done {
    status: u16,
    keep_alive: bool,
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
        match pace.timely(Wait::Request, poll_fn(|context| sender.poll_ready(context))).await {
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
        let (kept, halt) = (&mut upload.sent, &upload.halt);
        let (sent, reply) = {
            let sending = pin!(async {
                let mut moving = Moving { body, block, down, stop, halt, pace, kept };
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
                    halt.notify();
                    down.receiving().end();
                }
            })
            .await
        };
        down.receiving().clear();
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
        let mut interims = 0;
        let received = loop {
            let said = pin!(pace.timely(Wait::Response, next(&mut response)));
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
                Some(Said::Interim(parts)) => {
                    admit_interim(parts.status, &mut interims).map_err(Fault::before)?;
                    if forward.is_http10 {
                        continue;
                    }
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
        self.relay_http2(forward, &parts, incoming, pace, (uploaded, given_up)).await
    }

    async fn relay_http2(
        &self,
        forward: &Forward,
        parts: &Parts,
        incoming: RecvStream,
        pace: &Pace,
        (uploaded, given_up): (&Cell<bool>, Pin<&mut impl Future<Output = ()>>),
    ) -> Result<Done, Fault> {
        let status = parts.status.as_u16();
        let down = &self.connection.socket;
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
        down.receiving().postpone(pace.due_ns());
        if ends {
            return Ok(Done { status, keep_alive });
        }
        if body.is_done() {
            // The end may come by a frame of its own. More than that is nobody's.
            let mut incoming = incoming;
            let end_ns = after(now_ns(), EMPTY_END_TIME).min(pace.due_ns());
            let ended = poll_fn(|context| incoming.poll_data(context));
            let waited = down.sending().wait_until(end_ns);
            let _ = race::first(pin!(ended), pin!(waited)).await;
            down.sending().clear();
            return Ok(Done { status, keep_alive });
        }
        let moved = self.relay_body(incoming, chunked, pace, given_up).await;
        moved.map(|()| Done { status, keep_alive }).map_err(started)
    }

    /// Moves the body of a response, chunked or as it is, until it is `given_up`.
    async fn relay_body(
        &self,
        incoming: RecvStream,
        chunked: bool,
        pace: &Pace,
        given_up: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Failure> {
        let down = &self.connection.socket;
        let (mut incoming, mut given_up) = (incoming, given_up);
        let lost = |error| Failure::of_io(Side::Downstream, &error);
        loop {
            let next = {
                let next = poll_fn(|context| incoming.poll_data(context));
                let next = pin!(pace.timely(Wait::Response, next));
                race::first(next, given_up.as_mut()).await
            };
            let Either::Left(next) = next else {
                // What the client sent is at fault, and is told in place of this.
                return Err(Cause::ClientReset.into());
            };
            let data = match next {
                Some(Some(Ok(data))) => data,
                Some(Some(Err(error))) => return Err(truncated(&error)),
                Some(None) => break,
                None => return Err(pace.stall_cause().into()),
            };
            pace.moved();
            // A frame may be longer than a block.
            for part in data.chunks(LARGE_BLOCK_BYTES - CHUNK_OVERHEAD) {
                let mut block = Block::with_room(part.len() + CHUNK_OVERHEAD);
                write_chunk(part, chunked, &mut block);
                self.connection.worker.shard.copy_bytes.add(part.len() as u64);
                down.send_until(block, pace.due_ns()).await.0.map_err(lost)?;
                pace.moved();
                down.receiving().postpone(pace.due_ns());
            }
            // Fails only for a stream that is over.
            let _ = incoming.flow_control().release_capacity(data.len());
        }
        if chunked {
            let next = poll_fn(|context| incoming.poll_trailers(context));
            let trailers = match pace.timely(Wait::Response, next).await {
                Some(Ok(trailers)) => trailers,
                Some(Err(error)) => return Err(truncated(&error)),
                None => return Err(pace.stall_cause().into()),
            };
            let mut block = Block::small();
            if !translate::write_trailers(trailers.as_ref(), &mut block) {
                let detail = "the trailer section is too long";
                return Err(Failure::with(Cause::UpstreamMalformed, detail));
            }
            down.send_until(block, pace.due_ns()).await.0.map_err(lost)?;
        }
        Ok(())
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
