//! The loop: starts what is due, drives what is ready, sleeps until the next of either.
//!
//! ```text
//! arrivals ──due──▶ free slot? ──yes────────▶ begin ──▶ epoll ──▶ drive ──▶ record ─┐
//!                        │ no                                                       │
//!                        └──▶ waiting (keeps its intended time) ◀── next of these ──┘
//! ```
//! One thread. On a machine where the target has cores of its own it keeps some 100 000 requests a
//! second; how late it was is recorded with every request.
//!
//! # Invariants
//! - The arrivals do not depend on the target: what cannot be sent waits, and ages.
//! - A request is sent once. What fails is counted, never tried again.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use super::{
    Pace, Wanted,
    connection::{Connection, Done, describe},
    record::Record,
    tls::Handshakes,
    transport::Shared,
};
use crate::{
    error::Error,
    limits::{LOAD_SILENCE_MAX, LOAD_WAITING_MAX},
    terminal,
};

/// What one read may bring.
const ROOM_BYTES: usize = 512 * 1024;
/// Between two looks at what has no event: silence, progress.
const TICK: Duration = Duration::from_millis(250);
/// Rest of a connection after an error in a closed loop, which would otherwise be a busy one.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A request on a connection.
#[derive(Clone, Copy, Debug)]
struct Job {
    intended_ns: u64,
    sent_ns: u64,
}

/// The timer's events; connections have their index.
const TIMER_TOKEN: u64 = u64::MAX;

struct Engine<'a> {
    shared: Shared<'a>,
    record: &'a mut Record,
    /// Wakes the loop at the nanosecond; the time-out of epoll is rounded to milliseconds.
    timer: OwnedFd,
    connections: Vec<Connection>,
    /// Streams of each connection.
    streams: usize,
    /// By slot: the streams of the first connection, then those of the second, and so on.
    jobs: Vec<Option<Job>>,
    /// Slots without a request.
    free: VecDeque<usize>,
    /// Connections that have gathered something to send, and whether each is among them.
    gathered: Vec<usize>,
    is_gathered: Vec<bool>,
    /// Intended times of requests that found no free slot.
    waiting: VecDeque<u64>,
    /// Slots that rest after an error, and until when.
    resting: VecDeque<(u64, usize)>,
    /// Requests begun: the number of the next.
    begun: u64,
    start: Instant,
    /// Requests that have just ended, between the connection that says so and the record.
    done: Vec<Done>,
}

/// Runs the load to its end.
///
/// # Errors
/// When the target cannot be reached at the beginning, or the system refuses what is needed.
pub(super) fn run(wanted: &Wanted, pace: Pace, record: &mut Record) -> Result<(), Error> {
    let (poll, timer) =
        poll_with_timer().map_err(|error| Error::io("make an epoll set")(error.into()))?;
    let mut shared =
        Shared { wanted, poll, room: vec![0; ROOM_BYTES], handshakes: Handshakes::new() };
    let mut connections: Vec<Connection> =
        (0..wanted.connections).map(|_| Connection::new(wanted)).collect();
    if wanted.requests_per_connection != Some(1) {
        for (token, connection) in connections.iter_mut().enumerate() {
            connection
                .open_early(&mut shared, token as u64)
                .map_err(Error::io(format!("connect to {}", wanted.target)))?;
        }
    }
    let streams = wanted.exchange.streams() as usize;
    // First every connection's first stream, so that few requests are spread over all connections.
    let by_stream = |stream| (0..connections.len()).map(move |index| index * streams + stream);
    let mut engine = Engine {
        shared,
        record,
        timer,
        jobs: vec![None; connections.len() * streams],
        free: (0..streams).flat_map(by_stream).collect(),
        is_gathered: vec![false; connections.len()],
        connections,
        streams,
        gathered: Vec::new(),
        waiting: VecDeque::new(),
        resting: VecDeque::new(),
        begun: 0,
        start: Instant::now(),
        done: Vec::new(),
    };
    engine.go(pace)?;
    engine.record.handshakes = engine.shared.handshakes;
    Ok(())
}

fn poll_with_timer() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let events = EventFlags::IN | EventFlags::ET;
    epoll::add(&poll, &timer, EventData::new_u64(TIMER_TOKEN), events)?;
    Ok((poll, timer))
}

impl Engine<'_> {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn go(&mut self, mut pace: Pace) -> Result<(), Error> {
        let end_ns = self.shared.wanted.end_ns();
        let give_up_ns = end_ns + LOAD_SILENCE_MAX.as_nanos() as u64;
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        let mut next = pace.next(end_ns);
        let mut tick_ns = 0;
        loop {
            let mut now_ns = self.now_ns();
            self.wake_resting(now_ns);
            while let Some(intended_ns) = next.filter(|&due_ns| due_ns <= now_ns) {
                self.due(intended_ns, now_ns)?;
                next = pace.next(end_ns);
                now_ns = self.now_ns();
            }
            if pace.is_closed() && now_ns < end_ns {
                while let Some(slot) = self.free.pop_front() {
                    self.record.due(now_ns);
                    self.begin(slot, now_ns);
                    now_ns = self.now_ns();
                }
            }
            if now_ns >= tick_ns {
                tick_ns = now_ns + TICK.as_nanos() as u64;
                self.tick(now_ns);
            }
            self.push();
            let open = next.is_some() || pace.is_closed() && now_ns < end_ns;
            if !open && (now_ns >= give_up_ns || self.is_idle()) {
                self.give_up();
                return Ok(());
            }
            let resting_ns = self.resting.front().map_or(u64::MAX, |&(until_ns, _)| until_ns);
            let until_ns = next.unwrap_or(u64::MAX).min(tick_ns).min(resting_ns);
            self.wait(&mut events, until_ns.saturating_sub(now_ns))?;
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.jobs.iter().all(Option::is_none)
    }

    /// Sleeps until something is ready or `most_ns` are over, then drives what is ready.
    fn wait(&mut self, events: &mut Vec<Event>, most_ns: u64) -> Result<(), Error> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        if most_ns > 0 {
            let it_value = Timespec {
                tv_sec: (most_ns / 1_000_000_000) as i64,
                tv_nsec: (most_ns % 1_000_000_000) as i64,
            };
            let once = Itimerspec { it_interval: zero, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)
                .map_err(|error| Error::io("set a timer")(error.into()))?;
        }
        let timeout = (most_ns == 0).then_some(&zero);
        events.clear();
        match epoll::wait(&self.shared.poll, rustix::buffer::spare_capacity(events), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("wait for sockets")(error.into())),
        }
        for event in events.iter().filter(|event| event.data.u64() != TIMER_TOKEN) {
            let index = event.data.u64() as usize;
            let flags = event.flags;
            let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
            self.connections[index].drive(&mut self.shared, hung_up, &mut self.done);
            self.came_to(index);
        }
        Ok(())
    }

    /// Sends what the requests of this turn have left to be sent together.
    fn push(&mut self) {
        // An error frees slots that take what waits: there may be more to send afterwards.
        while let Some(index) = self.gathered.pop() {
            self.is_gathered[index] = false;
            self.connections[index].push(&mut self.shared, &mut self.done);
            self.came_to(index);
        }
    }

    /// A request is due: on a free slot now, or on the next one.
    fn due(&mut self, intended_ns: u64, now_ns: u64) -> Result<(), Error> {
        self.record.due(intended_ns);
        self.record.late(intended_ns, now_ns);
        if let Some(slot) = self.free.pop_front() {
            self.begin(slot, intended_ns);
            return Ok(());
        }
        if self.waiting.len() >= LOAD_WAITING_MAX {
            return Err(Error::Usage(format!(
                "{LOAD_WAITING_MAX} requests wait: the target does not take this rate"
            )));
        }
        self.waiting.push_back(intended_ns);
        self.record.waiting(self.waiting.len());
        Ok(())
    }

    fn begin(&mut self, slot: usize, intended_ns: u64) {
        self.jobs[slot] = Some(Job { intended_ns, sent_ns: self.now_ns() });
        let number = self.begun;
        self.begun += 1;
        let (index, stream) = (slot / self.streams, (slot % self.streams) as u32);
        let connection = &mut self.connections[index];
        let begun = connection.begin(&mut self.shared, index as u64, stream, number);
        if connection.gathers() && !self.is_gathered[index] {
            self.is_gathered[index] = true;
            self.gathered.push(index);
        }
        if let Err(error) = begun {
            self.connections[index].cancel(stream);
            self.fail(slot, &describe(&error));
        }
    }

    /// Records what a connection came to, and uses the slots that this made free.
    fn came_to(&mut self, index: usize) {
        let now_ns = if self.done.is_empty() { 0 } else { self.now_ns() };
        let mut done = std::mem::take(&mut self.done);
        for Done { stream, result } in done.drain(..) {
            let slot = index * self.streams + stream as usize;
            match result {
                Ok(answer) => {
                    if let Some(job) = self.jobs[slot].take() {
                        self.record.answered(job.intended_ns, job.sent_ns, now_ns, answer);
                    }
                    self.release(slot);
                }
                Err(why) => self.fail(slot, &why),
            }
        }
        self.done = done;
    }

    fn fail(&mut self, slot: usize, why: &str) {
        // Without a request on it the target only closed an idle connection in its own way.
        let Some(job) = self.jobs[slot].take() else { return };
        self.record.failed(job.intended_ns, why);
        let until_ns = self.now_ns() + ERROR_PAUSE.as_nanos() as u64;
        self.resting.push_back((until_ns, slot));
    }

    fn wake_resting(&mut self, now_ns: u64) {
        while let Some(&(until_ns, slot)) = self.resting.front()
            && until_ns <= now_ns
        {
            self.resting.pop_front();
            self.release(slot);
        }
    }

    /// The slot takes the request that has waited longest, or is free.
    fn release(&mut self, slot: usize) {
        match self.waiting.pop_front() {
            Some(intended_ns) => self.begin(slot, intended_ns),
            None => self.free.push_back(slot),
        }
    }

    fn tick(&mut self, now_ns: u64) {
        let silence_ns = LOAD_SILENCE_MAX.as_nanos() as u64;
        for slot in 0..self.jobs.len() {
            if self.jobs[slot].is_some_and(|job| job.sent_ns + silence_ns <= now_ns) {
                self.connections[slot / self.streams].cancel((slot % self.streams) as u32);
                self.fail(slot, "no answer within 10 s");
            }
        }
        let of_s = self.shared.wanted.end_ns() as f64 / 1e9;
        let p99_us = self.record.corrected.value_at_quantile(0.99) as f64 / 1e3;
        terminal::progress(&format!(
            "{:.0} of {of_s:.0} s: {} answered, {} failed, {} waiting, p99 {p99_us:.0} us",
            (now_ns as f64 / 1e9).min(of_s),
            self.record.corrected.len(),
            self.record.error_count(),
            self.waiting.len(),
        ));
    }

    /// What is still open at the end has failed.
    fn give_up(&mut self) {
        let left: Vec<u64> = self.jobs.iter().flatten().map(|job| job.intended_ns).collect();
        for intended_ns in left.into_iter().chain(self.waiting.drain(..)) {
            self.record.failed(intended_ns, "no answer before the end");
        }
        terminal::progress("");
    }
}
