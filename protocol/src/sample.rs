//! Keys of requests that a sidecar has seen: what a pusher asks a new policy about.
//!
//! # Invariants
//! - A key holds what decides a route and nothing beyond: no query, no value of a header, no body.
//! - A message that [`Samples::fit`] has passed is taken: it has as many keys and bytes as allowed.

use serde::{Deserialize, Serialize};

use crate::limits::{BODY_BYTES_MAX, SAMPLE_HEADERS_MAX, SAMPLE_KEY_BYTES_MAX, SAMPLE_KEYS_MAX};
use crate::name::Name;

/// Bytes of a message that are not its keys.
const AROUND: usize = 4096;

/// What of a request decides its route, without values that are nobody's business.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SampleKey {
    /// Name of the listener that it came in by.
    pub listener: String,
    /// Method.
    pub method: String,
    /// Host, as it was sent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Normalised path without the query.
    pub path: String,
    /// Names of its header fields in lower case, sorted, each once. At most
    /// [`SAMPLE_HEADERS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header_names: Vec<String>,
    /// Who the client has proved to be, `spiffe://...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl SampleKey {
    /// Bytes of all its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let names = self.header_names.iter().map(String::len).sum::<usize>();
        let identity = self.identity.as_ref().map_or(0, String::len);
        let texts = [&self.listener, &self.method, &self.host, &self.path];
        texts.iter().map(|text| text.len()).sum::<usize>() + names + identity
    }
}

/// A key, and how many of the sampled requests had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// The key.
    #[serde(flatten)]
    pub key: SampleKey,
    /// Requests; at least 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(count: &u32) -> bool {
    *count == 1
}

/// `POST /v1/samples`: the answer to a SAMPLE frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// The node's name, as in [`Hello`](crate::Hello).
    pub node: Name,
    /// The stream that asked, as its PING says.
    pub stream: u64,
    /// Whether the sidecar keeps samples (`control.samples`); without it there are none.
    pub enabled: bool,
    /// Requests since the sidecar started that could have been sampled.
    #[serde(default)]
    pub seen: u64,
    /// Sampled requests that are not among the keys: too long, or too many.
    #[serde(default)]
    pub left_out: u64,
    /// The keys. At most [`SAMPLE_KEYS_MAX`] of [`SAMPLE_KEY_BYTES_MAX`] bytes each.
    #[serde(default)]
    pub keys: Vec<Sampled>,
}

/// What is too much about samples.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more than {max} {what}")]
pub struct TooMuch {
    /// Of what.
    pub what: &'static str,
    /// The limit.
    pub max: usize,
}

impl Samples {
    /// Leaves out the keys that would be too many for one message.
    pub fn fit(&mut self) {
        let mut left = BODY_BYTES_MAX - AROUND;
        let mut nth = 0;
        let mut left_out = 0;
        self.keys.retain(|sampled| {
            nth += 1;
            let bytes = serde_json::to_vec(sampled).map_or(usize::MAX, |text| text.len() + 1);
            let fits = nth <= SAMPLE_KEYS_MAX && bytes <= left && check(&sampled.key).is_ok();
            match fits {
                true => left -= bytes,
                false => left_out += u64::from(sampled.count),
            }
            fits
        });
        self.left_out += left_out;
    }

    /// Whether it is within the limits.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn check(&self) -> Result<(), TooMuch> {
        let (what, max) = ("keys", SAMPLE_KEYS_MAX);
        if self.keys.len() > max {
            return Err(TooMuch { what, max });
        }
        self.keys.iter().try_for_each(|sampled| check(&sampled.key))
    }
}

fn check(key: &SampleKey) -> Result<(), TooMuch> {
    for (count, what, max) in [
        (key.header_names.len(), "header names of a key", SAMPLE_HEADERS_MAX),
        (key.bytes(), "bytes of a key", SAMPLE_KEY_BYTES_MAX),
    ] {
        if count > max {
            return Err(TooMuch { what, max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(path: String) -> Sampled {
        let key = SampleKey {
            listener: "outbound".into(),
            method: "GET".into(),
            host: "shop".into(),
            path,
            header_names: vec!["host".into()],
            identity: None,
        };
        Sampled { key, count: 2 }
    }

    fn samples(keys: Vec<Sampled>) -> Samples {
        let node = "a".parse().unwrap();
        Samples { node, stream: 1, enabled: true, seen: 9, left_out: 0, keys }
    }

    #[test]
    fn samples_that_were_made_to_fit_are_taken() {
        // Each byte of the path takes two in JSON.
        let most = "\"".repeat(SAMPLE_KEY_BYTES_MAX - "outboundGETshophost".len());
        let too_long = sampled(format!("{most}x"));
        let mut keys = vec![too_long];
        keys.extend((0..=SAMPLE_KEYS_MAX).map(|_| sampled(most.clone())));
        let mut samples = samples(keys);
        assert!(samples.check().is_err());
        let before = samples.keys.len();
        samples.fit();
        assert_eq!(samples.check(), Ok(()));
        assert!(samples.keys.len() > 500);
        assert_eq!(samples.left_out, 2 * (before - samples.keys.len()) as u64);
        let text = serde_json::to_string(&samples).unwrap();
        assert!(text.len() <= BODY_BYTES_MAX, "{}", text.len());
        assert_eq!(serde_json::from_str::<Samples>(&text).unwrap(), samples);
    }

    #[test]
    fn one_key_more_than_allowed_is_refused() {
        let keys = |count: usize| samples((0..count).map(|_| sampled("/".into())).collect());
        assert_eq!(keys(SAMPLE_KEYS_MAX).check(), Ok(()));
        let refused = keys(SAMPLE_KEYS_MAX + 1).check().unwrap_err();
        assert_eq!(refused.to_string(), "more than 1000 keys");
        let mut named = keys(1);
        named.keys[0].key.header_names = vec!["x".into(); SAMPLE_HEADERS_MAX + 1];
        assert_eq!(named.check().unwrap_err().what, "header names of a key");
    }
}
