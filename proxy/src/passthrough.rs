//! TLS connections that are routed by the name they ask for and not terminated.
//!
//! ```text
//! bytes ─▶ ClientHello whole? ─▶ server name ─▶ SniRoutes ─▶ ClusterId ─▶ tunnel
//! ```
//!
//! # Invariants
//! - What was read to find the name goes to the endpoint as it came.
//! - A hello has a deadline and a longest length; a connection without one goes nowhere.

use std::rc::Rc;

use ringway_router::ListenerId;
use ringway_stats::clock::now_ns;
use ringway_tls::hello::{self, Hello};

use crate::connection::Peer;
use crate::io::deadlines::after;
use crate::io::socket::{Arrival, Socket};
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;
use crate::tls::handshake::Side;
use crate::tunnel;
use crate::worker::{Snapshot, Worker};

/// Serves a connection of a `tls-passthrough` listener.
pub async fn serve(
    worker: Rc<Worker>,
    socket: Socket,
    peer: Peer,
    table: (Rc<Snapshot>, ListenerId),
    early: Block,
) {
    let (snapshot, id) = table;
    let listener = snapshot.running.table.listener(id);
    let due_ns = after(now_ns(), listener.head_timeout);
    let found = match read_hello(&socket, early, due_ns).await {
        Ok((early, name)) => match listener.sni.cluster_for(name.as_deref()) {
            Some(cluster) => Ok((early, cluster)),
            None => Err(Failure::with(
                Cause::ServerName,
                format_args!("`{}`", name.as_deref().unwrap_or("none")),
            )),
        },
        Err(failure) => Err(failure),
    };
    match found {
        Ok((early, cluster)) => {
            let table = (Rc::clone(&snapshot), id);
            tunnel::serve(worker, socket, peer, table, (cluster, None), early).await;
        }
        Err(failure) => {
            tracing::debug!(cause = failure.cause.label(), peer = %peer.address, "{failure}");
            worker.shard.record_cause(failure.cause);
            if failure.cause == Cause::ServerName {
                // What a server says that has no such name (RFC 6066 section 3).
                let mut alert = Block::small();
                let fits = alert.push(&UNRECOGNIZED_NAME);
                debug_assert!(fits, "an alert has seven bytes");
                let _ = socket.send_until(alert, due_ns).await;
                socket.finish().await;
            } else {
                socket.abort();
            }
        }
    }
}

/// A fatal alert `unrecognized_name`, in the clear.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// Receives until a ClientHello is whole. Returns all that has come, and the name it asks for.
async fn read_hello(
    socket: &Socket,
    early: Block,
    due_ns: u64,
) -> Result<(Block, Option<Box<str>>), Failure> {
    let mut block = early;
    let mut scratch = Vec::new();
    loop {
        match hello::parse(block.data(), &mut scratch) {
            Ok(Hello::Complete { sni, .. }) => {
                let name = sni.map(Box::from);
                return Ok((block, name));
            }
            Ok(Hello::Partial) => {}
            Err(fault) => return Err(Failure::with(Cause::ClientTls, fault)),
        }
        if block.spare() == 0 {
            let mut larger = Block::large();
            let fits = larger.push(block.data());
            debug_assert!(fits, "a large block has room for a small one");
            block = larger;
        }
        block = match socket.recv_until(block, due_ns).await {
            Arrival::Data(block) => block,
            Arrival::End(_) => return Err(Cause::ClientClosed.into()),
            Arrival::Silence(_) => return Err(Cause::ClientTlsTimeout.into()),
            Arrival::Broken(error) => {
                return Err(Failure::of_io(Side::Downstream, &error));
            }
        };
    }
}
