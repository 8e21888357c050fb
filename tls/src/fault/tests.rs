//! Words and labels.

use std::collections::BTreeSet;

use super::*;

#[test]
fn labels_are_a_closed_set_without_doubles() {
    let set: BTreeSet<_> = Fault::LABELS.iter().collect();
    assert_eq!(set.len(), Fault::LABELS.len());
    assert_eq!(Fault::NotTls.label(), "not_tls");
    assert_eq!(Fault::Internal(String::new()).label(), "internal");
}

#[test]
fn every_label_is_some_faults() {
    let serial = || "1f".to_owned();
    let all = [
        Fault::PeerAlert("decode_error"),
        Fault::PeerRefusedCertificate("unknown_ca"),
        Fault::PeerNoCertificate,
        Fault::PeerCertificateExpired { since_s: 180 },
        Fault::PeerCertificateNotYetValid { for_s: 7200 },
        Fault::PeerUntrusted,
        Fault::PeerRevoked { serial: serial() },
        Fault::PeerSpiffe(IdentityFault::None),
        Fault::PeerIdentity {
            expected: "spiffe://d/a".into(),
            found: SpiffeId::parse("spiffe://d/b").expect("it is valid"),
        },
        Fault::PeerName { expected: "a".into(), found: "b".into() },
        Fault::PeerUsage("so"),
        Fault::PeerCertificate("so"),
        Fault::PeerIncompatible("so"),
        Fault::PeerMisbehaved("so".into()),
        Fault::NotTls,
        Fault::Undecryptable,
        Fault::RecordTooLong,
        Fault::Truncated,
        Fault::EmptyRecords,
        Fault::Exhausted,
        Fault::LocalCertificate("so".into()),
        Fault::Internal("so".into()),
    ];
    for (index, fault) in all.iter().enumerate() {
        assert_eq!(fault.index(), index);
        assert_eq!(fault.label(), Fault::LABELS[index]);
        let label = fault.label();
        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{label}");
        let of_peer = label.starts_with("peer_") && label != "peer_refused_certificate";
        assert!(!of_peer || fault.blame() == Blame::Peer, "{label}");
    }
    assert_eq!(all.len(), Fault::LABELS.len());
    let words = all.map(|fault| fault.to_string());
    assert_eq!(words[3], "the peer's certificate expired 3 m ago");
    assert_eq!(words[4], "the peer's certificate is not valid for another 2 h");
    assert_eq!(words[7], "the peer's certificate has no SPIFFE ID");
    assert_eq!(words[8], "expected spiffe://d/a, peer is spiffe://d/b");
}

#[test]
fn durations_are_in_their_largest_unit() {
    let cases = [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 m"),
        (3599, "59 m"),
        (3600, "1 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (u64::MAX, "213503982334601 d"),
    ];
    for (seconds, words) in cases {
        assert_eq!(duration_words(seconds), words);
    }
}
