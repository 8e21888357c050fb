//! What the tables of a policy take in a sidecar at worst.
//!
//! ```text
//! 2 x table            the running one and its successor
//! + addresses          what endpoints may resolve to
//! + regexes            each compiled, and a cache for each worker
//! ```

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ringway_router::Table;
use ringway_router::config::{Config, PathConfig, ValueConfig};
use ringway_router::limits::{ADDRESSES_MAX, REGEX_CACHE_BYTES_MAX, REGEX_COMPILED_BYTES_MAX};

use crate::limits::WORKERS_COUNTED;

/// Bytes of an address of an endpoint in the tables of the workers.
const ADDRESS_BYTES: usize = 64;

/// Worst-case memory of a table and what belongs to it, in bytes.
pub(super) fn worst_case(table: &Table, config: &Config) -> usize {
    let regexes = regexes(config).len()
        * (REGEX_COMPILED_BYTES_MAX + WORKERS_COUNTED * REGEX_CACHE_BYTES_MAX);
    let endpoints = config.clusters.iter().flat_map(|cluster| &cluster.endpoints);
    // A name may become as many addresses as a sidecar takes of one.
    let addresses = |address: &str| match address.parse::<SocketAddr>() {
        Ok(_) => 1,
        Err(_) => ADDRESSES_MAX,
    };
    let addresses: usize = endpoints.map(|endpoint| addresses(&endpoint.address)).sum();
    2 * table.bytes() + addresses * ADDRESS_BYTES + regexes
}

/// The distinct regular expressions of a configuration.
fn regexes(config: &Config) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let rules = config.routes.iter().flat_map(|route| &route.rules);
    for config in rules.flat_map(|rule| &rule.matches) {
        if let Some(PathConfig::Regex(pattern)) = &config.path {
            found.insert(pattern.as_str());
        }
        for condition in config.headers.iter().chain(&config.query) {
            if let ValueConfig::Regex(pattern) = &condition.value {
                found.insert(pattern.as_str());
            }
        }
    }
    found
}
