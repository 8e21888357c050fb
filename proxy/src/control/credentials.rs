//! Certificates, keys and roots: from files to what workers make TLS connections with.
//!
//! ```text
//! files ─▶ bytes changed? ─▶ parse, check ─▶ material ─▶ ServerTls, ClientTls ─▶ Running
//!                                  │ wrong
//!                                  └─▶ the old material stays; status says why
//! ```
//!
//! # Invariants
//! - A pair is taken only when key and certificate belong together, it is within its validity, and,
//!   for an identity, its chain leads to the bundle.
//! - What was good once stays in use until something better comes, also past its expiry: a peer
//!   that is late with its rotation is better than one that is gone.
//! - A server whose material and settings are as before keeps its ticket keys.

mod source;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::source::CredentialFault;
pub(in crate::control) use self::source::read;
use self::source::{Material, Source};
use crate::tls::credentials::{ClusterTls, Credentials};
use ringway_router::{
    Cluster, ClusterProtocol, ClusterTls as ClusterConfig, IdentityFiles, Listener, Mtls,
    PairFiles, Protocol, RootsFile, Table, TlsVersion,
};
use ringway_tls::{
    ClientSettings, ClientTls, KeyPair, MaterialFault, Peers, ServerName, ServerSettings,
    ServerTls, SpiffeId, Trust, UnixTime,
};

/// What is negotiated with endpoints.
fn spoken(protocol: ClusterProtocol) -> &'static [u8] {
    match protocol {
        ClusterProtocol::Http1 => b"http/1.1",
        ClusterProtocol::Http2 => b"h2",
    }
}

/// What is negotiated with clients (RFC 7301): nothing where bytes are opaque.
fn offered(protocol: Protocol) -> &'static [&'static [u8]] {
    match protocol {
        Protocol::Http1 => &[b"http/1.1", b"http/1.0"],
        Protocol::Http2 => &[b"h2"],
        Protocol::Auto => &[b"h2", b"http/1.1", b"http/1.0"],
        Protocol::Tcp | Protocol::TlsPassthrough => &[],
    }
}

struct Held {
    /// Fingerprint of the bytes tried last, good or bad.
    seen: u64,
    /// What is in use, and how often it has changed. `None` while there was nothing good.
    material: Option<(Material, u64)>,
    /// Why the newest bytes are not in use.
    problem: Option<String>,
    warned_of_expiry: bool,
}

/// What a server was made from. One with an equal key is the same server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ServerKey {
    pairs: Vec<(Source, u64)>,
    mesh: Option<(Source, u64)>,
    tls12: bool,
    alpn: &'static [&'static [u8]],
    resumption: bool,
}

/// What a look at the files came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Sources whose new material is in use.
    pub taken: u32,
    /// Sources whose new bytes were refused.
    pub refused: u32,
}

/// A certificate in use, for people and metrics.
#[derive(Debug, Clone)]
pub struct Shown {
    /// `identity`, `trust_bundle`, or the file.
    pub name: String,
    /// What is known of it.
    pub certificate: ringway_tls::CertificateInfo,
    /// Its place in its chain, 0 for the leaf.
    pub depth: usize,
}

/// The files of the table in use, and what they gave.
#[derive(Default)]
pub struct Store {
    folder: PathBuf,
    held: BTreeMap<Source, Held>,
    servers: HashMap<ServerKey, Arc<ServerTls>>,
    generation: u64,
    /// Counts what was taken.
    version: u64,
    /// `version` as workers have it.
    published: u64,
}

impl Store {
    /// A store for a configuration file at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::in_folder(path.parent().unwrap_or(Path::new("")))
    }

    /// A store for files whose names start at `folder`.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..Self::default() }
    }

    /// Reads what `table` names and makes what its workers need. Files that were good before and
    /// are not now do not count as problems: what they gave stays in use. [`Self::keep_only`] comes
    /// next, with this table or, if that does not come into use, with the one that is.
    ///
    /// # Errors
    /// Everything without which the table cannot run.
    pub fn load(&mut self, table: &Table) -> Result<Credentials, Vec<CredentialFault>> {
        let wanted = self.sources(table);
        let speaks_tls = table.listeners().iter().any(Listener::speaks_tls)
            || table.clusters().iter().any(|cluster| cluster.tls.is_some());
        if speaks_tls {
            // Once in the life of the process, and only for those who need it.
            let provider = ringway_tls::provider::measure(ringway_stats::clock::now_ns);
            let (ring, aws) = provider.measured();
            let records = provider.records();
            tracing::debug!(records, ring, aws, "record protection chosen, us for 16 KiB");
        }
        let mut faults = Vec::new();
        let now = UnixTime::now();
        for source in &wanted {
            if let Err(fault) = self.look(source, now)
                && self.material(source).is_none()
            {
                faults.push(fault);
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.make(table)
    }

    /// Workers have what was made last.
    pub fn publish(&mut self) {
        self.published = self.version;
    }

    /// Whether something was taken that workers do not have: the file that it was read for may have
    /// been refused.
    pub fn is_ahead(&self) -> bool {
        self.version != self.published
    }

    /// Forgets what `table`, the one in use, does not name.
    pub fn keep_only(&mut self, table: &Table) {
        let wanted = self.sources(table);
        self.held.retain(|source, _| wanted.contains(source));
    }

    /// Looks whether the files of the table in use have changed.
    pub fn refresh(&mut self) -> Looked {
        let now = UnixTime::now();
        let sources: Vec<Source> = self.held.keys().cloned().collect();
        let mut looked = Looked::default();
        for source in sources {
            match self.look(&source, now) {
                Ok(false) => {}
                Ok(true) => looked.taken += 1,
                Err(fault) => {
                    looked.refused += 1;
                    tracing::error!("certificate files refused, the old ones stay: {fault}");
                }
            }
        }
        looked
    }

    /// Makes what the workers of `table` need from what is held.
    ///
    /// # Errors
    /// What cannot be made.
    pub fn make(&mut self, table: &Table) -> Result<Credentials, Vec<CredentialFault>> {
        let mut faults = Vec::new();
        let mut servers = HashMap::new();
        let identity = table.identity().map(|files| self.identity_source(files));
        let mut listeners = Vec::new();
        for listener in table.listeners() {
            let server = self.server(listener, identity.as_ref(), &mut servers);
            listeners.push(server.unwrap_or_else(|fault| {
                faults.push(fault);
                None
            }));
        }
        let mut clusters = Vec::new();
        for (cluster, id) in table.clusters().iter().zip(table.cluster_ids()) {
            let opaque = table.listeners().iter().any(|listener| listener.cluster == Some(id));
            let client = self.client(cluster, !opaque, identity.as_ref());
            clusters.push(client.unwrap_or_else(|fault| {
                faults.push(fault);
                None
            }));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.servers = servers;
        self.generation += 1;
        let mesh = identity.and_then(|source| match self.material(&source) {
            Some((Material::Identity(pair, bundle), _)) => Some((pair, bundle)),
            _ => None,
        });
        Ok(Credentials {
            generation: self.generation,
            own: mesh.and_then(|(pair, _)| pair.spiffe().cloned()),
            bundle: mesh.map(|(_, bundle)| Arc::clone(bundle)),
            listeners: listeners.into(),
            clusters: clusters.into(),
        })
    }

    /// Counts the sets that were made.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Why the newest bytes of a source are not in use, for all of which that is so.
    pub fn problems(&self) -> Vec<String> {
        self.held.values().filter_map(|held| held.problem.clone()).collect()
    }

    /// The folders that the files are in.
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = self
            .held
            .keys()
            .flat_map(Source::files)
            .filter_map(|file| file.parent().map(Path::to_owned))
            .collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// The certificates in use.
    pub fn shown(&self) -> Vec<Shown> {
        let mut shown = Vec::new();
        let mut chain = |name: &str, infos: &[ringway_tls::CertificateInfo]| {
            for (depth, certificate) in infos.iter().enumerate() {
                let (name, certificate) = (name.to_owned(), certificate.clone());
                shown.push(Shown { name, certificate, depth });
            }
        };
        for (source, held) in &self.held {
            match (&held.material, source) {
                (Some((Material::Identity(pair, bundle), _)), _) => {
                    chain("identity", pair.chain());
                    for root in bundle.roots() {
                        chain("trust_bundle", std::slice::from_ref(root));
                    }
                }
                (Some((Material::Pair(pair), _)), Source::Pair { certificate, .. }) => {
                    chain(&certificate.display().to_string(), pair.chain());
                }
                _ => {}
            }
        }
        shown
    }

    /// Warns, once for each, of certificates that have a quarter of their life or less left.
    pub fn warn_of_expiry(&mut self, now_s: i64) {
        for held in self.held.values_mut() {
            let pair = match &held.material {
                Some((Material::Identity(pair, _) | Material::Pair(pair), _)) => pair,
                _ => continue,
            };
            let leaf = pair.info();
            let (life, left) = (leaf.not_after - leaf.not_before, leaf.not_after - now_s);
            if left * 4 > life || held.warned_of_expiry {
                continue;
            }
            held.warned_of_expiry = true;
            let words = ringway_tls::duration_words(left.unsigned_abs());
            let subject = leaf.spiffe.as_ref().map_or(leaf.subject.as_str(), |id| id.as_str());
            if left > 0 {
                tracing::warn!("the certificate of {subject} expires in {words}");
            } else {
                tracing::error!("the certificate of {subject} has expired {words} ago");
            }
        }
    }

    fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    fn identity_source(&self, files: &IdentityFiles) -> Source {
        Source::Identity {
            certificate: self.path(&files.certificate),
            key: self.path(&files.key),
            bundle: self.path(&files.trust_bundle),
            revoked: files.revocation_lists.iter().map(|file| self.path(file)).collect(),
        }
    }

    fn pair_source(&self, files: &PairFiles) -> Source {
        Source::Pair {
            certificate: self.path(&files.certificate),
            key: self.path(&files.key),
            ocsp: files.ocsp_response.as_deref().map(|file| self.path(file)),
        }
    }

    fn roots_source(&self, file: &RootsFile) -> Source {
        match file {
            RootsFile::System => Source::SystemRoots,
            RootsFile::File(file) => Source::Roots(self.path(file)),
        }
    }

    /// Every source that `table` names.
    fn sources(&self, table: &Table) -> Vec<Source> {
        let mut sources = Vec::new();
        sources.extend(table.identity().map(|files| self.identity_source(files)));
        for listener in table.listeners() {
            if let Some(tls) = &listener.tls {
                sources.extend(tls.certificates.iter().map(|files| self.pair_source(files)));
            }
        }
        for cluster in table.clusters() {
            if let Some(ClusterConfig::Outside { roots, pair, .. }) = &cluster.tls {
                sources.push(self.roots_source(roots));
                sources.extend(pair.iter().map(|files| self.pair_source(files)));
            }
        }
        sources.sort();
        sources.dedup();
        sources
    }

    fn material(&self, source: &Source) -> Option<&(Material, u64)> {
        self.held.get(source)?.material.as_ref()
    }

    /// Reads a source again. Whether it gave something new.
    fn look(&mut self, source: &Source, now: UnixTime) -> Result<bool, CredentialFault> {
        let read = match source.read() {
            Ok(read) => read,
            Err(fault) => {
                let held = self.held.entry(source.clone()).or_insert_with(Held::nothing);
                let text = fault.to_string();
                let known = held.problem.replace(text.clone()).is_some_and(|old| old == text);
                // Tried again at the next look, whatever its bytes are.
                held.seen = 0;
                return if known && held.material.is_some() { Ok(false) } else { Err(fault) };
            }
        };
        let seen = read.fingerprint();
        let held = self.held.entry(source.clone()).or_insert_with(Held::nothing);
        if held.seen == seen {
            return Ok(false);
        }
        match source.parse(&read, now) {
            Ok(material) => {
                self.version += 1;
                held.seen = seen;
                held.material = Some((material, self.version));
                held.problem = None;
                held.warned_of_expiry = false;
                Ok(true)
            }
            Err(fault) => {
                // One that is not valid yet becomes so without a change of its bytes.
                let timely = matches!(
                    &fault,
                    CredentialFault::Material { fault: MaterialFault::NotYetValid { .. }, .. }
                );
                held.seen = if timely { 0 } else { seen };
                let text = fault.to_string();
                let known = held.problem.replace(text.clone()).is_some_and(|old| old == text);
                if known && held.material.is_some() { Ok(false) } else { Err(fault) }
            }
        }
    }

    fn pair_of(&self, source: &Source) -> Option<(Arc<KeyPair>, u64)> {
        match self.material(source)? {
            (Material::Identity(pair, _) | Material::Pair(pair), version) => {
                Some((Arc::clone(pair), *version))
            }
            (Material::Roots(_), _) => None,
        }
    }

    fn server(
        &self,
        listener: &Listener,
        identity: Option<&Source>,
        made: &mut HashMap<ServerKey, Arc<ServerTls>>,
    ) -> Result<Option<Arc<ServerTls>>, CredentialFault> {
        let Some(tls) = &listener.tls else { return Ok(None) };
        let unusable = |text: String| CredentialFault::Unusable {
            what: format!("listener `{}`", listener.name),
            text,
        };
        let mut sources: Vec<Source> =
            tls.certificates.iter().map(|files| self.pair_source(files)).collect();
        if sources.is_empty() {
            sources.extend(identity.cloned());
        }
        let mut pairs = Vec::new();
        let mut versions = Vec::new();
        for source in sources {
            let Some((pair, version)) = self.pair_of(&source) else {
                return Err(unusable("its certificate is missing".into()));
            };
            pairs.push(pair);
            versions.push((source, version));
        }
        let mutual = listener.mtls != Mtls::Disabled;
        let mesh = identity.filter(|_| mutual).and_then(|source| {
            let (material, version) = self.material(source)?;
            let Material::Identity(_, bundle) = material else { return None };
            Some((source.clone(), Arc::clone(bundle), *version))
        });
        if mutual && mesh.is_none() {
            return Err(unusable("there is no identity".into()));
        }
        let tls12 = tls.min_version == TlsVersion::Tls12;
        let alpn = offered(listener.protocol);
        let key = ServerKey {
            pairs: versions,
            mesh: mesh.as_ref().map(|(source, _, version)| (source.clone(), *version)),
            tls12,
            alpn,
            resumption: tls.resumption,
        };
        if let Some(server) = made.get(&key).or_else(|| self.servers.get(&key)) {
            let server = Arc::clone(server);
            made.insert(key, Arc::clone(&server));
            return Ok(Some(server));
        }
        let settings = ServerSettings {
            certificates: &pairs,
            peers: mesh.map_or(Peers::None, |(_, bundle, _)| Peers::Required(bundle)),
            tls12,
            alpn,
            resumption: tls.resumption,
        };
        let server =
            Arc::new(ServerTls::build(&settings).map_err(|fault| unusable(fault.to_string()))?);
        made.insert(key, Arc::clone(&server));
        Ok(Some(server))
    }

    fn client(
        &self,
        cluster: &Cluster,
        http: bool,
        identity: Option<&Source>,
    ) -> Result<Option<ClusterTls>, CredentialFault> {
        let unusable = |text: String| CredentialFault::Unusable {
            what: format!("cluster `{}`", cluster.name),
            text,
        };
        let Some(config) = &cluster.tls else { return Ok(None) };
        // A cluster that opaque bytes go to, too, negotiates nothing.
        let alpn: Vec<Vec<u8>> =
            if http { vec![spoken(cluster.protocol).to_vec()] } else { Vec::new() };
        let (settings, name, policy) = match config {
            ClusterConfig::Mesh { expected, server_name, resumption } => {
                let material = identity.and_then(|source| self.material(source));
                let Some((Material::Identity(pair, bundle), _)) = material else {
                    return Err(unusable("there is no identity".into()));
                };
                let parse = |text: &str| SpiffeId::parse(text).map_err(|e| unusable(e.to_string()));
                let expected = expected.iter().map(|id| parse(id)).collect::<Result<_, _>>()?;
                let policy = policy(config, &bundle.fingerprint(), pair.spiffe());
                let trust = Trust::Mesh { bundle: Arc::clone(bundle), expected };
                let settings = ClientSettings {
                    pair: Some(Arc::clone(pair)),
                    trust,
                    tls12: false,
                    alpn: alpn.clone(),
                    resumption: *resumption,
                };
                (settings, server_name, policy)
            }
            ClusterConfig::Outside { server_name, roots, pair, min_version, resumption } => {
                let Some((Material::Roots(roots), version)) =
                    self.material(&self.roots_source(roots))
                else {
                    return Err(unusable("its roots are missing".into()));
                };
                let pair = pair.as_ref().and_then(|files| self.pair_of(&self.pair_source(files)));
                let policy = policy(config, &version.to_be_bytes(), None);
                let settings = ClientSettings {
                    pair: pair.map(|(pair, _)| pair),
                    trust: Trust::Roots(Arc::clone(roots)),
                    tls12: *min_version == TlsVersion::Tls12,
                    alpn: alpn.clone(),
                    resumption: *resumption,
                };
                (settings, server_name, policy)
            }
        };
        let name = name.as_deref().map(|name| ServerName::try_from(name.to_owned()));
        let name = name.transpose().map_err(|error| unusable(error.to_string()))?;
        let tls = ClientTls::build(&settings).map_err(|fault| unusable(fault.to_string()))?;
        let names_endpoints = matches!(config, ClusterConfig::Outside { .. });
        Ok(Some(ClusterTls { tls: Arc::new(tls), name, names_endpoints, policy }))
    }
}

/// A number for what pooled connections are made under: who is expected, who we are, and whom we
/// believe. A renewed certificate of the same identity changes nothing.
fn policy(config: &ClusterConfig, trust: &[u8], own: Option<&SpiffeId>) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    let own = own.map(SpiffeId::as_str);
    std::hash::Hash::hash(&(format!("{config:?}"), trust, own), &mut hasher);
    std::hash::Hasher::finish(&hasher).max(1)
}

impl Held {
    fn nothing() -> Self {
        Self { seen: 0, material: None, problem: None, warned_of_expiry: false }
    }
}
