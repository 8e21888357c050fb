//! Sidecars that behave as the protocol says, a network that may lose, repeat and delay, and a
//! referee that checks every command against what must never happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::conductor::{Conductor, Stored};
use crate::fleet::{self, ConnectionId, Entry, Hello, Report, Running};
use crate::release::{Draft, KnownClasses, Profile};
use crate::rollout::{Command, Step, draw};
use crate::version::{PolicyHash, SidecarKey, Version};

pub(super) const WEB: &str = "spiffe://mesh/ns/shop/sa/web";
pub(super) const CART: &str = "spiffe://mesh/ns/shop/sa/cart";

pub(super) fn key(identity: &str, number: usize) -> SidecarKey {
    SidecarKey::new(identity, &format!("node-{number}")).unwrap()
}

pub(super) fn hash(byte: u8) -> PolicyHash {
    PolicyHash::new([byte; 32])
}

pub(super) fn draft(web: u8, cart: u8, profile: Profile) -> Draft {
    Draft {
        classes: BTreeMap::from([(WEB.to_owned(), hash(web)), (CART.to_owned(), hash(cart))])
            .into(),
        author: "alice".to_owned(),
        message: "a change".to_owned(),
        forced: false,
        profile,
    }
}

/// What a sidecar does with a certain policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Says nothing, neither about this nor anything else.
    Silent,
    /// Refuses to stage it.
    Rejects,
    /// Undoes it half a minute after it applied it.
    RollsBack,
}

/// What was said under which connection.
pub(super) type Said = (u64, Entry);

/// A sidecar and its connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Side {
    pub(super) online: bool,
    pub(super) connection: u64,
    pub(super) canary: bool,
    pub(super) running: Option<Version>,
    previous: Option<Version>,
    confirmed: bool,
    pub(super) staged: Option<Version>,
    failure: Option<Entry>,
    probation_end: Option<u64>,
    rolls_back_at: Option<u64>,
    pub(super) habits: BTreeMap<PolicyHash, Habit>,
    /// Commands on the way to it, in order.
    inbox: VecDeque<Command>,
    ever_staged: BTreeSet<Version>,
    /// The highest generation that it ran when it connected, or was sent since.
    told: u64,
    heard_staged: BTreeSet<Version>,
    connected_ms: u64,
}

/// What is noted of the release that is rolled out.
#[derive(Debug, Default)]
struct Referee {
    /// Its number.
    release: u64,
    started_ms: u64,
    committed: bool,
    halted: bool,
    at: usize,
    at_since_ms: u64,
    hurried: bool,
}

pub(super) struct Sim {
    pub(super) conductor: Conductor,
    pub(super) sides: BTreeMap<SidecarKey, Side>,
    pub(super) now: u64,
    /// Reports on the way to the pusher; those of an old connection may come late.
    pub(super) reports: VecDeque<(SidecarKey, Said)>,
    pub(super) log: Vec<Command>,
    connections: u64,
    referee: Referee,
    written: String,
    /// What that names by its hash.
    classes: KnownClasses,
    revision: u64,
}

impl Sim {
    pub(super) fn new() -> Sim {
        let mut sim = Sim {
            conductor: Conductor::restore(Stored::default(), 1_000_000),
            sides: BTreeMap::new(),
            now: 1_000_000,
            reports: VecDeque::new(),
            log: Vec::new(),
            connections: 0,
            referee: Referee::default(),
            written: String::new(),
            classes: KnownClasses::new(),
            revision: 0,
        };
        sim.write();
        sim
    }

    /// A pusher with so many sidecars of `web`, which run policy 1 and have for a while.
    pub(super) fn settled(count: usize, canaries: usize) -> Sim {
        let mut sim = Sim::new();
        for number in 0..count {
            sim.connect_new(&key(WEB, number), number < canaries);
        }
        sim.release(draft(1, 1, Profile::Dev));
        sim.run(10_000);
        assert_eq!(sim.conductor.history().last_good().map(|it| it.number), Some(1));
        sim.log.clear();
        sim
    }

    pub(super) fn release(&mut self, draft: Draft) {
        let commands = self.conductor.release(draft, false, self.now).unwrap();
        self.begun(commands);
    }

    pub(super) fn begun(&mut self, commands: Vec<Command>) {
        let release = self.conductor.history().entries().last().unwrap().release.number;
        self.referee = Referee { release, started_ms: self.now, ..Referee::default() };
        self.carry_out(commands);
    }

    pub(super) fn hurry(&mut self) {
        self.referee.hurried = true;
        if let Ok(commands) = self.conductor.hurry(self.now) {
            self.carry_out(commands);
        }
    }

    pub(super) fn connect_new(&mut self, key: &SidecarKey, canary: bool) {
        self.sides.entry(key.clone()).or_insert_with(|| Side { canary, ..Side::default() });
        self.connect(key);
    }

    pub(super) fn connect(&mut self, key: &SidecarKey) {
        self.connections += 1;
        let side = self.sides.get_mut(key).unwrap();
        side.online = true;
        side.connection = self.connections;
        side.connected_ms = self.now;
        side.inbox.clear();
        side.heard_staged.clear();
        // What was staged ended with the connection before; what it runs did not.
        side.told = side.running.map_or(0, |running| running.generation);
        let confirmed = side.confirmed;
        let mut hello = Hello {
            running: side.running.map(|version| Running { version, confirmed }),
            ..Hello::default()
        };
        if side.canary {
            hello.labels.insert("canary".to_owned(), String::new());
        }
        let id = ConnectionId(self.connections);
        let commands = self.conductor.hello(key, hello, id, self.now).unwrap();
        self.carry_out(commands);
        if let Some(failure) = self.sides[key].failure.clone() {
            self.reports.push_back((key.clone(), (self.connections, failure)));
        }
    }

    pub(super) fn disconnect(&mut self, key: &SidecarKey) {
        let side = self.sides.get_mut(key).unwrap();
        side.online = false;
        side.inbox.clear();
        let id = ConnectionId(side.connection);
        let commands = self.conductor.goodbye(key, id, self.now);
        self.carry_out(commands);
    }

    /// The process ends and begins again; in probation it goes back to what it ran before.
    pub(super) fn crash(&mut self, key: &SidecarKey) {
        self.disconnect(key);
        let side = self.sides.get_mut(key).unwrap();
        side.staged = None;
        if side.probation_end.is_some() {
            side.roll_back("it crashed in probation");
        }
    }

    pub(super) fn wipe(&mut self, key: &SidecarKey) {
        self.disconnect(key);
        let side = self.sides.get_mut(key).unwrap();
        let (canary, habits) = (side.canary, std::mem::take(&mut side.habits));
        *side = Side { canary, habits, ..Side::default() };
    }

    /// The pusher is killed and begins again with what it wrote down last.
    pub(super) fn restart(&mut self) {
        let mut stored: Stored = serde_json::from_str(&self.written).unwrap();
        stored.find(&self.classes).unwrap();
        for side in self.sides.values_mut() {
            side.online = false;
            side.inbox.clear();
        }
        self.conductor = Conductor::restore(stored, self.now);
        self.write();
    }

    pub(super) fn carry_out(&mut self, commands: Vec<Command>) {
        if self.conductor.revision() != self.revision {
            self.write();
        }
        self.check_step();
        for command in commands {
            self.check(&command);
            if let Some((key, version)) = addressed(&command) {
                let side = self.sides.get_mut(&key).unwrap();
                assert!(side.online, "{command:?} to one who is away");
                assert!(version.generation >= side.told, "{command:?} after {}", side.told);
                side.told = version.generation;
                side.inbox.push_back(command.clone());
            }
            self.log.push(command);
        }
    }

    fn write(&mut self) {
        self.revision = self.conductor.revision();
        let stored = self.conductor.stored();
        self.written = serde_json::to_string(stored).unwrap();
        self.classes = stored.classes().map(|classes| (classes.hash(), classes.clone())).collect();
    }

    /// What must hold of every command.
    fn check(&mut self, command: &Command) {
        match command {
            Command::Commit { sidecar, generation, hash, .. } => {
                let version = Version { generation: *generation, hash: *hash };
                assert!(!self.referee.halted, "{command:?} after a halt");
                let staged = &self.sides[sidecar].ever_staged;
                assert!(staged.contains(&version), "{command:?} was never staged there");
                if !self.referee.committed {
                    self.referee.committed = true;
                    self.check_gate(*generation);
                }
            }
            Command::Stage { .. } => assert!(!self.referee.halted, "{command:?} after a halt"),
            Command::Halted { release, .. } => {
                assert_eq!(*release, self.referee.release);
                self.referee.halted = true;
            }
            Command::Finished { release } => assert_eq!(*release, self.referee.release),
            Command::Revert { .. } => {}
        }
    }

    /// Everybody who is connected has staged, or the stage is over and few have not.
    fn check_gate(&self, generation: u64) {
        let rollout = self.conductor.rollout().unwrap();
        if !rollout.is_running() {
            return;
        }
        let stage_ms = rollout.plan.waits().stage_ms;
        let is_open = |side: &Side| {
            let said = side.heard_staged.iter().any(|it| it.generation == generation);
            let ran = side.running.is_some_and(|it| it.generation == generation);
            let late = self.now < side.connected_ms + stage_ms;
            said || ran || (late && self.now >= self.referee.started_ms + 2 * stage_ms)
        };
        let concerned = |key: &SidecarKey| rollout.members.get(key).is_some_and(|it| it.affected);
        let all = self.sides.iter().filter(|(key, side)| concerned(key) && side.online);
        let not_ready = all.filter(|(_, side)| !is_open(side)).count();
        if self.now < self.referee.started_ms + stage_ms {
            assert_eq!(not_ready, 0, "the gate opened early");
        }
        assert!(not_ready * 20 <= rollout.members.tally().affected, "{not_ready} are missing");
    }

    /// Steps come in order, last long enough, and hold everybody who runs the release.
    fn check_step(&mut self) {
        let Some(rollout) = self.conductor.rollout() else { return };
        let crate::rollout::State::Holding { at, .. } = rollout.state else { return };
        let waits = rollout.plan.waits();
        if at != self.referee.at {
            assert!(at > self.referee.at, "a step came twice");
            let held = self.now - self.referee.at_since_ms;
            let enough = held >= waits.probation_ms + waits.bake_ms;
            let first = self.referee.at_since_ms == 0;
            assert!(first || enough || self.referee.hurried, "a step lasted {held} ms only");
            self.referee.at = at;
            self.referee.at_since_ms = self.now;
            self.check_blast_radius();
        } else if self.referee.at_since_ms == 0 {
            self.referee.at_since_ms = self.now;
            self.check_blast_radius();
        }
    }

    fn check_blast_radius(&self) {
        let Some(rollout) = self.conductor.rollout() else { return };
        let step = match rollout.state {
            crate::rollout::State::Holding { at, .. } => Some(&rollout.steps[at]),
            crate::rollout::State::Staging { .. } => None,
            crate::rollout::State::Confirmed | crate::rollout::State::Halted { .. } => return,
        };
        for (key, side) in &self.sides {
            let affected = rollout.members.get(key).is_some_and(|it| it.affected);
            let runs = side.running.is_some_and(|it| Some(it) == rollout.target(key));
            if !affected || !runs {
                continue;
            }
            let below = u32::from(draw(key, rollout.release.number));
            let allowed = match step {
                None => false,
                Some(Step::Canary) => side.canary,
                Some(Step::One(one)) => one == key,
                Some(Step::Percent(percent)) => side.canary || below < u32::from(*percent) * 100,
            };
            assert!(allowed, "{key} runs the release in {step:?}");
        }
    }

    /// One second: what is on the way arrives, sidecars look at their clocks, so does the pusher.
    pub(super) fn second(&mut self) {
        self.now += 1_000;
        let keys: Vec<SidecarKey> = self.sides.keys().cloned().collect();
        for key in &keys {
            self.work(key);
        }
        self.deliver_all();
        let heartbeat = self.now.is_multiple_of(10_000);
        for key in keys.iter().filter(|_| heartbeat) {
            self.heartbeat(key);
        }
        if self.now >= self.conductor.next_deadline() {
            let commands = self.conductor.tick(self.now);
            self.carry_out(commands);
        }
        self.check_blast_radius();
    }

    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms / 1_000 {
            self.second();
        }
    }

    pub(super) fn deliver_all(&mut self) {
        while let Some((key, said)) = self.reports.pop_front() {
            self.deliver(&key, said);
        }
    }

    pub(super) fn deliver(&mut self, key: &SidecarKey, (connection, entry): Said) {
        if entry.state == fleet::State::Staged && self.sides[key].connection == connection {
            self.sides.get_mut(key).unwrap().heard_staged.insert(entry.version);
        }
        let report = Report { entries: vec![entry], ..Report::default() };
        let id = ConnectionId(connection);
        if let Ok(commands) = self.conductor.report(key, report, id, self.now) {
            self.carry_out(commands);
        }
    }

    /// The tally as it is after the state was written and read.
    pub(super) fn tally_counted_anew(&self) -> crate::rollout::member::Tally {
        let written = serde_json::to_string(&self.conductor.rollout().unwrap().members).unwrap();
        let members: crate::rollout::member::Members = serde_json::from_str(&written).unwrap();
        members.tally()
    }

    fn heartbeat(&mut self, key: &SidecarKey) {
        let side = &self.sides[key];
        if !side.online || side.is_silent() {
            return;
        }
        let id = ConnectionId(side.connection);
        let report = Report { entries: side.entries(), ..Report::default() };
        let commands = self.conductor.report(key, report, id, self.now).unwrap();
        self.carry_out(commands);
    }

    /// A sidecar takes what has arrived and looks at its clock.
    fn work(&mut self, key: &SidecarKey) {
        let now = self.now;
        let side = self.sides.get_mut(key).unwrap();
        let mut said = Vec::new();
        // A process that hangs takes it up when it goes on: a connection loses nothing.
        if side.online && !side.is_silent() {
            while let Some(command) = side.inbox.pop_front() {
                said.extend(side.take(&command, now));
            }
        }
        said.extend(side.watch(now));
        let connection = side.connection;
        for entry in said {
            self.reports.push_back((key.clone(), (connection, entry)));
        }
    }
}

impl Side {
    fn is_silent(&self) -> bool {
        self.habits.values().any(|habit| *habit == Habit::Silent)
    }

    /// Everything that it has to say.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        if let Some(version) = self.running {
            let state =
                if self.confirmed { fleet::State::Confirmed } else { fleet::State::Applied };
            entries.push(Entry { version, state });
        }
        let staged = self.staged.filter(|staged| Some(*staged) != self.running);
        entries.extend(staged.map(|version| Entry { version, state: fleet::State::Staged }));
        entries.extend(self.failure.clone());
        entries
    }

    fn take(&mut self, command: &Command, now: u64) -> Vec<Entry> {
        match command {
            Command::Stage { generation, hash, .. } => {
                self.stage(Version { generation: *generation, hash: *hash })
            }
            Command::Commit { generation, hash, probation_ms, .. } => {
                let version = Version { generation: *generation, hash: *hash };
                self.commit(version, *probation_ms, now)
            }
            Command::Revert { generation, hash, .. } => {
                let version = Version { generation: *generation, hash: *hash };
                let mut said = self.stage(version);
                said.extend(self.commit(version, 0, now));
                said
            }
            Command::Finished { .. } | Command::Halted { .. } => Vec::new(),
        }
    }

    fn stage(&mut self, version: Version) -> Vec<Entry> {
        let highest = self.running.map_or(0, |running| running.generation);
        if version.generation < highest {
            return Vec::new();
        }
        if let Some(failure) = self.failure.clone().filter(|it| it.version == version) {
            return vec![failure];
        }
        if self.habits.get(&version.hash) == Some(&Habit::Rejects) {
            let reason = "it asks for what this version cannot do".to_owned();
            let failure = Entry { version, state: fleet::State::Rejected(reason) };
            self.failure = Some(failure.clone());
            return vec![failure];
        }
        self.staged = Some(version);
        self.ever_staged.insert(version);
        vec![Entry { version, state: fleet::State::Staged }]
    }

    fn commit(&mut self, version: Version, probation_ms: u64, now: u64) -> Vec<Entry> {
        if self.staged != Some(version) || self.running == Some(version) {
            return Vec::new();
        }
        self.previous = self.running.replace(version);
        self.confirmed = false;
        self.probation_end = Some(now + probation_ms);
        self.rolls_back_at = None;
        if self.habits.get(&version.hash) == Some(&Habit::RollsBack) {
            self.rolls_back_at = Some(now + probation_ms / 2);
        }
        vec![Entry { version, state: fleet::State::Applied }]
    }

    fn watch(&mut self, now: u64) -> Vec<Entry> {
        if self.rolls_back_at.is_some_and(|at| now >= at) {
            return self.roll_back("errors of its own rose").into_iter().collect();
        }
        if self.probation_end.is_some_and(|end| now >= end) {
            self.probation_end = None;
            self.confirmed = true;
            let state = fleet::State::Confirmed;
            let said = self.running.map(|version| Entry { version, state });
            return said.into_iter().filter(|_| self.online).collect();
        }
        Vec::new()
    }

    fn roll_back(&mut self, reason: &str) -> Option<Entry> {
        self.rolls_back_at = None;
        self.probation_end = None;
        self.confirmed = true;
        let version = self.running?;
        self.running = self.previous.take();
        self.staged = self.staged.filter(|staged| *staged != version);
        let entry = Entry { version, state: fleet::State::RolledBack(reason.to_owned()) };
        self.failure = Some(entry.clone());
        Some(entry).filter(|_| self.online)
    }
}

/// To whom a command goes, and what it is about.
pub(super) fn addressed(command: &Command) -> Option<(SidecarKey, Version)> {
    match command {
        Command::Stage { sidecar, generation, hash }
        | Command::Commit { sidecar, generation, hash, .. }
        | Command::Revert { sidecar, generation, hash } => {
            Some((sidecar.clone(), Version { generation: *generation, hash: *hash }))
        }
        Command::Finished { .. } | Command::Halted { .. } => None,
    }
}
