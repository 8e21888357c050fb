//! TLS or plaintext: told apart by the first bytes of a connection, where both may come.
//!
//! ```text
//! first bytes ─┬─ a handshake ─▶ handshake::accept
//!              └─ anything else ─▶ plaintext, if the listener takes it
//! ```

use std::pin::pin;

use ringway_router::{Listener, Mtls, Protocol};
use ringway_stats::clock::now_ns;
use ringway_tls::ServerTls;
use ringway_tls::hello::looks_like_tls;

use super::handshake::{self, End, Side};
use crate::io::deadlines::after;
use crate::io::socket::{Arrival, Socket};
use crate::limits::PERMISSIVE_SILENCE;
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;
use crate::worker::Worker;

/// A connection, and what of it has been received in plaintext.
pub struct Admitted {
    /// The connection, protected or not.
    pub socket: Socket,
    /// Bytes that the client has sent.
    pub early: Option<Block>,
}

/// Why a connection was not admitted.
pub enum Rejected {
    /// It was closed before it said anything: a probe, or a browser that changed its mind.
    Unused,
    /// It failed.
    Failed(Failure),
    /// Its client speaks plaintext, in which it can be told that it must not.
    Plaintext(Socket),
}

impl From<Failure> for Rejected {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Establishes TLS with a client of `listener`, or lets its plaintext pass. `server` is from the
/// table of `generation`.
///
/// # Errors
/// Why the client is turned away.
pub async fn admit(
    worker: &Worker,
    socket: Socket,
    early: Option<Block>,
    listener: &Listener,
    server: &ServerTls,
    generation: u64,
) -> Result<Admitted, Rejected> {
    let patience = listener.tls.as_ref().map(|tls| tls.handshake_timeout).unwrap_or_default();
    let due_ns = after(now_ns(), patience);
    let takes_plaintext = listener.mtls == Mtls::Permissive;
    // Where the server may be the one who speaks first, silence says so.
    let server_first = match listener.protocol {
        Protocol::Tcp => true,
        Protocol::Auto => listener.cluster.is_some(),
        Protocol::Http1 | Protocol::Http2 | Protocol::TlsPassthrough => false,
    };
    let silence_is_plaintext = takes_plaintext && server_first;
    let patience = if silence_is_plaintext { PERMISSIVE_SILENCE.min(patience) } else { patience };
    let first_due_ns = after(now_ns(), patience);
    let (first, is_tls) = match first_bytes(&socket, early, first_due_ns).await {
        Err(FirstBytes::Silence(block)) if silence_is_plaintext => (block, false),
        Err(FirstBytes::Silence(_)) => return Err(Failure::new(Cause::ClientTlsTimeout).into()),
        Err(FirstBytes::Gone(rejected)) => return Err(rejected),
        Ok(first) => first,
    };
    if is_tls {
        // On the heap: a handshake is rare, and its state large.
        let end = End { worker, side: Side::Downstream, generation, due_ns };
        let accepted = Box::pin(handshake::accept(end, socket, first, server)).await?;
        return Ok(Admitted { socket: accepted, early: None });
    }
    if takes_plaintext {
        return Ok(Admitted { socket, early: Some(first) });
    }
    Err(Rejected::Plaintext(socket))
}

/// Why it is not clear what a client speaks.
enum FirstBytes {
    /// It has not said enough in time.
    Silence(Block),
    /// It is gone.
    Gone(Rejected),
}

impl FirstBytes {
    fn gone(cause: Cause) -> Self {
        Self::Gone(Failure::new(cause).into())
    }
}

/// Receives until it is clear what the client speaks.
async fn first_bytes(
    socket: &Socket,
    early: Option<Block>,
    due_ns: u64,
) -> Result<(Block, bool), FirstBytes> {
    let mut block = early.unwrap_or_else(Block::small);
    loop {
        if let Some(is_tls) = looks_like_tls(block.data()) {
            return Ok((block, is_tls));
        }
        // A connection that is opened ahead of its use needs no block meanwhile.
        let received = pin!(socket.recv_patient(block, due_ns));
        block = match received.await {
            Arrival::Data(block) => block,
            Arrival::End(block) if block.is_empty() => {
                return Err(FirstBytes::Gone(Rejected::Unused));
            }
            Arrival::End(_) => return Err(FirstBytes::gone(Cause::ClientClosed)),
            Arrival::Silence(block) => return Err(FirstBytes::Silence(block)),
            Arrival::Broken(_) => return Err(FirstBytes::gone(Cause::ClientReset)),
        };
    }
}
