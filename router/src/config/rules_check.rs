//! What is wrong with a rule.

use std::collections::BTreeMap;

use super::check::{At, Checker};
use super::names;
use super::{
    ConditionConfig, HeaderEditsConfig, MatchConfig, PathConfig, RedirectConfig, ReplaceConfig,
    RespondConfig, RewriteConfig, RuleConfig, ValueConfig,
};
use crate::host;
use crate::limits::{
    BACKENDS_MAX, CONDITIONS_MAX, EDITS_MAX, MATCHES_MAX, METHODS_MAX, PATH_BYTES_MAX,
    RESPOND_BYTES_MAX, TOKEN_BYTES_MAX, VALUE_BYTES_MAX, WEIGHT_MAX,
};
use crate::table::matched_prefix;

/// Checks a rule at `at`.
pub(super) fn rule<'c>(c: &mut Checker<'c, '_>, at: &At<'_>, rule: &'c RuleConfig) {
    c.at_most(&at.field("matches"), rule.matches.len(), MATCHES_MAX);
    for (nth, config) in rule.matches.iter().enumerate() {
        match_(c, &at.element("matches", nth), config);
    }
    one_action(c, at, rule);
    c.at_most(&at.field("backends"), rule.backends.len(), BACKENDS_MAX);
    for (nth, backend) in rule.backends.iter().enumerate() {
        let at = at.element("backends", nth);
        c.cluster_exists(&at.field("cluster"), &backend.cluster);
        if backend.weight > WEIGHT_MAX {
            c.refuse(&at.field("weight"), format!("must be at most {WEIGHT_MAX}"));
        }
    }
    if let Some(config) = &rule.rewrite {
        rewrite(c, &at.field("rewrite"), rule, config);
    }
    if let Some(config) = &rule.redirect {
        redirect(c, &at.field("redirect"), rule, config);
    }
    if let Some(config) = &rule.respond {
        respond(c, &at.field("respond"), config);
    }
    if let Some(config) = &rule.request_headers {
        edits(c, &at.field("request_headers"), config);
    }
    if let Some(config) = &rule.response_headers {
        edits(c, &at.field("response_headers"), config);
    }
    if let Some(timeout) = rule.timeout {
        c.duration(&at.field("timeout"), timeout);
    }
    c.duration(&at.field("idle_timeout"), rule.idle_timeout);
}

fn one_action(c: &mut Checker<'_, '_>, at: &At<'_>, rule: &RuleConfig) {
    let given = [!rule.backends.is_empty(), rule.redirect.is_some(), rule.respond.is_some()];
    let count = given.iter().filter(|given| **given).count();
    // An action that could not be read was reported as such.
    if count > 1 || (count == 0 && !c.is_refused(at)) {
        c.refuse(at, "needs exactly one of `backends`, `redirect` and `respond`");
    }
    if rule.rewrite.is_some() && rule.backends.is_empty() && count == 1 {
        c.refuse(&at.field("rewrite"), "only requests to `backends` are rewritten");
    }
}

fn match_<'c>(c: &mut Checker<'c, '_>, at: &At<'_>, config: &'c MatchConfig) {
    let field = at.field("path");
    match &config.path {
        Some(PathConfig::Exact(path)) => c.check(&field.field("exact"), names::path(path)),
        Some(PathConfig::Prefix(path)) => c.check(&field.field("prefix"), names::prefix(path)),
        Some(PathConfig::Regex(pattern)) => c.regex(&field.field("regex"), pattern),
        None => {}
    }
    if let Some(method) = &config.method {
        let at = at.field("method");
        c.check(&at, names::token(method, "a method"));
        if c.methods.len() < METHODS_MAX {
            c.methods.insert(method);
        } else if !c.methods.contains(method.as_str()) {
            c.refuse(&at, format!("more than the {METHODS_MAX} methods allowed"));
        }
    }
    if let Some(identity) = &config.identity {
        c.check(&at.field("identity"), names::identity_pattern(identity));
    }
    c.at_most(&at.field("headers"), config.headers.len(), CONDITIONS_MAX);
    c.at_most(&at.field("query"), config.query.len(), CONDITIONS_MAX);
    for (nth, header) in config.headers.iter().enumerate() {
        let at = at.element("headers", nth);
        let checked = names::token(&header.name, "the name of a header field");
        c.check(&at.field("name"), checked);
        let same = |other: &ConditionConfig| other.name.eq_ignore_ascii_case(&header.name);
        if config.headers[..nth].iter().any(same) {
            c.refuse(&at.field("name"), "the header has a condition already");
        }
        value(c, &at, &header.value);
    }
    for (nth, query) in config.query.iter().enumerate() {
        let at = at.element("query", nth);
        if query.name.is_empty() || query.name.len() > TOKEN_BYTES_MAX {
            let message = format!("a parameter's name has 1 to {TOKEN_BYTES_MAX} bytes");
            c.refuse(&at.field("name"), message);
        }
        if config.query[..nth].iter().any(|other| other.name == query.name) {
            c.refuse(&at.field("name"), "the parameter has a condition already");
        }
        value(c, &at, &query.value);
    }
}

fn value<'c>(c: &mut Checker<'c, '_>, at: &At<'_>, value: &'c ValueConfig) {
    match value {
        ValueConfig::Exact(text) if text.len() > VALUE_BYTES_MAX => {
            let message = format!("a value has at most {VALUE_BYTES_MAX} bytes");
            c.refuse(&at.field("exact"), message);
        }
        ValueConfig::Exact(_) | ValueConfig::Present(true) => {}
        ValueConfig::Regex(pattern) => c.regex(&at.field("regex"), pattern),
        ValueConfig::Present(false) => {
            c.refuse(&at.field("present"), "`present: false` is not supported by this version");
        }
    }
}

fn new_path(c: &mut Checker<'_, '_>, at: &At<'_>, rule: &RuleConfig, path: &ReplaceConfig) {
    match path {
        ReplaceConfig::Full(path) => c.check(&at.field("full"), names::path(path)),
        ReplaceConfig::Prefix(path) => {
            let at = at.field("prefix");
            // Nothing stands for `/`, as in the Gateway API.
            if !path.is_empty() {
                c.check(&at, names::prefix(path));
            }
            if path.len() > PATH_BYTES_MAX || matched_prefix(&rule.matches).is_none() {
                let message = "all matches of the rule must have the same `path.prefix`";
                c.refuse(&at, message);
            }
        }
    }
}

fn new_host(c: &mut Checker<'_, '_>, at: &At<'_>, text: &str) {
    match host::pattern(text) {
        Ok(host::Pattern::Exact(_)) => {}
        Ok(_) => c.refuse(at, "a new host has no `*`"),
        Err(message) => c.refuse(at, message),
    }
}

fn rewrite(c: &mut Checker<'_, '_>, at: &At<'_>, rule: &RuleConfig, config: &RewriteConfig) {
    if let Some(host) = &config.host {
        new_host(c, &at.field("host"), host);
    }
    if let Some(path) = &config.path {
        new_path(c, &at.field("path"), rule, path);
    }
}

fn redirect(c: &mut Checker<'_, '_>, at: &At<'_>, rule: &RuleConfig, config: &RedirectConfig) {
    if let Some(scheme) = &config.scheme
        && !matches!(scheme.as_str(), "http" | "https")
    {
        c.refuse(&at.field("scheme"), "must be `http` or `https`");
    }
    if let Some(host) = &config.host {
        new_host(c, &at.field("host"), host);
    }
    if config.port == Some(0) {
        c.refuse(&at.field("port"), "must be from 1 to 65535");
    }
    if let Some(path) = &config.path {
        new_path(c, &at.field("path"), rule, path);
    }
    if !matches!(config.status, 301 | 302 | 303 | 307 | 308) {
        c.refuse(&at.field("status"), "must be 301, 302, 303, 307 or 308");
    }
    let nothing = RedirectConfig { scheme: None, host: None, port: None, path: None, status: 0 };
    if *config == (RedirectConfig { status: config.status, ..nothing }) && !c.is_refused(at) {
        c.refuse(at, "leads back to where the request came from");
    }
}

fn respond(c: &mut Checker<'_, '_>, at: &At<'_>, config: &RespondConfig) {
    if !(200..=599).contains(&config.status) {
        c.refuse(&at.field("status"), "must be from 200 to 599");
    }
    if matches!(config.status, 204 | 205 | 304) && !config.body.is_empty() {
        c.refuse(&at.field("body"), format!("an answer {} has no body", config.status));
    }
    if config.body.len() > RESPOND_BYTES_MAX {
        c.refuse(&at.field("body"), format!("a body has at most {RESPOND_BYTES_MAX} bytes"));
    }
    if let Some(content_type) = &config.content_type {
        c.check(&at.field("content_type"), names::field_value(content_type));
    }
    fields(c, &at.field("headers"), &config.headers);
    for name in config.headers.keys() {
        if name.eq_ignore_ascii_case("content-type") {
            c.refuse(&at.field("headers").field(name), "is written by `content_type`");
        }
    }
}

fn edits(c: &mut Checker<'_, '_>, at: &At<'_>, edits: &HeaderEditsConfig) {
    c.at_most(&at.field("remove"), edits.remove.len(), EDITS_MAX);
    for (nth, name) in edits.remove.iter().enumerate() {
        c.check(&at.element("remove", nth), names::editable(name));
    }
    fields(c, &at.field("set"), &edits.set);
    fields(c, &at.field("add"), &edits.add);
}

fn fields(c: &mut Checker<'_, '_>, at: &At<'_>, fields: &BTreeMap<String, String>) {
    c.at_most(at, fields.len(), EDITS_MAX);
    for (nth, (name, value)) in fields.iter().enumerate() {
        let at = at.field(name);
        c.check(&at, names::editable(name));
        c.check(&at, names::field_value(value));
        let same = |other: &String| other.eq_ignore_ascii_case(name);
        if fields.keys().take(nth).any(same) {
            c.refuse(&at, "the name is here twice, in different case");
        }
    }
}
