//! Throw-away authorities and certificates, in files that a proxy reads.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};

/// An authority that issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub serial: SerialNumber,
}

/// What a certificate is to say.
pub struct Wanted {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    /// From now, in seconds; negative for the past.
    pub valid: (i64, i64),
}

impl Wanted {
    /// A member of the mesh, for a day.
    pub fn member(id: &str) -> Self {
        Self { uris: vec![id.to_owned()], dns: Vec::new(), valid: (-3600, 86_400) }
    }

    /// A server with a name, for a day.
    pub fn server(name: &str) -> Self {
        Self { uris: Vec::new(), dns: vec![name.to_owned()], valid: (-3600, 86_400) }
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn issue(&self, wanted: &Wanted) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.subject_alt_names = wanted
            .uris
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().unwrap()))
            .chain(
                wanted.dns.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap())),
            )
            .collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = moment(wanted.valid.0).into();
        params.not_after = moment(wanted.valid.1).into();
        let serial = SerialNumber::from_slice(&fastrand::u64(1 << 56..1 << 62).to_be_bytes());
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem(), serial }
    }

    pub fn member(&self, id: &str) -> Issued {
        self.issue(&Wanted::member(id))
    }

    /// A list that revokes `serials`, in PEM.
    pub fn revoke(&self, number: u64, serials: &[&SerialNumber]) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).clone(),
            revocation_time: moment(-60).into(),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: moment(-60).into(),
            next_update: moment(86_400).into(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn moment(from_now: i64) -> SystemTime {
    let pause = Duration::from_secs(from_now.unsigned_abs());
    if from_now < 0 { SystemTime::now() - pause } else { SystemTime::now() + pause }
}

/// The files of an identity in a folder.
pub struct Identity {
    pub folder: PathBuf,
}

impl Identity {
    /// Writes the files of `issued`, trusting `roots`.
    pub fn write(folder: &Path, issued: &Issued, roots: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let identity = Self { folder: folder.to_owned() };
        identity.replace("ca.crt", roots);
        identity.rotate(issued);
        identity
    }

    /// Replaces certificate and key, each by renaming.
    pub fn rotate(&self, issued: &Issued) {
        self.replace("tls.key", &issued.key);
        self.replace("tls.crt", &issued.certificate);
    }

    /// Replaces one file by renaming.
    pub fn replace(&self, name: &str, text: &str) {
        let next = self.folder.join(format!(".{name}.next"));
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.folder.join(name)).unwrap();
    }

    /// The lines of the configuration.
    pub fn config(&self) -> String {
        let file = |name: &str| self.folder.join(name).display().to_string();
        format!(
            "identity:\n  certificate: {}\n  key: {}\n  trust_bundle: {}\n",
            file("tls.crt"),
            file("tls.key"),
            file("ca.crt")
        )
    }

    /// [`Self::config`] with a revocation list.
    pub fn config_with_revocations(&self) -> String {
        format!("{}  revocation_lists: [{}]\n", self.config(), self.folder.join("ca.crl").display())
    }
}
