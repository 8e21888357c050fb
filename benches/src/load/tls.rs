//! TLS of the load: what it agrees to, one session, and what was agreed on.
//!
//! ```text
//! Terms ──▶ ClientTls (shared) ──▶ Session (one connection) ──▶ Handshakes (the whole run)
//! socket ──▶ sealed ──read_tls──▶ rustls ──reader──▶ bytes      and back by writer, write_tls
//! ```
//!
//! # Invariants
//! - What is compared is what was negotiated: every handshake is counted under its outcome.
//! - `sealed[at..filled]` came from the socket and rustls has not taken it yet.
//! - Without `resumes` no ticket is kept, so every handshake is a full one.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::ValueEnum;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde::Serialize;

use super::{tickets::Tickets, trust::Sampled};
use crate::{error::Error, limits::TLS_READ_BYTES};

/// A key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    X25519,
    X25519mlkem768,
    P256,
}

impl Group {
    fn of_rustls(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519 => aws_lc_rs::kx_group::X25519,
            Self::X25519mlkem768 => aws_lc_rs::kx_group::X25519MLKEM768,
            Self::P256 => aws_lc_rs::kx_group::SECP256R1,
        }
    }
}

/// A cipher, in whichever suites of TLS 1.2 and 1.3 have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cipher {
    Aes128,
    Aes256,
    Chacha20,
}

impl Cipher {
    /// What the names of its suites contain.
    fn mark(self) -> &'static str {
        match self {
            Self::Aes128 => "AES_128",
            Self::Aes256 => "AES_256",
            Self::Chacha20 => "CHACHA20",
        }
    }
}

/// Whom to believe.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Whoever the certificates of this file have signed for the name.
    Ca(PathBuf),
    /// Whoever answers and has signed with the key of its certificate.
    Anybody,
}

/// What the load agrees to.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) trust: Trust,
    /// Name that is asked for and that the certificate has to have; the target's IP if `None`.
    pub(crate) name: Option<String>,
    /// Files with the certificates and the key of the load itself.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Tickets are kept and used.
    pub(crate) resumes: bool,
    /// In order of preference; all that rustls prefers if empty.
    pub(crate) groups: Vec<Group>,
    /// In order of preference; all that rustls prefers if empty.
    pub(crate) ciphers: Vec<Cipher>,
}

/// TLS of all connections of a load.
#[derive(Debug)]
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl ClientTls {
    /// `alpn` is the only protocol that is offered; `None` offers nothing.
    ///
    /// # Errors
    /// When a file cannot be read, a name is none, or the terms leave no cipher suite.
    pub(crate) fn new(
        terms: &Terms,
        target: SocketAddr,
        alpn: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let usage = |error: rustls::Error| Error::Usage(format!("TLS: {error}"));
        let provider = Arc::new(provider(terms));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(usage)?;
        let verifier = match &terms.trust {
            Trust::Ca(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(usage)?;
                }
                Sampled::by(roots, provider)?
            }
            Trust::Anybody => Sampled::anybody(provider),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &terms.identity {
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
                let chain = certificates(certificate)?;
                builder.with_client_auth_cert(chain, key).map_err(usage)?
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = match terms.resumes {
            true => Resumption::store(Arc::new(Tickets::default())),
            false => Resumption::disabled(),
        };
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        let name = match &terms.name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| Error::Usage(format!("{name:?} is no name of a server")))?,
            None => ServerName::IpAddress(target.ip().into()),
        };
        Ok(Self { config: Arc::new(config), name })
    }

    /// A session on a stream that blocks; the handshake is done by the first read or write.
    ///
    /// # Errors
    /// When the session cannot be begun.
    pub(crate) fn over(&self, stream: TcpStream) -> io::Result<Blocking> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        Ok(StreamOwned::new(connection.map_err(io::Error::other)?, stream))
    }
}

/// A session on a stream that blocks.
pub(crate) type Blocking = StreamOwned<ClientConnection, TcpStream>;

fn provider(terms: &Terms) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !terms.groups.is_empty() {
        provider.kx_groups = terms.groups.iter().map(|group| group.of_rustls()).collect();
    }
    if !terms.ciphers.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        for cipher in &terms.ciphers {
            let has = |name: Option<&str>| name.is_some_and(|name| name.contains(cipher.mark()));
            let suites = all.iter().filter(|suite| has(suite.suite().as_str()));
            provider.cipher_suites.extend(suites);
        }
    }
    provider
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(file).map_err(unreadable(file))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(unreadable(file))?;
    if found.is_empty() {
        return Err(Error::Usage(format!("{} has no certificate", file.display())));
    }
    Ok(found)
}

fn unreadable(file: &Path) -> impl FnOnce(rustls::pki_types::pem::Error) -> Error {
    let what = file.display().to_string();
    move |error| Error::Malformed { what, detail: error.to_string() }
}

/// What a handshake agreed on, in the names of the registries of TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Agreed {
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    /// The key exchange; `none` where a resumed session had no new one.
    pub(crate) group: &'static str,
    /// The protocol that the target chose; `none` if it chose none.
    pub(crate) alpn: String,
}

/// Handshakes of one outcome, those before and in the warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) full: u64,
    pub(crate) resumed: u64,
}

/// All handshakes of a run, by what they agreed on.
pub(crate) type Handshakes = BTreeMap<Agreed, Count>;

/// TLS of one connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: ClientConnection,
    sealed: Box<[u8]>,
    at: usize,
    filled: usize,
}

impl Session {
    pub(super) fn new(tls: &ClientTls) -> io::Result<Self> {
        let connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
        let connection = connection.map_err(io::Error::other)?;
        let sealed = vec![0; TLS_READ_BYTES].into_boxed_slice();
        Ok(Self { connection, sealed, at: 0, filled: 0 })
    }

    /// Goes on with the handshake; says whether it is over.
    pub(super) fn shake(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        while self.connection.is_handshaking() {
            self.flush(stream)?;
            match self.take(stream) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.flush(stream)?;
        Ok(true)
    }

    /// Counts the handshake, which is over.
    ///
    /// # Errors
    /// When the target does not speak `h2` and nothing else was offered.
    pub(super) fn count(&self, tls: &ClientTls, handshakes: &mut Handshakes) -> io::Result<()> {
        let connection = &self.connection;
        let suite = connection.negotiated_cipher_suite();
        let group = connection.negotiated_key_exchange_group();
        let alpn = connection.alpn_protocol();
        let agreed = Agreed {
            version: connection.protocol_version().and_then(|it| it.as_str()).unwrap_or("unknown"),
            cipher: suite.and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
            group: group.map_or(Some("none"), |group| group.name().as_str()).unwrap_or("unknown"),
            alpn: alpn.map_or("none".to_owned(), |it| String::from_utf8_lossy(it).into_owned()),
        };
        let count = handshakes.entry(agreed).or_default();
        match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => count.resumed += 1,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => {
                count.full += 1;
            }
        }
        let is_h2_wanted = tls.config.alpn_protocols.first().is_some_and(|it| it == b"h2");
        if is_h2_wanted && alpn != Some(b"h2") {
            return Err(io::Error::other("the target did not choose h2 by ALPN"));
        }
        Ok(())
    }

    /// Hands rustls what is kept or what the socket has; 0 is the end of the connection.
    fn take(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        if self.at == self.filled {
            self.filled = stream.read(&mut self.sealed)?;
            self.at = 0;
        }
        let used = self.connection.read_tls(&mut &self.sealed[self.at..self.filled])?;
        self.at += used;
        if let Err(error) = self.connection.process_new_packets() {
            // The target may learn why; whether it does changes nothing here.
            let _ = self.flush(stream);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        self.flush(stream)?;
        Ok(used)
    }

    pub(super) fn read(&mut self, stream: &mut TcpStream, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(room) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.take(stream)?,
                result => return result,
            };
        }
    }

    pub(super) fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let count = self.connection.writer().write(bytes)?;
        self.flush(stream)?;
        // rustls holds as much as it may until the socket takes some of it.
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// Tells the target that the end is meant. One that is not told may forget the session.
    pub(super) fn say_goodbye(&mut self, stream: &mut TcpStream) {
        self.connection.send_close_notify();
        // The connection is closed whether or not the socket takes it.
        let _ = self.flush(stream);
    }

    /// Sends what is sealed, as far as the socket takes it.
    pub(super) fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
