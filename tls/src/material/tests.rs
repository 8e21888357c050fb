//! Files, good and bad.

use rcgen::{KeyUsagePurpose as Ku, SerialNumber};

use super::*;
use crate::limits::{CRL_BYTES_MAX, CRL_FILES_MAX};
use crate::testing::{Authority, NOW, authority, host, in_year, leaf};

const A: &str = "spiffe://mesh.example/a";

fn parse(chain: &str, key: &str) -> Result<KeyPair, MaterialFault> {
    KeyPair::parse(chain.as_bytes(), key.as_bytes(), None)
}

#[test]
fn a_pair_knows_what_its_certificates_say() {
    let root = Authority::new("root");
    let middle = root.below(authority("middle"));
    let mut params = host(&["a.example", "*.b.example"]);
    params.serial_number = Some(SerialNumber::from(0x1234));
    let (leaf, key) = middle.issue(&params);
    let pair = parse(&format!("{leaf}{}", middle.pem), &key).expect("the pair is usable");
    let info = pair.info();
    assert_eq!(info.dns_names, ["a.example", "*.b.example"]);
    assert_eq!(info.spiffe, pair.spiffe().cloned());
    assert_eq!(info.uris, ["spiffe://mesh.example/host"]);
    assert_eq!((info.serial.as_str(), info.key.as_str()), ("1234", "ECDSA P-256"));
    assert_eq!(info.issuer, "CN=middle");
    assert_eq!(info.not_after - info.not_before, 364 * 86_400);
    assert!(!info.is_ca && pair.chain()[1].is_ca);
    assert_eq!(pair.chain().len(), 2);
    assert_eq!(pair.as_identity(), Ok(&"spiffe://mesh.example/host".parse().expect("an id")));
    assert_eq!(root.bundle().check(&pair, NOW), Ok(()));
}

#[test]
fn chain_and_key_may_stand_in_one_file() {
    let (leaf, key) = Authority::new("root").issue(&leaf(A));
    let both = format!("{key}some text\n{leaf}");
    assert!(parse(&both, &both).is_ok());
}

#[test]
fn an_ocsp_response_is_stapled_up_to_its_limit() {
    let (leaf, key) = Authority::new("root").issue(&leaf(A));
    let with = |bytes: usize| {
        let ocsp = vec![7; bytes];
        KeyPair::parse(leaf.as_bytes(), key.as_bytes(), Some(&ocsp))
            .map(|pair| pair.certified().ocsp.clone().map(|ocsp| ocsp.len()))
    };
    assert_eq!(with(0).ok(), Some(None));
    assert_eq!(with(OCSP_BYTES_MAX).ok(), Some(Some(OCSP_BYTES_MAX)));
    let fault = with(OCSP_BYTES_MAX + 1).err().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some("bytes of OCSP: more than 16384"));
}

#[test]
fn files_that_are_no_pair_say_what_is_wrong() {
    let root = Authority::new("root");
    let (chain, key) = root.issue(&leaf(A));
    let (_, other) = root.issue(&leaf(A));
    let encrypted = include_str!("data/encrypted.pem");
    let encrypted_old = include_str!("data/encrypted-old.pem");
    let say = |chain: &str, key: &str| match parse(chain, key) {
        Ok(_) => "usable".to_owned(),
        Err(fault) => fault.to_string(),
    };
    assert_eq!(say(&chain, &key), "usable");
    assert_eq!(say("", &key), "there is no certificate in it");
    assert_eq!(say(&key, &key), "there is no certificate in it");
    assert_eq!(say(&chain, ""), "there is no private key in it");
    assert_eq!(say(&chain, &chain), "there is no private key in it");
    assert_eq!(say(&chain, &other), "the private key does not match the certificate");
    assert_eq!(say(&chain, &format!("{key}{other}")), "there are 2 private keys in it");
    assert_eq!(say(&chain, encrypted), "the private key is encrypted");
    assert_eq!(say(&chain, encrypted_old), "the private key is encrypted");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(say(garbage, &key), "certificate 1 cannot be read");
    assert_eq!(say(&format!("{chain}{garbage}"), &key), "certificate 2 cannot be read");
    let no_base64 = chain.replacen('M', "*", 1);
    assert!(say(&no_base64, &key).starts_with("it is not well-formed PEM: "));
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(say(&chain, no_key).starts_with("the private key is of a kind that is not supported"));
}

/// A watcher may read a file while it is written. What it then sees is refused, or is a chain that
/// lacks its end.
#[test]
fn no_prefix_of_a_file_passes_for_another() {
    let root = Authority::new("root");
    let middle = root.below(authority("middle"));
    let (leaf, key) = middle.issue(&leaf(A));
    let chain = format!("{leaf}{}", middle.pem);
    let complete = [leaf.trim_end().len(), chain.trim_end().len()];
    for length in 0..=chain.len() {
        let cut = parse(&chain[..length], &key);
        let certificates = cut.as_ref().map_or(0, |pair| pair.chain().len());
        let ends = complete.iter().filter(|&&end| length >= end).count();
        assert!(certificates == 0 || certificates == ends, "cut at {length}");
        match cut {
            Ok(pair) if ends < 2 => {
                assert_eq!(root.bundle().check(&pair, NOW), Err(MaterialFault::Untrusted));
            }
            Ok(pair) => assert_eq!(root.bundle().check(&pair, NOW), Ok(())),
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
    }
    for length in 0..key.trim_end().len() {
        assert!(parse(&chain, &key[..length]).is_err(), "cut at {length}");
    }
    let roots = format!("{}{}", root.pem, Authority::new("other").pem);
    for length in 0..=roots.len() {
        if let Ok(bundle) = Bundle::parse(&roots.as_bytes()[..length], &[]) {
            let whole = roots[..length].matches("-----END CERTIFICATE-----").count();
            assert_eq!(bundle.roots().len(), whole, "cut at {length}");
        }
    }
    let crl = root.crl(&[1], 2026);
    for length in 1..crl.len() {
        let cut = Bundle::parse(root.pem.as_bytes(), &[&crl[..length]]);
        assert!(matches!(cut, Err(MaterialFault::BadCrl { number: 1, .. })), "cut at {length}");
    }
}

#[test]
fn validity_is_said_with_the_time_that_is_missing() {
    let root = Authority::new("root");
    let say = |params: &rcgen::CertificateParams, now: u64| {
        let pair = root.pair(params);
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        let fault = pair.check_validity(now).err();
        assert_eq!(root.bundle().check(&pair, now).err(), fault);
        fault.map(|fault| fault.to_string())
    };
    let params = leaf(A);
    let (begin, end) = (params.not_before.unix_timestamp(), params.not_after.unix_timestamp());
    let (begin, end) = (begin as u64, end as u64);
    assert_eq!(say(&params, begin), None);
    assert_eq!(say(&params, end), None);
    assert_eq!(say(&params, end + 185).as_deref(), Some("the certificate expired 3 m ago"));
    assert_eq!(
        say(&params, begin - 7200).as_deref(),
        Some("the certificate is not valid for another 2 h")
    );
    let mut middle = authority("middle");
    in_year(&mut middle, 2025);
    let middle = root.below(middle);
    let (leaf, key) = middle.issue(&params);
    let pair = parse(&format!("{leaf}{}", middle.pem), &key).expect("the pair is usable");
    let fault = pair.check_validity(NOW).err().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some("the intermediate certificate CN=middle expired 182 d ago"));
}

#[test]
fn a_pair_of_another_mesh_is_refused_by_the_bundle() {
    let pair = Authority::new("root").member(A);
    let fault = Authority::new("root").bundle().check(&pair, NOW).err();
    assert_eq!(
        fault.map(|fault| fault.to_string()).as_deref(),
        Some("the certificate leads to no root of the bundle")
    );
}

#[test]
fn a_revoked_pair_is_refused_by_the_bundle() {
    let root = Authority::new("root");
    let mut params = leaf(A);
    params.serial_number = Some(SerialNumber::from(7));
    let pair = root.pair(&params);
    let bundle = root.bundle_with(&[&root.crl(&[7, 8], 2026)]);
    assert_eq!(bundle.revoked(), 2);
    let fault = bundle.check(&pair, NOW).err().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some("the certificate is revoked: serial 07"));
}

#[test]
fn a_pair_that_names_no_workload_is_no_identity() {
    let root = Authority::new("root");
    let mut nameless = leaf(A);
    nameless.subject_alt_names.clear();
    let say = |params| root.pair(params).as_identity().err().map(|fault| fault.to_string());
    assert_eq!(say(&nameless).as_deref(), Some("the certificate has no SPIFFE ID"));
    let mut signer = leaf(A);
    signer.key_usages.push(Ku::KeyCertSign);
    assert_eq!(
        say(&signer).as_deref(),
        Some("the certificate may not be used for this: its keyUsage has keyCertSign or cRLSign")
    );
    assert_eq!(say(&leaf(A)), None);
}

#[test]
fn a_fingerprint_is_that_of_the_set() {
    let (a, b) = (Authority::new("a"), Authority::new("b"));
    let (crl, other) = (a.crl(&[1], 2026), b.crl(&[2], 2026));
    let of = |roots: &str, crls: &[&[u8]]| {
        Bundle::parse(roots.as_bytes(), crls).expect("the bundle is usable").fingerprint()
    };
    let (ab, ba) = (format!("{}{}", a.pem, b.pem), format!("{}{}", b.pem, a.pem));
    assert_eq!(of(&ab, &[&crl, &other]), of(&ba, &[&other, &crl]));
    let sets = [of(&ab, &[]), of(&a.pem, &[]), of(&ab, &[&crl]), of(&ab, &[&other])];
    for (index, one) in sets.iter().enumerate() {
        assert!(!sets[index + 1..].contains(one));
    }
}

#[test]
fn crls_come_in_der_and_pem() {
    let root = Authority::new("root");
    let crl = root.crl(&[7], 2026);
    let pem = x509_parser::pem::Pem { label: "X509 CRL".into(), contents: crl.clone() };
    let text = armour(&pem.label, &pem.contents);
    let both = format!("{text}{text}");
    assert_eq!(root.bundle_with(&[both.as_bytes(), &crl]).revoked(), 3);
    let nothing = Bundle::parse(root.pem.as_bytes(), &[b""]).map(|bundle| bundle.revoked());
    assert!(nothing.is_err(), "an empty file is no CRL");
}

fn armour(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for group in der.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            let letter = DIGITS[index as usize] as char;
            text.push(if digit <= group.len() { letter } else { '=' });
        }
    }
    text + &format!("\n-----END {label}-----\n")
}

#[test]
fn sizes_are_limited() {
    let root = Authority::new("root");
    let (leaf, key) = root.issue(&leaf(A));
    let chain = |others: usize| parse(&format!("{leaf}{}", root.pem.repeat(others)), &key);
    assert!(chain(CHAIN_CERTIFICATES_MAX - 1).is_ok());
    let fault = chain(CHAIN_CERTIFICATES_MAX).err().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some("certificates in a chain: more than 10"));

    let padded = |bytes: usize| {
        let text = format!("{}{leaf}", "\n".repeat(bytes - leaf.len()));
        parse(&text, &key).map(|_| ()).map_err(|fault| fault.to_string())
    };
    assert_eq!(padded(PEM_BYTES_MAX), Ok(()));
    assert_eq!(padded(PEM_BYTES_MAX + 1), Err("bytes of PEM: more than 1048576".into()));

    let roots = |count: usize| {
        let parsed = Bundle::parse(root.pem.repeat(count).as_bytes(), &[]);
        parsed.map(|bundle| bundle.roots().len()).map_err(|fault| fault.to_string())
    };
    assert_eq!(roots(ROOTS_MAX), Ok(ROOTS_MAX));
    assert_eq!(roots(ROOTS_MAX + 1), Err("root certificates: more than 1000".into()));

    let crl = root.crl(&[1], 2026);
    let crls = |files: &[&[u8]]| {
        let parsed = Bundle::parse(root.pem.as_bytes(), files);
        parsed.map(|_| ()).map_err(|fault| fault.to_string())
    };
    assert_eq!(crls(&vec![crl.as_slice(); CRL_FILES_MAX]), Ok(()));
    let many = crls(&vec![crl.as_slice(); CRL_FILES_MAX + 1]);
    assert_eq!(many, Err("CRL files: more than 64".into()));
    let text = format!("{}{}", "\n".repeat(CRL_BYTES_MAX), armour("X509 CRL", &crl));
    let bytes = text.as_bytes();
    assert_eq!(crls(&[&bytes[text.len() - CRL_BYTES_MAX..]]), Ok(()));
    let large = crls(&[&bytes[text.len() - CRL_BYTES_MAX - 1..]]);
    assert_eq!(large, Err("bytes of CRLs: more than 16777216".into()));
}

#[test]
fn roots_for_outside_come_from_a_file_or_the_system() {
    let (a, b) = (Authority::new("a"), Authority::new("b"));
    let roots = Roots::parse(format!("{}{}", a.pem, b.pem).as_bytes()).expect("it is usable");
    assert_eq!(roots.len(), 2);
    assert_eq!(Roots::parse(b"").err(), Some(MaterialFault::NoRoot));
    let system = [a.der.clone(), vec![1, 2, 3].into(), b.der.clone()];
    assert_eq!(Roots::from_certificates(system).len(), 2);
    let many = std::iter::repeat_n(a.der.clone(), ROOTS_MAX + 1);
    assert_eq!(Roots::from_certificates(many).len(), ROOTS_MAX);
    assert!(Roots::from_certificates([]).is_empty());
}
