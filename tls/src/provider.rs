//! The cryptography behind rustls: aws-lc-rs, with record ciphers from whichever of ring and
//! aws-lc-rs is quicker on this processor.
//!
//! Neither is always quicker: on a processor with VAES but without AVX-512, ring seals 16 KiB in 60
//! % of the time, on others it is the other way round (rustls#1414). Key exchange and signatures
//! are always by aws-lc-rs, which alone has X25519MLKEM768.
//!
//! # Invariants
//! - AES-128-GCM first, then AES-256-GCM, then ChaCha20-Poly1305; X25519MLKEM768 first, then
//!   X25519.
//! - For TLS 1.2 only suites with ECDHE and an AEAD.
//!
//! # Not here
//! A clock: [`measure`] is given one by whoever starts the process.

use std::sync::{Arc, OnceLock};

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, hash, ring};
use rustls::{
    CipherSuiteCommon, ContentType, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite,
};

/// Key exchange in order of preference.
const GROUPS: [&dyn SupportedKxGroup; 4] = [
    aws_lc_rs::kx_group::X25519MLKEM768,
    aws_lc_rs::kx_group::X25519,
    aws_lc_rs::kx_group::SECP256R1,
    aws_lc_rs::kx_group::SECP384R1,
];

/// Record ciphers in order of preference, from one crate.
macro_rules! suites {
    ($from:ident) => {
        [
            $from::cipher_suite::TLS13_AES_128_GCM_SHA256,
            $from::cipher_suite::TLS13_AES_256_GCM_SHA384,
            $from::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            $from::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            $from::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            $from::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            $from::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            $from::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            $from::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ]
    };
}

/// Rounds of the measurement; one seals and opens 16 KiB with each crate, 10 to 25 us together.
const ROUNDS: usize = 40;
/// Rounds that are not counted: first use of tables and pages.
const WARM_UP: usize = 5;
const MEASURED_BYTES: usize = 16 << 10;

static PROVIDER: OnceLock<Provider> = OnceLock::new();

/// A set of algorithms for sessions.
#[derive(Debug)]
pub struct Provider {
    crypto: Arc<CryptoProvider>,
    records: &'static str,
    /// Microseconds to seal and open 16 KiB, by ring and by aws-lc-rs; 0 if not measured.
    measured: (f64, f64),
}

/// The provider of this process: the one that [`measure`] chose; if it was not called, record
/// ciphers are ring's.
pub fn provider() -> &'static Provider {
    PROVIDER.get_or_init(|| Provider::new(&GROUPS, &suites!(ring), "ring", (0.0, 0.0)))
}

/// Measures both crates and chooses, unless that happened before.
///
/// `now_ns` is a monotonic clock in nanoseconds. Takes about 1 ms.
pub fn measure(now_ns: impl Fn() -> u64) -> &'static Provider {
    PROVIDER.get_or_init(|| {
        let (by_ring, by_aws) = race(now_ns);
        if by_ring <= by_aws {
            Provider::new(&GROUPS, &suites!(ring), "ring", (by_ring, by_aws))
        } else {
            let suites = suites!(aws_lc_rs).map(scheduled);
            Provider::new(&GROUPS, &suites, "aws-lc-rs", (by_ring, by_aws))
        }
    })
}

impl Provider {
    fn new(
        groups: &[&'static dyn SupportedKxGroup],
        suites: &[SupportedCipherSuite],
        records: &'static str,
        measured: (f64, f64),
    ) -> Provider {
        let crypto = CryptoProvider {
            cipher_suites: suites.to_vec(),
            kx_groups: groups.to_vec(),
            ..aws_lc_rs::default_provider()
        };
        Provider { crypto: Arc::new(crypto), records, measured }
    }

    /// The process's provider with other groups and suites, named as in [`crate::Negotiated`] and
    /// in that order; for tests and benches. Empty lists keep what the process has, unknown names
    /// are left out.
    #[must_use]
    pub fn with(groups: &[&str], suites: &[&str]) -> Provider {
        let own = provider();
        let chosen_groups: Vec<_> = groups
            .iter()
            .filter_map(|name| aws_lc_rs::ALL_KX_GROUPS.iter().find(|g| group_name(**g) == *name))
            .copied()
            .collect();
        let chosen_suites: Vec<_> = suites
            .iter()
            .filter_map(|name| {
                own.crypto.cipher_suites.iter().find(|suite| suite_name(**suite) == *name)
            })
            .copied()
            .collect();
        Provider::new(
            if groups.is_empty() { &own.crypto.kx_groups } else { &chosen_groups },
            if suites.is_empty() { &own.crypto.cipher_suites } else { &chosen_suites },
            own.records,
            own.measured,
        )
    }

    /// What rustls takes.
    #[must_use]
    pub fn crypto(&self) -> &Arc<CryptoProvider> {
        &self.crypto
    }

    /// Which crate seals and opens records: `ring` or `aws-lc-rs`.
    #[must_use]
    pub fn records(&self) -> &'static str {
        self.records
    }

    /// Microseconds to seal and open 16 KiB by ring and by aws-lc-rs, the least of several rounds.
    #[must_use]
    pub fn measured(&self) -> (f64, f64) {
        self.measured
    }
}

/// `suite` of aws-lc-rs with ring's hashes and key schedule, which take no memory from the heap.
fn scheduled(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let ring = suites!(ring).into_iter().find(|other| other.suite() == suite.suite());
    let (Some(aead), Some(schedule)) = (suite.tls13(), ring.and_then(|suite| suite.tls13())) else {
        return suite;
    };
    let common = CipherSuiteCommon {
        suite: aead.common.suite,
        hash_provider: schedule.common.hash_provider,
        confidentiality_limit: aead.common.confidentiality_limit,
    };
    let both = Tls13CipherSuite {
        common,
        hkdf_provider: schedule.hkdf_provider,
        aead_alg: aead.aead_alg,
        quic: None,
    };
    SupportedCipherSuite::Tls13(Box::leak(Box::new(both)))
}

/// A group's name as IANA writes it.
pub(crate) fn group_name(group: &dyn SupportedKxGroup) -> &'static str {
    group.name().as_str().unwrap_or("unknown")
}

/// A suite's name as IANA writes it.
pub(crate) fn suite_name(suite: SupportedCipherSuite) -> &'static str {
    let name = suite.suite().as_str().unwrap_or("unknown");
    name.strip_prefix("TLS13_").map_or(name, |_| match name {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        _ => "TLS_CHACHA20_POLY1305_SHA256",
    })
}

/// SHA-256 of what comes in pieces, by ring.
pub(crate) struct Sha256(Box<dyn hash::Context>);

impl Default for Sha256 {
    fn default() -> Sha256 {
        Sha256(match ring::cipher_suite::TLS13_AES_128_GCM_SHA256 {
            SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.start(),
            SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider.start(),
        })
    }
}

impl Sha256 {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::default();
    digest.update(bytes);
    digest.finish()
}

/// Seals and opens with one suite.
struct Runner {
    sealer: Box<dyn MessageEncrypter>,
    opener: Box<dyn MessageDecrypter>,
    /// Number of the next record, on both sides.
    record: u64,
}

impl Runner {
    fn new(suite: SupportedCipherSuite) -> Option<Runner> {
        let aead = suite.tls13()?.aead_alg;
        let key = || AeadKey::from([7; 32]);
        Some(Runner {
            sealer: aead.encrypter(key(), Iv::new([1; 12])),
            opener: aead.decrypter(key(), Iv::new([1; 12])),
            record: 0,
        })
    }

    /// One round; `None` if what was opened is not what was sealed.
    fn run(&mut self, plain: &[u8]) -> Option<()> {
        let version = ProtocolVersion::TLSv1_2;
        let typ = ContentType::ApplicationData;
        let message = OutboundPlainMessage { typ, version, payload: OutboundChunks::Single(plain) };
        let mut sealed = self.sealer.encrypt(message, self.record).ok()?.encode();
        let message = InboundOpaqueMessage::new(typ, version, sealed.get_mut(5..)?);
        let opened = self.opener.decrypt(message, self.record).ok()?;
        self.record += 1;
        (opened.payload.len() == plain.len()).then_some(())
    }
}

/// Microseconds per round of ring and aws-lc-rs: the least of [`ROUNDS`], taken in turn, so that
/// a busy neighbour hits both. AES-256, since a key of 32 bytes is what rustls lets one make.
fn race(now_ns: impl Fn() -> u64) -> (f64, f64) {
    let plain = vec![0; MEASURED_BYTES];
    let mut runners = [
        Runner::new(ring::cipher_suite::TLS13_AES_256_GCM_SHA384),
        Runner::new(aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384),
    ];
    let mut least = [u64::MAX; 2];
    for round in 0..WARM_UP + ROUNDS {
        for (runner, least) in runners.iter_mut().zip(&mut least) {
            let start = now_ns();
            let done = runner.as_mut().and_then(|runner| runner.run(&plain));
            let took = now_ns().saturating_sub(start);
            if done.is_some() && round >= WARM_UP {
                *least = took.min(*least);
            }
        }
    }
    (least[0] as f64 / 1e3, least[1] as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_in_the_order_that_was_decided() {
        let names: Vec<_> = provider().crypto().kx_groups.iter().map(|g| group_name(*g)).collect();
        assert_eq!(names, ["X25519MLKEM768", "X25519", "secp256r1", "secp384r1"]);
    }

    #[test]
    fn the_digest_is_sha256() {
        assert_eq!(sha256(b"")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
