//! The pusher's own certificate, and what TLS with it is made of: replaced as roots, revocations
//! and the certificate itself change, without a connection noticing.

use std::sync::{Arc, Mutex, PoisonError};

use ringway_tls::{Bundle, KeyPair, UnixTime};
use tokio_rustls::TlsAcceptor;

use super::core::Roots;
use crate::ca::{Authority, AuthorityId, CaFault, Credentials};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServingFault {
    /// The authority.
    #[error(transparent)]
    Ca(#[from] CaFault),
    /// What it made cannot be used.
    #[error("the pusher's own certificate cannot be used: {0}")]
    Unusable(String),
}

/// The certificate in use, and what it was made with.
struct Serving {
    acceptor: TlsAcceptor,
    credentials: Credentials,
    roots: Roots,
    /// Root that its issuer was under.
    root: AuthorityId,
}

/// TLS of the pusher.
pub struct Identity {
    authority: Arc<Authority>,
    names: Vec<String>,
    serving: Mutex<Option<Serving>>,
}

impl Identity {
    /// Of a pusher that is also called `names`, DNS names and addresses.
    #[must_use]
    pub fn new(authority: Arc<Authority>, names: Vec<String>) -> Identity {
        Identity { authority, names, serving: Mutex::new(None) }
    }

    /// Looks whether something has changed, and gives the roots of now. Blocks.
    ///
    /// # Errors
    /// [`ServingFault`]; then what was in use stays.
    pub fn refresh(&self, now: UnixTime) -> Result<Roots, ServingFault> {
        let bundle = self.authority.bundle(now)?;
        let revocations = bundle.crls.iter().map(|crl| crl.pem.as_str()).collect();
        let revoked = bundle.crls.iter().map(|crl| crl.entries).sum();
        let roots = Roots { epoch: bundle.epoch, roots: bundle.roots_pem, revocations, revoked };
        let signing = self.authority.signing_root()?;
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = serving.as_ref().is_some_and(|held| {
            now.as_secs() < held.credentials.issued.renew_at_s && held.root == signing
        });
        if fresh && serving.as_ref().is_some_and(|held| held.roots == roots) {
            return Ok(roots);
        }
        let issue = || self.authority.serving(&self.names, now, fastrand::u32(..));
        let (credentials, root) = match serving.as_ref() {
            Some(held) if fresh => (held.credentials.clone(), held.root.clone()),
            Some(held) => match issue() {
                Ok(credentials) => (credentials, signing),
                Err(fault) => {
                    tracing::error!("the pusher's certificate is not renewed: {fault}");
                    (held.credentials.clone(), held.root.clone())
                }
            },
            None => (issue()?, signing),
        };
        let acceptor = acceptor(&credentials, &roots)?;
        *serving = Some(Serving { acceptor, credentials, roots: roots.clone(), root });
        Ok(roots)
    }

    /// The root that the certificate in use is under; `None` before the first.
    #[must_use]
    pub fn root(&self) -> Option<AuthorityId> {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        serving.as_ref().map(|held| held.root.clone())
    }

    /// What the next connection is accepted with; `None` before the first [`Identity::refresh`].
    #[must_use]
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        serving.as_ref().map(|held| held.acceptor.clone())
    }
}

fn acceptor(credentials: &Credentials, roots: &Roots) -> Result<TlsAcceptor, ServingFault> {
    let unusable = |fault: &dyn std::fmt::Display| ServingFault::Unusable(fault.to_string());
    // The roots go with the chain: who joins knows one of them by its hash alone.
    let chain = format!("{}{}", credentials.issued.chain_pem, roots.roots);
    let key = credentials.key_pem.expose();
    let pair = KeyPair::parse(chain.as_bytes(), key.as_bytes(), None);
    let pair = Arc::new(pair.map_err(|fault| unusable(&fault))?);
    let crls = roots.revocations.as_bytes();
    let bundle = Bundle::parse(roots.roots.as_bytes(), &[crls]);
    let bundle = Arc::new(bundle.map_err(|fault| unusable(&fault))?);
    let config = ringway_tls::control::server(&pair, &bundle).map_err(|fault| unusable(&fault))?;
    Ok(TlsAcceptor::from(config))
}
