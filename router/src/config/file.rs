//! A configuration as the text of a file that reads as the same configuration.
//!
//! JSON on one line, keys sorted, whole numbers only, what equals its default left out: two equal
//! configurations have equal texts.
//!
//! # Invariants
//! - `load(to_file(config)).config == config` but for the lines of rules.

use serde_json::{Map, Value};

use super::{ClusterConfig, Config, DrainConfig, PoolConfig, http2::Http2Config};

/// The settings that the canonical form has in milliseconds and a file has with a unit.
const DURATIONS: &[&str] = &[
    "connect_timeout",
    "delay",
    "handshake_timeout",
    "head_timeout",
    "idle_timeout",
    "max_connection_age",
    "ping_interval",
    "ping_timeout",
    "timeout",
];

/// Writes `config` as a file.
#[must_use]
pub fn to_file(config: &Config) -> Value {
    let mut file = plain(config);
    prune(&mut file, &[("drain", plain(&DrainConfig::default()))]);
    let mut cluster = plain(&ClusterConfig::default());
    for required in ["name", "endpoints"] {
        cluster.as_object_mut().map(|fields| fields.remove(required));
    }
    let http2 = plain(&Http2Config::DEFAULT);
    each(&mut file, "clusters", |inner| {
        prune(inner, &[("pool", plain(&PoolConfig::default())), ("http2", http2.clone())]);
        without(inner, &cluster);
    });
    each(&mut file, "listeners", |inner| prune(inner, &[("http2", http2.clone())]));
    each(&mut file, "routes", |route| {
        each(route, "rules", |rule| {
            prune(rule, &[("redirect", serde_json::json!({"status": 302}))]);
            prune(rule, &[("respond", serde_json::json!({"status": 200}))]);
        });
    });
    for list in ["clusters", "listeners", "routes"] {
        if file[list].as_array().is_some_and(Vec::is_empty) {
            file.as_object_mut().map(|fields| fields.remove(list));
        }
    }
    with_units(&mut file);
    file
}

/// The canonical form as a tree; plain structs always have one.
fn plain<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn each(object: &mut Value, list: &str, mut change: impl FnMut(&mut Value)) {
    if let Some(elements) = object.get_mut(list).and_then(Value::as_array_mut) {
        elements.iter_mut().for_each(&mut change);
    }
}

/// Takes the defaults out of the objects that are fields of `object`.
fn prune(object: &mut Value, fields: &[(&str, Value)]) {
    for (name, default) in fields {
        if let Some(inner) = object.get_mut(name) {
            without(inner, default);
        }
    }
}

/// Takes the fields out of `object` that are as in `default`.
fn without(object: &mut Value, default: &Value) {
    if let (Some(fields), Some(default)) = (object.as_object_mut(), default.as_object()) {
        fields.retain(|name, value| default.get(name) != Some(value) && !value.is_null());
    }
}

/// Gives durations their unit. Texts of the file are never numbers here, so that a header called
/// `timeout` is left alone.
fn with_units(value: &mut Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(with_units),
        Value::Object(fields) => object_with_units(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn object_with_units(fields: &mut Map<String, Value>) {
    for (name, value) in fields {
        match value.as_u64() {
            Some(ms) if DURATIONS.contains(&name.as_str()) => *value = duration(ms).into(),
            _ => with_units(value),
        }
    }
}

/// `2s` or `1500ms`.
fn duration(ms: u64) -> String {
    if ms > 0 && ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, load};

    fn unnumbered(mut config: Config) -> Config {
        let rules = config.routes.iter_mut().flat_map(|route| &mut route.rules);
        rules.for_each(|rule| rule.line = 0);
        config
    }

    #[test]
    fn every_field_of_the_reference_file_survives() {
        let text = include_str!("../../../deploy/examples/reference.yaml");
        let config = load(text, Format::Yaml).expect("the reference is valid").config;
        let written = to_file(&config).to_string();
        let again = load(&written, Format::Json).expect("what is written is valid").config;
        assert_eq!(unnumbered(again), unnumbered(config));
    }

    #[test]
    fn defaults_are_left_out_and_a_header_called_timeout_stays() {
        let text = "listeners: [{name: a, address: '127.0.0.1:1', protocol: http1}]\n\
                    clusters: [{name: c, endpoints: [], connect_timeout: 1000ms}]\n\
                    routes: [{name: r, rules: [{timeout: 1500ms, idle_timeout: 5m, respond: \
                    {status: 200, headers: {timeout: '5'}}}]}]\ndrain: {delay: 2s}\n";
        let config = load(text, Format::Yaml).expect("it is valid").config;
        let expected = "{\"clusters\":[{\"endpoints\":[],\"name\":\"c\"}],\
                        \"drain\":{\"delay\":\"2s\"},\
                        \"listeners\":[{\"address\":\"127.0.0.1:1\",\"name\":\"a\"}],\
                        \"routes\":[{\"name\":\"r\",\"rules\":[{\"respond\":{\"headers\":\
                        {\"timeout\":\"5\"}},\"timeout\":\"1500ms\"}]}]}";
        assert_eq!(to_file(&config).to_string(), expected);
    }
}
