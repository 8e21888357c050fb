//! A worker: one thread, one ring, its own listeners, upstream connections and counters.
//!
//! # Invariants
//! - Nothing here blocks: files, names and logs are other threads' work.
//! - A panic ends the connection it happened on, not the worker.
//!
//! # Not here
//! Protocols: `http1`, `tunnel`.

pub mod accept;
pub mod date;
pub mod mailbox;
pub mod parking;
pub mod placement;
pub mod pool;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use ringway_router::{ListenerId, RequestKey, Table};

use self::accept::{Listening, accept_loop};
use self::date::DateCache;
use self::mailbox::Message;
use self::parking::Lot;
use self::pool::Pool;
use crate::connection::{Idle, Prepared};
use crate::detect::Found;
use crate::http2::client::Clients;
use crate::io::backend;
use crate::io::deadlines::Deadlines;
use crate::io::notify::Notify;
use crate::io::silence;
use crate::io::turn;
use crate::recorder::Shard;
use crate::sample::Sampler;
use crate::shared::{Accepted, Instance, Running, Shared};
use crate::sys::mapped::Mapped;
use crate::sys::stream::Stream;
use crate::tls::handshake::Handshakes;
use crate::tls::peer::TlsPeer;
use crate::tls::sessions::Sessions;

/// The context of one worker, shared by its tasks.
pub struct Worker {
    /// Its number.
    pub id: usize,
    /// The process.
    pub shared: Arc<Shared>,
    /// Its counters.
    pub shard: Arc<Shard>,
    /// Its sockets' deadlines.
    pub deadlines: Rc<Deadlines>,
    /// Its connections from clients that have nothing to do.
    pub lot: Lot,
    /// Its idle connections to endpoints.
    pub pool: Rc<Pool>,
    /// Its HTTP/2 connections to endpoints.
    pub clients: Clients,
    /// The current second, in the form of HTTP.
    pub date: DateCache,
    /// Its TLS handshakes, and the connections that they led to.
    pub handshakes: Handshakes,
    /// TLS sessions with endpoints, kept for the next connection to each.
    pub sessions: Sessions,
    /// Room for paths while a request is planned.
    pub scratch: RefCell<Scratch>,
    /// Counts down to the next request that is kept as a sample.
    pub sampler: Sampler,
    random: RefCell<fastrand::Rng>,
    running: RefCell<Rc<Snapshot>>,
    instances: RefCell<HashMap<Instance, InstanceState>>,
    close_idle: Cell<bool>,
}

/// Buffers that planning writes to and keeps.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The path, normalised.
    pub path: Vec<u8>,
    /// The path, rewritten.
    pub rewritten: Vec<u8>,
}

/// The table as one worker holds it: counted without atomics.
pub struct Snapshot {
    /// The table that all workers share.
    pub running: Arc<Running>,
    /// Where round robin stands, by cluster.
    pub cursors: Box<[Cell<u32>]>,
}

struct InstanceState {
    series: u32,
    open: u32,
    /// The last table that had this listener, once it was dropped: its connections live on.
    last: Option<Rc<Snapshot>>,
    closing: Option<Rc<Notify>>,
}

impl Snapshot {
    fn new(running: Arc<Running>) -> Rc<Self> {
        let cursors = running.table.clusters().iter().map(|_| Cell::new(0)).collect();
        Rc::new(Self { running, cursors })
    }
}

impl Worker {
    fn new(id: usize, shared: Arc<Shared>) -> io::Result<Rc<Self>> {
        let shard = Arc::clone(&shared.seats[id].shard);
        let running = Snapshot::new(shared.current());
        shard.generation.set(running.running.generation.cast_signed());
        let deadlines = Deadlines::new();
        Ok(Rc::new(Self {
            id,
            lot: Lot::new(&deadlines)?,
            pool: Rc::new(Pool::new(Arc::clone(&shard), Rc::clone(&deadlines))),
            deadlines,
            clients: Clients::default(),
            date: DateCache::default(),
            handshakes: Handshakes::default(),
            sessions: Sessions::default(),
            scratch: RefCell::default(),
            sampler: Sampler::new(shared.seats[id].samples.is_enabled()),
            random: RefCell::new(fastrand::Rng::new()),
            running: RefCell::new(running),
            instances: RefCell::default(),
            close_idle: Cell::new(false),
            shard,
            shared,
        }))
    }

    /// 64 random bits; not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// Keeps a request as a sample.
    #[cold]
    pub fn take_sample(&self, table: &Table, key: &RequestKey<'_>) {
        let reservoir = &self.shared.seats[self.id].samples;
        self.sampler.take(reservoir, table, key, || self.random());
    }

    /// Takes the newest table, if there is one, and says which is in use.
    #[must_use]
    pub fn snapshot(&self) -> Rc<Snapshot> {
        if self.shared.generation() != self.running.borrow().running.generation {
            self.refresh();
        }
        Rc::clone(&self.running.borrow())
    }

    #[cold]
    fn refresh(&self) {
        let next = Snapshot::new(self.shared.current());
        let old = self.running.replace(Rc::clone(&next));
        for (instance, state) in self.instances.borrow_mut().iter_mut() {
            if next.running.listener(*instance).is_some() {
                state.last = None;
            } else if state.last.is_none() {
                state.last = Some(Rc::clone(&old));
            }
        }
        self.shard.generation.set(next.running.generation.cast_signed());
    }

    /// The table for a connection of `instance`, and its listener there. A connection whose
    /// listener was dropped keeps the last table that had it.
    #[must_use]
    pub fn table_for(&self, instance: Instance) -> Option<(Rc<Snapshot>, ListenerId)> {
        let snapshot = self.snapshot();
        if let Some(listener) = snapshot.running.listener(instance) {
            return Some((snapshot, listener));
        }
        let last = self.instances.borrow().get(&instance)?.last.clone()?;
        let listener = last.running.listener(instance)?;
        Some((last, listener))
    }

    /// Connections of `instance`, over all workers.
    #[must_use]
    pub fn open_of(&self, instance: Instance) -> u64 {
        let Some(series) = self.instances.borrow().get(&instance).map(|state| state.series) else {
            return 0;
        };
        let counted = |shard: &Shard| {
            let listener = shard.listeners.get(series as usize)?;
            Some(listener.accepted.value().cast_signed() - listener.closed.value().cast_signed())
        };
        let open: i64 = self.shared.seats.iter().filter_map(|seat| counted(&seat.shard)).sum();
        open.max(0).unsigned_abs()
    }

    /// Counts a connection in plaintext to a listener that speaks TLS too.
    pub fn count_plaintext(&self, instance: Instance, address: IpAddr) {
        let Some(series) = self.instances.borrow().get(&instance).map(|state| state.series) else {
            return;
        };
        if let Some(listener) = self.shard.listeners.touch(series as usize) {
            listener.plaintext.increment();
        }
        self.shared.seats[self.id].plaintext.count(series, address);
    }

    /// Counts what a connection was found to speak.
    pub fn count_found(&self, instance: Instance, found: Found) {
        let Some(series) = self.instances.borrow().get(&instance).map(|state| state.series) else {
            return;
        };
        if let Some(listener) = self.shard.listeners.touch(series as usize) {
            listener.found[found as usize].increment();
        }
    }

    /// Cuts the connections whose peer is trusted no more.
    fn cut_distrusted(&self) {
        let running = Rc::clone(&self.running.borrow());
        let credentials = &running.running.credentials;
        // Many connections have the same few peers.
        let verdicts = RefCell::new(HashMap::new());
        let trusted = |peer: &TlsPeer| {
            let mut verdicts = verdicts.borrow_mut();
            // By the whole chain: the same leaf can come with other certificates above it.
            let known = verdicts.get(&peer.chain).copied();
            let trusted = known.unwrap_or_else(|| credentials.still_trusts(peer));
            if known.is_none() {
                verdicts.insert(peer.chain.clone(), trusted);
            }
            if !trusted {
                self.shard.tls(peer.side).cut.increment();
            }
            trusted
        };
        let cut =
            self.lot.cut(trusted) + self.pool.cut(trusted) + self.handshakes.live.cut(trusted);
        if cut > 0 {
            tracing::warn!(connections = cut, "cut: their peers are trusted no more");
        }
    }

    /// Whether connections that are idle are to be closed.
    #[must_use]
    pub fn closing_idle(&self) -> bool {
        self.close_idle.get()
    }

    fn listen(self: &Rc<Self>, instance: Instance, series: u32, fd: std::os::fd::OwnedFd) {
        let closing = Rc::new(Notify::default());
        let state =
            InstanceState { series, open: 0, last: None, closing: Some(Rc::clone(&closing)) };
        self.instances.borrow_mut().insert(instance, state);
        monoio::spawn(accept_loop(Rc::clone(self), fd, Listening { instance, series, closing }));
    }

    fn stop_listening(&self, instance: Instance) {
        let mut instances = self.instances.borrow_mut();
        let Some(state) = instances.get_mut(&instance) else { return };
        if let Some(closing) = state.closing.take() {
            closing.notify();
        }
    }

    fn handle(self: &Rc<Self>, message: Message) {
        match message {
            Message::Listen { instance, series, fd } => self.listen(instance, series, fd),
            Message::StopListening(instance) => self.stop_listening(instance),
            Message::Serve(accepted) => {
                // It was counted for this worker when it was handed over.
                self.shared.seats[self.id].load.fetch_sub(1, Ordering::Relaxed);
                serve(self, accepted);
            }
            Message::Refresh => {
                let _ = self.snapshot();
                self.forget_instances();
            }
            Message::Distrust => {
                let _ = self.snapshot();
                self.cut_distrusted();
            }
            Message::CloseIdle => {
                self.close_idle.set(true);
                self.pool.clear();
                self.clients.clear();
                self.lot.clear();
                self.deadlines.expire_idle();
            }
        }
    }

    /// Forgets instances that are closed and empty, and with them the tables they held.
    fn forget_instances(&self) {
        let running = Rc::clone(&self.running.borrow());
        self.instances.borrow_mut().retain(|instance, state| {
            state.open > 0
                || state.closing.is_some()
                || running.running.listener(*instance).is_some()
        });
    }
}

/// Counts a connection for as long as it lives.
struct Guest {
    worker: Rc<Worker>,
    instance: Instance,
}

impl Guest {
    fn new(worker: &Rc<Worker>, instance: Instance) -> Self {
        worker.shared.seats[worker.id].load.fetch_add(1, Ordering::Relaxed);
        if let Some(state) = worker.instances.borrow_mut().get_mut(&instance) {
            state.open += 1;
        }
        Self { worker: Rc::clone(worker), instance }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.shared.seats[worker.id].load.fetch_sub(1, Ordering::Relaxed);
        worker.shard.downstream_closed.increment();
        let mut instances = worker.instances.borrow_mut();
        let Some(state) = instances.get_mut(&self.instance) else { return };
        state.open -= 1;
        if let Some(series) = worker.shard.listeners.touch(state.series as usize) {
            series.closed.increment();
        }
        if state.open == 0 && state.last.is_some() {
            instances.remove(&self.instance);
        }
    }
}

/// Starts a task for a connection that was accepted.
fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    let guest = Guest::new(worker, accepted.instance);
    // On pages of its own: what comes before the first request is of no use afterwards.
    spawn(Mapped::pin(|| crate::connection::prepare(Rc::clone(worker), accepted)), guest);
}

/// Starts a task for a connection that was parked.
fn resume(idle: Idle, guest: Guest) {
    let prepared = idle.resume(&guest.worker);
    spawn(std::future::ready(prepared), guest);
}

fn spawn(prepared: impl Future<Output = Option<Prepared>> + 'static, guest: Guest) {
    monoio::spawn(async move {
        let task = pin!(crate::connection::serve(prepared));
        if let Some(idle) = guarded(&guest.worker, task).await.flatten() {
            let worker = Rc::clone(&guest.worker);
            worker.lot.park(idle, guest);
        }
    });
}

/// Runs `task`; a panic in it is counted and goes no further.
pub async fn guarded<T>(worker: &Worker, mut task: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|context| {
        turn::begin();
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
            Ok(polled) => polled.map(Some),
            Err(_) => {
                worker.shard.panics.increment();
                worker.shard.record_cause(crate::outcome::Cause::Internal);
                Poll::Ready(None)
            }
        }
    })
    .await
}

/// The life of a worker's thread. It does not return: a runtime with operations in flight must
/// not be dropped, so the process ends around it.
///
/// # Errors
/// When the runtime or the mailbox cannot be set up.
pub fn run(id: usize, shared: Arc<Shared>) -> io::Result<()> {
    let backend = shared.backend;
    backend::block_on(backend, async move {
        let worker = Worker::new(id, shared)?;
        worker.shard.thread.set(i64::from(rustix::thread::gettid().as_raw_nonzero().get()));
        monoio::spawn(Rc::clone(&worker.deadlines).sweep_forever());
        let shard = Arc::clone(&worker.shard);
        let on_gone = move || shard.silent_peers.increment();
        monoio::spawn(silence::watch_forever(Rc::clone(&worker.deadlines), on_gone));
        monoio::spawn(Rc::clone(&worker.pool).evict_forever());
        monoio::spawn(parking::attend(Rc::clone(&worker)));
        let mailbox = &worker.shared.seats[id].mailbox;
        let event = Stream::new(mailbox.event()?)?;
        loop {
            event.readable().await?;
            mailbox.acknowledge();
            while let Some(message) = mailbox.take() {
                worker.handle(message);
            }
        }
    })?
}
