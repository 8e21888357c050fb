//! The chunked coding, checked in place, stripped, skipped, and in any pieces, against a decoder
//! that reads whole lines.

use ringway::http1::chunked::{ChunkFault, Chunked};
use ringway::http1::scan::Scanner;

use super::{cuts, wire};

/// What an input is.
#[derive(Debug, PartialEq, Eq)]
enum Decoded {
    /// All chunks, and how many bytes they took.
    Complete { payload: Vec<u8>, consumed: usize },
    /// The beginning of something, as far as whole lines tell.
    Partial { payload: Vec<u8> },
    /// No chunked body.
    Invalid,
}

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let whole = decode(&[input], u64::MAX);
    for cut in cuts(input) {
        let (front, back) = input.split_at(cut);
        let pieces = decode(&[front, back], u64::MAX);
        assert_eq!(pieces.is_ok(), whole.is_ok(), "cut at {cut}");
        assert!(pieces.is_err() || pieces == whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode(&bytes, u64::MAX), whole, "byte by byte");
    check_skipping(input);

    match (&whole, naive(input)) {
        (Ok(decoded), expected) => assert_eq!(*decoded, expected),
        // The naive decoder has no limits.
        (Err(ChunkFault::ExtensionsTooLong), _) => {}
        // It sees what is wrong with a line only at the end of the line.
        (Err(_), Decoded::Partial { .. } | Decoded::Invalid) => {}
        (Err(fault), complete) => panic!("refused as {fault:?}: {complete:?}"),
    }
    if let Ok(Decoded::Complete { payload, consumed }) = &whole {
        let length = payload.len() as u64;
        assert_eq!(decode(&[input], length), whole);
        if length > 0 {
            assert_eq!(decode(&[input], length - 1), Err(ChunkFault::TooLarge));
        }
        // What follows is a trailer section.
        let _ = wire::scan(&input[*consumed..], Scanner::trailers);
    }
}

/// Decodes with the code under test, which must do the same to the bytes whether it moves them or
/// not.
fn decode(pieces: &[&[u8]], payload_max: u64) -> Result<Decoded, ChunkFault> {
    let mut chunked = Chunked::new().limited(payload_max);
    let mut payload = Vec::new();
    let mut consumed = 0;
    for piece in pieces {
        let mut copy = piece.to_vec();
        let looked = { chunked }.advance(piece);
        let stripped = chunked.strip(&mut copy);
        assert_eq!(looked, stripped);
        let advance = stripped?;
        assert!(advance.payload <= advance.consumed && advance.consumed <= piece.len());
        payload.extend_from_slice(&copy[..advance.payload]);
        consumed += advance.consumed;
        if advance.at_trailers {
            return Ok(Decoded::Complete { payload, consumed });
        }
        assert_eq!(advance.consumed, piece.len(), "stopped short of the end");
    }
    Ok(Decoded::Partial { payload })
}

/// Data that goes by unseen counts like data that is shown.
fn check_skipping(input: &[u8]) {
    let (mut shown, mut skipped) = (Chunked::new(), Chunked::new());
    let mut at = 0;
    while at < input.len() {
        let data = usize::try_from(skipped.data_remaining()).unwrap_or(usize::MAX);
        let count = if data > 0 { data.min(input.len() - at) } else { 1 };
        let piece = &input[at..at + count];
        let seen = shown.advance(piece);
        if data > 0 {
            skipped.skip_data(count as u64);
        } else {
            assert_eq!(skipped.advance(piece), seen);
        }
        assert_eq!(skipped.data_remaining(), shown.data_remaining());
        match seen {
            Ok(advance) if !advance.at_trailers => at += count,
            Ok(_) | Err(_) => return,
        }
    }
}

/// Reads line by line (RFC 9112 section 7.1), without blanks at the end of a line.
fn naive(input: &[u8]) -> Decoded {
    let mut payload = Vec::new();
    let mut rest = input;
    loop {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return Decoded::Partial { payload };
        };
        let Some(size) = size_of(&rest[..end]) else { return Decoded::Invalid };
        rest = &rest[end + 2..];
        if size == 0 {
            return Decoded::Complete { payload, consumed: input.len() - rest.len() };
        }
        let shown = usize::try_from(size).map_or(rest.len(), |size| size.min(rest.len()));
        payload.extend_from_slice(&rest[..shown]);
        rest = &rest[shown..];
        match rest {
            [] | [b'\r'] => return Decoded::Partial { payload },
            [b'\r', b'\n', tail @ ..] => rest = tail,
            _ => return Decoded::Invalid,
        }
    }
}

fn size_of(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // 15 digits are 60 bits.
    let text = std::str::from_utf8(&line[..digits]).ok().filter(|text| text.len() <= 15)?;
    let size = u64::from_str_radix(text, 16).ok()?;
    are_extensions(&line[digits..]).then_some(size)
}

fn are_extensions(line: &[u8]) -> bool {
    let mut rest = line;
    while !rest.is_empty() {
        let Some(named) = trim(rest).strip_prefix(b";") else { return false };
        let Some(after_name) = after_token(trim(named)) else { return false };
        rest = match trim(after_name).strip_prefix(b"=").map(trim) {
            None => after_name,
            Some([b'"', text @ ..]) => match after_quoted(text) {
                Some(after) => after,
                None => return false,
            },
            Some(token) => match after_token(token) {
                Some(after) => after,
                None => return false,
            },
        };
    }
    true
}

fn trim(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| b" \t".contains(byte)).count();
    &line[blanks..]
}

fn after_token(line: &[u8]) -> Option<&[u8]> {
    let length = line.iter().take_while(|&&byte| wire::is_token(byte)).count();
    (length > 0).then(|| &line[length..])
}

fn after_quoted(line: &[u8]) -> Option<&[u8]> {
    let mut bytes = line.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        let text = match byte {
            b'"' => return Some(&line[at + 1..]),
            b'\\' => *bytes.next()?.1,
            byte => byte,
        };
        if text == 0x7f || (text < b' ' && text != b'\t') {
            return None;
        }
    }
    None
}
