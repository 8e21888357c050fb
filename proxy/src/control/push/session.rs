//! The conversation with the pusher, for as long as the process lives.
//!
//! ```text
//!      ┌──────────────── backoff, full jitter 0.25 .. 30 s ◀─────────────┐
//!      ▼                                                                 │
//! [join] ─▶ connect ─▶ stream: frames ─▶ policies, endpoints, bundle ─▶ broken
//!           each second: probation, renewal due?, report due?, endpoints to disk?
//! ```
//!
//! Connecting, reporting and renewing are tasks of their own: none of them holds up the others or
//! the watch over a policy.
//!
//! # Invariants
//! - One stream, one report and one renewal at a time.
//! - Whatever fails is tried again later and by chance, so that a fleet does not move in step.

mod renewal;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ringway_protocol::limits::STATES_MAX;
use ringway_protocol::{
    CAPABILITIES, CertificateState, EndpointsState, Frame, Hello, Name, Ping, Report, Traffic,
};
use ringway_stats::clock::now_ns;
use ringway_tls::{SpiffeId, UnixTime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::renewal::Renewed;
use super::connection::{Connection, FrameStream, PushError, Target, bounded};
use super::identity::Identity;
use super::policies::Policies;
use super::samples;
use super::state::Boot;
use super::{Orders, PUSHER_PATH, Settings, SharedState};
use crate::control::status::Status;
use crate::outcome::{Blame, Cause};
use crate::shared::Shared;

/// Between two attempts to connect: a random part of what doubles from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Between two attempts to renew, likewise.
const RENEW_BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Between two attempts to get a certificate while there is none that is valid.
const JOIN_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How often a report is sent without a reason, give or take a fifth.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// How often changed endpoints are written to disk.
const ENDPOINTS_INTERVAL: Duration = Duration::from_secs(10);
/// How often the probation and what is due are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A stream that lived for so long resets the backoff.
const STEADY: Duration = Duration::from_secs(30);

/// What a report came to.
struct Reported {
    /// How many states it said.
    count: usize,
    /// As [`Session::era`] when it was sent.
    era: u64,
    /// The connection for the next one.
    sent: Result<Connection, PushError>,
}

/// What doubles with every failure.
#[derive(Debug)]
struct Backoff {
    range: (Duration, Duration),
    failures: u32,
}

impl Backoff {
    fn new(range: (Duration, Duration)) -> Self {
        Self { range, failures: 0 }
    }

    /// How long to wait after another failure: by chance up to the limit of now, and not less than
    /// `least`.
    fn next(&mut self, least: Option<Duration>) -> Duration {
        let (first, most) = self.range;
        let limit = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        // Never at once: a pusher that closes every connection would be asked without end.
        let chosen = limit.mul_f64(fastrand::f64()).max(first / 5);
        least.map_or(chosen, |least| least + chosen)
    }
}

/// The sidecar's end of the conversation.
pub struct Session {
    settings: Settings,
    state: SharedState,
    orders: Orders,
    status: Arc<Status>,
    shared: Arc<Shared>,
    policies: Policies,
    identity: Option<Identity>,
    endpoints: EndpointsState,
    endpoints_known: bool,
    endpoints_written: bool,
    stream: Option<Stream>,
    connecting: Option<JoinHandle<Result<FrameStream, PushError>>>,
    connect_at: Instant,
    connect_backoff: Backoff,
    reporting: Option<JoinHandle<Reported>>,
    report_connection: Option<Connection>,
    /// Counts the times from which on connections must be new: what is in use since must be able to
    /// reach the pusher by itself.
    era: u64,
    report_at: Instant,
    /// The pusher wants no report before.
    report_not_before: Instant,
    sampling: Option<JoinHandle<()>>,
    renewing: Option<JoinHandle<Renewed>>,
    renew_at: Option<Instant>,
    renew_backoff: Backoff,
    join_backoff: Backoff,
    write_endpoints_at: Instant,
}

/// An open stream.
struct Stream {
    frames: FrameStream,
    opened: Instant,
    /// Its number, once a PING has said it.
    number: Option<u64>,
    /// Number of the last endpoints frame.
    sequence: u64,
    /// Clusters whose endpoints were told on this stream.
    told: HashSet<String>,
}

/// The result of a task, if there is one; waits for ever if there is none.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    match task {
        Some(handle) => {
            let result = handle.await.ok();
            *task = None;
            result
        }
        None => std::future::pending().await,
    }
}

async fn next_frame(stream: &mut Option<Stream>) -> Result<Frame, PushError> {
    match stream {
        Some(stream) => stream.frames.next().await,
        None => std::future::pending().await,
    }
}

fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// Why a failure that an exchange has is the sidecar's own: it comes of what the pusher says.
fn is_own(cause: Cause) -> bool {
    match cause.blame() {
        Blame::Local => {
            !matches!(cause, Cause::Overloaded | Cause::Descriptors | Cause::TunnelIdle)
        }
        Blame::Upstream => matches!(
            cause,
            Cause::ConnectFailed
                | Cause::ConnectTimeout
                | Cause::UpstreamTls
                | Cause::UpstreamTlsTimeout
        ),
        Blame::Downstream => false,
    }
}

/// What all workers have forwarded since the start.
#[must_use]
pub fn traffic(shared: &Shared) -> Traffic {
    let mut traffic = Traffic::default();
    for seat in &shared.seats {
        let shard = &seat.shard;
        let by_class = shard.routes.iter().flat_map(|(_, series)| &series.by_class);
        traffic.exchanges += by_class.map(ringway_stats::Counter::value).sum::<u64>();
        traffic.exchanges += shard.tunnels.value();
        let counted = Cause::ALL.iter().zip(&shard.causes);
        let own = counted.filter(|(cause, _)| is_own(**cause));
        traffic.own_failures += own.map(|(_, counter)| counter.value()).sum::<u64>();
    }
    traffic
}

impl Session {
    /// A session that has done nothing yet. `applied`: the policy of `boot` is in use.
    pub fn new(
        settings: Settings,
        state: SharedState,
        orders: Orders,
        status: Arc<Status>,
        shared: Arc<Shared>,
        (boot, applied): (Boot, bool),
    ) -> Session {
        let policies = Policies::new(
            state.clone(),
            orders.clone(),
            Arc::clone(&status),
            boot,
            applied,
            now_ms(),
        );
        let identity = state.with(|state| Identity::load(state)).unwrap_or_else(|error| {
            tracing::error!("{error}; joining anew");
            None
        });
        let endpoints = state.with(|state| state.endpoints());
        let now = Instant::now();
        let session = Session {
            settings,
            state,
            orders,
            status,
            shared,
            policies,
            identity,
            endpoints_known: true,
            endpoints_written: true,
            endpoints,
            stream: None,
            connecting: None,
            connect_at: now,
            connect_backoff: Backoff::new(BACKOFF),
            reporting: None,
            report_connection: None,
            era: 0,
            report_at: now,
            report_not_before: now,
            sampling: None,
            renewing: None,
            renew_at: None,
            renew_backoff: Backoff::new(RENEW_BACKOFF),
            join_backoff: Backoff::new(JOIN_BACKOFF),
            write_endpoints_at: now,
        };
        session.show_identity();
        session
    }

    /// Talks until the process ends.
    pub async fn run(mut self) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let idle = self.stream.is_none() && self.connecting.is_none();
            tokio::select! {
                _ = look.tick() => self.look().await,
                frame = next_frame(&mut self.stream) => match frame {
                    Ok(frame) => self.take(frame).await,
                    Err(error) => self.broken(&error),
                },
                () = sleep_until(self.connect_at), if idle => self.connect(),
                Some(opened) = finished(&mut self.connecting) => match opened {
                    Ok(frames) => self.opened(frames),
                    Err(error) => self.broken(&error),
                },
                Some(reported) = finished(&mut self.reporting) => self.sent(reported),
                Some(renewed) = finished(&mut self.renewing) => self.renewed(renewed).await,
            }
        }
    }

    fn reachable(&self) -> bool {
        self.stream.is_some()
    }

    /// Whom we expect and what we show; `None` without a valid certificate.
    fn target(&self) -> Option<Target> {
        let identity = self.identity.as_ref().filter(|held| held.is_valid(UnixTime::now()))?;
        let domain = identity.id()?.trust_domain();
        let pusher = SpiffeId::parse(&format!("spiffe://{domain}{PUSHER_PATH}")).ok()?;
        let (pair, bundle) = (&identity.pair, &identity.bundle);
        let tls = ringway_tls::control::client(Some(pair), bundle, pusher);
        let tls =
            tls.inspect_err(|error| tracing::error!(%error, "no TLS with the pusher")).ok()?;
        Some(Target { address: self.settings.address.clone(), tls })
    }

    fn connect(&mut self) {
        let Some(target) = self.target() else {
            // Without a certificate there is nothing to connect with: the renewal joins.
            self.connect_at = Instant::now() + LOOK_INTERVAL;
            return;
        };
        let query = self.hello().to_query();
        let open = async move { target.connect().await?.stream(&query).await };
        self.connecting = Some(tokio::spawn(open));
    }

    fn hello(&self) -> Hello {
        let names = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        let version: Option<Name> = env!("CARGO_PKG_VERSION").parse().ok();
        Hello {
            node: self.settings.node.clone(),
            version: version.unwrap_or_else(|| self.settings.node.clone()),
            capabilities: names(CAPABILITIES),
            labels: self.settings.labels.clone(),
            running: self.policies.running(),
            on_probation: self.policies.is_on_probation(),
            endpoints: self.endpoints_known.then(|| self.endpoints.hash()),
            epoch: self.identity.as_ref().map_or(0, Identity::epoch),
        }
    }

    fn opened(&mut self, frames: FrameStream) {
        tracing::info!(pusher = self.settings.address, "connected to the pusher");
        let opened = Instant::now();
        self.stream =
            Some(Stream { frames, opened, number: None, sequence: 0, told: HashSet::new() });
        self.policies.reached();
        self.report_at = opened;
        self.status.update_push(|push| {
            push.connected = true;
            push.connects += 1;
            push.problem = None;
            // Those that still are will be told.
            push.stale_clusters.clear();
        });
    }

    fn broken(&mut self, error: &PushError) {
        let steady = self.stream.take().is_some_and(|stream| stream.opened.elapsed() > STEADY);
        if steady {
            self.connect_backoff = Backoff::new(BACKOFF);
        }
        let delay = self.connect_backoff.next(error.retry_after());
        self.connect_at = Instant::now() + delay;
        tracing::warn!(again_in = ?delay, "no stream from the pusher: {error}");
        self.disconnected(error.to_string());
    }

    fn disconnected(&self, problem: String) {
        self.status.update_push(|push| {
            push.connected = false;
            push.failures += 1;
            push.problem = Some(problem);
        });
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Stage(stage) => {
                self.status.update_push(|push| push.hold = None);
                self.policies.stage(stage).await;
            }
            Frame::Commit(commit) => {
                let (traffic, reachable) = (traffic(&self.shared), self.reachable());
                self.policies.commit(commit, traffic, now_ms(), reachable).await;
                self.begin_era();
            }
            Frame::Endpoints(endpoints) => self.take_endpoints(endpoints).await,
            Frame::Bundle(bundle) => self.take_bundle(&bundle).await,
            Frame::Ping(ping) => self.take_ping(&ping).await,
            Frame::Move(moved) => {
                tracing::info!(retry_ms = moved.retry_ms, "the pusher asks to connect anew");
                if let Some(address) = moved.to {
                    tracing::warn!(
                        address,
                        "another address is not followed: set `control.address`"
                    );
                }
                self.stream = None;
                self.connect_at = Instant::now() + bounded(Duration::from_millis(moved.retry_ms));
                self.disconnected("the pusher asked to connect anew".to_owned());
            }
            Frame::Hold(hold) => {
                tracing::warn!("the pusher has nothing to apply: {}", hold.reason);
                self.status.update_push(|push| push.hold = Some(hold.reason));
            }
            Frame::Sample(sample) => self.sample(sample.max as usize),
        }
    }

    /// Sends what the workers have sampled, one answer at a time.
    fn sample(&mut self, max: usize) {
        let stream = self.stream.as_ref().and_then(|stream| stream.number);
        let (Some(stream), Some(target)) = (stream, self.target()) else { return };
        if self.sampling.as_ref().is_none_or(JoinHandle::is_finished) {
            let node = self.settings.node.clone();
            let answer = samples::answer(&self.shared, node, stream, max);
            self.sampling = Some(tokio::spawn(samples::send(target, answer)));
        }
    }

    async fn take_endpoints(&mut self, frame: ringway_protocol::Endpoints) {
        let Some(stream) = &mut self.stream else { return };
        let (cluster, stale) = (frame.cluster.clone(), frame.stale);
        let says_nothing_else = frame.change.is_empty();
        match self.endpoints.apply(frame, &mut stream.sequence) {
            Ok(()) => {
                self.status.update_push(|push| match stale {
                    true => _ = push.stale_clusters.insert(cluster.clone()),
                    false => _ = push.stale_clusters.remove(&cluster),
                });
                stream.told.insert(cluster);
                self.endpoints_known = true;
                if !says_nothing_else {
                    self.endpoints_changed().await;
                }
            }
            Err(error) => self.start_over(&error.to_string()),
        }
    }

    async fn endpoints_changed(&mut self) {
        self.endpoints_written = false;
        self.orders.endpoints(self.endpoints.clone()).await;
    }

    /// Compares what we have with what the pusher has told of.
    async fn take_ping(&mut self, ping: &Ping) {
        let Some(stream) = &mut self.stream else { return };
        stream.number = Some(ping.stream);
        let Some(told) = ping.endpoints else { return };
        if told == self.endpoints.hash() {
            return;
        }
        // Clusters of an earlier stream that the pusher does not know any more.
        let mut known = self.endpoints.clone();
        known.retain(|cluster| stream.told.contains(cluster));
        if told == known.hash() {
            self.endpoints = known;
            self.endpoints_changed().await;
        } else {
            self.start_over("the endpoints here are not those that the pusher has told of");
        }
    }

    /// Connects anew as one who knows no endpoints. What is known stays in use meanwhile.
    fn start_over(&mut self, why: &str) {
        tracing::warn!("connecting to the pusher anew: {why}");
        self.stream = None;
        self.endpoints_known = false;
        self.connect_at = Instant::now() + self.connect_backoff.next(None);
        self.disconnected(why.to_owned());
    }

    async fn look(&mut self) {
        self.policies.look(now_ms(), traffic(&self.shared)).await;
        let now = Instant::now();
        let has_reason = self.policies.has_news() || now >= self.report_at;
        if has_reason && now >= self.report_not_before {
            self.report();
        }
        if self.is_renewal_due(now) {
            self.renew();
        }
        if !self.endpoints_written && now >= self.write_endpoints_at {
            self.write_endpoints_at = now + ENDPOINTS_INTERVAL;
            match self.state.with(|state| state.keep_endpoints(&self.endpoints)) {
                Ok(()) => self.endpoints_written = true,
                Err(error) => tracing::error!("endpoints cannot be kept for a restart: {error}"),
            }
        }
    }

    fn report(&mut self) {
        let stream = self.stream.as_ref().and_then(|stream| stream.number);
        let Some(stream) = stream.filter(|_| self.reporting.is_none()) else { return };
        let (Some(target), Some(identity)) = (self.target(), &self.identity) else { return };
        let states: Vec<_> = self.policies.reports().take(STATES_MAX).cloned().collect();
        let problem = self.status.get().push.and_then(|push| push.renewal_problem);
        let report = Report {
            node: self.settings.node.clone(),
            stream,
            running: self.policies.running(),
            on_probation: self.policies.is_on_probation(),
            endpoints: Some(self.endpoints.hash()),
            certificate: CertificateState {
                not_after_s: identity.not_after_s(),
                root: identity.root(UnixTime::now()),
                problem: problem.unwrap_or_default(),
            },
            epoch: identity.epoch(),
            traffic: traffic(&self.shared),
            states,
        };
        self.report_at = Instant::now() + jittered(REPORT_INTERVAL);
        let kept = self.report_connection.take();
        let count = report.states.len();
        let era = self.era;
        self.reporting = Some(tokio::spawn(async move {
            Reported { count, era, sent: send(target, kept, report).await }
        }));
    }

    /// From now on only new connections count.
    fn begin_era(&mut self) {
        self.era += 1;
        self.report_connection = None;
    }

    fn sent(&mut self, reported: Reported) {
        let Reported { count, era, sent } = reported;
        match sent {
            Ok(connection) => {
                self.policies.reported(count);
                if era == self.era {
                    self.policies.reached();
                    self.report_connection = Some(connection);
                }
            }
            Err(error) => {
                let least = error.retry_after().unwrap_or(LOOK_INTERVAL);
                self.report_not_before = Instant::now() + jittered(least);
                if era == self.era && error.is_from_the_pusher() {
                    // It is in reach, whatever it has against the report.
                    self.policies.reached();
                }
                tracing::warn!("a report was not taken: {error}");
            }
        }
    }
}

async fn send(
    target: Target,
    kept: Option<Connection>,
    report: Report,
) -> Result<Connection, PushError> {
    let reused = kept.is_some();
    let mut connection = match kept {
        Some(connection) => connection,
        None => target.connect().await?,
    };
    match connection.post::<()>("/v1/report", &report).await {
        Ok(()) => Ok(connection),
        // The pusher may have closed it meanwhile; a report may come twice.
        Err(PushError::Http { .. }) if reused => {
            let mut fresh = target.connect().await?;
            fresh.post::<()>("/v1/report", &report).await?;
            Ok(fresh)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_to_its_limit_and_is_never_nothing() {
        let mut backoff = Backoff::new(BACKOFF);
        for attempt in 0..100 {
            let delay = backoff.next(None);
            let limit = BACKOFF.0.saturating_mul(1 << attempt.min(16)).min(BACKOFF.1);
            assert!(delay <= limit && delay >= BACKOFF.0 / 5, "{attempt}: {delay:?}");
        }
        let asked = Duration::from_secs(7);
        assert!(Backoff::new(BACKOFF).next(Some(asked)) > asked);
    }

    #[test]
    fn what_applications_and_clients_do_is_not_the_sidecars_own_failure() {
        for own in [Cause::NoRoute, Cause::NoEndpoint, Cause::ConnectFailed, Cause::UpstreamTls] {
            assert!(is_own(own), "{own}");
        }
        for others in
            [Cause::UpstreamReset, Cause::UpstreamTimeout, Cause::ClientTls, Cause::Overloaded]
        {
            assert!(!is_own(others), "{others}");
        }
    }
}
