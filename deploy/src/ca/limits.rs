//! The maximum of everything that the authority holds, and the lives it gives.

/// Bytes of a certificate signing request, PEM or DER. One for P-256 has some 400.
pub const CSR_BYTES_MAX: usize = 16 << 10;
/// Bytes of a join token in text.
pub const TOKEN_BYTES_MAX: usize = 64;
/// Tokens that exist at a time, used up and lately expired ones included.
pub const TOKENS_MAX: usize = 10_000;
/// Uses of one token.
pub const TOKEN_USES_MAX: u32 = 100_000;
/// Seconds of a token's life, at most: 90 days.
pub const TOKEN_TTL_S_MAX: u64 = 90 * DAY_S;
/// Seconds that an expired token is remembered, so that its use is told from a guess.
pub const TOKEN_REMEMBERED_S: u64 = 7 * DAY_S;
/// Attempts at taking one use of a token that others use at the same time.
pub const TOKEN_ATTEMPTS_MAX: usize = 64;
/// Denials at a time.
pub const DENIALS_MAX: usize = 10_000;
/// Bytes of the reason of a denial or the note of a token.
pub const NOTE_BYTES_MAX: usize = 256;
/// Unexpired certificates of one identity. With a renewal at half the life, replicas have two or
/// three each; one that joins in a loop is stopped here. Some 250 bytes each in the store.
pub const ISSUED_PER_IDENTITY_MAX: usize = 4096;
/// Serial numbers on the CRL of one issuer; some 55 bytes each in PEM.
pub const CRL_ENTRIES_MAX: usize = 8000;
/// Seconds until the next update that a CRL names; it is signed anew after half of that.
pub const CRL_LIFE_S: u64 = 7 * DAY_S;
/// Roots and issuers at a time: two roots, and the issuers that have not expired.
pub const AUTHORITIES_MAX: usize = 64;
/// DNS names and addresses of the pusher's own certificate.
pub const SERVING_NAMES_MAX: usize = 16;
/// Bytes of an operator's name.
pub const OPERATOR_NAME_BYTES_MAX: usize = 64;

/// Seconds of a day.
pub const DAY_S: u64 = 86_400;

const _: () = assert!(CRL_ENTRIES_MAX * 60 < crate::store::limits::VALUE_BYTES_MAX);
const _: () = assert!((TOKENS_MAX + DENIALS_MAX) as u64 * 4 < crate::store::limits::ENTRIES_MAX);
