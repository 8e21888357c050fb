//! Conditions of a match.
//!
//! # Invariants
//! - What Envoy changes before it routes cannot be matched there, and is refused.

use ringway_router::config::{ConditionConfig, MatchConfig, PathConfig, ValueConfig};
use serde_json::{Map, Value, json};

use super::{Refusals, pattern};

/// Header fields that Envoy writes or takes away before it looks for a route.
const CHANGED: [&str; 12] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];

/// The match of a route.
pub(super) fn route_match(at: &str, config: &MatchConfig, refusals: &mut Refusals) -> Value {
    let MatchConfig { path, method, headers, query, identity } = config;
    refusals.refuse_if(identity.is_some(), &format!("{at}.identity"), "identity", "");
    let mut matched = path_match(&format!("{at}.path"), path.as_ref(), refusals);
    let mut fields = Vec::new();
    if let Some(method) = method {
        fields.push(json!({"name": ":method", "string_match": {"exact": method}}));
    }
    for (nth, header) in headers.iter().enumerate() {
        let at = format!("{at}.headers[{nth}]");
        let name = header.name.to_ascii_lowercase();
        let is_changed = CHANGED.contains(&name.as_str()) || name.starts_with("x-envoy-");
        let what = format!("a condition on {name}");
        refusals.refuse_if(is_changed, &at, &what, "Envoy changes the field before it routes");
        fields.push(condition(&at, &name, header, refusals, |text| json!({"exact": text})));
    }
    if !fields.is_empty() {
        matched.insert("headers".to_owned(), fields.into());
    }
    let mut parameters = Vec::new();
    for (nth, query) in query.iter().enumerate() {
        let at = format!("{at}.query[{nth}]");
        let is_plain = query.name.bytes().all(pattern::is_unreserved);
        let hint = "Envoy compares names without decoding them";
        refusals.refuse_if(!is_plain, &format!("{at}.name"), &query.name, hint);
        parameters.push(condition(&at, &query.name, query, refusals, pattern::parameter));
    }
    if !parameters.is_empty() {
        matched.insert("query_parameters".to_owned(), parameters.into());
    }
    matched.into()
}

fn path_match(at: &str, path: Option<&PathConfig>, refusals: &mut Refusals) -> Map<String, Value> {
    let (kind, value): (&str, Value) = match path {
        None => ("prefix", "/".into()),
        Some(PathConfig::Prefix(path)) if path == "/" => ("prefix", "/".into()),
        Some(PathConfig::Exact(path)) if path.contains('%') => {
            ("safe_regex", json!({"regex": pattern::path(path)}))
        }
        Some(PathConfig::Exact(path)) => ("path", path.as_str().into()),
        Some(PathConfig::Prefix(path)) => {
            let path = path.strip_suffix('/').unwrap_or(path);
            if path.contains('%') {
                let regex = format!("{}(?:/.*)?", pattern::path(path));
                ("safe_regex", json!({"regex": regex}))
            } else {
                ("path_separated_prefix", path.into())
            }
        }
        Some(PathConfig::Regex(text)) => {
            pattern::refuse(&format!("{at}.regex"), text, refusals);
            ("safe_regex", json!({"regex": text}))
        }
    };
    Map::from_iter([(kind.to_owned(), value)])
}

/// A condition on the value called `name`, where `exact` is compared with what stands there.
fn condition(
    at: &str,
    name: &str,
    config: &ConditionConfig,
    refusals: &mut Refusals,
    exact: impl Fn(&str) -> Value,
) -> Value {
    match &config.value {
        ValueConfig::Exact(text) => json!({"name": name, "string_match": exact(text)}),
        ValueConfig::Regex(text) => {
            pattern::refuse(&format!("{at}.regex"), text, refusals);
            json!({"name": name, "string_match": {"safe_regex": {"regex": text}}})
        }
        ValueConfig::Present(_) => json!({"name": name, "present_match": true}),
    }
}
