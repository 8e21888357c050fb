//! The chunked transfer coding (RFC 9112 section 7.1), checked as it passes.
//!
//! ```text
//!            ┌────────────────────────────────────────────┐
//!            ▼                                            │
//!  Size ─▶ Extension ─▶ SizeLf ─▶ Data ─▶ DataCr ─▶ DataLf ┘
//!                          │ size 0
//!                          ▼
//!                       Trailers (the caller collects them)
//! ```
//!
//! # Invariants
//! - What was accepted means the same to every recipient: hexadecimal digits without sign or
//!   prefix, CR LF after size and data, extensions that are names with tokens or quoted strings.
//! - Where the input is cut does not matter.
//! - Lines and extensions are bounded; the size fits in 60 bits. A chunk that would exceed the
//!   payload allowed is refused by its size line, before any of it is taken.

use thiserror::Error;

use super::fields::is_token;
use crate::limits::{CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_LINE_BYTES_MAX};

/// Why the bytes are not a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkFault {
    /// No digit, a character that is none, or a size over 60 bits.
    #[error("a chunk size is not a hexadecimal number that fits")]
    Size,
    /// Not `;name`, `;name=token` or `;name="text"`, or CR without LF.
    #[error("a chunk extension is malformed")]
    Extension,
    /// Too long a line, or too many extensions.
    #[error("chunk extensions are over their limit")]
    ExtensionsTooLong,
    /// The data of a chunk is not followed by CR LF.
    #[error("the data of a chunk is longer than its size says")]
    DataEnd,
    /// The payload is over what [`Chunked::limited`] allows.
    #[error("the chunks are longer together than the route allows")]
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size.
    Size { digits: u8 },
    /// Behind the digits: blanks and extensions.
    Extension(Extension),
    /// After the CR of the size line.
    SizeLf,
    /// In the data, `remaining` bytes before its end.
    Data,
    /// At the CR after the data.
    DataCr,
    /// At the LF after the data.
    DataLf,
    /// After the last chunk's line.
    Trailers,
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// After the size or a quoted string: the line may end.
    Complete,
    /// After a blank that only another extension may follow.
    Blank,
    /// After a semicolon.
    Semicolon,
    /// In a name.
    Name,
    /// After a name and a blank.
    NameBlank,
    /// After an equals sign.
    Equals,
    /// In a token.
    Token,
    /// In a quoted string.
    Quoted,
    /// After a backslash in one.
    Escape,
}

impl Extension {
    /// The next place; `None` when `byte` cannot stand here.
    fn next(self, byte: u8) -> Option<Self> {
        let token = is_token(byte);
        match (self, byte) {
            (Self::Quoted, b'"') => Some(Self::Complete),
            (Self::Quoted, b'\\') => Some(Self::Escape),
            (Self::Quoted | Self::Escape, b'\t' | b' '..=b'~' | 0x80..) => Some(Self::Quoted),
            (Self::Complete | Self::Blank | Self::Token, b' ' | b'\t') => Some(Self::Blank),
            (Self::Name | Self::NameBlank, b' ' | b'\t') => Some(Self::NameBlank),
            (Self::Semicolon | Self::Equals, b' ' | b'\t') => Some(self),
            (Self::Complete | Self::Blank | Self::Name | Self::NameBlank | Self::Token, b';') => {
                Some(Self::Semicolon)
            }
            (Self::Name | Self::NameBlank, b'=') => Some(Self::Equals),
            (Self::Equals, b'"') => Some(Self::Quoted),
            (Self::Semicolon | Self::Name, _) if token => Some(Self::Name),
            (Self::Equals | Self::Token, _) if token => Some(Self::Token),
            (_, _) => None,
        }
    }

    /// Blanks that lead to nothing mean a line end to some parsers and not to others.
    fn may_end(self) -> bool {
        matches!(self, Self::Complete | Self::Name | Self::Token)
    }
}

/// How far the bytes at hand went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// Bytes of the input that belong to the body, framing included.
    pub consumed: usize,
    /// Bytes of payload among them, which [`Chunked::strip`] moved to the front.
    pub payload: usize,
    /// Whether the line of the last chunk is behind us: trailers come next.
    pub at_trailers: bool,
}

/// The state of a chunked body.
#[derive(Debug, Clone, Copy)]
pub struct Chunked {
    state: State,
    /// `0 <= remaining < 2^60`: bytes of the current chunk still to come.
    remaining: u64,
    /// Payload that later chunks may have.
    allowance: u64,
    line_bytes: usize,
    extension_bytes: u64,
}

impl Default for Chunked {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunked {
    /// Before the first chunk.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Size { digits: 0 },
            remaining: 0,
            allowance: u64::MAX,
            line_bytes: 0,
            extension_bytes: 0,
        }
    }

    /// The same with at most `payload_max` bytes of payload in the chunks that are still to come.
    #[must_use]
    pub fn limited(self, payload_max: u64) -> Self {
        Self { allowance: payload_max, ..self }
    }

    /// Bytes of the current chunk's data that are still to come; 0 outside of data.
    #[must_use]
    pub fn data_remaining(&self) -> u64 {
        if self.state == State::Data { self.remaining } else { 0 }
    }

    /// Says that `count` bytes of the current chunk's data went by without being shown.
    ///
    /// # Panics
    /// If the chunk does not have so many left.
    pub fn skip_data(&mut self, count: u64) {
        assert!(self.state == State::Data && count <= self.remaining, "skipped past a chunk");
        self.remaining -= count;
        if self.remaining == 0 {
            self.state = State::DataCr;
        }
    }

    /// Checks `input` as far as it goes.
    ///
    /// # Errors
    /// At the first byte that cannot be right.
    pub fn advance(&mut self, input: &[u8]) -> Result<Advance, ChunkFault> {
        self.walk(input.len(), |at| input[at], |_, _, _| {})
    }

    /// [`Self::advance`], and moves the payload together at the front of `data`.
    ///
    /// # Errors
    /// As [`Self::advance`]; `data` is then of no use.
    pub fn strip(&mut self, data: &mut [u8]) -> Result<Advance, ChunkFault> {
        // Two closures would need `data` at once, so the cells are shared for the walk.
        let cells = std::cell::Cell::from_mut(data).as_slice_of_cells();
        self.walk(
            cells.len(),
            |at| cells[at].get(),
            |from, to, length| {
                for offset in 0..length {
                    cells[to + offset].set(cells[from + offset].get());
                }
            },
        )
    }

    fn walk(
        &mut self,
        length: usize,
        byte_at: impl Fn(usize) -> u8,
        move_payload: impl Fn(usize, usize, usize),
    ) -> Result<Advance, ChunkFault> {
        let mut at = 0;
        let mut payload = 0;
        while at < length && self.state != State::Trailers {
            if self.state == State::Data {
                let left = length - at;
                let count = usize::try_from(self.remaining).map_or(left, |want| want.min(left));
                move_payload(at, payload, count);
                payload += count;
                at += count;
                self.skip_data(count as u64);
            } else {
                self.frame(byte_at(at))?;
                at += 1;
            }
        }
        Ok(Advance { consumed: at, payload, at_trailers: self.state == State::Trailers })
    }

    /// One byte outside of data.
    fn frame(&mut self, byte: u8) -> Result<(), ChunkFault> {
        self.state = match self.state {
            State::Size { digits } => self.size(digits, byte)?,
            State::Extension(place) => self.extension(place, byte)?,
            State::SizeLf => self.end_of_size(byte)?,
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => State::Size { digits: 0 },
            State::DataCr | State::DataLf => return Err(ChunkFault::DataEnd),
            State::Data | State::Trailers => unreachable!("not framing"),
        };
        Ok(())
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, ChunkFault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' | b';' | b' ' | b'\t' if digits > 0 => {
                self.line_bytes = 0;
                return self.extension(Extension::Complete, byte);
            }
            _ => return Err(ChunkFault::Size),
        };
        if digits == 0 {
            self.remaining = 0;
        }
        if digits >= 15 {
            return Err(ChunkFault::Size);
        }
        self.remaining = self.remaining << 4 | u64::from(digit);
        Ok(State::Size { digits: digits + 1 })
    }

    fn extension(&mut self, place: Extension, byte: u8) -> Result<State, ChunkFault> {
        if byte == b'\r' {
            return if place.may_end() { Ok(State::SizeLf) } else { Err(ChunkFault::Extension) };
        }
        self.line_bytes += 1;
        self.extension_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX
            || self.extension_bytes > CHUNK_EXTENSIONS_BYTES_MAX
        {
            return Err(ChunkFault::ExtensionsTooLong);
        }
        place.next(byte).map(State::Extension).ok_or(ChunkFault::Extension)
    }

    fn end_of_size(&mut self, byte: u8) -> Result<State, ChunkFault> {
        if byte != b'\n' {
            return Err(ChunkFault::Extension);
        }
        if self.remaining == 0 {
            return Ok(State::Trailers);
        }
        self.allowance = self.allowance.checked_sub(self.remaining).ok_or(ChunkFault::TooLarge)?;
        Ok(State::Data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Decoded {
        payload: Vec<u8>,
        rest: Vec<u8>,
    }

    fn decode(pieces: &[&[u8]]) -> Result<Decoded, ChunkFault> {
        let mut chunked = Chunked::new();
        let mut decoded = Decoded { payload: Vec::new(), rest: Vec::new() };
        let mut ended = false;
        for piece in pieces {
            let mut data = piece.to_vec();
            if ended {
                decoded.rest.extend_from_slice(piece);
                continue;
            }
            let mut checked = chunked;
            let seen = checked.advance(piece)?;
            let advance = chunked.strip(&mut data)?;
            assert_eq!(seen, advance);
            decoded.payload.extend_from_slice(&data[..advance.payload]);
            decoded.rest.extend_from_slice(&piece[advance.consumed..]);
            ended = advance.at_trailers;
        }
        Ok(decoded)
    }

    /// Where the network cuts the bytes must not matter: for every cut of a valid body, two reads
    /// give the same payload and the same remainder as one.
    #[test]
    fn a_chunked_body_is_split_invariant() {
        let wire: &[u8] =
            b"4\r\nWiki\r\n5;ext=\"1\"\r\npedia\r\nE ; a\r\n in\r\n\r\nchunks.\r\n0\r\n\r\nNEXT";
        let whole = decode(&[wire]).unwrap();
        assert_eq!(whole.payload, b"Wikipedia in\r\n\r\nchunks.");
        assert_eq!(whole.rest, b"\r\nNEXT");
        for cut in 0..=wire.len() {
            let (head, tail) = wire.split_at(cut);
            assert_eq!(decode(&[head, tail]).unwrap(), whole, "cut at byte {cut}");
        }
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(decode(&bytes).unwrap(), whole);
    }

    #[test]
    fn what_another_parser_could_read_differently_is_refused() {
        for (wire, fault) in [
            (&b"\r\n"[..], ChunkFault::Size),
            (b"+4\r\nWiki\r\n", ChunkFault::Size),
            (b"0x4\r\nWiki\r\n", ChunkFault::Size),
            (b"-1\r\n", ChunkFault::Size),
            (b" 4\r\n", ChunkFault::Size),
            (b"4\nWiki", ChunkFault::Size),
            (b"1000000000000000\r\n", ChunkFault::Size),
            (b"4 \r\nWiki\r\n", ChunkFault::Extension),
            (b"4;a \r\nWiki\r\n", ChunkFault::Extension),
            (b"4;\r\nWiki\r\n", ChunkFault::Extension),
            (b"4;=1\r\nWiki\r\n", ChunkFault::Extension),
            (b"4;a=\r\nWiki\r\n", ChunkFault::Extension),
            (b"4;a=\"\r\nWiki\r\n", ChunkFault::Extension),
            (b"4;a=\"b\\\"\r\nWiki\r\n", ChunkFault::Extension),
            (b"4;a b\r\nWiki\r\n", ChunkFault::Extension),
            (b"4 4\r\n", ChunkFault::Extension),
            (b"4;a\nb\r\n", ChunkFault::Extension),
            (b"4;a\0b\r\n", ChunkFault::Extension),
            (b"4;a\rb\r\n", ChunkFault::Extension),
            (b"4\r\nWiki\n", ChunkFault::DataEnd),
            (b"4\r\nWikipedia", ChunkFault::DataEnd),
            (b"4\r\nWiki\r\r\n", ChunkFault::DataEnd),
        ] {
            assert_eq!(decode(&[wire]), Err(fault), "{:?}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn well_formed_extensions_are_skipped() {
        for line in ["4;a", "4;a=b", "4 ; a = \"b;\\\"c\" ; d", "4\t;a=\"\";b", "4;a;b;c=1"] {
            let wire = format!("{line}\r\nWiki\r\n0\r\n");
            assert_eq!(decode(&[wire.as_bytes()]).unwrap().payload, b"Wiki", "{line}");
        }
    }

    #[test]
    fn a_chunk_over_the_allowance_is_refused_by_its_size_line() {
        let wire = b"4\r\nWiki\r\n5\r\npedia\r\n0\r\n";
        assert!(Chunked::new().limited(9).advance(wire).unwrap().at_trailers);
        assert_eq!(Chunked::new().limited(8).advance(wire), Err(ChunkFault::TooLarge));
        let before_the_data = &wire[..12];
        assert_eq!(Chunked::new().limited(8).advance(before_the_data), Err(ChunkFault::TooLarge));
    }

    #[test]
    fn extensions_have_a_limit_per_line_and_per_body() {
        let line = |length: usize| {
            let mut wire = b"1".to_vec();
            wire.push(b';');
            wire.resize(length + 1, b'a');
            wire.extend(b"\r\nx\r\n");
            wire
        };
        assert!(decode(&[&line(CHUNK_LINE_BYTES_MAX)]).is_ok());
        let past = decode(&[&line(CHUNK_LINE_BYTES_MAX + 1)]);
        assert_eq!(past, Err(ChunkFault::ExtensionsTooLong));
        let many = line(1024).repeat(usize::try_from(CHUNK_EXTENSIONS_BYTES_MAX).unwrap() / 1024);
        assert!(decode(&[&many]).is_ok());
        let more = [many, line(1)].concat();
        assert_eq!(decode(&[&more]), Err(ChunkFault::ExtensionsTooLong));
    }
}
