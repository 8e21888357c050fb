//! One simulated sidecar: all that a sidecar says to its pusher, and nothing that it does.
//!
//! ```text
//! [join] ─▶ stream ─▶ STAGE: staged, COMMIT: applied, confirmed; ENDPOINTS: kept; PING: compared
//!             │ broken, MOVE            a report at once upon each, else every 10 s +- 20 %
//!             └──▶ wait: full jitter 0.25 .. 30 s, or as MOVE says
//! ```
//!
//! Connections and TLS are those of the sidecar itself; not here are disk, tables and traffic.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair as Key, PKCS_ECDSA_P256_SHA256};
use ringway::control::push::PUSHER_PATH;
use ringway::control::push::connection::{Connection, FrameStream, PushError, Target};
use ringway_protocol::{
    CAPABILITIES, CertificateState, Commit, EndpointsState, Frame, Hello, Join, Joined, Name, Ping,
    PolicyHash, Report, Running, State, StateReport, Traffic,
};
use ringway_tls::{Bundle, KeyPair, SpiffeId, UnixTime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::watch::{Count, Watch};

/// Between two attempts to connect, as sidecars have it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How often a report is sent without a reason, give or take a fifth.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// A stream that lived for so long resets the backoff.
const STEADY: Duration = Duration::from_secs(30);
/// The service whose endpoint is watched.
pub(super) const TARGET: &str = "target";

/// What all sidecars of a fleet have in common.
#[derive(Debug)]
pub(super) struct Setup {
    /// Address of the pusher.
    pub(super) pusher: String,
    pub(super) root_sha256: [u8; 32],
    pub(super) token: String,
    pub(super) watch: Watch,
}

/// The certificate, and what the pusher is reached with.
struct Held {
    target: Target,
    bundle: Arc<Bundle>,
    pair: Arc<KeyPair>,
    epoch: u64,
}

/// A simulated sidecar.
pub(super) struct Sidecar {
    setup: Arc<Setup>,
    nth: usize,
    node: Name,
    identity: String,
    held: Option<Held>,
    endpoints: EndpointsState,
    endpoints_known: bool,
    staged: Option<(u64, PolicyHash)>,
    running: Option<Running>,
    /// When the policy that runs is confirmed, while it is not.
    confirm_at: Option<Instant>,
    news: Vec<StateReport>,
    failures: u32,
}

/// An open stream.
struct Stream {
    frames: FrameStream,
    opened: Instant,
    number: Option<u64>,
    sequence: u64,
    told: HashSet<String>,
    report_at: Instant,
    reporting: Option<JoinHandle<(usize, Result<Connection, PushError>)>>,
    kept: Option<Connection>,
}

/// Why a stream is over.
#[derive(Debug)]
enum Over {
    Broken(PushError),
    Moved(Duration),
    /// What the sidecar has is not what the pusher told.
    OutOfStep,
    /// A certificate or a name that cannot be: a defect.
    Unusable,
}

impl From<PushError> for Over {
    fn from(error: PushError) -> Self {
        Self::Broken(error)
    }
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * fastrand::f64())
}

async fn reported(
    task: &mut Option<JoinHandle<(usize, Result<Connection, PushError>)>>,
) -> (usize, Result<Connection, PushError>) {
    let result = match task {
        Some(handle) => handle.await.ok(),
        None => std::future::pending().await,
    };
    *task = None;
    result.unwrap_or((0, Err(PushError::Closed)))
}

impl Sidecar {
    /// The `nth` of a fleet.
    pub(super) fn new(setup: Arc<Setup>, nth: usize, identity: String) -> Option<Self> {
        let node = format!("sim-{nth}").parse().ok()?;
        Some(Self {
            setup,
            nth,
            node,
            identity,
            held: None,
            endpoints: EndpointsState::default(),
            endpoints_known: false,
            staged: None,
            running: None,
            confirm_at: None,
            news: Vec::new(),
            failures: 0,
        })
    }

    /// Talks to the pusher until it is dropped.
    pub(super) async fn live(mut self) {
        loop {
            let over = self.converse().await;
            let watch = &self.setup.watch;
            watch.connected(self.nth, false);
            let wait = match over {
                Over::Moved(wait) => wait,
                Over::Broken(error) => {
                    watch.count(Count::Failures);
                    self.backoff() + error.retry_after().unwrap_or_default()
                }
                Over::OutOfStep | Over::Unusable => {
                    watch.count(Count::Failures);
                    self.endpoints_known = false;
                    self.backoff()
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn backoff(&mut self) -> Duration {
        let (first, most) = BACKOFF;
        let limit = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        limit.mul_f64(fastrand::f64()).max(first / 5)
    }

    async fn converse(&mut self) -> Over {
        let mut stream = match self.open().await {
            Ok(stream) => stream,
            Err(over) => return over,
        };
        let over = loop {
            let due = if stream.number.is_some() && stream.reporting.is_none() {
                if self.news.is_empty() { stream.report_at } else { Instant::now() }
            } else {
                Instant::now() + REPORT_INTERVAL
            };
            let confirm_at = self.confirm_at.unwrap_or_else(|| Instant::now() + REPORT_INTERVAL);
            tokio::select! {
                frame = stream.frames.next() => match frame {
                    Ok(frame) => if let Err(over) = self.take(&mut stream, frame) {
                        break over;
                    },
                    Err(error) => break error.into(),
                },
                () = sleep_until(due), if stream.reporting.is_none() => self.report(&mut stream),
                () = sleep_until(confirm_at), if self.confirm_at.is_some() => self.confirm(),
                (count, sent) = reported(&mut stream.reporting) => match sent {
                    Ok(connection) => {
                        self.setup.watch.count(Count::Reports);
                        self.news.drain(..count);
                        if self.news.is_empty() && self.running.is_some() {
                            self.setup.watch.confirmed(self.nth);
                        }
                        stream.kept = Some(connection);
                    }
                    Err(_) => {
                        self.setup.watch.count(Count::Failures);
                        stream.report_at = Instant::now() + jittered(Duration::from_secs(1));
                    }
                },
            }
        };
        if stream.opened.elapsed() > STEADY {
            self.failures = 0;
        }
        over
    }

    /// Joins, the first time, and opens a stream.
    async fn open(&mut self) -> Result<Stream, Over> {
        if self.held.is_none() {
            self.held = Some(self.join().await?);
        }
        let Some(held) = &self.held else { return Err(Over::Unusable) };
        let names = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        let hello = Hello {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").parse().map_err(|_| Over::Unusable)?,
            capabilities: names(CAPABILITIES),
            labels: Vec::new(),
            running: self.running,
            on_probation: self.confirm_at.is_some(),
            endpoints: self.endpoints_known.then(|| self.endpoints.hash()),
            epoch: held.epoch,
        };
        let frames = held.target.connect().await?.stream(&hello.to_query()).await?;
        self.setup.watch.connected(self.nth, true);
        self.setup.watch.count(Count::Connects);
        let opened = Instant::now();
        Ok(Stream {
            frames,
            opened,
            number: None,
            sequence: 0,
            told: HashSet::new(),
            report_at: opened,
            reporting: None,
            kept: None,
        })
    }

    async fn join(&self) -> Result<Held, Over> {
        let key = Key::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| Over::Unusable)?;
        let request = CertificateParams::default().serialize_request(&key);
        let csr = request.and_then(|it| it.pem()).map_err(|_| Over::Unusable)?;
        let tls = ringway_tls::control::pinned_client(self.setup.root_sha256, PUSHER_PATH);
        let tls = tls.map_err(|_| Over::Unusable)?;
        let address = self.setup.pusher.clone();
        let join = Join {
            token: self.setup.token.clone(),
            csr,
            identity: Some(self.identity.clone()),
            node: self.node.clone(),
        };
        let mut connection = Target { address: address.clone(), tls }.connect().await?;
        let joined: Joined = connection.post("/v1/join", &join).await?;
        let pem = format!("{}\n{}", joined.chain.trim_end(), key.serialize_pem());
        let pair = KeyPair::parse(pem.as_bytes(), pem.as_bytes(), None);
        let pair = Arc::new(pair.map_err(|_| Over::Unusable)?);
        let bundle = bundle(&joined.roots, &joined.revocations).ok_or(Over::Unusable)?;
        let target = target(address, &pair, &bundle).ok_or(Over::Unusable)?;
        Ok(Held { target, bundle, pair, epoch: joined.epoch })
    }

    fn take(&mut self, stream: &mut Stream, frame: Frame) -> Result<(), Over> {
        self.setup.watch.count(Count::Frames);
        match frame {
            Frame::Stage(stage) => {
                self.staged = Some((stage.generation, stage.hash));
                self.tell(stage.generation, stage.hash, State::Staged);
            }
            Frame::Commit(commit) => self.commit(commit),
            Frame::Endpoints(endpoints) => {
                stream.told.insert(endpoints.cluster.clone());
                let applied = self.endpoints.apply(endpoints, &mut stream.sequence);
                applied.map_err(|_| Over::OutOfStep)?;
                self.endpoints_known = true;
                self.note_target();
            }
            Frame::Bundle(new) => {
                let bundle = bundle(&new.roots, &new.revocations).ok_or(Over::Unusable)?;
                let held = self.held.as_mut().ok_or(Over::Unusable)?;
                let address = held.target.address.clone();
                held.target = target(address, &held.pair, &bundle).ok_or(Over::Unusable)?;
                (held.bundle, held.epoch) = (bundle, new.epoch);
                (stream.kept, stream.report_at) = (None, Instant::now());
            }
            Frame::Ping(ping) => self.compare(stream, &ping)?,
            Frame::Move(moved) => return Err(Over::Moved(Duration::from_millis(moved.retry_ms))),
            Frame::Hold(_) | Frame::Sample(_) => {}
        }
        Ok(())
    }

    /// Compares the endpoints here with those that the pusher has told of.
    fn compare(&mut self, stream: &mut Stream, ping: &Ping) -> Result<(), Over> {
        stream.number = Some(ping.stream);
        let Some(told) = ping.endpoints.filter(|told| *told != self.endpoints.hash()) else {
            return Ok(());
        };
        // Clusters of an earlier stream that the pusher does not know any more.
        self.endpoints.retain(|cluster| stream.told.contains(cluster));
        if self.endpoints.hash() == told { Ok(()) } else { Err(Over::OutOfStep) }
    }

    fn note_target(&self) {
        let mut clusters = self.endpoints.iter();
        let found = clusters.find(|(name, _)| name.split(':').next() == Some(TARGET));
        if let Some(member) = found.and_then(|(_, members)| members.first()) {
            self.setup.watch.target(self.nth, member.address);
        }
    }

    fn commit(&mut self, commit: Commit) {
        let Commit { generation, hash, probation_ms } = commit;
        if self.staged.take_if(|staged| *staged == (generation, hash)).is_none() {
            return;
        }
        self.running = Some(Running { generation, hash });
        self.tell(generation, hash, State::Applied);
        self.confirm_at = Some(Instant::now() + Duration::from_millis(probation_ms));
        if probation_ms == 0 {
            self.confirm();
        }
    }

    fn confirm(&mut self) {
        self.confirm_at = None;
        if let Some(Running { generation, hash }) = self.running {
            self.tell(generation, hash, State::Confirmed);
        }
    }

    fn tell(&mut self, generation: u64, hash: PolicyHash, state: State) {
        let reason = String::new();
        self.news.push(StateReport { generation, hash, state, reason, took_ms: 0 });
    }

    fn report(&mut self, stream: &mut Stream) {
        stream.report_at = Instant::now() + jittered(REPORT_INTERVAL);
        let (Some(number), Some(held)) = (stream.number, &self.held) else { return };
        let root = held.bundle.root_of(&held.pair, UnixTime::now());
        let hex = |bytes: &[u8; 32]| PolicyHash::new(*bytes).to_string();
        let states: Vec<StateReport> =
            self.news.iter().take(ringway_protocol::limits::STATES_MAX).cloned().collect();
        let report = Report {
            node: self.node.clone(),
            stream: number,
            running: self.running,
            on_probation: self.confirm_at.is_some(),
            endpoints: self.endpoints_known.then(|| self.endpoints.hash()),
            certificate: CertificateState {
                not_after_s: held.pair.info().not_after.unsigned_abs(),
                root: root.map(|root| hex(&root.sha256)).unwrap_or_default(),
                problem: String::new(),
            },
            epoch: held.epoch,
            traffic: Traffic::default(),
            states,
        };
        let (target, kept) = (held.target.clone(), stream.kept.take());
        stream.reporting =
            Some(tokio::spawn(
                async move { (report.states.len(), send(target, kept, report).await) },
            ));
    }
}

fn bundle(roots: &str, revocations: &str) -> Option<Arc<Bundle>> {
    let lists: Vec<&[u8]> = match revocations.trim().is_empty() {
        true => Vec::new(),
        false => vec![revocations.as_bytes()],
    };
    Bundle::parse(roots.as_bytes(), &lists).ok().map(Arc::new)
}

fn target(address: String, pair: &Arc<KeyPair>, bundle: &Arc<Bundle>) -> Option<Target> {
    let domain = pair.spiffe()?.trust_domain();
    let pusher = SpiffeId::parse(&format!("spiffe://{domain}{PUSHER_PATH}")).ok()?;
    let tls = ringway_tls::control::client(Some(pair), bundle, pusher).ok()?;
    Some(Target { address, tls })
}

async fn send(
    target: Target,
    kept: Option<Connection>,
    report: Report,
) -> Result<Connection, PushError> {
    if let Some(mut connection) = kept {
        match connection.post::<()>("/v1/report", &report).await {
            Ok(()) => return Ok(connection),
            // The pusher may have closed it meanwhile.
            Err(PushError::Http { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut fresh = target.connect().await?;
    fresh.post::<()>("/v1/report", &report).await?;
    Ok(fresh)
}
