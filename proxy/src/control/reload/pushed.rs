//! Tables that a pusher sends, put in use by the same steps as those of a file.
//!
//! A policy is a file of its own: its hash is checked where it arrives, the names of files in it
//! start at the state folder. What the sidecar's own file says of the process (admin, drain) stands
//! beside.

use std::path::Path;
use std::time::Instant;

use ringway_protocol::EndpointsState;
use ringway_router::{Format, Table, load_table};

use super::{Delivery, Rejection, Reloader, Store, compile, read};
use crate::control::drain::post;
use crate::control::push::Order;
use crate::control::push::state::Policy;
use crate::shared::{Running, Shared};
use crate::worker::mailbox::Message;

/// What a sidecar starts with.
pub struct Start {
    /// The first table of the process.
    pub running: Running,
    /// The sockets for its workers.
    pub deliveries: Vec<Delivery>,
    /// Whether the policy that was in use last is; nothing is listened on if not.
    pub applied: bool,
}

impl Reloader {
    /// The first table of a process whose file, `own`, names a pusher: that of `policy` if it can
    /// be put in use, else one that listens nowhere.
    ///
    /// # Errors
    /// When not even that can be put in use.
    pub async fn first_pushed(
        &mut self,
        own: Table,
        state_dir: &Path,
        policy: Option<&Policy>,
        endpoints: &EndpointsState,
    ) -> Result<Start, Rejection> {
        self.credentials = Store::in_folder(state_dir);
        self.own = Some(own);
        self.know(endpoints);
        if let Some(policy) = policy {
            let started = match self.compile_policy(policy) {
                Ok(table) => self.begin(table).await,
                Err(rejection) => Err(rejection),
            };
            match started {
                Ok((running, deliveries)) => {
                    return Ok(Start { running, deliveries, applied: true });
                }
                Err(rejection) => tracing::error!("the last policy cannot be used: {rejection}"),
            }
        }
        let (nothing, _) = compile(self.path(), &read(self.path())?)?;
        let (running, deliveries) = self.begin(nothing).await?;
        Ok(Start { running, deliveries, applied: false })
    }

    /// Does what a pusher's session asks for.
    pub async fn obey(&mut self, order: Order, shared: &Shared) {
        match order {
            Order::Check { policy, answer } => {
                let checked = self.compile_policy(&policy).map(drop);
                let _ = answer.send(checked.map_err(|rejection| rejection.to_string()));
            }
            Order::Apply { policy, answer } => {
                let applied = self.apply_policy(shared, policy.as_ref()).await;
                let _ = answer.send(applied.map_err(|rejection| rejection.to_string()));
            }
            Order::Endpoints(endpoints) => {
                if self.know(&endpoints) {
                    let current = shared.current();
                    let endpoints = self.endpoints(&current.table, Some(&current));
                    shared.publish(current.successor(endpoints));
                    post(shared, || Message::Refresh).await;
                }
            }
            Order::Credentials => self.rotate(shared).await,
        }
    }

    async fn apply_policy(
        &mut self,
        shared: &Shared,
        policy: Option<&Policy>,
    ) -> Result<(), Rejection> {
        let started = Instant::now();
        let table = match policy {
            Some(policy) => self.compile_policy(policy)?,
            None => compile(self.path(), &read(self.path())?)?.0,
        };
        match self.put(shared, table).await {
            Ok(unresolved) => {
                self.announce(shared, started, unresolved);
                Ok(())
            }
            Err(rejection) => {
                self.credentials.keep_only(&shared.current().table);
                self.show_credentials(super::Looked::default());
                Err(rejection)
            }
        }
    }

    fn compile_policy(&self, policy: &Policy) -> Result<Table, Rejection> {
        let loaded = load_table(&policy.text, Format::Json);
        let (table, loaded) = loaded.map_err(|problems| Rejection::Invalid {
            path: format!("policy {}", policy.running.hash.short()),
            problems,
        })?;
        for warning in &loaded.warnings {
            tracing::warn!("policy {}: {warning}", policy.running.hash.short());
        }
        Ok(match &self.own {
            Some(own) => table.in_process_of(own),
            None => table,
        })
    }

    /// Takes the endpoints of all clusters. Gives whether anything changed.
    fn know(&mut self, endpoints: &EndpointsState) -> bool {
        let mut changed = false;
        for (cluster, members) in endpoints.iter() {
            let members = members.iter().map(|member| (member.address, member.weight)).collect();
            changed |= self.addresses.pushed(cluster, members);
        }
        changed |= self.addresses.retain_pushed(|cluster| endpoints.of(cluster).is_some());
        changed
    }
}
