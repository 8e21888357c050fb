//! TLS sessions with endpoints, kept by one worker so that the next connection to each is resumed.
//!
//! # Invariants
//! - A session is offered only to the endpoint that gave it, under the policy that it was made
//!   under, and with the certificates that it was made with.
//! - At most [`SESSION_CACHES_MAX`] endpoints have a cache; when one more comes, all are dropped.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringway_tls::ClientTls;

use super::credentials::ClusterTls;
use crate::limits::SESSION_CACHES_MAX;

struct Kept {
    /// What it was made from: other certificates or roots are another allocation.
    origin: Arc<ClientTls>,
    own: Rc<ClientTls>,
}

/// The caches of one worker, by policy and address.
#[derive(Default)]
pub struct Sessions(RefCell<HashMap<(u64, SocketAddr), Kept>>);

impl Sessions {
    /// How to connect to the endpoint at `address` of a cluster.
    #[must_use]
    pub fn client(&self, cluster: &ClusterTls, address: SocketAddr) -> Rc<ClientTls> {
        let mut caches = self.0.borrow_mut();
        let key = (cluster.policy, address);
        if let Some(kept) = caches.get(&key)
            && Arc::ptr_eq(&kept.origin, &cluster.tls)
        {
            return Rc::clone(&kept.own);
        }
        if caches.len() >= SESSION_CACHES_MAX {
            caches.clear();
        }
        let own = Rc::new(cluster.tls.for_endpoint());
        caches.insert(key, Kept { origin: Arc::clone(&cluster.tls), own: Rc::clone(&own) });
        own
    }
}
