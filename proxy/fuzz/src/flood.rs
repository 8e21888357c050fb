//! Frames of a peer and our own, counted and sifted: the same in any pieces, and as by a reader
//! that has all bytes at once.

use std::collections::HashMap;

use ringway::http2::flood::{Flood, OwnWatch, Watch};
use ringway::limits::{
    CONTROL_FRAMES_MAX, EMPTY_FRAMES_MAX, PROVOKED_RESETS_MAX, REFUSED_STREAMS_MAX,
    RESET_FRAMES_MAX, WINDOW_FRAMES_MAX,
};

use super::cuts;

/// What is left for h2, and the first thing that there is too much of.
type Seen = (Vec<u8>, Option<Flood>);

/// So many bytes reach the limits, by frames without a payload.
const FLOOD_BYTES: usize = 14 << 10;

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    for (watch, preface) in [(Watch::of_client as fn() -> Watch, 24), (Watch::of_server, 0)] {
        let whole = sift(&mut watch(), &[input]);
        for cut in cuts(input) {
            let (front, back) = input.split_at(cut);
            assert_eq!(sift(&mut watch(), &[front, back]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(sift(&mut watch(), &bytes), whole, "byte by byte");
        assert_eq!(whole, naive(input, preface));
        if input.len() > preface {
            let (front, rest) = input.split_at(preface);
            let wire = [front, &rest.repeat(FLOOD_BYTES / rest.len() + 1)].concat();
            let expected = naive(&wire, preface);
            for piece in [7, 1000, wire.len()] {
                let pieces: Vec<&[u8]> = wire.chunks(piece).collect();
                assert_eq!(sift(&mut watch(), &pieces), expected, "in pieces of {piece}");
            }
        }
    }
    check_own(input);
}

fn sift(watch: &mut Watch, pieces: &[&[u8]]) -> Seen {
    let (mut kept, mut flood) = (Vec::new(), None);
    for piece in pieces {
        let mut bytes = [watch.held(), piece].concat();
        let sifted = watch.sift(&mut bytes, 1);
        assert!(sifted.kept <= bytes.len() && watch.held().len() < 9);
        kept.extend_from_slice(&bytes[..sifted.kept]);
        flood = flood.or(sifted.flood);
    }
    (kept, flood)
}

/// A frame whose header is there, and what has come of its payload.
struct Frame<'a> {
    header: &'a [u8],
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

fn frames(mut wire: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while wire.len() >= 9 {
        let (header, rest) = wire.split_at(9);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let length = number(&header[..3]) as usize;
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        let (kind, flags, stream) = (header[3], header[4], number(&header[5..]) & 0x7fff_ffff);
        frames.push(Frame { header, length, kind, flags, stream, payload });
        wire = rest;
    }
    frames
}

/// What [`Watch`] does, by its description.
fn naive(input: &[u8], preface: usize) -> Seen {
    let (preface, rest) = input.split_at(preface.min(input.len()));
    let (mut kept, mut flood) = (preface.to_vec(), None);
    let mut counts = HashMap::<u8, u32>::new();
    let (mut heads, mut highest, mut in_fields) = (0, 0, false);
    for (nth, frame) in frames(rest).iter().enumerate() {
        let Frame { length, kind, flags, stream, .. } = *frame;
        if nth == 0 && (kind != 4 || flags & 1 != 0) {
            kept.extend([0; 9]);
            break;
        }
        let is_over = in_fields;
        match kind {
            1 => {
                heads += 1;
                highest = highest.max(stream);
                in_fields = flags & 4 == 0;
            }
            5 | 9 => in_fields = flags & 4 == 0,
            _ => {}
        }
        // Those of one kind, whatever the kind is called here.
        let (class, most, found) = match kind {
            0 | 1 | 9 if length > 0 || flags & 1 != 0 => (0, u32::MAX, Flood::Empty),
            0 | 1 | 9 => (1, EMPTY_FRAMES_MAX, Flood::Empty),
            3 => (2, RESET_FRAMES_MAX.max(heads / 4 * 3), Flood::Reset),
            8 => (3, WINDOW_FRAMES_MAX, Flood::Window),
            4 | 6 if flags & 1 != 0 => (0, u32::MAX, Flood::Control),
            _ => (4, CONTROL_FRAMES_MAX, Flood::Control),
        };
        let count = counts.entry(class).or_default();
        *count += 1;
        if *count > most && flood.is_none() {
            flood = Some(found);
        }
        let says_nothing = kind == 0 && length == 0 && flags & 9 == 0 && !is_over;
        if !says_nothing || stream % 2 == 0 || stream > highest {
            kept.extend([frame.header, frame.payload].concat());
        }
    }
    (kept, flood)
}

/// What we send, which is counted and not changed.
fn check_own(input: &[u8]) {
    if input.is_empty() {
        return;
    }
    let wire = input.repeat(FLOOD_BYTES * 2 / input.len() + 1);
    let see = |piece: usize| {
        let mut watch = OwnWatch::default();
        wire.chunks(piece).fold(None, |found, part| found.or(watch.see(part, 1)))
    };
    let (mut provoked, mut refused, mut expected) = (0, 0, None);
    for frame in frames(&wire).iter().filter(|frame| frame.kind == 3 && frame.length == 4) {
        match frame.payload {
            [_, _, _, 1 | 3 | 5 | 6] => provoked += 1,
            [_, _, _, 7] => refused += 1,
            _ => continue,
        }
        if provoked > PROVOKED_RESETS_MAX {
            expected = expected.or(Some(Flood::Provoked));
        }
        if refused > REFUSED_STREAMS_MAX {
            expected = expected.or(Some(Flood::Refused));
        }
    }
    for piece in [1, 5, 13, 1000, wire.len()] {
        assert_eq!(see(piece), expected, "in pieces of {piece}");
    }
}
