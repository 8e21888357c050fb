//! Trailer sections: what goes out is what came in less what may not stand there, line by line.

use ringway::http1::compose;
use ringway::http1::fields::forbidden_in_trailers;
use ringway::http1::scan::Scanner;
use ringway::sys::block::Block;

use super::wire::{self, NameValue};

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let Some(section) = wire::scan(input, Scanner::trailers) else { return };
    let mut out = Block::small();
    if compose::trailers(section, &mut out).is_err() {
        return;
    }
    let kept: Vec<NameValue<'_>> = fields(section)
        .into_iter()
        .filter(|(name, _)| !forbidden_in_trailers(&String::from_utf8_lossy(name)))
        .collect();
    assert_eq!(fields(out.data()), kept);
    for (name, _) in kept {
        let framing =
            ["content-length", "transfer-encoding", "host", "connection", "te", "trailer"];
        assert!(!wire::is_one_of(name, &framing), "a field that frames or routes");
    }
    // What was written is a trailer section that is passed on as it is.
    let mut again = Block::small();
    assert_eq!(compose::trailers(out.data(), &mut again), Ok(()));
    assert_eq!(again.data(), out.data());
}

fn fields(section: &[u8]) -> Vec<NameValue<'_>> {
    if section == b"\r\n" {
        return Vec::new();
    }
    // As a head without its first line.
    let (first, rest) = wire::read(section);
    [vec![wire::field(first)], rest].concat()
}
