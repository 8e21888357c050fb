//! Choice of certificates, versions, groups and protocols.

use rcgen::{CertificateParams, KeyPair as Key, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls_pki_types::{CertificateDer, ServerName};

use super::*;
use crate::testing::{Authority, NOW, Pair, host, leaf};
use crate::{ClientSettings, ClientTls, Provider, Roots, Trust};

fn settings(certificates: &[Arc<KeyPair>]) -> ServerSettings<'_> {
    ServerSettings {
        certificates,
        peers: Peers::None,
        tls12: false,
        alpn: &[b"h2", b"http/1.1"],
        resumption: true,
    }
}

/// A client of services outside the mesh that trusts `authority`.
fn outside(authority: &Authority) -> ClientSettings {
    let roots = Roots::from_certificates([authority.der.clone()]);
    let trust = Trust::Roots(Arc::new(roots));
    ClientSettings { pair: None, trust, tls12: false, alpn: Vec::new(), resumption: true }
}

fn connect(server: &ServerTls, client: &ClientTls, name: &str) -> Result<Pair, Option<Fault>> {
    let mut pair = Pair::new(server, client);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    pair.client = client.connect(name, NOW).expect("a client can be made");
    pair.shake().map(|()| pair).map_err(|(_, client)| client)
}

fn pair_for(root: &Authority, params: &CertificateParams, key: &Key) -> Arc<KeyPair> {
    let (chain, key) = root.issue_for(params, key);
    let pair = KeyPair::parse(chain.as_bytes(), key.as_bytes(), None);
    Arc::new(pair.expect("the pair is usable"))
}

#[test]
fn a_name_gets_the_certificate_that_is_closest() {
    let root = Authority::new("root");
    let pairs = [
        root.pair(&leaf("spiffe://mesh.example/default")),
        root.pair(&host(&["*.example", "b.a.example"])),
        root.pair(&host(&["a.example"])),
        root.pair(&host(&["*.a.example", "A.EXAMPLE"])),
    ];
    let certificates = Certificates::new(&pairs).expect("they are usable");
    let place = |name| {
        let chosen = certificates.candidates(name)[0];
        pairs.iter().position(|pair| Arc::ptr_eq(pair.certified(), chosen))
    };
    for (name, expected) in [
        (None, 0),
        (Some("other.test"), 0),
        (Some("example"), 0),
        (Some("x.example"), 1),
        (Some("b.a.example"), 1),
        (Some("a.example"), 2),
        (Some("A.Example"), 2),
        (Some("c.a.example"), 3),
        (Some("d.c.a.example"), 0),
    ] {
        assert_eq!(place(name), Some(expected), "{name:?}");
    }
    assert_eq!(certificates.candidates(Some("a.example")).len(), 2);
}

#[test]
fn a_client_outside_the_mesh_checks_the_name() {
    let root = Authority::new("root");
    let pairs = [root.pair(&host(&["a.example", "*.b.example"]))];
    let server = ServerTls::build(&settings(&pairs)).expect("the settings are usable");
    let client = ClientTls::build(&outside(&root)).expect("the settings are usable");
    for name in ["a.example", "x.b.example"] {
        let pair = connect(&server, &client, name).expect("the name is right");
        assert_eq!(pair.client.peer(), None, "names of hosts are no ids");
        assert_eq!(pair.server.negotiated().alpn, None);
    }
    let fault = connect(&server, &client, "x.y.b.example").err().flatten();
    assert_eq!(
        fault.map(|fault| fault.to_string()).as_deref(),
        Some(
            "expected x.y.b.example, the peer's certificate is for \
             spiffe://mesh.example/host, a.example, *.b.example"
        )
    );
    let stranger = ClientTls::build(&outside(&Authority::new("root"))).expect("usable");
    assert_eq!(connect(&server, &stranger, "a.example").err(), Some(Some(Fault::PeerUntrusted)));
}

#[test]
fn the_key_is_of_a_kind_that_the_client_can_verify() {
    let root = Authority::new("root");
    let ecdsa = Key::generate().expect("a key can be made");
    let rsa = Key::generate_for(&PKCS_RSA_SHA256).expect("a key can be made");
    let ed25519 = Key::generate_for(&PKCS_ED25519).expect("a key can be made");
    let params = host(&["a.example"]);
    for key in [&ecdsa, &rsa, &ed25519] {
        let pairs = [pair_for(&root, &params, key)];
        let server = ServerTls::build(&settings(&pairs)).expect("the settings are usable");
        let client = ClientTls::build(&outside(&root)).expect("the settings are usable");
        assert!(connect(&server, &client, "a.example").is_ok());
    }
    // In TLS 1.2 the suite says which kind of key signs.
    let pairs = [pair_for(&root, &params, &ecdsa), pair_for(&root, &params, &rsa)];
    let server = ServerTls::build(&ServerSettings { tls12: true, ..settings(&pairs) });
    let server = server.expect("the settings are usable");
    for (suite, chosen) in [
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 1),
    ] {
        let provider = Provider::with(&[], &[suite]);
        let settings = ClientSettings { tls12: true, ..outside(&root) };
        let client = ClientTls::build_with(&settings, &provider);
        let result = connect(&server, &client.expect("usable"), "a.example");
        if chosen == 0 {
            let pair = result.expect("the first certificate suits");
            assert_eq!(pair.client.peer_chain(), pairs[0].certified().cert);
            assert_eq!(pair.client.negotiated().cipher, suite);
        }
    }
}

#[test]
fn post_quantum_key_exchange_is_what_two_sides_agree_on() {
    let root = Authority::new("root");
    let pairs = [root.pair(&host(&["a.example"]))];
    let server = ServerTls::build(&settings(&pairs)).expect("the settings are usable");
    let group_with = |groups: &[&str]| {
        let client = ClientTls::build_with(&outside(&root), &Provider::with(groups, &[]));
        let pair = connect(&server, &client.expect("usable"), "a.example").expect("in common");
        pair.server.negotiated().group
    };
    let all = ["secp384r1", "secp256r1", "X25519", "X25519MLKEM768"];
    assert_eq!(group_with(&[]), "X25519MLKEM768");
    assert_eq!(group_with(&["X25519"]), "X25519");
    assert_eq!(group_with(&["secp384r1"]), "secp384r1");
    // rustls takes what needs no second round among what the client sent a share for.
    assert!(all.contains(&group_with(&all)));
}

#[test]
fn tls_12_is_spoken_only_where_allowed() {
    let root = Authority::new("root");
    let pairs = [root.pair(&host(&["a.example"]))];
    let provider = Provider::with(&[], &["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]);
    let old = ClientSettings { tls12: true, ..outside(&root) };
    let old = ClientTls::build_with(&old, &provider).expect("the settings are usable");
    let strict = ServerTls::build(&settings(&pairs)).expect("the settings are usable");
    let mut pair = Pair::new(&strict, &old);
    let (server, client) = pair.shake().expect_err("no version in common");
    let server = server.expect("the server refuses");
    assert_eq!(server.to_string(), "the peer is not compatible: no protocol version in common");
    assert_eq!(client, Some(Fault::PeerAlert("protocol_version")));
    let lenient = ServerTls::build(&ServerSettings { tls12: true, ..settings(&pairs) });
    let lenient = lenient.expect("the settings are usable");
    let mut pair = connect(&lenient, &old, "a.example").expect("1.2 is allowed");
    assert_eq!(pair.server.negotiated().version, "TLSv1.2");
    assert_eq!(pair.send_to_server(&[7; 40_000]), [7; 40_000]);
    assert_eq!(pair.send_to_client(b"pong"), b"pong");
    let new = ClientTls::build(&ClientSettings { tls12: true, ..outside(&root) });
    let pair = connect(&lenient, &new.expect("usable"), "a.example").expect("both allow it");
    assert_eq!(pair.server.negotiated().version, "TLSv1.3");
}

#[test]
fn protocols_are_chosen_in_the_servers_order() {
    let root = Authority::new("root");
    let pairs = [root.pair(&host(&["a.example"]))];
    let server = ServerTls::build(&settings(&pairs)).expect("the settings are usable");
    let alpn_of = |protocols: &[&[u8]]| {
        let alpn = protocols.iter().map(|name| name.to_vec()).collect();
        let client = ClientTls::build(&ClientSettings { alpn, ..outside(&root) });
        connect(&server, &client.expect("usable"), "a.example")
            .map(|pair| pair.client.negotiated().alpn)
    };
    assert_eq!(alpn_of(&[b"http/1.1", b"h2"]).ok(), Some(Some(crate::Alpn::H2)));
    assert_eq!(alpn_of(&[b"spdy", b"http/1.1"]).ok(), Some(Some(crate::Alpn::Http1)));
    assert_eq!(alpn_of(&[]).ok(), Some(None));
    assert_eq!(alpn_of(&[b"spdy"]).err(), Some(Some(Fault::PeerAlert("no_application_protocol"))));
}

#[test]
fn an_ocsp_response_reaches_the_client() {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    #[derive(Debug)]
    struct Sees(Vec<u8>);
    impl ServerCertVerifier for Sees {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            ocsp_response: &[u8],
            _now: rustls_pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            assert_eq!(ocsp_response, self.0);
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            provider().crypto().signature_verification_algorithms.supported_schemes()
        }
    }
    let (chain, key) = Authority::new("root").issue(&host(&["a.example"]));
    let pair = KeyPair::parse(chain.as_bytes(), key.as_bytes(), Some(b"stapled"));
    let server = ServerTls::build(&settings(&[Arc::new(pair.expect("usable"))])).expect("usable");
    let config = rustls::ClientConfig::builder_with_details(
        Arc::clone(provider().crypto()),
        Arc::new(CallTime),
    )
    .with_protocol_versions(versions(false))
    .expect("usable")
    .dangerous()
    .with_custom_certificate_verifier(Arc::new(Sees(b"stapled".to_vec())))
    .with_no_client_auth();
    let client = ClientTls::of_config(Arc::new(config));
    assert!(connect(&server, &client, "a.example").is_ok());
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let fault = ServerTls::build(&settings(&[])).err();
    assert_eq!(fault, Some(BuildFault::NoCertificate));
    let root = Authority::new("root");
    let pair = root.member("spiffe://mesh.example/a");
    let count = |count| ServerTls::build(&settings(&vec![Arc::clone(&pair); count])).err();
    assert_eq!(count(CERTIFICATES_MAX), None);
    assert!(matches!(count(CERTIFICATES_MAX + 1), Some(BuildFault::TooMuch { .. })));
    let expecting = |count| {
        let expected = vec![crate::testing::id("spiffe://mesh.example/a"); count].into();
        let trust = Trust::Mesh { bundle: root.bundle(), expected };
        ClientTls::build(&ClientSettings { trust, ..outside(&root) }).err()
    };
    assert_eq!(expecting(0), Some(BuildFault::NobodyExpected));
    assert_eq!(expecting(crate::limits::EXPECTED_MAX), None);
    let past = expecting(crate::limits::EXPECTED_MAX + 1);
    assert!(matches!(past, Some(BuildFault::TooMuch { .. })));
}
