//! Distrust of sudden emptiness: a source that lost its content must not empty the sidecars.
//!
//! Two guards. A release with far fewer services, routes, workloads or imports than the last one is
//! held until somebody forces it. A service whose endpoints all vanish keeps the last ones for a
//! while; sidecars notice by themselves which of them are gone.
//!
//! # Invariants
//! - Pure: the time comes in.
//! - What is renamed counts as gone; what is added does not make up for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::compile::{Endpoint, EndpointSets};
use crate::limits::{GONE_MIN, GONE_PERCENT};
use crate::model::Mesh;

/// The names in a mesh that a release is compared by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Names of services.
    pub services: BTreeSet<String>,
    /// Names of routes.
    pub routes: BTreeSet<String>,
    /// Names of workloads.
    pub workloads: BTreeSet<String>,
    /// `workload service` or `workload service:port`.
    pub imports: BTreeSet<String>,
}

impl Census {
    /// The names in `mesh`.
    #[must_use]
    pub fn of(mesh: &Mesh) -> Census {
        let import = |(name, import): (&String, &crate::model::Import)| {
            let called = crate::model::endpoints_name(&import.service, import.port.as_deref());
            format!("{name} {called}")
        };
        let workloads = mesh.workloads.iter();
        let imports = workloads.flat_map(|(name, object)| {
            object.value.imports.iter().map(move |import| (name, import))
        });
        Census {
            services: mesh.services.keys().cloned().collect(),
            routes: mesh.routes.keys().cloned().collect(),
            workloads: mesh.workloads.keys().cloned().collect(),
            imports: imports.map(import).collect(),
        }
    }
}

/// What a release would lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Services.
    Services,
    /// Routes.
    Routes,
    /// Workloads.
    Workloads,
    /// Imports of workloads.
    Imports,
}

impl What {
    /// Whether a mesh without any is none.
    fn is_vital(self) -> bool {
        match self {
            What::Services | What::Workloads => true,
            What::Routes | What::Imports => false,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Services => "services",
            What::Routes => "routes",
            What::Workloads => "workloads",
            What::Imports => "imports",
        })
    }
}

/// A release that waits until somebody forces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{gone} of {before} {what} would be gone, {after} would be left")]
pub struct Held {
    /// What would be lost.
    pub what: What,
    /// How many there were.
    pub before: usize,
    /// How many there would be.
    pub after: usize,
    /// How many of those before would be gone.
    pub gone: usize,
}

/// Compares what was released last with what is to be released.
///
/// # Errors
/// More than [`GONE_MIN`] and more than [`GONE_PERCENT`] per cent of something would be gone, or
/// all of two or more services or workloads.
pub fn compare(before: &Census, after: &Census) -> Result<(), Held> {
    let pairs = [
        (What::Services, &before.services, &after.services),
        (What::Routes, &before.routes, &after.routes),
        (What::Workloads, &before.workloads, &after.workloads),
        (What::Imports, &before.imports, &after.imports),
    ];
    for (what, before, after) in pairs {
        let gone = before.difference(after).count();
        let many = gone > GONE_MIN && gone * 100 > before.len() * GONE_PERCENT;
        let everything = what.is_vital() && after.is_empty() && before.len() > 1;
        if many || everything {
            return Err(Held { what, before: before.len(), after: after.len(), gone });
        }
    }
    Ok(())
}

/// The endpoints of a cluster, and since when they are only what was there last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The endpoints that sidecars should use.
    pub endpoints: Vec<Endpoint>,
    /// When the source said that there were none any more; `None` while it names these.
    pub stale_since: Option<Instant>,
}

/// What is known of the endpoints of all clusters.
pub type KnownSets = BTreeMap<String, Known>;

/// What is known after the source says `now` that `sets` is all there is.
///
/// A cluster whose two or more endpoints become none keeps the last ones, stale, for `kept`. A
/// cluster that is not in `sets` is gone: nobody calls it.
#[must_use]
pub fn endpoints(
    known: &KnownSets,
    sets: &EndpointSets,
    now: Instant,
    kept: Duration,
) -> KnownSets {
    let next = |(name, endpoints): (&String, &Vec<Endpoint>)| {
        let fresh = Known { endpoints: endpoints.clone(), stale_since: None };
        let Some(before) = known.get(name).filter(|_| endpoints.is_empty()) else {
            return (name.clone(), fresh);
        };
        let since = before.stale_since.unwrap_or(now);
        let is_kept = before.stale_since.is_some() || before.endpoints.len() >= 2;
        if is_kept && now.saturating_duration_since(since) < kept {
            let endpoints = before.endpoints.clone();
            return (name.clone(), Known { endpoints, stale_since: Some(since) });
        }
        (name.clone(), fresh)
    };
    sets.iter().map(next).collect()
}

/// When [`endpoints`] has to be asked again although the source says nothing new.
#[must_use]
pub fn deadline(known: &KnownSets, kept: Duration) -> Option<Instant> {
    known.values().filter_map(|known| known.stale_since).min().map(|since| since + kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(services: usize) -> Census {
        let services = (0..services).map(|nth| format!("s{nth}")).collect();
        Census { services, ..Census::default() }
    }

    #[test]
    fn more_than_a_fifth_and_more_than_five_gone_is_held() {
        assert_eq!(compare(&census(30), &census(24)), Ok(()), "20 % exactly");
        let held = Held { what: What::Services, before: 30, after: 23, gone: 7 };
        assert_eq!(compare(&census(30), &census(23)), Err(held));
        assert_eq!(compare(&census(6), &census(1)), Ok(()), "five may always go");
        assert_eq!(compare(&census(1), &census(0)), Ok(()), "and the only one");
        assert!(compare(&census(2), &census(0)).is_err(), "but not all");
        assert!(compare(&census(6), &census(0)).is_err());
        assert_eq!(compare(&census(0), &census(100)), Ok(()));
    }

    #[test]
    fn new_names_do_not_make_up_for_those_that_are_gone() {
        let mut after = census(0);
        after.services.extend((100..120).map(|nth| format!("s{nth}")));
        let held = compare(&census(20), &after).expect_err("all are gone");
        assert_eq!(held.to_string(), "20 of 20 services would be gone, 20 would be left");
    }

    const KEPT: Duration = Duration::from_secs(30);

    fn sets(count: usize) -> EndpointSets {
        let endpoint = |nth| Endpoint { address: format!("10.0.0.{nth}:80"), weight: 1 };
        EndpointSets::from([("a:http".to_owned(), (0..count).map(endpoint).collect())])
    }

    #[test]
    fn vanished_endpoints_are_kept_for_thirty_seconds_and_marked() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let fresh = endpoints(&KnownSets::new(), &sets(2), start, KEPT);
        assert_eq!(deadline(&fresh, KEPT), None);
        let stale = endpoints(&fresh, &sets(0), at(10), KEPT);
        assert_eq!(stale["a:http"].endpoints, sets(2)["a:http"]);
        assert_eq!(stale["a:http"].stale_since, Some(at(10)));
        assert_eq!(deadline(&stale, KEPT), Some(at(40)));
        let still = endpoints(&stale, &sets(0), at(39), KEPT);
        assert_eq!(still, stale, "being asked again does not prolong it");
        assert!(endpoints(&still, &sets(0), at(40), KEPT)["a:http"].endpoints.is_empty());
        let back = endpoints(&still, &sets(1), at(39), KEPT);
        assert_eq!(
            back["a:http"],
            Known { endpoints: sets(1)["a:http"].clone(), stale_since: None }
        );
    }

    #[test]
    fn one_endpoint_may_go_and_a_cluster_too() {
        let start = Instant::now();
        let known = endpoints(&KnownSets::new(), &sets(1), start, KEPT);
        assert!(endpoints(&known, &sets(0), start, KEPT)["a:http"].endpoints.is_empty());
        let known = endpoints(&KnownSets::new(), &sets(3), start, KEPT);
        assert!(endpoints(&known, &EndpointSets::new(), start, KEPT).is_empty());
    }
}
