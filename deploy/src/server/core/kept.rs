//! What must outlive the pusher, as it is written down.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use ringway_protocol::PolicyHash;
use serde::{Deserialize, Serialize};

use crate::compile::EndpointSets;
use crate::conductor::Stored;
use crate::guard::Census;
use crate::model::Accepted;

/// What must outlive the pusher.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) conductor: Stored,
    pub(super) accepted: Accepted,
    /// Of the mesh that was released last.
    pub(super) census: Option<Census>,
    /// What the folder said when it was released last: it is not released by itself again, though
    /// it was undone or rolled back since.
    pub(super) offered: Option<PolicyHash>,
    /// Endpoints by identity, for policies that run and that the folder has no more.
    #[serde(default)]
    pub(super) endpoints: BTreeMap<String, EndpointSets>,
    /// What names of endpoints were found to be.
    #[serde(default)]
    pub(super) resolved: HashMap<String, Vec<SocketAddr>>,
    /// Number of the next stream.
    pub(super) next_connection: u64,
}

/// What is not the record but its parts, so that writing needs no copies.
#[derive(Serialize)]
pub(super) struct KeptRef<'a> {
    pub(super) conductor: &'a Stored,
    pub(super) accepted: &'a Accepted,
    pub(super) census: &'a Option<Census>,
    pub(super) offered: Option<PolicyHash>,
    pub(super) endpoints: BTreeMap<&'a str, EndpointSets>,
    pub(super) resolved: &'a HashMap<String, Vec<SocketAddr>>,
    pub(super) next_connection: u64,
}
