//! Frames that cost their sender nothing and their receiver work, counted by their headers.
//!
//! The h2 crate bounds what grows: reset streams, CONTINUATION, header lists, small DATA frames. It
//! answers any number of PING and SETTINGS, and reads any number of frames that say nothing. Its
//! limit for errors that a peer provokes (CVE-2025-8671) counts over the life of a connection,
//! which ends those that live long and cancel much. This counts frames as they go by, in both
//! directions, without parsing more than the nine bytes of a frame header (RFC 9113 section 4.1)
//! and the code of a reset.
//!
//! # Invariants
//! - A peer that behaves is never near a limit: the limits are for frames that do no work, in a
//!   window of time, over one connection.
//! - Bytes are seen in any pieces.

use std::time::Duration;

use h2::Reason;

use crate::limits::{
    CONTROL_FRAMES_MAX, EMPTY_FRAMES_MAX, PROVOKED_RESETS_MAX, RESET_FRAMES_MAX, WINDOW_FRAMES_MAX,
};

/// Length of a frame header.
const HEADER_BYTES: usize = 9;
/// Length of one with the error code of RST_STREAM.
const RESET_BYTES: usize = HEADER_BYTES + 4;
/// RST_STREAM.
const RESET: u8 = 0x3;
/// PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR: what a stream is reset with
/// because of what its peer did.
const PROVOKED_CODES: [u8; 4] = [0x1, 0x3, 0x5, 0x6];
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
}

impl Flood {
    /// All of them, in the order of the counters.
    pub const LABELS: [&str; 5] = ["control", "empty", "reset", "window_update", "provoked_reset"];
}

/// Whether a stream is reset with `reason` because of frames of the other side.
#[must_use]
pub fn is_provoked(reason: Reason) -> bool {
    PROVOKED_CODES.iter().any(|code| u32::from(*code) == u32::from(reason))
}

/// Counts the frames of one peer.
#[derive(Debug)]
pub struct Watch {
    /// Bytes of the preface or of the frame that are still to come.
    skip: usize,
    header: [u8; RESET_BYTES],
    filled: usize,
    /// These are the frames that we send.
    ours: bool,
    /// Since when is counted.
    since_ns: u64,
    counts: [u32; Flood::LABELS.len()],
    /// HEADERS, which are work.
    heads: u32,
}

impl Watch {
    /// For what a client sends, its preface included.
    #[must_use]
    pub fn of_client() -> Self {
        Self { skip: PREFACE_BYTES, ..Self::of_server() }
    }

    /// For what a server sends.
    #[must_use]
    pub fn of_server() -> Self {
        Self {
            skip: 0,
            header: [0; RESET_BYTES],
            filled: 0,
            ours: false,
            since_ns: 0,
            counts: [0; Flood::LABELS.len()],
            heads: 0,
        }
    }

    /// For what we send to a client.
    #[must_use]
    pub fn of_ourselves() -> Self {
        Self { ours: true, ..Self::of_server() }
    }

    /// Sees the next `bytes` at `now_ns`. Says what there is too much of.
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
            let whole = self.whole();
            let wanted = (whole - self.filled).min(rest.len());
            self.header[self.filled..self.filled + wanted].copy_from_slice(&rest[..wanted]);
            self.filled += wanted;
            rest = &rest[wanted..];
            if self.filled == self.whole() {
                self.filled = 0;
                found = found.or(self.count(now_ns));
            }
        }
    }

    /// How much of a frame is looked at.
    fn whole(&self) -> usize {
        let is_reset = self.filled >= HEADER_BYTES && self.header[3] == RESET;
        // One of another length is an error of the connection.
        if is_reset && self.length() == 4 { RESET_BYTES } else { HEADER_BYTES }
    }

    fn length(&self) -> usize {
        let [a, b, c, ..] = self.header;
        u32::from_be_bytes([0, a, b, c]) as usize
    }

    fn count(&mut self, now_ns: u64) -> Option<Flood> {
        let [_, _, _, kind, flags, ..] = self.header;
        let length = self.length();
        let is_reset = kind == RESET && length == 4;
        self.skip = if is_reset { 0 } else { length };
        let is_end = flags & 0x1 != 0;
        if now_ns.saturating_sub(self.since_ns) > WINDOW.as_nanos() as u64 {
            self.since_ns = now_ns;
            self.counts = [0; Flood::LABELS.len()];
            self.heads = 0;
        }
        self.heads += u32::from(kind == 0x1);
        let is_provoked = is_reset && PROVOKED_CODES.contains(&self.header[RESET_BYTES - 1]);
        let flood = match kind {
            _ if self.ours && !is_provoked => return None,
            _ if self.ours => Flood::Provoked,
            // DATA, HEADERS, CONTINUATION.
            0x0 | 0x1 | 0x9 if length == 0 && !is_end => Flood::Empty,
            0x0 | 0x1 | 0x9 => return None,
            RESET => Flood::Reset,
            0x8 => Flood::Window,
            // What answers our own PING and SETTINGS.
            0x4 | 0x6 if is_end => return None,
            _ => Flood::Control,
        };
        let most = match flood {
            Flood::Control => CONTROL_FRAMES_MAX,
            Flood::Empty => EMPTY_FRAMES_MAX,
            // Who gives up some of many requests may do so.
            Flood::Reset => RESET_FRAMES_MAX.max(self.heads / 4 * 3),
            Flood::Window => WINDOW_FRAMES_MAX,
            Flood::Provoked => PROVOKED_RESETS_MAX,
        };
        let count = &mut self.counts[flood as usize];
        *count += 1;
        (*count > most).then_some(flood)
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

    #[test]
    fn frames_are_counted_in_any_pieces() {
        for piece in [1, 2, 7, 9, 64, 4096] {
            let mut watch = Watch::of_client();
            let mut wire = vec![b'P'; PREFACE_BYTES];
            for _ in 0..=CONTROL_FRAMES_MAX {
                wire.extend(frame(0x6, 0, &[0; 8]));
            }
            let found = wire.chunks(piece).filter_map(|part| watch.see(part, 1)).count();
            assert_eq!(found, 1, "{piece}");
        }
    }

    #[test]
    fn each_kind_has_its_limit_and_work_has_none() {
        let flood = |kind, flags, payload: &[u8], count| {
            let mut watch = Watch::of_server();
            (0..count).find_map(|_| watch.see(&frame(kind, flags, payload), 1))
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

    #[test]
    fn what_we_send_counts_if_it_was_provoked() {
        let flood = |kind, code: u8| {
            for piece in [1, 5, 4096] {
                let mut watch = Watch::of_ourselves();
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
        assert_eq!(flood(RESET, 8), None, "CANCEL");
        assert_eq!(flood(0x6, 1), None, "no reset");
    }

    #[test]
    fn giving_up_half_of_many_requests_is_no_flood() {
        let found = |heads: usize| {
            let mut watch = Watch::of_server();
            let round = |watch: &mut Watch| {
                let heads = (0..heads).find_map(|_| watch.see(&frame(0x1, 0x5, b"a"), 1));
                heads.or(watch.see(&frame(0x3, 0, &[0; 4]), 1))
            };
            (0..10_000).find_map(|_| round(&mut watch))
        };
        assert_eq!(found(2), None);
        assert_eq!(found(1), Some(Flood::Reset), "each of them");
    }

    #[test]
    fn frames_are_forgotten_after_a_while() {
        let mut watch = Watch::of_server();
        let second = 1_000_000_000;
        for tick in 0..100 {
            for _ in 0..CONTROL_FRAMES_MAX / 20 {
                assert_eq!(watch.see(&frame(0x6, 0, &[0; 8]), tick * second), None);
            }
        }
    }
}
