//! What a pusher says on a stream: cuts change nothing, and what was read is written and read again
//! as the same.

use ringway_protocol::limits::FRAME_BYTES_MAX;
use ringway_protocol::{Decoder, EndpointsState, Frame};

/// Cuts in two that are tried of one input.
const CUTS_MAX: usize = 64;
/// Bytes before a payload.
const HEADER: usize = 5;
/// Types that are known.
const KNOWN: std::ops::RangeInclusive<u8> = 1..=8;

/// Frames in their order, and the error that ended the stream.
type Read = (Vec<Frame>, Option<String>);

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let whole = read([input]);
    assert_eq!(read(input.chunks(1)), whole, "byte by byte");
    let step = input.len() / CUTS_MAX + 1;
    for cut in (0..input.len()).step_by(step) {
        assert_eq!(read([&input[..cut], &input[cut..]]), whole, "cut at {cut}");
    }
    let (frames, error) = whole;
    check_count(input, frames.len(), error.is_some());
    let mut state = EndpointsState::default();
    let mut sequence = 0;
    for frame in frames {
        check_again(&frame);
        if let Frame::Endpoints(frame) = frame {
            let before = (state.hash(), sequence);
            let applied = state.apply(frame, &mut sequence);
            let is_untouched = before == (state.hash(), sequence);
            assert!(applied.is_ok() || is_untouched, "refused and changed");
        }
    }
}

fn read<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> Read {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    (frames, None)
}

/// Counts the frames by their headers alone.
fn check_count(input: &[u8], found: usize, is_broken: bool) {
    let (mut rest, mut complete, mut is_too_long) = (input, 0, false);
    while let Some((header, behind)) = rest.split_at_checked(HEADER) {
        let length = header[..4].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        is_too_long |= length > FRAME_BYTES_MAX;
        let Some(next) = behind.get(length..) else { break };
        complete += usize::from(KNOWN.contains(&header[4]));
        rest = next;
    }
    match is_broken {
        true => assert!(found < complete || is_too_long, "an error without a cause"),
        false => assert!(found == complete && !is_too_long, "{found} of {complete} frames"),
    }
}

/// What is written of a frame is read as the frame, and written as it was.
fn check_again(frame: &Frame) {
    let bytes = frame.encode().expect("what was read is not too long to be written");
    let (again, error) = read([&*bytes]);
    assert_eq!(error, None, "{frame:?}");
    assert_eq!(again, std::slice::from_ref(frame));
    assert_eq!(again[0].encode().as_deref(), Some(&*bytes));
}
