//! What tests share: an authority that issues certificates, and a client and a server in memory.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair as Key, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::fault::Fault;
use crate::{
    Bundle, ClientSettings, ClientTls, KeyPair, Peers, ServerSettings, ServerTls, Session,
    SpiffeId, Step, Trust,
};

/// 1 July 2026.
pub(crate) const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_782_864_000));

/// An authority with its key: a root, or one below another.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, Key>,
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        Authority::with(authority(name))
    }

    /// A root by `params`.
    pub(crate) fn with(params: CertificateParams) -> Authority {
        let key = Key::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a root can be signed");
        let der = certificate.der().clone();
        Authority { issuer: Issuer::new(params, key), pem: certificate.pem(), der }
    }

    /// An authority below this one.
    pub(crate) fn below(&self, params: CertificateParams) -> Authority {
        let key = Key::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        let der = certificate.der().clone();
        Authority { issuer: Issuer::new(params, key), pem: certificate.pem(), der }
    }

    pub(crate) fn bundle(&self) -> Arc<Bundle> {
        self.bundle_with(&[])
    }

    pub(crate) fn bundle_with(&self, crls: &[&[u8]]) -> Arc<Bundle> {
        Arc::new(Bundle::parse(self.pem.as_bytes(), crls).expect("the root is usable"))
    }

    /// Certificate and key in PEM by `params`.
    pub(crate) fn issue(&self, params: &CertificateParams) -> (String, String) {
        self.issue_for(params, &Key::generate().expect("a key can be made"))
    }

    pub(crate) fn issue_for(&self, params: &CertificateParams, key: &Key) -> (String, String) {
        let certificate = params.signed_by(key, &self.issuer).expect("a leaf can be signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// A leaf by `params`.
    pub(crate) fn leaf(&self, params: &CertificateParams) -> CertificateDer<'static> {
        let key = Key::generate().expect("a key can be made");
        params.signed_by(&key, &self.issuer).expect("a leaf can be signed").der().clone()
    }

    /// A pair by `params`.
    pub(crate) fn pair(&self, params: &CertificateParams) -> Arc<KeyPair> {
        let (chain, key) = self.issue(params);
        let pair = KeyPair::parse(chain.as_bytes(), key.as_bytes(), None);
        Arc::new(pair.expect("the pair is usable"))
    }

    /// A member of the mesh.
    pub(crate) fn member(&self, id: &str) -> Arc<KeyPair> {
        self.pair(&leaf(id))
    }

    /// A CRL in DER that names `serials` and lasts for `year`.
    pub(crate) fn crl(&self, serials: &[u64], year: i32) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 2),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 2),
            next_update: date_time_ymd(year, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a CRL can be signed").der().to_vec()
    }
}

/// What an authority's certificate is made of.
pub(crate) fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    in_year(&mut params, 2026);
    params
}

/// What a member's certificate is made of.
pub(crate) fn leaf(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("an id is ASCII"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    in_year(&mut params, 2026);
    params
}

/// What a certificate for host names is made of.
pub(crate) fn host(names: &[&str]) -> CertificateParams {
    let mut params = leaf("spiffe://mesh.example/host");
    let name = |name: &&str| SanType::DnsName((*name).try_into().expect("a name is ASCII"));
    params.subject_alt_names.extend(names.iter().map(name));
    params
}

/// Sets the validity to a year.
pub(crate) fn in_year(params: &mut CertificateParams, year: i32) {
    params.not_before = date_time_ymd(year, 1, 1);
    params.not_after = date_time_ymd(year, 12, 31);
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect("a valid id")
}

/// A server of the mesh with both application protocols.
pub(crate) fn server(authority: &Authority, id: &str, peers: Peers) -> ServerTls {
    let settings = ServerSettings {
        certificates: &[authority.member(id)],
        peers,
        tls12: false,
        alpn: &[b"h2", b"http/1.1"],
        resumption: true,
    };
    ServerTls::build(&settings).expect("the settings are usable")
}

pub(crate) fn client(pair: Option<Arc<KeyPair>>, trust: Trust) -> ClientTls {
    let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let settings = ClientSettings { pair, trust, tls12: false, alpn, resumption: true };
    ClientTls::build(&settings).expect("the settings are usable")
}

/// A client of the mesh that expects `id`.
pub(crate) fn mesh(authority: &Authority, pair: Option<Arc<KeyPair>>, expected: &str) -> ClientTls {
    client(pair, Trust::Mesh { bundle: authority.bundle(), expected: [id(expected)].into() })
}

/// A client and a server that talk in memory.
pub(crate) struct Pair {
    pub(crate) client: Session,
    pub(crate) server: Session,
    /// What is on its way to the server and to the client.
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
    pub(crate) now: UnixTime,
}

impl Pair {
    pub(crate) fn new(server: &ServerTls, client: &ClientTls) -> Pair {
        Pair::at(server, client, NOW)
    }

    pub(crate) fn at(server: &ServerTls, client: &ClientTls, now: UnixTime) -> Pair {
        let name = ServerName::try_from("a.example").expect("a name");
        Pair {
            client: client.connect(name, now).expect("a client can be made"),
            server: server.accept().expect("a server can be made"),
            to_server: Vec::new(),
            to_client: Vec::new(),
            now,
        }
    }

    /// Shakes hands; if that fails, the faults of the server and of the client.
    pub(crate) fn shake(&mut self) -> Result<(), (Option<Fault>, Option<Fault>)> {
        let (mut server_done, mut client_done) = (false, false);
        for _ in 0..20 {
            let client = turn(
                &mut self.client,
                (&mut self.to_client, &mut self.to_server),
                &mut client_done,
                self.now,
            );
            let server = turn(
                &mut self.server,
                (&mut self.to_server, &mut self.to_client),
                &mut server_done,
                self.now,
            );
            if let (Err(server), Err(client)) = (&server, &client) {
                return Err((Some(server.clone()), Some(client.clone())));
            }
            if let Err(fault) = server {
                let mut plain = |_: &[u8]| {};
                let other = if client_done {
                    self.client.open(&mut self.to_client, &mut plain).err()
                } else {
                    turn(
                        &mut self.client,
                        (&mut self.to_client, &mut self.to_server),
                        &mut client_done,
                        self.now,
                    )
                    .err()
                };
                return Err((Some(fault), other));
            }
            if let Err(fault) = client {
                let other = turn(
                    &mut self.server,
                    (&mut self.to_server, &mut self.to_client),
                    &mut server_done,
                    self.now,
                );
                return Err((other.err(), Some(fault)));
            }
            if server_done && client_done {
                return Ok(());
            }
        }
        panic!("the handshake does not end");
    }

    /// What the server reads of `plain` sent by the client.
    pub(crate) fn send_to_server(&mut self, plain: &[u8]) -> Vec<u8> {
        seal_all(&mut self.client, plain, &mut self.to_server);
        open_all(&mut self.server, &mut self.to_server)
    }

    /// What the client reads of `plain` sent by the server.
    pub(crate) fn send_to_client(&mut self, plain: &[u8]) -> Vec<u8> {
        seal_all(&mut self.server, plain, &mut self.to_client);
        open_all(&mut self.client, &mut self.to_client)
    }
}

fn turn(
    session: &mut Session,
    (input, out): (&mut Vec<u8>, &mut Vec<u8>),
    done: &mut bool,
    now: UnixTime,
) -> Result<(), Fault> {
    if *done {
        return Ok(());
    }
    let advance = session.handshake(input, out, now)?;
    input.drain(..advance.consumed);
    *done = advance.step == Step::Established;
    Ok(())
}

pub(crate) fn seal_all(session: &mut Session, plain: &[u8], wire: &mut Vec<u8>) {
    let start = wire.len();
    wire.resize(start + plain.len() + Session::seal_overhead(plain.len()), 0);
    let (taken, written) = session.seal(plain, &mut wire[start..]).expect("it can be sealed");
    assert_eq!(taken, plain.len());
    wire.truncate(start + written);
}

pub(crate) fn open_all(session: &mut Session, wire: &mut Vec<u8>) -> Vec<u8> {
    let mut plain = Vec::new();
    let opened = session.open(wire, |bytes| plain.extend_from_slice(bytes)).expect("it opens");
    wire.drain(..opened.consumed);
    plain
}
