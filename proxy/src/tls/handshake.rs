//! Drives a handshake over a socket.
//!
//! ```text
//! place ─▶ step ─▶ send ─▶ receive ─▶ step ... ─▶ established ─▶ Layer
//! ```
//!
//! # Invariants
//! - A worker has at most [`HANDSHAKES_MAX`] handshakes under way with clients, and as many with
//!   endpoints; more wait, within their deadline, and get the places of those whose peers have
//!   said nothing for [`HANDSHAKE_PATIENCE`].
//! - Steps, of whatever connections, take turns with everybody else (`steps`).

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use ringway_stats::clock::now_ns;
use ringway_tls::hello::{self, Hello};
use ringway_tls::{ClientTls, Fault, ServerName, ServerTls, Session, Step, UnixTime};

use super::layer::{Layer, fault_of};
use super::live::Register;
use super::peer::TlsPeer;
use super::places::{Place, Places};
use super::steps::Steps;
use crate::io::deadlines::after;
use crate::io::race::{self, Either};
use crate::io::socket::{Arrival, Socket};
use crate::limits::{HANDSHAKE_BYTES_MAX, HANDSHAKE_PATIENCE, HANDSHAKES_MAX};
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;
use crate::worker::Worker;

/// The handshakes of a worker.
pub struct Handshakes {
    downstream: Rc<Places>,
    upstream: Rc<Places>,
    steps: Steps,
    /// The connections that they lead to.
    pub live: Rc<Register>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            downstream: Places::new(HANDSHAKES_MAX),
            upstream: Places::new(HANDSHAKES_MAX),
            steps: Steps::default(),
            live: Rc::default(),
        }
    }
}

/// Which side of a handshake is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client is downstream.
    Downstream,
    /// The server is upstream.
    Upstream,
}

impl Side {
    /// The failure that `fault` is on this side.
    #[must_use]
    pub fn failure(self, fault: &Fault) -> Failure {
        let cause = match (self, fault.blame()) {
            (_, ringway_tls::Blame::Local) => Cause::LocalTls,
            (Self::Downstream, ringway_tls::Blame::Peer) => Cause::ClientTls,
            (Self::Upstream, ringway_tls::Blame::Peer) => Cause::UpstreamTls,
        };
        Failure::with(cause, fault)
    }

    fn late(self) -> Failure {
        Failure::new(match self {
            Self::Downstream => Cause::ClientTlsTimeout,
            Self::Upstream => Cause::UpstreamTlsTimeout,
        })
    }
}

/// Our end of a handshake.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// The worker.
    pub worker: &'a Worker,
    /// Which side is ours.
    pub side: Side,
    /// The table that its certificates and roots are from.
    pub generation: u64,
    /// When it must be over, on the clock of `now_ns`.
    pub due_ns: u64,
}

/// Makes `socket` a TLS connection as its server. `first` is what has come already.
///
/// # Errors
/// Why there is none; the client has been told by an alert where that is possible.
pub async fn accept(
    end: End<'_>,
    socket: Socket,
    first: Block,
    tls: &ServerTls,
) -> Result<Socket, Failure> {
    let worker = end.worker;
    let handshake = Handshake { end, socket: &socket };
    let accepted = match handshake.whole_hello(first).await {
        Ok(first) => handshake.run(|| tls.accept(), first).await,
        Err(failure) => Err(failure),
    };
    match accepted {
        Ok(layer) => Ok(socket.protected_by(layer, &worker.handshakes.live)),
        Err(failure) => {
            // A client may have sent its request by now: unread, it would cost it the alert.
            socket.linger().await;
            Err(failure)
        }
    }
}

/// Makes `socket`, which is connected to `address`, a TLS connection as its client.
///
/// # Errors
/// Why there is none.
pub async fn connect(
    end: End<'_>,
    socket: Socket,
    tls: &ClientTls,
    name: Option<&ServerName<'static>>,
    address: SocketAddr,
) -> Result<Socket, Failure> {
    let worker = end.worker;
    let handshake = Handshake { end, socket: &socket };
    // An address as name sends none (RFC 6066 section 3).
    let name = name.cloned().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
    let layer = handshake.run(|| tls.connect(name, UnixTime::now()), Block::small()).await?;
    Ok(socket.protected_by(layer, &worker.handshakes.live))
}

struct Handshake<'a> {
    end: End<'a>,
    socket: &'a Socket,
}

impl Handshake<'_> {
    async fn run(
        &self,
        begin: impl FnOnce() -> Result<Session, Fault>,
        first: Block,
    ) -> Result<Box<Layer>, Failure> {
        let places = match self.end.side {
            Side::Downstream => &self.end.worker.handshakes.downstream,
            Side::Upstream => &self.end.worker.handshakes.upstream,
        };
        let place = self.place(places).await?;
        let started_ns = now_ns();
        let made = match begin() {
            Ok(session) => self.drive(&place, session, first).await,
            Err(fault) => Err(self.end.side.failure(&fault)).inspect_err(|_| self.count(&fault)),
        };
        let (session, rest) = made?;
        self.end.worker.shard.tls(self.end.side).established(&session, now_ns() - started_ns);
        let peer = Rc::new(TlsPeer::of(&session, self.end.side));
        self.judge(&peer).map_err(|fault| self.failed(&fault))?;
        let layer = Layer::new(session, peer, &self.end.worker.shard);
        match layer.take_rest(rest) {
            Ok(()) => Ok(layer),
            Err(fault) => {
                layer.last_words(|words| _ = self.socket.send_now(words));
                Err(self.end.side.failure(&fault))
            }
        }
    }

    /// Whether a peer that has proved to be a member is welcome: of our trust domain, and still
    /// trusted if the table that verified it is not the newest any more. Those who are established
    /// already are looked at when the change comes.
    fn judge(&self, peer: &TlsPeer) -> Result<(), Fault> {
        let Some(identity) = &peer.identity else { return Ok(()) };
        let snapshot = self.end.worker.snapshot();
        let credentials = &snapshot.running.credentials;
        if let (Side::Downstream, Some(own)) = (self.end.side, &credentials.own)
            && own.trust_domain() != identity.trust_domain()
        {
            let expected = format!("spiffe://{}/*", own.trust_domain());
            return Err(Fault::PeerIdentity { expected, found: identity.clone() });
        }
        if snapshot.running.generation == self.end.generation {
            return Ok(());
        }
        credentials.bundle.as_ref().map_or(Ok(()), |bundle| bundle.still_trusts(&peer.chain))
    }

    /// Receives until the first message of the client is whole, or clear to be too long: one that
    /// never comes takes nobody's place.
    async fn whole_hello(&self, first: Block) -> Result<Block, Failure> {
        let mut input = first;
        let mut scratch = Vec::new();
        while let Ok(Hello::Partial) = hello::parse(input.data(), &mut scratch) {
            input = self.receive(input, None).await?;
        }
        Ok(input)
    }

    /// Takes one of `places` before the deadline.
    async fn place(&self, places: &Rc<Places>) -> Result<Place, Failure> {
        let waited = pin!(self.socket.sending().wait_until(self.end.due_ns));
        match race::first(pin!(places.take()), waited).await {
            Either::Left(place) => {
                self.socket.sending().clear();
                Ok(place)
            }
            Either::Right(()) => Err(self.end.side.late()),
        }
    }

    async fn drive(
        &self,
        place: &Place,
        session: Session,
        first: Block,
    ) -> Result<(Session, Block), Failure> {
        let mut session = session;
        let mut input = first;
        let mut out = Vec::new();
        loop {
            let advance = {
                let steps = &self.end.worker.handshakes.steps;
                let step = self.place(steps.gate()).await?;
                let started_ns = now_ns();
                let advance = session.handshake(input.data_mut(), &mut out, UnixTime::now());
                steps.give_back(step, now_ns() - started_ns);
                advance
            };
            if !out.is_empty() {
                // Also after a fault: it is the alert that says why.
                let sent = self.send(&out).await;
                out.clear();
                if advance.is_ok() {
                    sent?;
                }
            }
            let advance = advance.map_err(|fault| self.failed(&fault))?;
            input.consume(advance.consumed);
            match advance.step {
                Step::Established => return Ok((session, input)),
                Step::NeedInput => input = self.receive(input, Some(place)).await?,
            }
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut block = Block::with_room(rest.len());
            let (now, later) = rest.split_at(rest.len().min(block.spare()));
            let fits = block.push(now);
            debug_assert!(fits, "the part was measured");
            rest = later;
            if let (Err(error), _) = self.socket.send_until(block, self.end.due_ns).await {
                return Err(self.broken(&error));
            }
        }
        Ok(())
    }

    /// Receives more; for `place`, if that is kept meanwhile.
    async fn receive(&self, input: Block, place: Option<&Place>) -> Result<Block, Failure> {
        let mut input = input;
        input.compact();
        if input.spare() == 0 {
            if input.len() >= HANDSHAKE_BYTES_MAX {
                return Err(self.failed(&Fault::PeerMisbehaved("the handshake is too long".into())));
            }
            let mut larger = Block::large();
            let fits = larger.push(input.data());
            debug_assert!(fits, "a large block has room for a small one");
            input = larger;
        }
        match self.arrival(input, place).await? {
            Arrival::Data(input) => Ok(input),
            Arrival::End(_) => Err(self.failed(&Fault::Truncated)),
            Arrival::Silence(_) => Err(self.end.side.late()),
            Arrival::Broken(error) => Err(self.broken(&error)),
        }
    }

    async fn arrival(&self, input: Block, place: Option<&Place>) -> Result<Arrival, Failure> {
        let due_ns = self.end.due_ns;
        let patient_ns = after(now_ns(), HANDSHAKE_PATIENCE);
        let Some(place) = place.filter(|_| patient_ns < due_ns) else {
            return Ok(self.socket.recv_until(input, due_ns).await);
        };
        let input = match self.socket.recv_until(input, patient_ns).await {
            Arrival::Silence(input) => input,
            arrival => return Ok(arrival),
        };
        // Given up, the operation may be dropped: so is the connection.
        place.while_idle(self.socket.recv_until(input, due_ns)).await.ok_or_else(|| {
            self.end.worker.shard.tls(self.end.side).given_up.increment();
            self.end.side.late()
        })
    }

    fn broken(&self, error: &std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::TimedOut {
            return self.end.side.late();
        }
        if let Some(fault) = fault_of(error) {
            return self.failed(fault);
        }
        let cause = match self.end.side {
            Side::Downstream => Cause::ClientReset,
            Side::Upstream => Cause::UpstreamReset,
        };
        Failure::with(cause, error)
    }

    fn failed(&self, fault: &Fault) -> Failure {
        self.count(fault);
        self.end.side.failure(fault)
    }

    fn count(&self, fault: &Fault) {
        self.end.worker.shard.tls(self.end.side).failed(fault);
    }
}
