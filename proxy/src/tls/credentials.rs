//! What workers make TLS connections with: one set for each table, replaced whole.

use std::sync::Arc;

use ringway_router::{ClusterId, ListenerId};
use ringway_tls::{Bundle, ClientTls, ServerName, ServerTls, SpiffeId};

use super::peer::TlsPeer;

/// How connections to a cluster are protected.
pub struct ClusterTls {
    /// As whose client, and who is trusted.
    pub tls: Arc<ClientTls>,
    /// The name asked for, if the file gives one.
    pub name: Option<ServerName<'static>>,
    /// Whether an endpoint's own name is asked for otherwise: outside of the mesh.
    pub names_endpoints: bool,
    /// What pooled connections must have been made under to be used: it changes with who is
    /// expected at the other end, who we are and whom we believe, not with a renewed certificate of
    /// ours. Never 0, which stands for no protection.
    pub policy: u64,
}

/// What the listeners and clusters of a table need for TLS.
#[derive(Default)]
pub struct Credentials {
    /// Counts the sets that were taken since the start.
    pub generation: u64,
    /// Who this process is in the mesh.
    pub own: Option<SpiffeId>,
    /// The roots and revocations of the mesh.
    pub bundle: Option<Arc<Bundle>>,
    /// By listener; `None` where TLS is not spoken.
    pub listeners: Box<[Option<Arc<ServerTls>>]>,
    /// By cluster; `None` where TLS is not spoken.
    pub clusters: Box<[Option<ClusterTls>]>,
}

impl Credentials {
    /// How clients of a listener are served; `None` where TLS is not spoken.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<&Arc<ServerTls>> {
        self.listeners.get(id.index())?.as_ref()
    }

    /// How a cluster is connected to; `None` where TLS is not spoken.
    #[must_use]
    pub fn cluster(&self, id: ClusterId) -> Option<&ClusterTls> {
        self.clusters.get(id.index())?.as_ref()
    }

    /// Whether a connection with `peer` may live on: its chain leads to a root of the mesh and
    /// nothing in it is revoked. That its certificate has expired since does not count.
    #[must_use]
    pub fn still_trusts(&self, peer: &TlsPeer) -> bool {
        match &self.bundle {
            Some(bundle) => bundle.still_trusts(&peer.chain).is_ok(),
            None => true,
        }
    }
}
