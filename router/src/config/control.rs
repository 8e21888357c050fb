//! The pusher that a sidecar takes its configuration from.
//!
//! # Not here
//! What is said between the two: `ringway-protocol`.

use serde::Serialize;

use super::canonical::is_default;
use super::check::{At, Checker, endpoint_address};
use super::decode::{Reader, set};
use super::names;
use super::schema;
use crate::limits::{LABELS_MAX, NODE_BYTES_MAX};
use crate::source::Node;

/// Where the pusher is and how to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ControlConfig {
    /// `ip:port` or `name:port` of the pusher. Required.
    pub address: String,
    /// SHA-256 of a root certificate of the mesh, 64 hexadecimal digits, perhaps with `sha256:` in
    /// front; `ringway-push ca show` prints it. Required: the pusher must prove to be of that mesh
    /// before it gets the token.
    pub bundle_hash: String,
    /// File of the token to join with. Read only while there is no valid certificate. Default:
    /// none; then a certificate must be in `state_dir` already.
    #[serde(skip_serializing_if = "is_default")]
    pub token_file: Option<String>,
    /// Folder of what outlives the process: key and certificate, the last policies, endpoints.
    /// Required. It is made if it is missing, for the owner alone; some MiB at most.
    pub state_dir: String,
    /// Name of this node, for people; with the identity it names the sidecar, so it must differ
    /// between sidecars of one identity. Default: the name of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub node: Option<String>,
    /// Words by which a rollout chooses, such as `canary`. Default none.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: Vec<String>,
    /// Whether keys of requests are kept (listener, method, host, path, names of headers, identity
    /// of the client), for `ringway-push replay`; read at the start. Default false. True takes
    /// 4 MiB at most, and lets operators of the pusher see those keys.
    #[serde(skip_serializing_if = "is_default")]
    pub samples: bool,
}

impl ControlConfig {
    /// The hash of the root in lower case, without `sha256:`.
    #[must_use]
    pub fn root_sha256(&self) -> String {
        let text = self.bundle_hash.strip_prefix("sha256:").unwrap_or(&self.bundle_hash);
        text.to_ascii_lowercase()
    }
}

pub(super) fn decode<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> ControlConfig {
    let mut control = ControlConfig::default();
    r.object(node, &schema::CONTROL, |r, name, node| match name {
        "address" => set(&mut control.address, r.text(node)),
        "bundle_hash" => set(&mut control.bundle_hash, r.text(node)),
        "token_file" => control.token_file = r.text(node),
        "state_dir" => set(&mut control.state_dir, r.text(node)),
        "node" => control.node = r.text(node),
        "samples" => set(&mut control.samples, r.truth(node)),
        _ => control.labels = r.list(node, LABELS_MAX, Reader::text),
    });
    control
}

/// Checks the top-level control, and that nothing else says what the pusher says.
pub(super) fn check(c: &mut Checker<'_, '_>) {
    let Some(control) = &c.config.control else { return };
    let at = At::root("control");
    c.check(&at.field("address"), endpoint_address(&control.address));
    let hash = control.root_sha256();
    if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = "the SHA-256 of a root certificate is required, 64 hexadecimal digits";
        let hint = "`ringway-push ca show` prints it";
        c.refuse_with(&at.field("bundle_hash"), message.to_owned(), hint.to_owned());
    }
    c.check(&at.field("state_dir"), names::file_name(&control.state_dir));
    if let Some(file) = &control.token_file {
        c.check(&at.field("token_file"), names::file_name(file));
    }
    if let Some(node) = &control.node {
        c.check(&at.field("node"), plain(node));
    }
    c.at_most(&at.field("labels"), control.labels.len(), LABELS_MAX);
    for (nth, label) in control.labels.iter().enumerate() {
        c.check(&at.element("labels", nth), plain(label));
    }
    let config = c.config;
    for (name, absent) in [
        ("identity", config.identity.is_none()),
        ("listeners", config.listeners.is_empty()),
        ("routes", config.routes.is_empty()),
        ("clusters", config.clusters.is_empty()),
    ] {
        if !absent {
            let message = format!("with `control`, `{name}` comes from the pusher");
            let hint = format!("leave out `{name}`, or `control` to run without a pusher");
            c.refuse_with(&At::root(name), message, hint);
        }
    }
}

/// A word that needs no quoting in a URL.
fn plain(text: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-=/".contains(&byte);
    if (1..=NODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(());
    }
    Err(format!("1 to {NODE_BYTES_MAX} letters, digits, `.`, `_`, `-`, `=` and `/` are allowed"))
}

#[cfg(test)]
mod tests {
    use crate::{Format, load};

    fn said(control: &str, rest: &str) -> Vec<String> {
        let text = format!("control: {{{control}}}\n{rest}");
        let problems = load(&text, Format::Yaml).err().map(|problems| problems.0);
        let problems = problems.unwrap_or_default();
        problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    const HASH: &str =
        "bundle_hash: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_file_with_a_pusher_needs_nothing_else() {
        let control = format!("address: \"push:7443\", state_dir: state, {HASH}");
        assert_eq!(said(&control, ""), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_or_malformed_is_said_by_name() {
        let found = said("bundle_hash: 12, node: \"a b\", labels: [ä]", "");
        let paths: Vec<&str> = found.iter().filter_map(|text| text.split(':').next()).collect();
        let expected =
            ["control.address", "control.bundle_hash", "control.state_dir", "control.node"];
        for path in expected.iter().chain(&["control.labels[0]"]) {
            assert!(paths.contains(path), "{path}: {found:?}");
        }
    }

    #[test]
    fn what_the_pusher_says_is_not_said_by_the_file_too() {
        let control = format!("address: \"push:7443\", state_dir: state, {HASH}");
        let rest = "listeners: [{name: a, address: \"127.0.0.1:80\"}]\nclusters: [{name: c}]\n";
        let found = said(&control, rest);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`listeners` comes from the pusher"), "{found:?}");
    }

    #[test]
    fn a_hash_is_read_in_any_case_with_or_without_its_kind() {
        let control = super::ControlConfig {
            bundle_hash: format!("sha256:{}", "AB".repeat(32)),
            ..Default::default()
        };
        assert_eq!(control.root_sha256(), "ab".repeat(32));
    }
}
