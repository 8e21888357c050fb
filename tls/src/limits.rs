//! The maximum of everything that files and peers can make this crate hold.
//!
//! Each has a test at it and one past it. What rustls bounds itself (a handshake message of 64 KiB,
//! the number of warnings, key updates and empty fragments) is tested in `session/tests.rs`.

/// Certificates of one chain, leaf included, in a file and from a peer.
pub const CHAIN_CERTIFICATES_MAX: usize = 10;
/// Bytes of one PEM file.
pub const PEM_BYTES_MAX: usize = 1 << 20;
/// Roots of one bundle.
pub const ROOTS_MAX: usize = 1000;
/// CRL files of one bundle.
pub const CRL_FILES_MAX: usize = 64;
/// Bytes of all CRL files of one bundle together.
pub const CRL_BYTES_MAX: usize = 16 << 20;
/// Bytes of an OCSP response that is stapled.
pub const OCSP_BYTES_MAX: usize = 16 << 10;
/// Certificates that one server chooses from.
pub const CERTIFICATES_MAX: usize = 1000;
/// Identities that one client accepts.
pub const EXPECTED_MAX: usize = 100;
/// Bytes of a SPIFFE ID (SPIFFE-ID section 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// Bytes of a trust domain (SPIFFE-ID section 2.1, by way of RFC 3986 section 3.2.2).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Bytes of a ClientHello with the headers of its records, for those who look without terminating.
pub const HELLO_BYTES_MAX: usize = 16 << 10;

/// Plaintext of one record (RFC 8446 section 5.1).
pub const RECORD_PLAIN_MAX: usize = 1 << 14;
/// A record with its header, as RFC 5246 section 6.2.3 has it. RFC 8446 section 5.2 allows 1792
/// less; a record beyond that holds too much plaintext, and rustls refuses it for that when it is
/// there.
pub const RECORD_BYTES_MAX: usize = RECORD_PLAIN_MAX + 2048 + RECORD_HEADER_BYTES;
/// Type, version and length of a record.
pub const RECORD_HEADER_BYTES: usize = 5;
/// What a record adds to its plaintext, at most: header, explicit nonce (TLS 1.2), type (TLS 1.3)
/// and tag.
pub const RECORD_OVERHEAD_MAX: usize = RECORD_HEADER_BYTES + 8 + 1 + 16;
/// Input of a handshake that is not consumed: a message of 64 KiB in records of reasonable length.
/// Smaller fragments reach it earlier.
pub const HANDSHAKE_INPUT_MAX: usize = 72 << 10;
/// Records in a row that carry neither data nor anything else of use.
pub const SILENT_RECORDS_MAX: u8 = 32;
/// Bytes of answers to messages after the handshake that wait for the next write.
pub const QUEUED_BYTES_MAX: usize = 4096;
/// What a record that precedes data takes: a KeyUpdate or an alert.
pub const CONTROL_BYTES_MAX: usize = 64;
/// Bytes of a message of the protocol that goes over several records, after the handshake: a ticket
/// of RFC 8446 section 4.6.1 has at most 64 KiB and its extensions.
pub const HELD_BYTES_MAX: usize = 80 << 10;
/// Chains of peers that a thread remembers to have accepted; some 300 bytes each.
pub const ACCEPTED_CHAINS_MAX: usize = 512;
/// Tickets that a client keeps for one endpoint.
pub const TICKETS_MAX: usize = 8;

const _: () = assert!(SPIFFE_ID_BYTES_MAX > TRUST_DOMAIN_BYTES_MAX + "spiffe://".len());
const _: () = assert!(CONTROL_BYTES_MAX > RECORD_OVERHEAD_MAX + 5);
const _: () = assert!(QUEUED_BYTES_MAX > SILENT_RECORDS_MAX as usize * CONTROL_BYTES_MAX);
const _: () = assert!(HANDSHAKE_INPUT_MAX > 0xffff + 5 * RECORD_HEADER_BYTES);
const _: () = assert!(HELLO_BYTES_MAX <= PEM_BYTES_MAX && RECORD_BYTES_MAX < u16::MAX as usize);
