//! What must outlive the pusher, as it is written down.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use ringway_protocol::PolicyHash;
use serde::{Deserialize, Serialize};

use super::super::record::{Record, RecordFault};
use crate::compile::{Endpoint, EndpointSets};
use crate::conductor::Stored;
use crate::guard::Census;
use crate::model::Accepted;
use crate::release::{Classes, KnownClasses};

/// Parts of the record.
const CONDUCTOR: &str = "conductor";
const ACCEPTED: &str = "accepted";
const CENSUS: &str = "census";
const ENDPOINTS: &str = "endpoints";
const RESOLVED: &str = "resolved";
const REST: &str = "rest";
/// Classes, by their hash.
const CLASSES: &str = "classes/";

/// What must outlive the pusher.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) conductor: Stored,
    pub(super) accepted: Accepted,
    /// Of the mesh that was released last.
    pub(super) census: Option<Census>,
    /// Endpoints by identity, for policies that run and that the folder has no more.
    pub(super) endpoints: BTreeMap<String, EndpointSets>,
    /// What names of endpoints were found to be.
    pub(super) resolved: HashMap<String, Vec<SocketAddr>>,
    pub(super) rest: Rest,
}

/// What is small.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Rest {
    /// What the folder said when it was released last: it is not released by itself again, though
    /// it was undone or rolled back since.
    pub(super) offered: Option<PolicyHash>,
    /// Number of the next stream.
    pub(super) next_connection: u64,
}

/// What is not the record but its parts, so that writing needs no copies.
pub(super) struct KeptRef<'a> {
    pub(super) conductor: &'a Stored,
    pub(super) accepted: &'a Accepted,
    pub(super) census: &'a Option<Census>,
    pub(super) endpoints: EndpointTable,
    pub(super) resolved: &'a HashMap<String, Vec<SocketAddr>>,
    pub(super) rest: Rest,
}

/// Endpoints of clusters by identity. Most clusters have the same ones whoever calls them: each set
/// is in it once.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndpointTable {
    sets: Vec<Vec<Endpoint>>,
    /// By identity and cluster, an index of `sets`.
    of: BTreeMap<String, BTreeMap<String, usize>>,
}

impl EndpointTable {
    /// Of what is known by identity, cluster by cluster.
    pub(super) fn of<'a, C>(known: impl Iterator<Item = (&'a String, C)>) -> EndpointTable
    where
        C: Iterator<Item = (&'a String, &'a Vec<Endpoint>)>,
    {
        let mut table = EndpointTable::default();
        let mut places = HashMap::new();
        for (identity, clusters) in known {
            let clusters = clusters.map(|(cluster, endpoints)| {
                let place = *places.entry(endpoints).or_insert_with(|| {
                    table.sets.push(endpoints.clone());
                    table.sets.len() - 1
                });
                (cluster.clone(), place)
            });
            let clusters = clusters.collect();
            table.of.insert(identity.clone(), clusters);
        }
        table
    }

    fn into_sets(self) -> BTreeMap<String, EndpointSets> {
        let EndpointTable { sets, of } = self;
        let set = |(cluster, place): (String, usize)| Some((cluster, sets.get(place)?.clone()));
        of.into_iter()
            .map(|(identity, clusters)| (identity, clusters.into_iter().filter_map(set).collect()))
            .collect()
    }
}

impl Kept {
    /// What the record holds; of what it does not hold, nothing.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub(super) fn read(record: &Record) -> Result<Kept, RecordFault> {
        let mut known = KnownClasses::new();
        for name in record.names(CLASSES) {
            let read: Option<BTreeMap<String, PolicyHash>> = record.read(name)?;
            let classes = Classes::from(read.unwrap_or_default());
            known.insert(classes.hash(), classes);
        }
        let mut conductor: Stored = record.read(CONDUCTOR)?.unwrap_or_default();
        conductor.find(&known).map_err(|hash| RecordFault::Damaged {
            key: CONDUCTOR.to_owned(),
            text: format!("the classes {} of a release are missing", hash.short()),
        })?;
        let endpoints: EndpointTable = record.read(ENDPOINTS)?.unwrap_or_default();
        Ok(Kept {
            conductor,
            accepted: record.read(ACCEPTED)?.unwrap_or_default(),
            census: record.read(CENSUS)?.flatten(),
            endpoints: endpoints.into_sets(),
            resolved: record.read(RESOLVED)?.unwrap_or_default(),
            rest: record.read(REST)?.unwrap_or_default(),
        })
    }
}

impl KeptRef<'_> {
    /// Writes what has changed.
    ///
    /// # Errors
    /// [`RecordFault`]; then the record holds what it did.
    pub(super) fn write(&self, record: &mut Record) -> Result<(), RecordFault> {
        let mut change = record.change();
        for classes in self.conductor.classes() {
            change.put_once(&format!("{CLASSES}{}", classes.hash()), &**classes)?;
        }
        change.put(CONDUCTOR, self.conductor)?;
        change.put(ACCEPTED, self.accepted)?;
        change.put(CENSUS, self.census)?;
        change.put(ENDPOINTS, &self.endpoints)?;
        // In order, so that the same is the same.
        change.put(RESOLVED, &self.resolved.iter().collect::<BTreeMap<_, _>>())?;
        change.put(REST, &self.rest)?;
        change.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_many_call_are_written_once() {
        let set = |last: u8| vec![Endpoint { address: format!("10.0.0.{last}:80"), weight: 1 }];
        let sets = |last| EndpointSets::from([("a".to_owned(), set(last)), ("b".into(), set(2))]);
        let known = BTreeMap::from([("web".to_owned(), sets(1)), ("shop".to_owned(), sets(3))]);
        let table = EndpointTable::of(known.iter().map(|(identity, sets)| (identity, sets.iter())));
        assert_eq!(table.sets.len(), 3);
        let text = serde_json::to_string(&table).expect("text");
        let read: EndpointTable = serde_json::from_str(&text).expect("a table");
        assert_eq!(read.into_sets(), known);
    }
}
