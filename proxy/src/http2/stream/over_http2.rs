//! The way of a stream to a cluster of HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use ringway_stats::clock::now_ns;

use super::Exchange;
use crate::http1::plan::Forward;
use crate::http2::body::{Pace, Upload};
use crate::http2::client;
use crate::http2::forward::Attempt;
use crate::http2::server::Connection;
use crate::http2::translate;
use crate::sys::block::Block;
use crate::upstream::Want;

impl Exchange<'_> {
    /// Sends the request to a cluster of HTTP/2. `out` has its head as HTTP/1.1 would have it.
    pub(super) async fn forward_http2(
        &self,
        forward: &Forward,
        mut upload: Upload,
        respond: &mut SendResponse<Bytes>,
        out: &Block,
        pace: &Pace,
    ) {
        let Connection { worker, peer, .. } = self.connection;
        let deadline_ns = self.deadline_ns(forward);
        let secure = self.snapshot.running.credentials.cluster(forward.cluster).is_some();
        let complete = upload.is_done();
        let mut want = Want::Any;
        loop {
            let mut request = match translate::to_request(out.data(), secure) {
                Ok(request) => request,
                Err(failure) => return self.fail(forward, &failure, respond).await,
            };
            let snapshot = &self.snapshot;
            let leased = client::lease(worker, snapshot, forward.cluster, peer, want, deadline_ns);
            let lease = match leased.await {
                Ok(lease) => lease,
                Err(failure) => return self.fail(forward, &failure, respond).await,
            };
            if self.call_timeout.is_some() {
                let left = Duration::from_nanos(deadline_ns.saturating_sub(now_ns()));
                let left = translate::grpc_timeout_value(left);
                request.headers_mut().insert(translate::GRPC_TIMEOUT, left);
            }
            self.attempts.set(self.attempts.get() + 1);
            self.endpoint.set(Some(lease.address()));
            self.sent_ns.set(now_ns());
            let date = worker.date.now();
            let attempt = Attempt {
                lease: &lease,
                pace,
                edits: self.rule(forward).response_headers(),
                date: &date,
                first_byte_ns: &self.first_byte_ns,
                client_gone: &self.client_gone,
            };
            match attempt.run(request, &mut upload, respond).await {
                Ok(done) => {
                    let cluster = Some(forward.cluster_series);
                    self.record(forward.route_series, cluster, done.status, None);
                    return;
                }
                Err(fault) if complete && self.may_repeat(&fault, want) => {
                    worker.shard.retries.increment();
                    want = Want::Fresh;
                }
                Err(fault) => {
                    drop(lease);
                    return self.give_up(forward, fault, respond).await;
                }
            }
        }
    }
}
