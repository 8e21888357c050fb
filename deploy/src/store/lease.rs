//! Leases for stores that have none of their own: a record that is changed by version.
//!
//! # Invariants
//! - The record is never removed, so that the fencing number only grows.

use std::time::Duration;

use ringway_tls::UnixTime;
use serde::{Deserialize, Serialize};

use super::limits::{LEASE_NAME_BYTES_MAX, LEASE_TTL_S};
use super::{Store, StoreFault};

/// A right that one holder has for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Fencing number: greater than that of every holder before.
    pub fence: u64,
    /// In seconds since 1970; past it another may hold the lease.
    pub until_s: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Empty if it was given back.
    holder: String,
    fence: u64,
    until_s: u64,
}

fn key(name: &str) -> String {
    format!("lease/{name}")
}

pub(super) fn take<S: Store + ?Sized>(
    store: &S,
    name: &str,
    holder: &str,
    ttl: Duration,
    now: UnixTime,
) -> Result<Lease, StoreFault> {
    if holder.is_empty() || name.len().max(holder.len()) > LEASE_NAME_BYTES_MAX {
        return Err(StoreFault::Key("a lease and its holder have names of 1 to 128 bytes"));
    }
    let ttl_s = ttl.as_secs().clamp(*LEASE_TTL_S.start(), *LEASE_TTL_S.end());
    let now_s = now.as_secs();
    let read = read(store, name)?;
    let version = read.as_ref().map(|(version, _)| *version);
    let before = read.map(|(_, record)| record);
    let fence = match &before {
        Some(record) if now_s < record.until_s && record.holder == holder => record.fence,
        Some(record) if now_s < record.until_s && !record.holder.is_empty() => {
            let (holder, until_s) = (record.holder.clone(), record.until_s);
            return Err(StoreFault::Held { holder, until_s });
        }
        Some(record) => record.fence + 1,
        None => 1,
    };
    let record = Record { holder: holder.to_owned(), fence, until_s: now_s + ttl_s };
    match write(store, name, version, &record) {
        // Whoever was quicker has it now.
        Err(StoreFault::Conflict { .. }) => match self::read(store, name)? {
            Some((_, Record { holder, until_s, .. })) => Err(StoreFault::Held { holder, until_s }),
            None => Err(StoreFault::Conflict { current: None }),
        },
        Err(fault) => Err(fault),
        Ok(()) => Ok(Lease { fence, until_s: record.until_s }),
    }
}

pub(super) fn release<S: Store + ?Sized>(
    store: &S,
    name: &str,
    holder: &str,
) -> Result<(), StoreFault> {
    match read(store, name)? {
        Some((version, record)) if record.holder == holder => {
            let record = Record { holder: String::new(), until_s: 0, ..record };
            match write(store, name, Some(version), &record) {
                // It has lapsed and another has taken it.
                Err(StoreFault::Conflict { .. }) => Ok(()),
                done => done,
            }
        }
        Some(_) | None => Ok(()),
    }
}

fn read<S: Store + ?Sized>(store: &S, name: &str) -> Result<Option<(u64, Record)>, StoreFault> {
    let Some(entry) = store.get(&key(name))? else { return Ok(None) };
    let record = serde_json::from_slice(&entry.value)
        .map_err(|error| StoreFault::Io { doing: "read a lease", text: error.to_string() })?;
    Ok(Some((entry.version, record)))
}

fn write<S: Store + ?Sized>(
    store: &S,
    name: &str,
    version: Option<u64>,
    record: &Record,
) -> Result<(), StoreFault> {
    let value = serde_json::to_vec(record)
        .map_err(|error| StoreFault::Io { doing: "write a lease", text: error.to_string() })?;
    store.put_if_version(&key(name), version, &value).map(|_| ())
}
