//! The open streams: what is equal for many is worked out and encoded once, and shared.
//!
//! ```text
//! endpoints of a class ─▶ changes ─▶ bytes ─┬─▶ queue of a stream ─▶ its connection
//!                                           └─▶ queue of the next
//! ```
//!
//! # Invariants
//! - All streams of a class have been told the same endpoints: those of its `told`.
//! - A stream whose sidecar does not read is ended: it connects again and says what it has.
//! - A class without streams takes no room.
//!
//! # Not here
//! What the endpoints of a class are, and who is told what of policies (`core`).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringway_protocol::{
    Endpoints, EndpointsChange, EndpointsHash, EndpointsState, Frame, Move, Ping,
};
use tokio::sync::mpsc;

use crate::fleet::ConnectionId;
use crate::version::SidecarKey;

/// Pieces that wait for one sidecar; a piece is one or more frames, shared among streams.
pub const PIECES_QUEUED_MAX: usize = 256;
/// How often a sidecar may report at most, and how many reports may come at once.
pub const REPORT_EVERY: Duration = Duration::from_millis(500);
const REPORTS_AHEAD: u32 = 20;
/// How often a stream hears that the pusher lives.
pub const PING_EVERY: Duration = Duration::from_secs(15);

/// An open stream.
struct Live {
    connection: ConnectionId,
    pieces: mpsc::Sender<Bytes>,
    /// Number of the last frame of endpoints.
    sequence: u64,
    /// When the reports that were taken would all have been due.
    reports_until: Instant,
}

/// The streams of one identity.
struct Class {
    told: EndpointsState,
    hash: EndpointsHash,
    /// Clusters whose endpoints are the last that were known.
    stale: BTreeSet<String>,
    /// All of it, for a stream that has nothing: how many frames, and their bytes.
    whole: Option<(u64, Bytes)>,
    keys: HashSet<SidecarKey>,
}

/// The endpoints that sidecars of a class are to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By cluster.
    pub state: EndpointsState,
    /// Clusters whose endpoints are the last that were known.
    pub stale: BTreeSet<String>,
}

/// All open streams.
#[derive(Default)]
pub struct Streams {
    live: HashMap<SidecarKey, Live>,
    classes: HashMap<String, Class>,
    /// When a stream is to be pinged next. In order: everybody waits equally long.
    pings: VecDeque<(Instant, SidecarKey, ConnectionId)>,
    /// Streams that were ended because the sidecar did not read.
    pub slow_readers: u64,
}

/// The bytes of a frame. `None`, and an error in the log, if it is longer than may be sent.
pub fn encoded(frame: &Frame) -> Option<Bytes> {
    let bytes = frame.encode();
    if bytes.is_none() {
        tracing::error!("a {} frame is longer than may be sent", frame.kind());
    }
    bytes.map(Bytes::from)
}

/// The frames of `changes` for a stream that has had `sequence` of them.
fn pieces(
    changes: &[(String, EndpointsChange)],
    stale: &BTreeSet<String>,
    mut sequence: u64,
) -> Bytes {
    let mut bytes = Vec::new();
    for (cluster, change) in changes {
        sequence += 1;
        let (cluster, change, stale) = (cluster.clone(), change.clone(), stale.contains(cluster));
        let frame = Frame::Endpoints(Endpoints { cluster, sequence, change, stale });
        bytes.extend(encoded(&frame).unwrap_or_default());
    }
    bytes.into()
}

/// A frame's change that says nothing but whether the endpoints of a cluster are stale.
fn mark(cluster: &str) -> (String, EndpointsChange) {
    (cluster.to_owned(), EndpointsChange::Change { set: Vec::new(), gone: Vec::new() })
}

impl Class {
    fn new(wanted: Wanted) -> Class {
        let Wanted { state: told, stale } = wanted;
        let hash = told.hash();
        Class { told, hash, stale, whole: None, keys: HashSet::new() }
    }

    /// Which endpoints are stale, for a stream that has all of them: how many frames, and their
    /// bytes.
    fn marks(&self) -> (u64, Bytes) {
        let marks: Vec<_> = self.stale.iter().map(|cluster| mark(cluster)).collect();
        (marks.len() as u64, pieces(&marks, &self.stale, 0))
    }

    /// All that the class is told, as frames from the first on, and how many they are.
    fn whole(&mut self) -> (u64, Bytes) {
        let (told, stale) = (&self.told, &self.stale);
        let whole = self.whole.get_or_insert_with(|| {
            let changes = EndpointsState::default().changes_to(told);
            (changes.len() as u64, pieces(&changes, stale, 0))
        });
        whole.clone()
    }
}

impl Streams {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The identities of those who are connected.
    #[must_use]
    pub fn identities(&self) -> Vec<String> {
        self.classes.keys().cloned().collect()
    }

    /// Opens the stream `connection` in place of an older one of the sidecar, and tells of the
    /// endpoints, unless it has those already. `wanted` is asked when it is the first of its class.
    pub fn open(
        &mut self,
        key: &SidecarKey,
        connection: ConnectionId,
        has: Option<EndpointsHash>,
        wanted: impl FnOnce() -> Wanted,
    ) -> mpsc::Receiver<Bytes> {
        let (pieces, receiver) = mpsc::channel(PIECES_QUEUED_MAX);
        let identity = key.identity();
        let class = match self.classes.get_mut(identity) {
            Some(class) => class,
            None => {
                let class = Class::new(wanted());
                self.classes.entry(identity.to_owned()).or_insert(class)
            }
        };
        class.keys.insert(key.clone());
        let (sequence, bytes) = if has == Some(class.hash) { class.marks() } else { class.whole() };
        let reports_until = Instant::now();
        self.live.insert(key.clone(), Live { connection, pieces, sequence, reports_until });
        if !bytes.is_empty() {
            self.send(key, bytes);
        }
        receiver
    }

    /// The stream `connection` has ended. Gives whether it was the one that is open.
    pub fn close(&mut self, key: &SidecarKey, connection: ConnectionId) -> bool {
        let is_open = self.live.get(key).is_some_and(|live| live.connection == connection);
        if is_open {
            self.end(key);
        }
        is_open
    }

    /// Ends a stream.
    pub fn cut(&mut self, key: &SidecarKey) {
        self.end(key);
    }

    fn end(&mut self, key: &SidecarKey) {
        self.live.remove(key);
        let Some(class) = self.classes.get_mut(key.identity()) else { return };
        class.keys.remove(key);
        if class.keys.is_empty() {
            self.classes.remove(key.identity());
        }
    }

    /// Sends bytes of frames, if the sidecar is connected. One that does not read is cut off.
    pub fn send(&mut self, key: &SidecarKey, bytes: Bytes) {
        let Some(live) = self.live.get(key) else { return };
        match live.pieces.try_send(bytes) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(sidecar = %key, "does not read, its stream is ended");
                self.slow_readers += 1;
                self.end(key);
            }
            // Its goodbye is on the way.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    /// Sends one frame to all.
    pub fn send_all(&mut self, frame: &Frame) {
        let Some(bytes) = encoded(frame) else { return };
        for key in self.keys() {
            self.send(&key, bytes.clone());
        }
    }

    /// Takes note that a sidecar reports `now`. Gives whether it may: not more often than every
    /// [`REPORT_EVERY`], 20 at once apart.
    pub fn may_report(&mut self, key: &SidecarKey, now: Instant) -> bool {
        let Some(live) = self.live.get_mut(key) else { return true };
        let until = live.reports_until.max(now) + REPORT_EVERY;
        let may = until.saturating_duration_since(now) <= REPORT_EVERY * REPORTS_AHEAD;
        if may {
            live.reports_until = until;
        }
        may
    }

    /// Asks everybody to connect anew within `spread`.
    pub fn move_all(&mut self, spread: Duration) {
        for key in self.keys() {
            let retry_ms = (spread.as_millis() as f64 * fastrand::f64()) as u64;
            if let Some(bytes) = encoded(&Frame::Move(Move { retry_ms, to: None })) {
                self.send(&key, bytes);
            }
        }
    }

    /// Tells the sidecars of a class what has changed of its endpoints.
    pub fn tell(&mut self, identity: &str, wanted: Wanted) {
        let Some(class) = self.classes.get_mut(identity) else { return };
        let mut changes = class.told.changes_to(&wanted.state);
        let changed: BTreeSet<&str> = changes.iter().map(|(cluster, _)| cluster.as_str()).collect();
        let marked = class.stale.symmetric_difference(&wanted.stale);
        let marked = marked.filter(|cluster| !changed.contains(cluster.as_str()));
        let marks: Vec<_> = marked.map(|cluster| mark(cluster)).collect();
        changes.extend(marks);
        if changes.is_empty() {
            return;
        }
        class.whole = None;
        class.stale = wanted.stale;
        class.told = wanted.state;
        class.hash = class.told.hash();
        // Streams that were opened between the same two changes count alike.
        let mut shared: HashMap<u64, Bytes> = HashMap::new();
        let mut ready = Vec::with_capacity(class.keys.len());
        for key in &class.keys {
            let Some(live) = self.live.get_mut(key) else { continue };
            let before = live.sequence;
            let bytes =
                shared.entry(before).or_insert_with(|| pieces(&changes, &class.stale, before));
            live.sequence += changes.len() as u64;
            ready.push((key.clone(), bytes.clone()));
        }
        for (key, bytes) in ready {
            self.send(&key, bytes);
        }
    }

    /// Pings those who are due at `now`; their time on the wire is `now_ms`.
    pub fn ping_due(&mut self, now: Instant, now_ms: u64) {
        while self.pings.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, key, connection)) = self.pings.pop_front() else { return };
            if self.live.get(&key).is_some_and(|live| live.connection == connection) {
                self.ping(&key, now, now_ms);
            }
        }
    }

    /// Pings a stream, and again in [`PING_EVERY`]. Called once when it is opened.
    pub fn ping(&mut self, key: &SidecarKey, now: Instant, now_ms: u64) {
        let Some(live) = self.live.get(key) else { return };
        let connection = live.connection;
        // Who is to have none keeps what it has: it may be one that was lost from the folder.
        let class = self.classes.get(key.identity());
        let class = class.filter(|class| class.told.iter().next().is_some());
        let endpoints = class.map(|class| class.hash);
        let ping = Ping { now_ms, stream: connection.0, endpoints };
        self.pings.push_back((now + PING_EVERY, key.clone(), connection));
        if let Some(bytes) = encoded(&Frame::Ping(ping)) {
            self.send(key, bytes);
        }
    }

    /// The number of the stream of a sidecar, if it has one.
    #[must_use]
    pub fn connection(&self, key: &SidecarKey) -> Option<ConnectionId> {
        self.live.get(key).map(|live| live.connection)
    }

    /// Who is connected.
    #[must_use]
    pub fn keys(&self) -> Vec<SidecarKey> {
        self.live.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
