//! The content of every generated body: byte `i` is `i % 251`.
//!
//! 251 is prime, so a lost, doubled or swapped block of any usual size shows as a wrong byte.
//!
//! # Invariants
//! - `BLOCK` is a whole number of periods long: a body is the block repeated, cut at its length.

/// Period of the content.
const PERIOD: usize = 251;
/// Bytes in `BLOCK`: a little under 256 KiB, what one send hands to the kernel.
pub(crate) const BLOCK_BYTES: usize = PERIOD * 1024;

/// The block that all bodies are made of.
pub(crate) static BLOCK: [u8; BLOCK_BYTES] = block();

const fn block() -> [u8; BLOCK_BYTES] {
    let mut bytes = [0; BLOCK_BYTES];
    let mut index = 0;
    while index < BLOCK_BYTES {
        bytes[index] = (index % PERIOD) as u8;
        index += 1;
    }
    bytes
}

/// The part of the body at `offset`: at most `remaining` bytes, at least one if `remaining` is.
pub(crate) fn part(offset: u64, remaining: u64) -> &'static [u8] {
    let start = (offset % BLOCK_BYTES as u64) as usize;
    let length = remaining.min((BLOCK_BYTES - start) as u64) as usize;
    &BLOCK[start..start + length]
}

/// Whether `bytes` is what the body has at `offset`.
pub(crate) fn matches(bytes: &[u8], offset: u64) -> bool {
    let first = (offset % PERIOD as u64) as usize;
    bytes.iter().enumerate().all(|(index, &byte)| usize::from(byte) == (first + index) % PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_join_to_the_pattern_across_block_ends() {
        let total = BLOCK_BYTES as u64 * 2 + 17;
        let mut offset = 0;
        while offset < total {
            let bytes = part(offset, (total - offset).min(100_003));
            assert!(!bytes.is_empty());
            assert!(matches(bytes, offset), "at {offset}");
            offset += bytes.len() as u64;
        }
        assert_eq!(offset, total);
    }

    #[test]
    fn a_shifted_block_is_noticed() {
        assert!(!matches(part(0, 1000), 1));
        assert!(!matches(part(4096, 1000), 0));
    }
}
