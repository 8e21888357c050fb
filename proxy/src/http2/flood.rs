//! Frames that cost their sender nothing and their receiver work, counted by their headers.
//!
//! ```text
//! peer ─▶ Watch::sift ─▶ h2       counts; takes out empty DATA; wants SETTINGS first
//! peer ◀─ OwnWatch::see ◀─ h2     counts what the peer makes us send
//! ```
//! The h2 crate bounds what grows: reset streams, CONTINUATION, header lists, small DATA frames. It
//! answers any number of PING and SETTINGS, and reads any number of frames that say nothing. Its
//! limits for errors that a peer provokes (CVE-2025-8671) and for empty DATA frames count over the
//! life of a connection, which ends those that live long. The first is switched off; the second
//! cannot be, so h2 is not shown these frames. What is counted here is counted in a window of time,
//! in both directions, without parsing more than the nine bytes of a frame header (RFC 9113 section
//! 4.1) and the code of a reset.
//!
//! # Invariants
//! - A peer that behaves is never near a limit: the limits are for frames that do no work, in a
//!   window of time, over one connection.
//! - Bytes are seen in any pieces.
//! - Only what no state of a connection or of a stream depends on is taken out: h2 sees what is an
//!   error of the connection.
//! - A peer that does not begin with SETTINGS is not served: h2 lets that pass, so it is shown
//!   `BREACH` instead, and ends the connection by its own ways.

use std::ops::Range;
use std::time::Duration;

use h2::Reason;

use crate::limits::{
    CONTROL_FRAMES_MAX, EMPTY_FRAMES_MAX, PROVOKED_RESETS_MAX, REFUSED_STREAMS_MAX,
    RESET_FRAMES_MAX, WINDOW_FRAMES_MAX,
};

/// Length of a frame header.
const HEADER_BYTES: usize = 9;
/// Length of one with the error code of RST_STREAM.
const RESET_BYTES: usize = HEADER_BYTES + 4;
/// A frame that is an error of the connection, PROTOCOL_ERROR: DATA of no stream (RFC 9113 section
/// 6.1).
const BREACH: [u8; HEADER_BYTES] = [0; HEADER_BYTES];
/// Types of frames (RFC 9113 section 6).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RESET: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PUSH_PROMISE: u8 = 0x5;
const PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
/// END_STREAM, and the ACK of SETTINGS and PING.
const END: u8 = 0x1;
/// END_HEADERS.
const END_HEADERS: u8 = 0x4;
/// PADDED.
const PADDED: u8 = 0x8;
/// PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR: what a stream is reset with
/// because of what its peer did.
const PROVOKED_CODES: [u8; 4] = [0x1, 0x3, 0x5, 0x6];
/// REFUSED_STREAM: h2 answers so to streams beyond the limit.
const REFUSED_CODE: u8 = 0x7;
/// Length of the preface of a client (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;
/// Time over which frames are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// What a peer sends too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// PING, SETTINGS, PRIORITY and what is unknown.
    Control,
    /// DATA, HEADERS or CONTINUATION without a byte that do not end a stream.
    Empty,
    /// RST_STREAM.
    Reset,
    /// WINDOW_UPDATE.
    Window,
    /// What makes us send RST_STREAM.
    Provoked,
    /// Streams beyond the limit.
    Refused,
}

impl Flood {
    /// All of them, in the order of the counters.
    pub const LABELS: [&str; 6] =
        ["control", "empty", "reset", "window_update", "provoked_reset", "refused_stream"];
}

/// Whether a stream is reset with `reason` because of frames of the other side.
#[must_use]
pub fn is_provoked(reason: Reason) -> bool {
    PROVOKED_CODES.iter().any(|code| u32::from(*code) == u32::from(reason))
}

/// Frames of one connection in the current window of time.
#[derive(Debug, Default)]
struct Tally {
    /// Since when is counted.
    since_ns: u64,
    counts: [u32; Flood::LABELS.len()],
    /// HEADERS, which are work.
    heads: u32,
}

impl Tally {
    /// Forgets what was counted once a window of time is over.
    fn turn(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.since_ns) > WINDOW.as_nanos() as u64 {
            *self = Self { since_ns: now_ns, ..Self::default() };
        }
    }

    /// Counts one. Says so if that is too much.
    fn add(&mut self, flood: Flood) -> Option<Flood> {
        let most = match flood {
            Flood::Control => CONTROL_FRAMES_MAX,
            Flood::Empty => EMPTY_FRAMES_MAX,
            // Who gives up some of many requests may do so.
            Flood::Reset => RESET_FRAMES_MAX.max(self.heads / 4 * 3),
            Flood::Window => WINDOW_FRAMES_MAX,
            Flood::Provoked => PROVOKED_RESETS_MAX,
            Flood::Refused => REFUSED_STREAMS_MAX,
        };
        let count = &mut self.counts[flood as usize];
        *count = count.saturating_add(1);
        (*count > most).then_some(flood)
    }
}

/// The header of a frame (RFC 9113 section 4.1).
#[derive(Debug, Clone, Copy)]
struct Header {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Header {
    fn of(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The first bit is reserved.
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        Self { length, kind, flags, stream }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What this frame of a peer counts as.
    fn weight(&self) -> Option<Flood> {
        match self.kind {
            DATA | HEADERS | CONTINUATION if self.length == 0 && !self.has(END) => {
                Some(Flood::Empty)
            }
            DATA | HEADERS | CONTINUATION => None,
            RESET => Some(Flood::Reset),
            WINDOW_UPDATE => Some(Flood::Window),
            // What answers our own PING and SETTINGS.
            SETTINGS | PING if self.has(END) => None,
            _ => Some(Flood::Control),
        }
    }
}

/// What is left of some bytes of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sifted {
    /// So many bytes, moved to the front, are for h2.
    pub kept: usize,
    /// What there is too much of.
    pub flood: Option<Flood>,
}

/// How far a peer has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Its first frame must be SETTINGS (RFC 9113 section 3.4).
    #[default]
    Greeting,
    Frames,
    /// It began with something else. Nothing that comes is for h2.
    Refused,
}

/// Counts the frames of one peer, and takes out DATA frames without a byte that end nothing.
///
/// Taken out are those of length 0 on streams that may be open. One with padding has bytes of the
/// window in it, which h2 must give back; one on a stream that never was, or within a list of
/// fields, is an error that h2 must see. On a stream that is closed it is ignored.
#[derive(Debug, Default)]
pub struct Watch {
    /// Bytes of the preface or of the frame that are still to come.
    skip: usize,
    /// The beginning of a frame header whose rest has not come: `held[..held_bytes]`. It is empty
    /// while there is something to skip.
    held: [u8; HEADER_BYTES - 1],
    held_bytes: usize,
    /// The highest stream that had a head.
    highest: u32,
    /// A list of fields goes on in the next frame.
    in_fields: bool,
    stage: Stage,
    tally: Tally,
}

impl Watch {
    /// For what a client sends, its preface included.
    #[must_use]
    pub fn of_client() -> Self {
        Self { skip: PREFACE_BYTES, ..Self::default() }
    }

    /// For what a server sends.
    #[must_use]
    pub fn of_server() -> Self {
        Self::default()
    }

    /// The beginning of a frame header, at most 8 bytes, that was held back: it stands in front of
    /// the next bytes that are sifted.
    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.held[..self.held_bytes]
    }

    /// Sees the next `bytes`, which begin with [`Self::held`], at `now_ns`. What is for h2 is moved
    /// to their front.
    pub fn sift(&mut self, bytes: &mut [u8], now_ns: u64) -> Sifted {
        debug_assert!(bytes.starts_with(self.held()), "what was held back comes first");
        let mut sifted = Sifted { kept: 0, flood: None };
        let mut at = 0;
        while self.stage != Stage::Refused {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            keep(bytes, at..at + skipped, &mut sifted.kept);
            at += skipped;
            let Some(header) = bytes[at..].first_chunk::<HEADER_BYTES>() else { break };
            let header = Header::of(header);
            if self.stage == Stage::Greeting {
                self.stage = greeted(&header);
            }
            if self.stage == Stage::Refused {
                bytes[at..at + HEADER_BYTES].copy_from_slice(&BREACH);
                keep(bytes, at..at + HEADER_BYTES, &mut sifted.kept);
                break;
            }
            sifted.flood = sifted.flood.or(self.count(&header, now_ns));
            if !self.is_of_no_use(&header) {
                keep(bytes, at..at + HEADER_BYTES, &mut sifted.kept);
            }
            at += HEADER_BYTES;
            self.skip = header.length;
        }
        // Of a peer that is refused, nothing is kept.
        let rest = if self.stage == Stage::Refused { &[] } else { &bytes[at..] };
        self.held_bytes = rest.len();
        self.held[..rest.len()].copy_from_slice(rest);
        sifted
    }

    fn count(&mut self, header: &Header, now_ns: u64) -> Option<Flood> {
        self.tally.turn(now_ns);
        match header.kind {
            HEADERS => {
                self.tally.heads += 1;
                self.highest = self.highest.max(header.stream);
                self.in_fields = !header.has(END_HEADERS);
            }
            PUSH_PROMISE | CONTINUATION => self.in_fields = !header.has(END_HEADERS),
            _ => {}
        }
        self.tally.add(header.weight()?)
    }

    /// Whether h2 need not see a frame. All of it has been counted.
    fn is_of_no_use(&self, header: &Header) -> bool {
        let is_empty = header.kind == DATA && header.length == 0;
        // Clients have the odd streams. Nobody else has any, as nothing is pushed.
        let had_head = header.stream % 2 == 1 && header.stream <= self.highest;
        is_empty && !header.has(END | PADDED) && had_head && !self.in_fields
    }
}

/// What the first frame of a peer makes of it. An acknowledgement is not the SETTINGS that it owes.
fn greeted(header: &Header) -> Stage {
    let is_settings = header.kind == SETTINGS && !header.has(END);
    if is_settings { Stage::Frames } else { Stage::Refused }
}

/// Moves `range` of `bytes` behind the first `kept`.
fn keep(bytes: &mut [u8], range: Range<usize>, kept: &mut usize) {
    let length = range.len();
    if *kept != range.start {
        bytes.copy_within(range, *kept);
    }
    *kept += length;
}

/// Counts what a client makes us send.
#[derive(Debug, Default)]
pub struct OwnWatch {
    /// Bytes of the frame that are still to come.
    skip: usize,
    header: [u8; RESET_BYTES],
    filled: usize,
    tally: Tally,
}

impl OwnWatch {
    /// Sees the next `bytes` that we send, at `now_ns`. Says what they are too much of.
    pub fn see(&mut self, bytes: &[u8], now_ns: u64) -> Option<Flood> {
        let mut rest = bytes;
        let mut found = None;
        loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
            if rest.is_empty() {
                return found;
            }
            let wanted = (self.whole() - self.filled).min(rest.len());
            self.header[self.filled..self.filled + wanted].copy_from_slice(&rest[..wanted]);
            self.filled += wanted;
            rest = &rest[wanted..];
            if self.filled == self.whole() {
                self.skip = self.frame().length - (self.filled - HEADER_BYTES);
                self.filled = 0;
                found = found.or(self.count(now_ns));
            }
        }
    }

    fn frame(&self) -> Header {
        Header::of(self.header.first_chunk().expect("a header is shorter than what is kept"))
    }

    /// How much of a frame is looked at.
    fn whole(&self) -> usize {
        if self.filled >= HEADER_BYTES && self.is_reset() { RESET_BYTES } else { HEADER_BYTES }
    }

    fn is_reset(&self) -> bool {
        let Header { length, kind, .. } = self.frame();
        kind == RESET && length == RESET_BYTES - HEADER_BYTES
    }

    fn count(&mut self, now_ns: u64) -> Option<Flood> {
        if !self.is_reset() {
            return None;
        }
        let flood = match self.header[RESET_BYTES - 1] {
            code if PROVOKED_CODES.contains(&code) => Flood::Provoked,
            REFUSED_CODE => Flood::Refused,
            _ => return None,
        };
        self.tally.turn(now_ns);
        self.tally.add(flood)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    /// One that has seen the first SETTINGS.
    fn greeted(watch: Watch) -> Watch {
        Watch { stage: Stage::Frames, ..watch }
    }

    /// Sifts `wire` in pieces of `piece` bytes. What is for h2, and the floods.
    fn sift(watch: &mut Watch, wire: &[u8], piece: usize, now_ns: u64) -> (Vec<u8>, Vec<Flood>) {
        let (mut kept, mut floods) = (Vec::new(), Vec::new());
        for part in wire.chunks(piece) {
            let mut bytes = [watch.held(), part].concat();
            let sifted = watch.sift(&mut bytes, now_ns);
            kept.extend_from_slice(&bytes[..sifted.kept]);
            floods.extend(sifted.flood);
        }
        (kept, floods)
    }

    fn see(watch: &mut Watch, frame: &[u8], now_ns: u64) -> Option<Flood> {
        watch.sift(&mut frame.to_vec(), now_ns).flood
    }

    #[test]
    fn frames_are_counted_in_any_pieces() {
        for piece in [1, 2, 7, 9, 64, 4096] {
            let mut watch = greeted(Watch::of_client());
            let mut wire = vec![b'P'; PREFACE_BYTES];
            for _ in 0..=CONTROL_FRAMES_MAX {
                wire.extend(frame(0x6, 0, &[0; 8]));
            }
            let (kept, floods) = sift(&mut watch, &wire, piece, 1);
            assert_eq!(floods, [Flood::Control], "{piece}");
            assert!(kept == wire, "{piece}");
        }
    }

    #[test]
    fn each_kind_has_its_limit_and_work_has_none() {
        let flood = |kind, flags, payload: &[u8], count| {
            let mut watch = greeted(Watch::of_server());
            (0..count).find_map(|_| see(&mut watch, &frame(kind, flags, payload), 1))
        };
        assert_eq!(flood(0x0, 0, b"", EMPTY_FRAMES_MAX + 1), Some(Flood::Empty));
        assert_eq!(flood(0x0, 0, b"", EMPTY_FRAMES_MAX), None);
        assert_eq!(flood(0x0, 0x1, b"", 100_000), None, "the end of a stream");
        assert_eq!(flood(0x0, 0, b"a", 100_000), None);
        assert_eq!(flood(0x1, 0x4, b"a", 100_000), None);
        assert_eq!(flood(0x9, 0, b"", EMPTY_FRAMES_MAX + 1), Some(Flood::Empty));
        assert_eq!(flood(0x3, 0, &[0; 4], RESET_FRAMES_MAX + 1), Some(Flood::Reset));
        assert_eq!(flood(0x8, 0, &[0; 4], WINDOW_FRAMES_MAX + 1), Some(Flood::Window));
        assert_eq!(flood(0x4, 0, b"", CONTROL_FRAMES_MAX + 1), Some(Flood::Control));
        assert_eq!(flood(0x4, 0x1, b"", 100_000), None, "an acknowledgement");
        assert_eq!(flood(0x2, 0, &[0; 5], CONTROL_FRAMES_MAX + 1), Some(Flood::Control));
        assert_eq!(flood(0xbb, 0, b"", CONTROL_FRAMES_MAX + 1), Some(Flood::Control));
    }

    /// A frame on stream `stream`.
    fn on(stream: u8, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = frame(kind, flags, payload);
        frame[8] = stream;
        frame
    }

    #[test]
    fn empty_data_is_taken_out_wherever_it_is_cut() {
        let empty = on(1, DATA, 0, b"");
        // The reserved bit means nothing.
        let reserved = [&empty[..5], &[0x80], &empty[6..]].concat();
        let wire = [
            vec![b'P'; PREFACE_BYTES],
            on(0, SETTINGS, 0, b""),
            on(1, HEADERS, 0x4, b"abc"),
            empty.clone(),
            on(1, DATA, 0, &empty),
            reserved,
            empty.clone(),
            on(3, HEADERS, 0x4, b""),
            empty.clone(),
            on(1, DATA, 0x1, b""),
        ]
        .concat();
        let expected = [
            vec![b'P'; PREFACE_BYTES],
            on(0, SETTINGS, 0, b""),
            on(1, HEADERS, 0x4, b"abc"),
            on(1, DATA, 0, &empty),
            on(3, HEADERS, 0x4, b""),
            on(1, DATA, 0x1, b""),
        ]
        .concat();
        for piece in 1..=wire.len() {
            let mut watch = greeted(Watch::of_client());
            let (kept, floods) = sift(&mut watch, &wire, piece, 1);
            assert_eq!(kept, expected, "in pieces of {piece}");
            assert_eq!((floods.len(), watch.held()), (0, &b""[..]));
        }
        // The beginning of a header may become one.
        let mut watch = greeted(Watch::of_server());
        assert_eq!(sift(&mut watch, &empty[..8], 3, 1).0, b"");
        assert_eq!(watch.held(), &empty[..8]);
    }

    #[test]
    fn a_peer_begins_with_settings() {
        let head = on(1, HEADERS, 0x5, b"abc");
        for (name, first, is_right) in [
            ("SETTINGS", on(0, SETTINGS, 0, &[0; 6]), true),
            ("no settings", on(0, SETTINGS, 0, b""), true),
            ("an acknowledgement", on(0, SETTINGS, 0x1, b""), false),
            ("PING", on(0, PING, 0, &[0; 8]), false),
            ("a request", head.clone(), false),
            ("unknown", on(0, 0xbb, 0, b"abc"), false),
        ] {
            let preface = [b'P'; PREFACE_BYTES];
            let wire = [&preface[..], &first, &head].concat();
            let refused = [&preface[..], &BREACH].concat();
            let expected = if is_right { &wire } else { &refused };
            for piece in 1..=wire.len() {
                let mut watch = Watch::of_client();
                assert_eq!(sift(&mut watch, &wire, piece, 1).0, *expected, "{name} in {piece}");
                assert_eq!(sift(&mut watch, &head, piece, 1).0.is_empty(), !is_right);
            }
            let kept = sift(&mut Watch::of_server(), &first, 4096, 1).0;
            assert_eq!(kept, if is_right { first } else { BREACH.to_vec() }, "{name}");
        }
    }

    #[test]
    fn empty_data_that_is_an_error_is_left_to_h2() {
        let head = on(3, HEADERS, 0x4, b"abc");
        for (name, open, data) in [
            ("of the connection", &head, on(0, DATA, 0, b"")),
            ("of a stream that never was", &head, on(5, DATA, 0, b"")),
            ("of a stream of the server", &head, on(2, DATA, 0, b"")),
            ("within fields", &on(3, HEADERS, 0, b"abc"), on(3, DATA, 0, b"")),
            ("within a promise", &on(3, PUSH_PROMISE, 0, b"abc"), on(3, DATA, 0, b"")),
            ("padding without its length", &head, on(3, DATA, 0x8, b"")),
            ("padding alone", &head, on(3, DATA, 0x8, &[2, 0, 0])),
        ] {
            let wire = [&head[..], open, &data].concat();
            assert_eq!(sift(&mut greeted(Watch::of_server()), &wire, 4096, 1).0, wire, "{name}");
        }
        let whole = [on(3, HEADERS, 0, b""), on(3, CONTINUATION, 0x4, b"")].concat();
        let wire = [&whole[..], &on(3, DATA, 0, b"")].concat();
        assert_eq!(
            sift(&mut greeted(Watch::of_server()), &wire, 4096, 1).0,
            whole,
            "after the fields"
        );
    }

    #[test]
    fn what_we_send_counts_if_it_was_provoked() {
        let flood = |kind, code: u8| {
            for piece in [1, 5, 4096] {
                let mut watch = OwnWatch::default();
                let wire: Vec<u8> = (0..=PROVOKED_RESETS_MAX)
                    .flat_map(|_| [frame(0x1, 0x4, b"abc"), frame(kind, 0, &[0, 0, 0, code])])
                    .flatten()
                    .collect();
                let found = wire.chunks(piece).find_map(|part| watch.see(part, 1));
                if found.is_some() {
                    return found;
                }
            }
            None
        };
        for code in [1, 3, 5, 6] {
            assert_eq!(flood(RESET, code), Some(Flood::Provoked), "{code}");
        }
        assert_eq!(flood(RESET, 7), None, "REFUSED_STREAM has a limit of its own");
        assert_eq!(flood(RESET, 8), None, "CANCEL");
        assert_eq!(flood(0x6, 1), None, "no reset");
    }

    #[test]
    fn refusals_count_by_time() {
        let refusal = frame(RESET, 0, &[0, 0, 0, REFUSED_CODE]);
        let mut watch = OwnWatch::default();
        let mut refuse = |now_ns| watch.see(&refusal, now_ns);
        for now_ns in [1, 1 + WINDOW.as_nanos() as u64 + 1] {
            assert!((0..REFUSED_STREAMS_MAX).all(|_| refuse(now_ns).is_none()));
        }
        assert_eq!(refuse(2 + WINDOW.as_nanos() as u64), Some(Flood::Refused));
    }

    #[test]
    fn giving_up_half_of_many_requests_is_no_flood() {
        let found = |heads: usize| {
            let mut watch = greeted(Watch::of_server());
            let round = |watch: &mut Watch| {
                let heads = (0..heads).find_map(|_| see(watch, &frame(0x1, 0x5, b"a"), 1));
                heads.or(see(watch, &frame(0x3, 0, &[0; 4]), 1))
            };
            (0..10_000).find_map(|_| round(&mut watch))
        };
        assert_eq!(found(2), None);
        assert_eq!(found(1), Some(Flood::Reset), "each of them");
    }

    #[test]
    fn frames_are_forgotten_after_a_while() {
        let mut watch = greeted(Watch::of_server());
        let second = 1_000_000_000;
        for tick in 0..100 {
            for _ in 0..CONTROL_FRAMES_MAX / 20 {
                assert_eq!(see(&mut watch, &frame(0x6, 0, &[0; 8]), tick * second), None);
            }
        }
    }
}
