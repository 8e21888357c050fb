//! The roots of a mesh with their CRLs.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{CertRevocationList, KeyUsage, OwnedCertRevocationList};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{KeyPair, MaterialFault, anchor, certificates, check_pem};
use crate::certificate::{self, CertificateInfo};
use crate::fault::Fault;
use crate::limits::{CRL_BYTES_MAX, CRL_FILES_MAX, ROOTS_MAX};
use crate::provider::sha256;
use crate::verify::{Anchors, PathFault, path};

/// Roots and CRLs that members of a mesh are verified with.
#[derive(Debug)]
pub struct Bundle {
    anchors: Vec<TrustAnchor<'static>>,
    /// One for each anchor.
    roots: Vec<CertificateInfo>,
    crls: Vec<CertRevocationList<'static>>,
    revoked: usize,
    fingerprint: [u8; 32],
}

impl Bundle {
    /// Reads a PEM file of roots and CRL files, each one list in DER or any number in PEM.
    ///
    /// # Errors
    /// What makes the files unusable. Roots that have expired are accepted: webpki does not ask for
    /// the validity of an anchor, and a bundle may carry an old root beside its successor.
    pub fn parse(roots_pem: &[u8], crls: &[&[u8]]) -> Result<Bundle, MaterialFault> {
        let certificates = certificates(roots_pem, "root certificates", ROOTS_MAX)?;
        if certificates.is_empty() {
            return Err(MaterialFault::NoRoot);
        }
        let (mut anchors, mut roots) = (Vec::new(), Vec::new());
        for (index, der) in certificates.iter().enumerate() {
            anchors.push(anchor(index, der)?);
            let unreadable = MaterialFault::BadCertificate { number: index + 1 };
            roots.push(CertificateInfo::read(der).ok_or(unreadable)?);
        }
        let lists = crl_ders(crls)?;
        let mut revoked = 0;
        let mut parsed = Vec::with_capacity(lists.len());
        let mut digests: Vec<[u8; 32]> = roots.iter().map(|info| info.sha256).collect();
        for (index, der) in lists.iter().enumerate() {
            let number = index + 1;
            let list = OwnedCertRevocationList::from_der(der)
                .map_err(|error| MaterialFault::BadCrl { number, text: error.to_string() })?;
            parsed.push(CertRevocationList::from(list));
            revoked += CertificateRevocationList::from_der(der)
                .map_or(0, |(_, list)| list.iter_revoked_certificates().count());
            digests.push(sha256(der));
        }
        digests.sort_unstable();
        digests.dedup();
        let fingerprint = sha256(&digests.concat());
        Ok(Bundle { anchors, roots, crls: parsed, revoked, fingerprint })
    }

    /// What the roots say.
    #[must_use]
    pub fn roots(&self) -> &[CertificateInfo] {
        &self.roots
    }

    /// Number of entries in all CRLs.
    #[must_use]
    pub fn revoked(&self) -> usize {
        self.revoked
    }

    /// Digest of all roots and CRLs, whatever their order.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Whether members of the mesh would accept `pair` at `now`, as server or as client.
    ///
    /// # Errors
    /// Why they would not.
    pub fn check(&self, pair: &KeyPair, now: UnixTime) -> Result<(), MaterialFault> {
        pair.check_validity(now)?;
        let (leaf, intermediates) =
            pair.certified().cert.split_first().ok_or(MaterialFault::NoCertificate)?;
        let chain = (leaf, intermediates);
        let verified = match path(self.anchors(), chain, now, KeyUsage::server_auth()) {
            Err(PathFault::Usage(_)) => path(self.anchors(), chain, now, KeyUsage::client_auth()),
            verified => verified,
        };
        verified.map_err(|fault| MaterialFault::of_path(fault, pair.info()))?;
        Ok(())
    }

    /// The first root that `pair` leads to at `now`; `None` if there is none. Revocations do not
    /// count.
    #[must_use]
    pub fn root_of(&self, pair: &KeyPair, now: UnixTime) -> Option<&CertificateInfo> {
        let chain = pair.certified().cert.split_first()?;
        let leads = |anchor: &TrustAnchor<'static>| {
            let anchors = Anchors { roots: std::slice::from_ref(anchor), crls: &[] };
            let as_server = path(anchors, chain, now, KeyUsage::server_auth());
            as_server.is_ok() || path(anchors, chain, now, KeyUsage::client_auth()).is_ok()
        };
        self.anchors.iter().zip(&self.roots).find(|(anchor, _)| leads(anchor)).map(|(_, info)| info)
    }

    /// Whether a chain (leaf first) that was once accepted still leads to a root and none of it is
    /// revoked; for connections that live. Its validity does not count: a connection outlives the
    /// certificate that it was made with.
    ///
    /// # Errors
    /// [`Fault::PeerUntrusted`], [`Fault::PeerRevoked`] and what else webpki finds.
    pub fn still_trusts(&self, chain: &[CertificateDer<'_>]) -> Result<(), Fault> {
        let (leaf, intermediates) = chain.split_first().ok_or(Fault::PeerNoCertificate)?;
        // All of a chain that was accepted once was valid when its youngest certificate began.
        let began = chain.iter().filter_map(certificate::validity).map(|(begin, _)| begin).max();
        let began = u64::try_from(began.unwrap_or(0)).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(began));
        let verified =
            match path(self.anchors(), (leaf, intermediates), time, KeyUsage::server_auth()) {
                Err(PathFault::Usage(_)) => {
                    path(self.anchors(), (leaf, intermediates), time, KeyUsage::client_auth())
                }
                verified => verified,
            };
        verified.map_err(|fault| fault.of_peer(leaf))?;
        Ok(())
    }

    pub(crate) fn anchors(&self) -> Anchors<'_> {
        Anchors { roots: &self.anchors, crls: &self.crls }
    }
}

/// All CRLs of all files.
fn crl_ders(files: &[&[u8]]) -> Result<Vec<CertificateRevocationListDer<'static>>, MaterialFault> {
    if files.len() > CRL_FILES_MAX {
        return Err(MaterialFault::TooMuch { what: "CRL files", max: CRL_FILES_MAX });
    }
    if files.iter().map(|file| file.len()).sum::<usize>() > CRL_BYTES_MAX {
        return Err(MaterialFault::TooMuch { what: "bytes of CRLs", max: CRL_BYTES_MAX });
    }
    let mut lists = Vec::new();
    for file in files {
        // A list in DER begins with the tag of a sequence.
        if file.first() == Some(&0x30) {
            lists.push(CertificateRevocationListDer::from(file.to_vec()));
            continue;
        }
        check_pem(file, CRL_BYTES_MAX)?;
        let before = lists.len();
        for list in CertificateRevocationListDer::pem_slice_iter(file) {
            lists.push(list.map_err(|error| MaterialFault::Pem(error.to_string()))?);
        }
        if lists.len() == before {
            let text = "there is no CRL in the file".to_owned();
            return Err(MaterialFault::BadCrl { number: before + 1, text });
        }
    }
    Ok(lists)
}
