//! Messages of a sidecar and the answers to them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::endpoints::EndpointsHash;
use crate::hash::PolicyHash;
use crate::limits::{NAMES_MAX, REASON_BYTES_MAX};
use crate::name::Name;

/// `POST /v1/join`: a sidecar without a certificate asks for one. Only the pusher proves who it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The token, as the pusher's operator was given it.
    pub token: String,
    /// Certificate request, PEM; only its key counts.
    pub csr: String,
    /// The identity that is asked for, `spiffe://...`. Default: the one that the token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The node's name, for people.
    pub node: Name,
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Join { identity, node, .. } = self;
        f.debug_struct("Join").field("identity", identity).field("node", node).finish()
    }
}

/// `POST /v1/renew`: the same identity for a new key. The certificate in use proves who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// Certificate request, PEM; only its key counts.
    pub csr: String,
}

/// The answer to [`Join`] and [`Renew`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Certificate chain, PEM, leaf first.
    pub chain: String,
    /// The identity in it.
    pub identity: String,
    /// Root certificates of the mesh, PEM.
    pub roots: String,
    /// Revocation lists, PEM; empty if there is none.
    #[serde(default)]
    pub revocations: String,
    /// Epoch of `roots` and `revocations`.
    pub epoch: u64,
    /// When to renew, seconds since 1970; chosen by the pusher so that renewals spread.
    pub renew_at_s: u64,
}

/// The body of every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// One of a closed set of words, for programs: `token_unknown`, `not_a_workload`, ...
    pub code: String,
    /// What is wrong and what helps, for people.
    pub message: String,
}

/// What a sidecar says of itself when it opens a stream; the query of `GET /v1/stream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The node's name; with the identity of its certificate it names the sidecar.
    pub node: Name,
    /// Version of the sidecar.
    pub version: Name,
    /// What it can do. At most [`NAMES_MAX`].
    pub capabilities: Vec<Name>,
    /// As its file has them, such as `canary`. At most [`NAMES_MAX`].
    pub labels: Vec<Name>,
    /// What it runs; absent before the first.
    pub running: Option<Running>,
    /// That is not confirmed yet.
    pub on_probation: bool,
    /// The endpoints that it has; absent before the first.
    pub endpoints: Option<EndpointsHash>,
    /// Epoch of the bundle that it has; 0 before the first.
    pub epoch: u64,
}

/// A policy in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its generation.
    pub generation: u64,
    /// Its hash.
    pub hash: PolicyHash,
}

/// Why a query is not a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It must be given.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// It cannot be read.
    #[error("`{field}` is wrong: {reason}")]
    Wrong {
        /// Which.
        field: &'static str,
        /// Why.
        reason: String,
    },
}

impl Hello {
    /// As a query, without the question mark. No value needs quoting.
    #[must_use]
    pub fn to_query(&self) -> String {
        let joined = |names: &[Name]| {
            let names: Vec<&str> = names.iter().map(Name::as_str).collect();
            names.join(",")
        };
        let mut query = format!("node={}&version={}", self.node, self.version);
        for (field, names) in [("capabilities", &self.capabilities), ("labels", &self.labels)] {
            if !names.is_empty() {
                query += &format!("&{field}={}", joined(names));
            }
        }
        if let Some(Running { generation, hash }) = self.running {
            query += &format!("&generation={generation}&hash={hash}");
        }
        if self.on_probation {
            query += "&probation=1";
        }
        if let Some(endpoints) = self.endpoints {
            query += &format!("&endpoints={endpoints}");
        }
        if self.epoch > 0 {
            query += &format!("&bundle={}", self.epoch);
        }
        query
    }

    /// Reads a query. Fields that are not known are left alone.
    ///
    /// # Errors
    /// [`HelloError`].
    pub fn from_query(query: &str) -> Result<Hello, HelloError> {
        let value = |field: &'static str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(name, _)| *name == field).map(|(_, value)| value)
        };
        fn wrong(field: &'static str, reason: &impl fmt::Display) -> HelloError {
            HelloError::Wrong { field, reason: reason.to_string() }
        }
        let name = |field| {
            let text = value(field).ok_or(HelloError::Missing(field))?;
            text.parse::<Name>().map_err(|error| wrong(field, &error))
        };
        let names = |field| {
            let texts = value(field).filter(|text| !text.is_empty()).into_iter();
            let names: Result<Vec<Name>, _> =
                texts.flat_map(|text| text.split(',')).map(str::parse).collect();
            match names {
                Ok(names) if names.len() > NAMES_MAX => {
                    Err(wrong(field, &format!("more than {NAMES_MAX}")))
                }
                Ok(names) => Ok(names),
                Err(error) => Err(wrong(field, &error)),
            }
        };
        let number = |field| -> Result<Option<u64>, HelloError> {
            value(field).map(|text| text.parse().map_err(|error| wrong(field, &error))).transpose()
        };
        let hash = |field| -> Result<Option<PolicyHash>, HelloError> {
            value(field).map(|text| text.parse().map_err(|error| wrong(field, &error))).transpose()
        };
        let running = match (number("generation")?, hash("hash")?) {
            (Some(generation), Some(hash)) => Some(Running { generation, hash }),
            (None, None) => None,
            (None, _) => return Err(HelloError::Missing("generation")),
            (_, None) => return Err(HelloError::Missing("hash")),
        };
        let endpoints = value("endpoints")
            .map(|text| text.parse::<EndpointsHash>().map_err(|error| wrong("endpoints", &error)));
        Ok(Hello {
            node: name("node")?,
            version: name("version")?,
            capabilities: names("capabilities")?,
            labels: names("labels")?,
            running,
            on_probation: value("probation") == Some("1"),
            endpoints: endpoints.transpose()?,
            epoch: number("bundle")?.unwrap_or(0),
        })
    }
}

/// `POST /v1/report`: how a sidecar is. At once when a policy changes its state, else every 10 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The node's name, as in [`Hello`].
    pub node: Name,
    /// The stream that it is sent beside, as the last PING says.
    pub stream: u64,
    /// What has become of policies since the last report that was taken, in order; at most
    /// [`STATES_MAX`](crate::limits::STATES_MAX).
    #[serde(default)]
    pub states: Vec<StateReport>,
    /// What it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// That is not confirmed yet.
    #[serde(default)]
    pub on_probation: bool,
    /// The endpoints that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointsHash>,
    /// Its certificate.
    pub certificate: CertificateState,
    /// Epoch of the bundle that it has.
    #[serde(default)]
    pub epoch: u64,
    /// What it has forwarded since it started.
    #[serde(default)]
    pub traffic: Traffic,
}

/// What has become of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// Its generation.
    pub generation: u64,
    /// Its hash.
    pub hash: PolicyHash,
    /// What has become of it.
    pub state: State,
    /// Why, for `rejected` and `rolled_back`; at most [`REASON_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How long it took to get there, ms.
    #[serde(default)]
    pub took_ms: u64,
}

impl StateReport {
    /// `reason` as a report may carry it.
    #[must_use]
    pub fn cut(mut reason: String) -> String {
        if reason.len() > REASON_BYTES_MAX {
            let end = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at));
            reason.truncate(end.unwrap_or(0));
        }
        reason
    }
}

/// What becomes of a policy in a sidecar.
///
/// ```text
/// STAGE ─┬─▶ rejected
///        └─▶ staged ── COMMIT ─┬─▶ applied ── probation ─┬─▶ confirmed
///                              └─▶ rejected              └─▶ rolled_back
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Compiled, and kept ready.
    Staged,
    /// It cannot be applied; what ran before still does.
    Rejected,
    /// In use, on probation.
    Applied,
    /// In use, and what the sidecar starts with.
    Confirmed,
    /// Undone by the sidecar itself; what ran before does again.
    RolledBack,
}

impl State {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Staged => "staged",
            State::Rejected => "rejected",
            State::Applied => "applied",
            State::Confirmed => "confirmed",
            State::RolledBack => "rolled_back",
        }
    }
}

/// The certificate of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateState {
    /// When it ends, seconds since 1970.
    pub not_after_s: u64,
    /// SHA-256 of the root that it leads to, hexadecimal digits.
    pub root: String,
    /// Why the last renewal failed; empty if it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// What a sidecar has forwarded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Exchanges and tunnels that have ended.
    pub exchanges: u64,
    /// Those that the sidecar itself failed: no route, no endpoint, connect, TLS, identity.
    pub own_failures: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let names = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let endpoints = crate::EndpointsState::default().hash();
        Hello {
            node: "node-1".parse().unwrap(),
            version: "0.1.0".parse().unwrap(),
            capabilities: names(&["http2", "auto"]),
            labels: names(&["canary", "zone=a"]),
            running: Some(Running { generation: 4, hash: PolicyHash::of("x") }),
            on_probation: true,
            endpoints: Some(endpoints),
            epoch: 2,
        }
    }

    #[test]
    fn a_hello_is_read_as_it_is_written() {
        let full = hello();
        assert_eq!(Hello::from_query(&full.to_query()), Ok(full.clone()));
        let first = Hello {
            running: None,
            on_probation: false,
            endpoints: None,
            epoch: 0,
            labels: Vec::new(),
            ..full
        };
        assert_eq!(Hello::from_query(&first.to_query()), Ok(first));
    }

    #[test]
    fn what_is_wrong_with_a_hello_is_said_by_name() {
        let said = |query: &str| Hello::from_query(query).unwrap_err().to_string();
        assert_eq!(said(""), "`node` is missing");
        assert_eq!(said("node=a"), "`version` is missing");
        assert!(said("node=a%20b&version=1").starts_with("`node` is wrong"));
        assert_eq!(said("node=a&version=1&generation=3"), "`hash` is missing");
        assert!(said("node=a&version=1&generation=-3&hash=x").starts_with("`generation` is wrong"));
        let many = vec!["x"; NAMES_MAX + 1].join(",");
        let many = said(&format!("node=a&version=1&labels={many}"));
        assert_eq!(many, "`labels` is wrong: more than 32");
    }

    #[test]
    fn a_join_shows_its_token_to_nobody() {
        let join = Join {
            token: "secret".into(),
            csr: String::new(),
            identity: None,
            node: "a".parse().unwrap(),
        };
        assert!(!format!("{join:?}").contains("secret"));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let cut = StateReport::cut("ä".repeat(REASON_BYTES_MAX));
        assert_eq!(cut.len(), REASON_BYTES_MAX);
        assert_eq!(StateReport::cut("short".into()), "short");
    }
}
