//! What is done with a request: the action of a route, and edits of header fields.
//!
//! # Invariants
//! - Nothing is left to a default of Envoy's that we do not share: no timeout is `0s`, not 15 s.

use std::time::Duration;

use ringway_router::config::{
    BackendConfig, HeaderEditsConfig, PathConfig, RedirectConfig, ReplaceConfig, RespondConfig,
    RewriteConfig, RuleConfig,
};
use serde_json::{Map, Value, json};

use super::{Fields, Refusals, duration, pattern};

/// How requests came in, which redirects go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    /// Port of the listener.
    pub(super) port: u16,
    /// Whether over TLS.
    pub(super) is_secure: bool,
}

/// Refuses what of a rule has no equal.
pub(super) fn refuse(at: &str, rule: &RuleConfig, refusals: &mut Refusals) {
    let RuleConfig {
        line: _,
        matches: _,
        backends: _,
        rewrite: _,
        redirect: _,
        respond,
        request_headers: _,
        response_headers,
        timeout: _,
        idle_timeout: _,
        max_request_body,
    } = rule;
    let at_field = format!("{at}.max_request_body");
    let hint = "Envoy limits a body by buffering it";
    refusals.refuse_if(max_request_body.is_some(), &at_field, "max_request_body", hint);
    let has_body = respond.as_ref().is_some_and(|respond| !respond.body.is_empty());
    let removed = response_headers.as_ref().map_or(&[][..], |edits| &edits.remove);
    let is_type = |name: &String| name.eq_ignore_ascii_case("content-type");
    if let Some(nth) = removed.iter().position(is_type).filter(|_| has_body) {
        let at = format!("{at}.response_headers.remove[{nth}]");
        refusals.refuse(&at, "an answer without content-type", "");
    }
}

/// A route without its name and match.
pub(super) fn action(rule: &RuleConfig, hop: Hop) -> Value {
    let mut route = Map::new();
    let mut response = Fields::default();
    if let Some(config) = &rule.redirect {
        route.insert("redirect".to_owned(), redirect(rule, config, hop));
    } else if let Some(config) = &rule.respond {
        route.insert("direct_response".to_owned(), direct(config));
        respond_fields(config, rule.response_headers.as_deref(), &mut response);
    } else if rule.backends.iter().all(|backend| backend.weight == 0) {
        // Envoy wants a weight that is not 0.
        route.insert("direct_response".to_owned(), json!({"status": 500}));
    } else {
        route.insert("route".to_owned(), forward(rule));
    }
    let mut request = Fields::default();
    edits(&mut route, "request", rule.request_headers.as_deref(), &mut request);
    edits(&mut route, "response", rule.response_headers.as_deref(), &mut response);
    route.into()
}

fn edits(
    route: &mut Map<String, Value>,
    of: &str,
    config: Option<&HeaderEditsConfig>,
    fields: &mut Fields,
) {
    if let Some(HeaderEditsConfig { remove, set, add }) = config {
        fields.set_all(set);
        fields.add_all(add);
        if !remove.is_empty() {
            route.insert(format!("{of}_headers_to_remove"), json!(remove));
        }
    }
    if !fields.0.is_empty() {
        let fields = std::mem::take(&mut fields.0);
        route.insert(format!("{of}_headers_to_add"), fields.into());
    }
}

fn forward(rule: &RuleConfig) -> Value {
    let mut action = json!({
        // Envoy starts the clock when it has the whole request.
        "timeout": duration(rule.timeout.unwrap_or(Duration::ZERO)),
        "idle_timeout": duration(rule.idle_timeout),
        // What no endpoint has processed is sent once more.
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 1,
        },
    });
    match &rule.backends[..] {
        [only] => action["cluster"] = only.cluster.as_str().into(),
        several => action["weighted_clusters"] = json!({"clusters": weighted(several)}),
    }
    if let Some(RewriteConfig { host, path }) = rule.rewrite.as_deref() {
        if let Some(host) = host {
            action["host_rewrite_literal"] = host.as_str().into();
        }
        if let Some(rewrite) = path.as_ref().and_then(|path| new_path(rule, path)) {
            action["regex_rewrite"] = rewrite;
        }
    }
    action
}

fn weighted(backends: &[BackendConfig]) -> Vec<Value> {
    let chosen = backends.iter().filter(|backend| backend.weight > 0);
    chosen.map(|backend| json!({"name": backend.cluster, "weight": backend.weight})).collect()
}

/// A new path as a replacement by regular expression; `None` if nothing changes.
///
/// Envoy's own `prefix_rewrite` replaces bytes: `/foo` to `/` makes `/foo/x` into `//x`, and `/` to
/// `/bar` makes `/x` into `/barx`.
fn new_path(rule: &RuleConfig, config: &ReplaceConfig) -> Option<Value> {
    let (regex, substitution) = match config {
        ReplaceConfig::Full(path) => ("^/.*$".to_owned(), path.clone()),
        ReplaceConfig::Prefix(path) => {
            let path = path.strip_suffix('/').unwrap_or(path);
            let matched = pattern::path(matched_prefix(rule));
            match (matched.is_empty(), path.is_empty()) {
                (true, true) => return None,
                (true, false) => ("^(/.*)$".to_owned(), format!("{path}\\1")),
                (false, true) => (format!("^{matched}/?(.*)$"), "/\\1".to_owned()),
                (false, false) => (format!("^{matched}(/.*)?$"), format!("{path}\\1")),
            }
        }
    };
    Some(json!({"pattern": {"regex": regex}, "substitution": substitution}))
}

/// The prefix that the matches of a rule share, without a slash at its end.
fn matched_prefix(rule: &RuleConfig) -> &str {
    match rule.matches.first().and_then(|config| config.path.as_ref()) {
        Some(PathConfig::Prefix(prefix)) => prefix.strip_suffix('/').unwrap_or(prefix),
        Some(PathConfig::Exact(_) | PathConfig::Regex(_)) | None => "",
    }
}

fn redirect(rule: &RuleConfig, config: &RedirectConfig, hop: Hop) -> Value {
    let RedirectConfig { scheme, host, port, path, status } = config;
    let own = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let spoken = if hop.is_secure { "https" } else { "http" };
    let wanted = scheme.as_deref().unwrap_or(spoken);
    let inherited = if scheme.is_some() { own(wanted) } else { hop.port };
    let port = port.unwrap_or(inherited);
    let mut action = json!({"response_code": match status {
        301 => "MOVED_PERMANENTLY",
        303 => "SEE_OTHER",
        307 => "TEMPORARY_REDIRECT",
        308 => "PERMANENT_REDIRECT",
        _ => "FOUND",
    }});
    action["scheme_redirect"] = wanted.into();
    if let Some(host) = host {
        action["host_redirect"] = host.as_str().into();
    }
    // Without a port Envoy would keep the one in `Host`.
    if host.is_none() || port != own(wanted) {
        action["port_redirect"] = port.into();
    }
    match path {
        Some(ReplaceConfig::Full(path)) => action["path_redirect"] = path.as_str().into(),
        Some(path @ ReplaceConfig::Prefix(_)) => {
            if let Some(rewrite) = new_path(rule, path) {
                action["regex_rewrite"] = rewrite;
            }
        }
        None => {}
    }
    action
}

fn direct(config: &RespondConfig) -> Value {
    let mut action = json!({"status": config.status});
    if !config.body.is_empty() {
        action["body"] = json!({"inline_string": config.body});
    }
    action
}

/// The fields of a direct answer that its rule's edits leave.
fn respond_fields(config: &RespondConfig, edits: Option<&HeaderEditsConfig>, fields: &mut Fields) {
    let RespondConfig { status: _, body, content_type, headers } = config;
    let is_left = |name: &str| {
        let is = |other: &String| other.eq_ignore_ascii_case(name);
        !edits.is_some_and(|edits| edits.remove.iter().any(is) || edits.set.keys().any(is))
    };
    let content_type = content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
    if !body.is_empty() && is_left("content-type") {
        fields.set("content-type", &super::plain(content_type));
    }
    for (name, value) in headers.iter().filter(|(name, _)| is_left(name)) {
        fields.set(name, &super::plain(value));
    }
}
