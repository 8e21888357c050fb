//! The way of a stream to a cluster of HTTP/2.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::HeaderMap;
use ringway_stats::clock::now_ns;

use super::Exchange;
use crate::http1::plan::Forward;
use crate::http2::client;
use crate::http2::forward::Attempt;
use crate::http2::grpc;
use crate::http2::head::Composed;
use crate::http2::server::Connection;
use crate::http2::upload::Upload;
use crate::limits::HTTP2_REPEATS_MAX;

impl Exchange<'_> {
    /// Sends the request of `head`, which had `fields`, to a cluster of HTTP/2.
    pub(super) async fn forward_http2(
        &self,
        forward: Forward,
        head: Composed,
        fields: HeaderMap,
        incoming: RecvStream,
        respond: &mut SendResponse<Bytes>,
    ) {
        let forward = &forward;
        let Connection { worker, peer, .. } = self.connection;
        let secure = self.snapshot.running.credentials.cluster(forward.cluster).is_some();
        let mut request = match head.into_request(fields, secure) {
            Ok(request) => request,
            Err(failure) => return self.fail(forward, &failure, respond).await,
        };
        let deadline_ns = self.deadline_ns(forward);
        let rule = self.rule(forward);
        let pace = self.connection.pace(rule.idle_timeout(), deadline_ns);
        let most = rule.max_request_body().unwrap_or(u64::MAX);
        let mut upload = Upload::new(incoming, &forward.body, most);
        let mut repeats = 0;
        loop {
            let snapshot = &self.snapshot;
            let leased = client::lease(worker, snapshot, forward.cluster, peer, deadline_ns);
            let lease = match leased.await {
                Ok(lease) => lease,
                Err(failure) => return self.fail(forward, &failure, respond).await,
            };
            if self.call_timeout.is_some() {
                let left = Duration::from_nanos(deadline_ns.saturating_sub(now_ns()));
                let left = grpc::timeout_value(left);
                request.headers_mut().insert(grpc::TIMEOUT, left);
            }
            self.attempts.set(self.attempts.get() + 1);
            self.endpoint.set(Some(lease.address()));
            self.sent_ns.set(now_ns());
            let date = worker.date.now();
            let attempt = Attempt {
                lease: &lease,
                pace: &pace,
                edits: rule.response_headers(),
                date: &date,
                first_byte_ns: &self.first_byte_ns,
                client_gone: &self.client_gone,
                refused: Cell::default(),
                is_grpc: self.is_grpc,
                grpc_status: &self.grpc_status,
            };
            match attempt.run(request.clone(), &mut upload, respond).await {
                Ok(done) => {
                    let cluster = Some(forward.cluster_series);
                    self.record(forward.route_series, cluster, done.status, None);
                    return;
                }
                Err(fault)
                    if fault.unanswered
                        && repeats < HTTP2_REPEATS_MAX
                        && !self.client_gone.get()
                        && upload.rewind() =>
                {
                    worker.shard.retries.increment();
                    repeats += 1;
                }
                Err(fault) => {
                    drop(lease);
                    return self.give_up(forward, fault, respond).await;
                }
            }
        }
    }
}
