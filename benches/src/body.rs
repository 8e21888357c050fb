//! Reads past a body and counts it (RFC 9112 section 7.1 for chunks).
//!
//! ```text
//! Data ──▶ Done                                 content-length
//! Size ──▶ Data ──▶ DataEnd ──▶ Size            chunked; a size of 0 leads to
//! Size ──▶ Trailer ──▶ Done                     trailer lines up to the empty one
//! ```
//!
//! # Invariants
//! - Any cut of the input gives the same count and the same remainder.
//! - Nothing is kept: a partial size or trailer line stays with the caller until it is complete.

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

/// Progress through one body.
#[derive(Debug)]
pub(crate) struct Reader {
    state: State,
    chunked: bool,
    payload_bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Size,
    Data { left: u64 },
    DataEnd,
    Trailer,
    Done,
}

/// The bytes are not a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadChunk;

impl Reader {
    pub(crate) fn new(framing: Framing) -> Self {
        let (state, chunked) = match framing {
            Framing::Length(0) => (State::Done, false),
            Framing::Length(left) => (State::Data { left }, false),
            Framing::Chunked => (State::Size, true),
        };
        Self { state, chunked, payload_bytes: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Payload read so far, without chunk framing.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Takes what it can from the start of `input` and says how many bytes that were.
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while let Some(used) = self.step(&input[at..])? {
            at += used;
        }
        Ok(at)
    }

    /// One move through the states, or `None` when more input is needed or the body ended.
    fn step(&mut self, input: &[u8]) -> Result<Option<usize>, BadChunk> {
        match self.state {
            State::Done => Ok(None),
            State::Data { left } => {
                let used = left.min(input.len() as u64);
                self.payload_bytes += used;
                self.state = match (left - used, self.chunked) {
                    (0, true) => State::DataEnd,
                    (0, false) => State::Done,
                    (left, _) => State::Data { left },
                };
                Ok((used > 0).then_some(used as usize))
            }
            State::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(Some(2))
                }
                [] | [b'\r'] => Ok(None),
                _ => Err(BadChunk),
            },
            State::Size => match httparse::parse_chunk_size(input) {
                Ok(httparse::Status::Complete((used, 0))) => {
                    self.state = State::Trailer;
                    Ok(Some(used))
                }
                Ok(httparse::Status::Complete((used, left))) => {
                    self.state = State::Data { left };
                    Ok(Some(used))
                }
                Ok(httparse::Status::Partial) => Ok(None),
                Err(_) => Err(BadChunk),
            },
            State::Trailer => {
                let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
                    return Ok(None);
                };
                if matches!(&input[..=end], [b'\r', b'\n']) {
                    self.state = State::Done;
                }
                Ok(Some(end + 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces one after the other, keeping what was not taken, as a connection does.
    fn read_all(pieces: &[&[u8]]) -> (u64, Vec<u8>) {
        let mut reader = Reader::new(Framing::Chunked);
        let mut held = Vec::new();
        for piece in pieces {
            held.extend_from_slice(piece);
            let used = reader.take(&held).unwrap();
            held.drain(..used);
        }
        assert!(reader.is_done());
        (reader.payload_bytes(), held)
    }

    #[test]
    fn chunked_body_is_split_invariant() {
        let wire: &[u8] = b"4\r\nWiki\r\n5;ext=1\r\npedia\r\n0\r\nSum: 9\r\n\r\nGET";
        assert_eq!(read_all(&[wire]), (9, b"GET".to_vec()));
        for cut in 0..=wire.len() {
            let (first, second) = wire.split_at(cut);
            assert_eq!(read_all(&[first, second]), (9, b"GET".to_vec()), "cut at byte {cut}");
        }
    }

    #[test]
    fn data_longer_than_its_chunk_is_refused() {
        let mut reader = Reader::new(Framing::Chunked);
        assert_eq!(reader.take(b"2\r\nabc\r\n"), Err(BadChunk));
    }

    #[test]
    fn a_length_leaves_the_next_request_alone() {
        let mut reader = Reader::new(Framing::Length(3));
        assert_eq!(reader.take(b"abcGET /"), Ok(3));
        assert!(reader.is_done());
    }
}
