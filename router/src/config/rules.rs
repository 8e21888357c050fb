//! Rules, their matches and actions, read from a tree.

use super::decode::{Reader, set};
use super::scalars;
use super::schema;
use super::{
    BackendConfig, ConditionConfig, HeaderEditsConfig, MatchConfig, PathConfig, RedirectConfig,
    ReplaceConfig, RespondConfig, RewriteConfig, RuleConfig, ValueConfig,
};
use crate::limits::{BACKENDS_MAX, CONDITIONS_MAX, EDITS_MAX, MATCHES_MAX, WEIGHT_MAX};
use crate::source::Node;

pub(super) fn rule<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<RuleConfig> {
    rule_with(r, node, backend)
}

/// Reads a rule whose backends `backend` reads.
pub(crate) fn rule_with<'a, 's>(
    r: &mut Reader<'a, 's>,
    node: Node<'a>,
    backend: fn(&mut Reader<'a, 's>, Node<'a>) -> Option<BackendConfig>,
) -> Option<RuleConfig> {
    let mut rule = RuleConfig { line: node.line(), ..RuleConfig::default() };
    r.object(node, &schema::RULE, |r, name, node| match name {
        "matches" => rule.matches = r.list(node, MATCHES_MAX, match_),
        "backends" => rule.backends = r.list(node, BACKENDS_MAX, backend),
        "rewrite" => rule.rewrite = Some(Box::new(rewrite(r, node))),
        "redirect" => rule.redirect = Some(Box::new(redirect(r, node))),
        "respond" => rule.respond = Some(Box::new(respond(r, node))),
        "request_headers" => rule.request_headers = edits(r, node),
        "response_headers" => rule.response_headers = edits(r, node),
        "timeout" => rule.timeout = r.timeout(node),
        "idle_timeout" => set(&mut rule.idle_timeout, r.timeout(node)),
        _ => rule.max_request_body = r.scalar(node, scalars::bytes),
    });
    Some(rule)
}

fn match_<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<MatchConfig> {
    let mut match_ = MatchConfig::default();
    r.object(node, &schema::MATCH, |r, name, node| match name {
        "path" => match_.path = path(r, node),
        "method" => match_.method = r.text(node),
        "headers" => match_.headers = r.list(node, CONDITIONS_MAX, condition),
        "query" => match_.query = r.list(node, CONDITIONS_MAX, condition),
        _ => match_.identity = r.text(node),
    });
    Some(match_)
}

/// Reports unless exactly one of the alternatives was given.
fn exactly_one<'a, T>(
    r: &mut Reader<'a, '_>,
    node: Node<'a>,
    found: Vec<T>,
    failed: bool,
    names: &str,
) -> Option<T> {
    let count = found.len();
    let first = found.into_iter().next();
    if count == 1 {
        return first;
    }
    if count > 1 || !failed {
        r.problem(node, format!("needs exactly one of {names}"), None);
    }
    None
}

fn path<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<PathConfig> {
    let (mut found, mut failed) = (Vec::with_capacity(1), !is_object(node));
    r.object(node, &schema::PATH, |r, name, node| match (name, r.text(node)) {
        (_, None) => failed = true,
        ("exact", Some(text)) => found.push(PathConfig::Exact(text)),
        ("prefix", Some(text)) => found.push(PathConfig::Prefix(text)),
        (_, Some(text)) => found.push(PathConfig::Regex(text)),
    });
    exactly_one(r, node, found, failed, "`exact`, `prefix` and `regex`")
}

fn is_object(node: Node<'_>) -> bool {
    node.kind() == crate::source::Kind::Mapping
}

fn condition<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<ConditionConfig> {
    let mut title = String::new();
    let (mut found, mut failed) = (Vec::with_capacity(1), !is_object(node));
    r.object(node, &schema::CONDITION, |r, name, node| match name {
        "name" => set(&mut title, r.text(node)),
        "present" => match r.truth(node) {
            Some(truth) => found.push(ValueConfig::Present(truth)),
            None => failed = true,
        },
        _ => match r.text(node) {
            Some(text) if name == "exact" => found.push(ValueConfig::Exact(text)),
            Some(text) => found.push(ValueConfig::Regex(text)),
            None => failed = true,
        },
    });
    let value = exactly_one(r, node, found, failed, "`exact`, `regex` and `present`")?;
    Some(ConditionConfig { name: title, value })
}

fn backend<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<BackendConfig> {
    let mut backend = BackendConfig { cluster: String::new(), weight: 1 };
    r.object(node, &schema::BACKEND, |r, name, node| match name {
        "cluster" => set(&mut backend.cluster, r.text(node)),
        _ => set(&mut backend.weight, r.number(node, WEIGHT_MAX)),
    });
    Some(backend)
}

fn replace<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<ReplaceConfig> {
    let (mut found, mut failed) = (Vec::with_capacity(1), !is_object(node));
    r.object(node, &schema::REPLACE, |r, name, node| match (name, r.text(node)) {
        (_, None) => failed = true,
        ("full", Some(text)) => found.push(ReplaceConfig::Full(text)),
        (_, Some(text)) => found.push(ReplaceConfig::Prefix(text)),
    });
    exactly_one(r, node, found, failed, "`full` and `prefix`")
}

fn rewrite<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> RewriteConfig {
    let mut rewrite = RewriteConfig::default();
    r.object(node, &schema::REWRITE, |r, name, node| match name {
        "host" => rewrite.host = r.text(node),
        _ => rewrite.path = replace(r, node),
    });
    rewrite
}

fn redirect<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> RedirectConfig {
    let mut redirect =
        RedirectConfig { scheme: None, host: None, port: None, path: None, status: 302 };
    r.object(node, &schema::REDIRECT, |r, name, node| match name {
        "scheme" => redirect.scheme = r.text(node),
        "host" => redirect.host = r.text(node),
        "port" => redirect.port = r.number(node, 65535).map(|port| port as u16),
        "path" => redirect.path = replace(r, node),
        _ => set(&mut redirect.status, r.number(node, 999).map(|status| status as u16)),
    });
    redirect
}

fn respond<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> RespondConfig {
    let mut respond = RespondConfig {
        status: 200,
        body: String::new(),
        content_type: None,
        headers: std::collections::BTreeMap::new(),
    };
    r.object(node, &schema::RESPOND, |r, name, node| match name {
        "status" => set(&mut respond.status, r.number(node, 999).map(|status| status as u16)),
        "body" => set(&mut respond.body, r.text(node)),
        "content_type" => respond.content_type = r.text(node),
        _ => respond.headers = r.map(node, EDITS_MAX),
    });
    respond
}

/// Header edits; those that change nothing are none.
fn edits<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Box<HeaderEditsConfig>> {
    let mut edits = HeaderEditsConfig::default();
    r.object(node, &schema::EDITS, |r, name, node| match name {
        "remove" => edits.remove = r.list(node, EDITS_MAX, Reader::text),
        "set" => edits.set = r.map(node, EDITS_MAX),
        _ => edits.add = r.map(node, EDITS_MAX),
    });
    (edits != HeaderEditsConfig::default()).then(|| Box::new(edits))
}
