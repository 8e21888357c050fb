//! How many of the bytes at hand belong to a message body (RFC 9112 section 6.3).
//!
//! # Invariants
//! - A body never takes a byte of the next message.
//!
//! # Not here
//! Reading, writing, trailers.

use super::chunked::{ChunkFault, Chunked};
use crate::io::splice::ENDLESS;

/// Where a body ends, and how far it has come.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// At its end: nothing more belongs to it.
    Done,
    /// This many bytes are still to come; never 0.
    Length(u64),
    /// In the chunked coding.
    Chunked(Chunked),
    /// In the chunked coding, past the last chunk: the trailer section is next.
    Trailers,
    /// Whatever comes until the connection closes.
    UntilClose,
}

impl Body {
    /// A body of `length` bytes.
    #[must_use]
    pub fn of_length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// A chunked body.
    #[must_use]
    pub fn chunked() -> Self {
        Self::Chunked(Chunked::new())
    }

    /// The same body, refused when its chunks carry more than `payload_max` bytes. A length is
    /// the caller's to compare.
    #[must_use]
    pub fn limited(self, payload_max: u64) -> Self {
        match self {
            Self::Chunked(chunked) => Self::Chunked(chunked.limited(payload_max)),
            Self::Done | Self::Length(_) | Self::Trailers | Self::UntilClose => self,
        }
    }

    /// Whether everything has been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes the bytes at the front of `input` that belong to the body, and says how many.
    /// After the last chunk it stops at a trailer section, which is the caller's.
    ///
    /// # Errors
    /// When the chunked coding is broken.
    pub fn take(&mut self, input: &[u8]) -> Result<usize, ChunkFault> {
        match self {
            Self::Done | Self::Trailers => Ok(0),
            Self::UntilClose => Ok(input.len()),
            Self::Length(remaining) => {
                let count = (*remaining).min(input.len() as u64);
                *self = Self::of_length(*remaining - count);
                Ok(usize::try_from(count).unwrap_or(input.len()))
            }
            Self::Chunked(chunked) => {
                let advance = chunked.advance(input)?;
                if !advance.at_trailers {
                    return Ok(advance.consumed);
                }
                // Hardly anybody sends trailers: then the end goes along with the last data.
                let ends_here = input[advance.consumed..].starts_with(b"\r\n");
                *self = if ends_here { Self::Done } else { Self::Trailers };
                Ok(advance.consumed + if ends_here { 2 } else { 0 })
            }
        }
    }

    /// Bytes that are sure to come before the next framing: what may be spliced.
    #[must_use]
    pub fn run(&self) -> u64 {
        match self {
            Self::Done | Self::Trailers => 0,
            Self::Length(remaining) => *remaining,
            Self::Chunked(chunked) => chunked.data_remaining(),
            Self::UntilClose => ENDLESS,
        }
    }

    /// Says that `count` bytes of [`Self::run`] went by unseen.
    pub fn skip(&mut self, count: u64) {
        match self {
            Self::Length(remaining) => *self = Self::of_length(remaining.saturating_sub(count)),
            Self::Chunked(chunked) => chunked.skip_data(count),
            Self::Done | Self::Trailers | Self::UntilClose => {}
        }
    }
}
