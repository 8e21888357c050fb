//! Replacement of the root: which roots are in the bundle and which of them signs.
//!
//! ```text
//!             introduce            step               step              step
//!   Steady ──────────▶ Introduced ──────▶ Issuing ──────────▶ Dropping ──────▶ Steady
//!   {old}              {old, new}         {old, new}          {new}            {new}
//!   old signs          old signs          new signs           new signs        new signs
//!                          │ abort            │ abort             ▲ (there: old and new
//!                          ▼                  ▼        step       │  change places)
//!                      Reverting {old, new}, old signs ───────────┘
//! ```
//!
//! What is in braces is the bundle. It changes, with its epoch, on entering Introduced and
//! Dropping.
//!
//! It leaves
//! - Introduced, when all connected are at the epoch, and a leaf's life and the skew have passed:
//!   whoever is not connected has no valid leaf, or got the bundle with it;
//! - Issuing, when no certificate that was issued under the old root is valid, those of operators
//!   included, a leaf's life and the skew have passed, and no connected peer shows such a one;
//! - Reverting, when the same is true of the new root, without the leaf's life;
//! - Dropping, when all connected are at the epoch; then the key that was dropped is removed.
//!
//! # Invariants
//! - Each root that signs, and each that has signed something still valid, is in every bundle that
//!   a peer with a valid certificate may hold.
//! - There are two roots at most, and one change at a time.
//!
//! # Not here
//! Records, keys and certificates (`authority`); counting peers (the server).

use serde::{Deserialize, Serialize};

use super::fault::CaFault;
use super::lives::Lives;

/// Name of a root or an issuer: 16 hexadecimal digits, also in its certificate's subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuthorityId(pub(crate) String);

impl AuthorityId {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the server knows of connected peers at the moment that it asks for a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Sidecars that are connected.
    pub connected: u64,
    /// Those that report the current epoch; `at_epoch <= connected`.
    pub at_epoch: u64,
    /// Peers whose certificate is under the root that is to go, the pusher itself included.
    pub chained_to_old: u64,
}

/// Where the replacement is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Phase {
    /// One root.
    Steady {
        /// It signs.
        root: AuthorityId,
    },
    /// The new root is made known.
    Introduced {
        /// It signs.
        old: AuthorityId,
        /// It is in the bundle.
        new: AuthorityId,
        /// When that began, in seconds since 1970.
        since_s: u64,
    },
    /// The new root signs.
    Issuing {
        /// What it signed runs out.
        old: AuthorityId,
        /// It signs.
        new: AuthorityId,
        /// When that began, in seconds since 1970.
        since_s: u64,
    },
    /// It was aborted: the old root signs.
    Reverting {
        /// It signs.
        old: AuthorityId,
        /// What it signed, if anything, runs out.
        new: AuthorityId,
        /// When that began, in seconds since 1970.
        since_s: u64,
    },
    /// One root is out of the bundle.
    Dropping {
        /// It is out.
        gone: AuthorityId,
        /// It signs.
        root: AuthorityId,
        /// When that began, in seconds since 1970.
        since_s: u64,
    },
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Wait {
    /// Nothing is under way.
    Rotate,
    /// Connected sidecars have not reported the epoch.
    Sidecars {
        /// How many.
        missing: u64,
    },
    /// Certificates run out.
    Until {
        /// In seconds since 1970.
        until_s: u64,
    },
    /// Connected peers still show certificates under the root that is to go.
    Chained {
        /// How many.
        peers: u64,
    },
}

/// The bundle's epoch and the phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Grows with every change of the bundle's roots; from 1.
    epoch: u64,
    phase: Phase,
}

impl Rotation {
    pub(crate) fn steady(root: AuthorityId) -> Rotation {
        Rotation { epoch: 1, phase: Phase::Steady { root } }
    }

    /// Of the bundle as it is.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The root that signs issuers.
    #[must_use]
    pub fn issuing(&self) -> &AuthorityId {
        match &self.phase {
            Phase::Steady { root } | Phase::Dropping { root, .. } => root,
            Phase::Introduced { old, .. } | Phase::Reverting { old, .. } => old,
            Phase::Issuing { new, .. } => new,
        }
    }

    /// The root that is to go when what it signed has run out.
    #[must_use]
    pub fn retiring(&self) -> Option<&AuthorityId> {
        match &self.phase {
            Phase::Issuing { old, .. } => Some(old),
            Phase::Reverting { new, .. } => Some(new),
            Phase::Steady { .. } | Phase::Introduced { .. } | Phase::Dropping { .. } => None,
        }
    }

    /// Roots of the bundle, one or two, the one that signs first.
    #[must_use]
    pub fn bundle(&self) -> Vec<&AuthorityId> {
        match &self.phase {
            Phase::Steady { root } | Phase::Dropping { root, .. } => vec![root],
            Phase::Introduced { old, new, .. } | Phase::Reverting { old, new, .. } => {
                vec![old, new]
            }
            Phase::Issuing { old, new, .. } => vec![new, old],
        }
    }

    /// Roots whose records are still needed.
    pub(crate) fn known(&self) -> Vec<&AuthorityId> {
        let mut known = self.bundle();
        if let Phase::Dropping { gone, .. } = &self.phase {
            known.push(gone);
        }
        known
    }

    /// Puts `new` into the bundle; returns whether that began now. Nothing happens if a replacement
    /// is under way.
    pub(crate) fn introduce(&mut self, new: AuthorityId, now_s: u64) -> bool {
        let Phase::Steady { root } = &self.phase else { return false };
        self.phase = Phase::Introduced { old: root.clone(), new, since_s: now_s };
        self.epoch += 1;
        true
    }

    /// Goes back to the old root; returns whether that began now.
    ///
    /// # Errors
    /// [`CaFault::TooLate`] if a root is out of the bundle.
    pub(crate) fn abort(&mut self, now_s: u64) -> Result<bool, CaFault> {
        match &self.phase {
            Phase::Steady { .. } | Phase::Reverting { .. } => Ok(false),
            Phase::Introduced { old, new, .. } | Phase::Issuing { old, new, .. } => {
                let (old, new) = (old.clone(), new.clone());
                self.phase = Phase::Reverting { old, new, since_s: now_s };
                Ok(true)
            }
            Phase::Dropping { .. } => Err(CaFault::TooLate),
        }
    }

    /// Goes on to the next phase if its conditions are met.
    ///
    /// `signed_until_s` is the end of the last valid certificate under [`Rotation::retiring`], 0 if
    /// there is none.
    ///
    /// # Errors
    /// What it waits for.
    pub(crate) fn step(
        &mut self,
        gate: Gate,
        lives: &Lives,
        signed_until_s: u64,
        now_s: u64,
    ) -> Result<(), Wait> {
        let (leaf_s, skew_s) = (lives.leaf_s(), lives.skew_s());
        match &self.phase {
            Phase::Steady { .. } => Err(Wait::Rotate),
            Phase::Introduced { old, new, since_s } => {
                all_at_epoch(gate)?;
                past(since_s.saturating_add(leaf_s + skew_s), now_s)?;
                let (old, new) = (old.clone(), new.clone());
                self.phase = Phase::Issuing { old, new, since_s: now_s };
                Ok(())
            }
            Phase::Issuing { old, new, since_s } => {
                let until_s = since_s.saturating_add(leaf_s).max(signed_until_s);
                past(until_s.saturating_add(skew_s), now_s)?;
                let (gone, root) = (old.clone(), new.clone());
                self.drop_root(gate, gone, root, now_s)
            }
            Phase::Reverting { old, new, since_s } => {
                past((*since_s).max(signed_until_s).saturating_add(skew_s), now_s)?;
                let (gone, root) = (new.clone(), old.clone());
                self.drop_root(gate, gone, root, now_s)
            }
            Phase::Dropping { root, .. } => {
                all_at_epoch(gate)?;
                self.phase = Phase::Steady { root: root.clone() };
                Ok(())
            }
        }
    }

    fn drop_root(
        &mut self,
        gate: Gate,
        gone: AuthorityId,
        root: AuthorityId,
        now_s: u64,
    ) -> Result<(), Wait> {
        if gate.chained_to_old > 0 {
            return Err(Wait::Chained { peers: gate.chained_to_old });
        }
        self.phase = Phase::Dropping { gone, root, since_s: now_s };
        self.epoch += 1;
        Ok(())
    }
}

fn all_at_epoch(gate: Gate) -> Result<(), Wait> {
    match gate.connected.saturating_sub(gate.at_epoch) {
        0 => Ok(()),
        missing => Err(Wait::Sidecars { missing }),
    }
}

/// Whether `until_s` is over; its own second is not.
fn past(until_s: u64, now_s: u64) -> Result<(), Wait> {
    if now_s > until_s { Ok(()) } else { Err(Wait::Until { until_s }) }
}
