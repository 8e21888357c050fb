//! Frames that cost their sender nothing and their receiver work, counted by their headers.
//!
//! The h2 crate bounds what grows: reset streams, CONTINUATION, header lists, small DATA frames. It
//! answers any number of PING and SETTINGS, and reads any number of frames that say nothing. This
//! counts them as they go by, without parsing more than the nine bytes of a frame header (RFC 9113
//! section 4.1).
//!
//! # Invariants
//! - A peer that behaves is never near a limit: the limits are for frames that do no work, in a
//!   window of time, over one connection.
//! - Bytes are seen in any pieces.

use std::time::Duration;

use crate::limits::{CONTROL_FRAMES_MAX, EMPTY_FRAMES_MAX, RESET_FRAMES_MAX, WINDOW_FRAMES_MAX};

/// Length of a frame header.
const HEADER_BYTES: usize = 9;
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
}

impl Flood {
    /// All of them, in the order of the counters.
    pub const LABELS: [&str; 4] = ["control", "empty", "reset", "window_update"];
}

/// Counts the frames of one peer.
#[derive(Debug)]
pub struct Watch {
    /// Bytes of the preface or of the frame that are still to come.
    skip: usize,
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// Since when is counted.
    since_ns: u64,
    counts: [u32; Flood::LABELS.len()],
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
            header: [0; HEADER_BYTES],
            filled: 0,
            since_ns: 0,
            counts: [0; Flood::LABELS.len()],
        }
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
            let wanted = (HEADER_BYTES - self.filled).min(rest.len());
            self.header[self.filled..self.filled + wanted].copy_from_slice(&rest[..wanted]);
            self.filled += wanted;
            rest = &rest[wanted..];
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                found = found.or(self.count(now_ns));
            }
        }
    }

    fn count(&mut self, now_ns: u64) -> Option<Flood> {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length as usize;
        let is_end = flags & 0x1 != 0;
        let flood = match kind {
            // DATA, HEADERS, CONTINUATION.
            0x0 | 0x1 | 0x9 if length == 0 && !is_end => Flood::Empty,
            0x0 | 0x1 | 0x9 => return None,
            0x3 => Flood::Reset,
            0x8 => Flood::Window,
            // What answers our own PING and SETTINGS.
            0x4 | 0x6 if is_end => return None,
            _ => Flood::Control,
        };
        if now_ns.saturating_sub(self.since_ns) > WINDOW.as_nanos() as u64 {
            self.since_ns = now_ns;
            self.counts = [0; Flood::LABELS.len()];
        }
        let most = match flood {
            Flood::Control => CONTROL_FRAMES_MAX,
            Flood::Empty => EMPTY_FRAMES_MAX,
            Flood::Reset => RESET_FRAMES_MAX,
            Flood::Window => WINDOW_FRAMES_MAX,
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
