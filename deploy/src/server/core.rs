//! What the pusher knows and decides, in one place: the mesh, the releases, the fleet, the streams.
//!
//! ```text
//! folder ─▶ accept, compile ─▶ candidate ─▶ [held by a guard] ─▶ conductor ─▶ commands ─▶ frames
//!                 └────────▶ endpoints of each class ─────────────────────────▶ frames, at once
//! ```
//!
//! # Invariants
//! - What the conductor decided is written down before it is carried out.
//! - A policy is sent only after its text was kept.
//! - What is equal for many sidecars is worked out once, however many they are: endpoints and the
//!   frames of a policy for each class, roots for all. A tick looks at nobody who is idle.
//!
//! # Not here
//! Connections and TLS (`http`), certificates (`authority`), queues of frames (`streams`).

mod ask;
mod carry;
mod kept;
mod samples;
mod sets;
pub mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringway_protocol::{Bundle, Frame, Hold, PolicyHash};
use tokio::sync::mpsc;

pub use self::ask::{Ask, AskFault, Settings};
use self::kept::Kept;
use self::sets::Sets;
use self::streams::Streams;
use super::record::{Record, RecordFault};
use super::texts::{Text, Texts};
use crate::ca::Peer;
use crate::compile::{Options, Policies};
use crate::conductor::{Conductor, ReleaseFault};
use crate::diagnostic::Diagnostic;
use crate::fleet::{ConnectionId, FleetFault, Hello, Report};
use crate::guard::{self, Census, Held};
use crate::model::{Accepted, Loaded, Quarantined, accept};
use crate::release::{Classes, Draft, Outcome, Profile};
use crate::rollout::{Command, ControlFault, Plan};
use crate::source::Folder;
use crate::store::Store;
use crate::version::SidecarKey;

use self::samples::SampleStore;
pub use self::samples::SamplesFault;

/// Policies that are not released yet, and why.
#[derive(Debug, Clone)]
struct Candidate {
    classes: Classes,
    census: Census,
    held: Option<Held>,
}

/// The roots and revocations that sidecars have to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots {
    /// Rises with the roots.
    pub epoch: u64,
    /// PEM.
    pub roots: String,
    /// PEM.
    pub revocations: String,
    /// Certificates in them.
    pub revoked: usize,
}

/// The pusher's mind.
pub struct Core {
    settings: Settings,
    conductor: Conductor,
    record: Record,
    written: (u64, u64),
    texts: Texts,
    accepted: Accepted,
    census: Option<Census>,
    offered: Option<PolicyHash>,
    /// Of the mesh as the folder says.
    census_of_folder: Option<Census>,
    policies: Policies,
    /// Identity of each workload by name, and back.
    identities: BTreeMap<String, String>,
    workloads: HashMap<String, String>,
    quarantined: Vec<Quarantined>,
    diagnostics: Vec<Diagnostic>,
    candidate: Option<Candidate>,
    sets: Sets,
    streams: Streams,
    /// Who has a stream, by the certificate.
    peers: HashMap<SidecarKey, Peer>,
    stages: Stages,
    next_connection: u64,
    roots: Roots,
    samples: SampleStore,
    /// Commands whose state could not be written down yet.
    pending: Vec<Command>,
    /// Counts changes of what is written down beside the conductor.
    revision: u64,
    /// Until when nothing is released by itself: sidecars are on their way back.
    settling_until_ms: u64,
    /// What of the state cannot be written; whatever depends on it waits.
    disk_problem: Option<String>,
    /// A tick before that does not try again.
    disk_again_ms: u64,
    /// A policy of the folder could not be kept.
    is_unkept: bool,
}

/// How long it takes until what could not be written is written again.
const DISK_AGAIN_MS: u64 = 1_000;

/// The STAGE frames of a rollout, encoded: one for each class, at most as long as all its policies.
#[derive(Default)]
struct Stages {
    /// The release and the generation that they are of.
    of: (u64, u64),
    frames: HashMap<PolicyHash, Bytes>,
}

/// Says what went wrong, unless it is the disk: that is said once, by `Core::complain_of_disk`.
fn log(done: Result<(), AskFault>) {
    match done {
        Ok(()) | Err(AskFault::Record(_)) => {}
        Err(fault) => tracing::error!("{fault}"),
    }
}

/// What the sidecars of each identity run, as far as they have said.
fn running(conductor: &Conductor) -> HashMap<&str, BTreeSet<PolicyHash>> {
    let mut running = HashMap::<&str, BTreeSet<PolicyHash>>::new();
    for (key, sidecar) in conductor.fleet().sidecars() {
        let versions = [sidecar.applied(), sidecar.confirmed()].into_iter().flatten();
        let hashes = versions.map(|version| version.hash);
        running.entry(key.identity()).or_default().extend(hashes);
    }
    running
}

impl Core {
    /// Goes on from what `store` holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        texts: Texts,
        settings: Settings,
        now_ms: u64,
    ) -> Result<Core, RecordFault> {
        let record = Record::open(store, "conductor")?;
        let Kept { conductor, accepted, census, endpoints, resolved, rest } = Kept::read(&record)?;
        let conductor = Conductor::restore(conductor, now_ms);
        // Those who ran something come back within this time, and are to be asked first.
        let waits = !matches!(settings.profile, Profile::Dev);
        let is_restart = waits && conductor.history().last_good().is_some();
        let settling_until_ms =
            if is_restart { now_ms.saturating_add(settings.waits.missing_ms) } else { 0 };
        Ok(Core {
            settings,
            conductor,
            record,
            written: (0, 0),
            texts,
            accepted,
            census,
            offered: rest.offered,
            census_of_folder: None,
            policies: Policies::default(),
            identities: BTreeMap::new(),
            workloads: HashMap::new(),
            quarantined: Vec::new(),
            diagnostics: Vec::new(),
            candidate: None,
            sets: Sets::of(endpoints, resolved),
            streams: Streams::default(),
            peers: HashMap::new(),
            stages: Stages::default(),
            next_connection: rest.next_connection,
            roots: Roots::default(),
            samples: SampleStore::default(),
            pending: Vec::new(),
            revision: 0,
            settling_until_ms,
            disk_problem: None,
            disk_again_ms: 0,
            is_unkept: false,
        })
    }

    /// [`Core::folder`], and says what is wrong.
    pub fn take_folder(&mut self, folder: &Folder, now_ms: u64) {
        log(self.folder(folder, now_ms));
    }

    /// Takes a new reading of the folder: endpoints at once, policies as a candidate for release.
    ///
    /// # Errors
    /// In strict mode what is wrong; else nothing but a state that cannot be written.
    pub fn folder(&mut self, folder: &Folder, now_ms: u64) -> Result<(), AskFault> {
        let options = Options::default();
        let loaded = match accept(folder, Some(&self.accepted), self.settings.mode, &options) {
            Ok(loaded) => loaded,
            Err(diagnostics) => {
                self.complain(&diagnostics);
                self.diagnostics = diagnostics;
                return Ok(());
            }
        };
        self.complain(&loaded.diagnostics);
        self.census_of_folder = Some(Census::of(&loaded.mesh));
        let Loaded { mesh, policies, accepted, diagnostics, quarantined } = loaded;
        self.identities = mesh
            .workloads
            .iter()
            .map(|(name, object)| (name.clone(), mesh.identity(&object.value)))
            .collect();
        let back = self.identities.iter().rev().map(|(name, it)| (it.clone(), name.clone()));
        self.workloads = back.collect();
        self.revision += u64::from(self.accepted != accepted);
        (self.accepted, self.diagnostics, self.quarantined) = (accepted, diagnostics, quarantined);
        self.policies = policies;
        let considered = self.consider(now_ms);
        // After that: what is about to be replaced is kept until it is replaced everywhere.
        self.spread_endpoints();
        considered
    }

    fn complain(&self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            if self.diagnostics.contains(diagnostic) {
                continue;
            }
            if diagnostic.is_error() {
                tracing::error!("{diagnostic}");
            } else {
                tracing::warn!("{diagnostic}");
            }
        }
    }

    /// Makes a candidate of the policies, and releases it unless something holds it.
    fn consider(&mut self, now_ms: u64) -> Result<(), AskFault> {
        self.is_unkept = false;
        let Some(census) = self.census_of_folder.clone() else { return self.write() };
        let mut classes = BTreeMap::new();
        for (name, identity) in &self.identities {
            let Some(policy) = self.policies.policy(name) else { continue };
            let requires = policy.requires.iter().map(|it| it.as_str().to_owned()).collect();
            let text = Text { requires, policy: policy.text.clone() };
            match self.texts.put(text) {
                Ok(hash) => _ = classes.insert(identity.clone(), hash),
                Err(error) => {
                    self.is_unkept = true;
                    self.complain_of_disk(format!(
                        "a policy cannot be kept, nothing is released: {error}"
                    ));
                    return Ok(());
                }
            }
        }
        let classes = Classes::from(classes);
        let newest = self.conductor.history().entries().last();
        let stands =
            |outcome: &Outcome| matches!(outcome, Outcome::Running | Outcome::Confirmed { .. });
        let runs = match newest.filter(|entry| stands(&entry.outcome)) {
            Some(entry) => Some(&entry.release),
            None => self.conductor.history().last_good(),
        };
        if runs.is_some_and(|release| release.classes == classes) {
            self.candidate = None;
            return self.write();
        }
        let before = self.census.as_ref();
        let held = before.and_then(|before| guard::compare(before, &census).err());
        if let Some(held) = &held {
            tracing::error!("the release is held: {held}");
        }
        self.candidate = Some(Candidate { classes, census, held });
        self.release_by_itself(now_ms)
    }

    /// Releases the candidate if nobody has to be asked and nothing is under way.
    fn release_by_itself(&mut self, now_ms: u64) -> Result<(), AskFault> {
        let Some(candidate) = &self.candidate else { return self.write() };
        let undone = self.offered == Some(candidate.classes.hash());
        let is_early = now_ms < self.settling_until_ms;
        if self.settings.manual || undone || is_early || candidate.held.is_some() {
            return self.write();
        }
        match self.release(&Ask::default(), "directory", now_ms) {
            Ok(()) => Ok(()),
            // It comes next.
            Err(AskFault::Release(ReleaseFault::Running(_))) => self.write(),
            Err(fault) => Err(fault),
        }
    }

    /// Releases the candidate.
    ///
    /// # Errors
    /// [`AskFault`].
    pub fn release(&mut self, ask: &Ask, author: &str, now_ms: u64) -> Result<(), AskFault> {
        let candidate = self.candidate.clone().ok_or(AskFault::Nothing)?;
        let hash = candidate.classes.hash();
        if let Some(held) = candidate.held.filter(|_| !ask.force) {
            return Err(AskFault::Held(held));
        }
        let draft = Draft {
            classes: candidate.classes,
            author: author.to_owned(),
            message: ask.message.clone(),
            forced: ask.force,
            profile: ask.profile.unwrap_or(self.settings.profile),
        };
        let plan = self.plan(draft.profile);
        let commands = self.conductor.release_by(plan, draft, ask.supersede, now_ms)?;
        self.offered = Some(hash);
        self.census = Some(candidate.census);
        self.candidate = None;
        self.carry_out(commands, now_ms)
    }

    /// Releases what an earlier release had.
    ///
    /// # Errors
    /// [`AskFault`].
    pub fn rollback(
        &mut self,
        to: Option<u64>,
        ask: &Ask,
        author: &str,
        now_ms: u64,
    ) -> Result<(), AskFault> {
        let profile = ask.profile.unwrap_or(self.settings.profile);
        let back = self.conductor.history().draft_back(to, author).map_err(ReleaseFault::from)?;
        let draft = Draft { profile, ..back };
        let plan = self.plan(profile);
        let commands = self.conductor.release_by(plan, draft, ask.supersede, now_ms)?;
        self.carry_out(commands, now_ms)
    }

    fn plan(&self, profile: Profile) -> Plan {
        Plan::with_waits(profile, self.settings.waits)
    }

    /// Does what `change` asks of the conductor, and carries out what follows.
    ///
    /// # Errors
    /// [`AskFault`].
    pub fn control(
        &mut self,
        now_ms: u64,
        change: impl FnOnce(&mut Conductor) -> Result<Vec<Command>, ControlFault>,
    ) -> Result<(), AskFault> {
        let commands = change(&mut self.conductor)?;
        self.carry_out(commands, now_ms)
    }

    /// What the conductor knows.
    #[must_use]
    pub fn conductor(&self) -> &Conductor {
        &self.conductor
    }

    /// Does what is due. About five times a second.
    pub fn tick(&mut self, now_ms: u64) {
        let commands = self.conductor.tick(now_ms);
        if self.disk_problem.is_some() && now_ms < self.disk_again_ms {
            self.pending.extend(commands);
        } else {
            self.disk_again_ms = now_ms.saturating_add(DISK_AGAIN_MS);
            let carried = self.carry_out(commands, now_ms);
            log(carried);
            if self.is_unkept {
                log(self.consider(now_ms));
            }
        }
        if self.settling_until_ms > 0 && now_ms >= self.settling_until_ms {
            self.settling_until_ms = 0;
            log(self.release_by_itself(now_ms));
        }
        let now = Instant::now();
        if self.sets.is_due(now) {
            self.spread_endpoints();
        }
        self.streams.ping_due(now, now_ms);
    }

    /// A sidecar has connected: its number, and what it is told.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn hello(
        &mut self,
        key: &SidecarKey,
        peer: Peer,
        hello: Hello,
        endpoints: Option<ringway_protocol::EndpointsHash>,
        now_ms: u64,
    ) -> Result<(ConnectionId, mpsc::Receiver<Bytes>), FleetFault> {
        let connection = ConnectionId(self.next_connection);
        let epoch = hello.bundle_epoch;
        let commands = self.conductor.hello(key, hello, connection, now_ms)?;
        self.next_connection += 1;
        let wanted = || self.sets.wanted(key.identity());
        let receiver = self.streams.open(key, connection, endpoints, wanted);
        self.peers.insert(key.clone(), peer);
        // Revocations change without the epoch.
        if epoch != self.roots.epoch || self.roots.revoked > 0 {
            self.send(key, &self.bundle());
        }
        self.streams.ping(key, Instant::now(), now_ms);
        if !self.workloads.contains_key(key.identity()) {
            let reason = format!("no workload of the mesh has the identity {}", key.identity());
            self.send(key, &Frame::Hold(Hold { reason }));
        }
        let carried = self.carry_out(commands, now_ms);
        log(carried);
        Ok((connection, receiver))
    }

    /// A stream has ended.
    pub fn goodbye(&mut self, key: &SidecarKey, connection: ConnectionId, now_ms: u64) {
        self.streams.close(key, connection);
        if self.streams.connection(key).is_none() {
            self.peers.remove(key);
        }
        // It will ask for what it still needs.
        self.pending.retain(|command| command.sidecar() != Some(key));
        let commands = self.conductor.goodbye(key, connection, now_ms);
        let carried = self.carry_out(commands, now_ms);
        log(carried);
    }

    /// A sidecar reports.
    ///
    /// # Errors
    /// Why the report is not taken.
    pub fn report(
        &mut self,
        key: &SidecarKey,
        report: Report,
        connection: ConnectionId,
        now_ms: u64,
    ) -> Result<(), FleetFault> {
        if !self.streams.may_report(key, Instant::now()) {
            return Err(FleetFault::TooOften(key.clone()));
        }
        let commands = self.conductor.report(key, report, connection, now_ms)?;
        let carried = self.carry_out(commands, now_ms);
        log(carried);
        Ok(())
    }

    /// Takes the roots of now, and tells everybody if they are new. Gives whether they are.
    pub fn set_roots(&mut self, roots: Roots) -> bool {
        if roots == self.roots {
            return false;
        }
        self.roots = roots;
        let frame = self.bundle();
        self.streams.send_all(&frame);
        true
    }

    /// Who has a stream, by identity and serial number of the certificate.
    #[must_use]
    pub fn peers(&self) -> Vec<(SidecarKey, Peer)> {
        self.peers.iter().map(|(key, peer)| (key.clone(), peer.clone())).collect()
    }

    /// Ends a stream.
    pub fn cut(&mut self, key: &SidecarKey) {
        self.streams.cut(key);
        self.peers.remove(key);
    }

    fn bundle(&self) -> Frame {
        let Roots { epoch, roots, revocations, .. } = self.roots.clone();
        Frame::Bundle(Bundle { epoch, roots, revocations })
    }

    /// Asks everybody to connect anew within `spread`, before the pusher ends.
    pub fn move_all(&mut self, spread: Duration) {
        self.streams.move_all(spread);
    }

    /// Names of endpoints that have to be looked up.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<String> {
        self.sets.names()
    }

    /// Takes what names were found to be; a name without an answer keeps what it had.
    pub fn resolved(&mut self, found: Vec<(String, Vec<SocketAddr>)>) {
        if self.sets.resolved(found) {
            self.revision += 1;
        }
        self.spread_endpoints();
    }

    /// Looks at the endpoints of every class again, and tells those who are connected.
    fn spread_endpoints(&mut self) {
        // Clusters of a policy that runs somewhere, or may again, stay.
        let (history, texts) = (self.conductor.history(), &self.texts);
        let runs = running(&self.conductor);
        let keeps = |identity: &str, cluster: &str| {
            let quoted = format!("\"{cluster}\"");
            let released =
                history.entries().iter().filter_map(|it| it.release.classes.get(identity));
            let runs = runs.get(identity).into_iter().flatten();
            let mut texts = released.chain(runs).filter_map(|hash| texts.get(hash));
            texts.any(|text| text.policy.contains(&quoted))
        };
        self.sets.update(&self.identities, &self.policies, keeps, Instant::now());
        for identity in self.streams.identities() {
            self.streams.tell(&identity, self.sets.wanted(&identity));
        }
    }

    /// Why a release waits: whether there is one, and what holds it.
    #[must_use]
    pub fn waiting(&self) -> Option<Option<&Held>> {
        self.candidate.as_ref().map(|candidate| candidate.held.as_ref())
    }

    /// The clusters whose endpoints are kept although the folder names none any more, by identity.
    #[must_use]
    pub fn stale(&self) -> BTreeMap<&str, Vec<&str>> {
        self.sets.stale()
    }

    /// What of the state cannot be written. Releases and commands wait until it can be.
    #[must_use]
    pub fn disk_problem(&self) -> Option<&str> {
        self.disk_problem.as_deref()
    }

    /// What is wrong with the folder.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The objects that are not in use as the folder has them.
    #[must_use]
    pub fn quarantined(&self) -> &[Quarantined] {
        &self.quarantined
    }

    /// Workloads by their identity.
    #[must_use]
    pub fn workload_of(&self, identity: &str) -> Option<&str> {
        self.workloads.get(identity).map(String::as_str)
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        &self.streams
    }
}
