//! Why a request gets the answer it gets, in words.
//!
//! The same walk over the index as [`Table::route`], noting for every candidate the first condition
//! that failed.
//!
//! # Invariants
//! - The rule named is the one that [`Table::route`] gives for the same request.

use std::fmt::{self, Write};

use crate::action::{Action, HeaderEdits, PathRewrite, Rewrite};
use crate::config::Protocol;
use crate::host::{fold, without_port};
use crate::path::normalise_path;
use crate::table::{
    Bucket, Candidate, ClusterId, Failure, Field, Listener, ListenerId, PathClass, RequestKey,
    Rule, RuleId, Table, Test, Value,
};

/// Candidates listed; more are counted.
const LISTED_MAX: usize = 100;

/// Which rule answers a request, and why. Its `Display` is for people, several lines.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The rule that answers; `None` if none does or the request is not valid.
    pub rule: Option<RuleId>,
    text: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Explains what `table` does with a request that comes in at `listener` (default: the first
/// `http1` one) from a client that has proved to be `identity`. `url` is `http://host/path?query`
/// or `/path?query`; a `Host` among `headers` goes before the host in it.
pub fn explain(
    table: &Table,
    listener: Option<ListenerId>,
    method: &str,
    url: &str,
    headers: &[Field<'_>],
    identity: Option<&str>,
) -> Explanation {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let rule = write_explanation(&mut text, table, listener, (method, url), headers, identity);
    Explanation { rule: rule.unwrap_or(None), text }
}

fn write_explanation(
    out: &mut String,
    table: &Table,
    listener: Option<ListenerId>,
    (method, url): (&str, &str),
    headers: &[Field<'_>],
    identity: Option<&str>,
) -> Result<Option<RuleId>, fmt::Error> {
    let http = |id: &ListenerId| table.listener(*id).protocol.has_routes();
    let Some(listener) = listener.or_else(|| table.listener_ids().find(http)) else {
        writeln!(out, "there is no http1 listener")?;
        return Ok(None);
    };
    let at = table.listener(listener);
    let (host, path, query) = split(url, headers);
    if !at.protocol.has_routes() {
        write_tunnel(out, table, at, host)?;
        return Ok(None);
    }
    let mut normal = Vec::new();
    let path = match normalise_path(path.as_bytes(), &mut normal) {
        Ok(crate::Normalised::Unchanged) => path,
        Ok(crate::Normalised::Rewritten) => std::str::from_utf8(&normal).unwrap_or(path),
        Err(error) => {
            writeln!(out, "answered 400: {error}")?;
            return Ok(None);
        }
    };
    write!(out, "{method} host {} path {path} at listener {}", or_none(host), at.name)?;
    writeln!(out, "{}", identity.map_or(String::new(), |identity| format!(" from {identity}")))?;
    let request = RequestKey { listener, host, path, query, method, fields: headers, identity };
    let rule = examine(out, table, &request)?;
    match rule {
        Some(rule) => {
            writeln!(out, "answer: {}", named(table, rule))?;
            write_action(out, table, table.rule(rule), path)?;
        }
        None => writeln!(out, "answer: 404, no rule matches")?,
    }
    Ok(rule)
}

/// Where the connections of a listener without requests go.
fn write_tunnel(out: &mut String, table: &Table, at: &Listener, host: &str) -> fmt::Result {
    let name = |cluster: ClusterId| &table.cluster(cluster).name;
    let listener = format!("listener {} is {}", at.name, at.protocol.as_str());
    if at.protocol == Protocol::Tcp {
        let cluster = at.cluster.map_or("(none)", |cluster| name(cluster));
        return writeln!(out, "{listener}: every connection goes to cluster {cluster}");
    }
    let asked = Some(without_port(host)).filter(|name| !name.is_empty());
    let about = asked.map_or("without a name".to_owned(), |host| format!("for {host}"));
    match at.sni.cluster_for(asked) {
        Some(cluster) => {
            writeln!(out, "{listener}: a connection {about} goes to cluster {}", name(cluster))
        }
        None => writeln!(out, "{listener}: a connection {about} is refused"),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}

/// Host, path and query of a URL.
fn split<'a>(url: &'a str, headers: &[Field<'a>]) -> (&'a str, &'a str, Option<&'a str>) {
    let url = url.split('#').next().unwrap_or_default();
    let (url, query) = match url.split_once('?') {
        Some((url, query)) => (url, Some(query)),
        None => (url, None),
    };
    let (mut host, path) = match url.split_once("://") {
        Some((_, rest)) => match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        },
        None => ("", url),
    };
    if let Some(field) = headers.iter().find(|field| field.name.eq_ignore_ascii_case("host")) {
        host = std::str::from_utf8(field.value).unwrap_or(host);
    }
    (host, if path.is_empty() { "/" } else { path }, query)
}

/// Lists the candidates in order of precedence, up to the first that matches.
fn examine(
    out: &mut String,
    table: &Table,
    request: &RequestKey<'_>,
) -> Result<Option<RuleId>, fmt::Error> {
    let mut buffer = [0; 256];
    let host = fold(request.host, &mut buffer);
    let mut listed = 0;
    let mut status = Ok(());
    let found = table.index().find(host, request.path, |bucket| {
        for candidate in bucket.candidates {
            let failure = failure(table, bucket, candidate, request);
            listed += 1;
            if listed <= LISTED_MAX && status.is_ok() {
                status = write_candidate(out, table, request, (bucket, candidate), &failure);
            }
            if failure.is_none() {
                return Some(candidate.rule);
            }
        }
        None
    });
    status?;
    if listed > LISTED_MAX {
        writeln!(out, "  and {} more", listed - LISTED_MAX)?;
    }
    Ok(found)
}

/// The first condition that does not hold, in words.
fn failure(
    table: &Table,
    bucket: &Bucket<'_>,
    candidate: &Candidate,
    request: &RequestKey<'_>,
) -> Option<String> {
    if let PathClass::Regex(regex) = bucket.path
        && !table.conditions().regex(regex).is_match(request.path.as_bytes())
    {
        return Some("the path does not match".to_owned());
    }
    if !table.index().listens(candidate.listeners, request.listener) {
        return Some("the route does not serve this listener".to_owned());
    }
    let failure = table.conditions().failure(candidate.condition, request)?;
    Some(match failure {
        Failure::Method(wanted) => format!("the method is not {wanted}"),
        Failure::Header(test) => format!("header {}", unmet(table, test)),
        Failure::Query(test) => format!("query parameter {}", unmet(table, test)),
        Failure::Identity(wanted) => match request.identity {
            Some(identity) => format!("the client is {identity}, not {wanted}"),
            None => format!("the client has not proved to be {wanted}"),
        },
    })
}

fn unmet(table: &Table, test: &Test) -> String {
    match &test.value {
        Value::Exact(value) => format!("{} is not `{value}`", test.name),
        Value::Regex(number) => {
            let regex = table.conditions().regex(*number);
            format!("{} does not match `{regex}`", test.name)
        }
        Value::Present => format!("{} is not there", test.name),
    }
}

pub(crate) fn named(table: &Table, id: RuleId) -> String {
    let rule = table.rule(id);
    let name = table.route_name(rule.route());
    let line = rule.line().map_or(String::new(), |line| format!(" (line {line})"));
    format!("route {name}, rule {}{line}", table.rule_in_route(id))
}

fn write_candidate(
    out: &mut String,
    table: &Table,
    request: &RequestKey<'_>,
    (bucket, candidate): (&Bucket<'_>, &Candidate),
    failure: &Option<String>,
) -> fmt::Result {
    write!(out, "  {}: host ", named(table, candidate.rule))?;
    match bucket.host {
        "" => write!(out, "any")?,
        suffix if suffix.starts_with('.') => write!(out, "*{suffix}")?,
        name => write!(out, "{name}")?,
    }
    match bucket.path {
        PathClass::Exact => write!(out, ", path exactly {}", request.path)?,
        PathClass::Prefix(len) => write!(out, ", path prefix {}", &request.path[..len])?,
        PathClass::Regex(regex) => {
            write!(out, ", path regex {}", table.conditions().regex(regex))?;
        }
        PathClass::Any => write!(out, ", any path")?,
    }
    match failure {
        Some(failure) => writeln!(out, ": no, {failure}"),
        None => writeln!(out, ": matches"),
    }
}

pub(crate) fn write_action(
    out: &mut String,
    table: &Table,
    rule: &Rule,
    path: &str,
) -> fmt::Result {
    match rule.action() {
        Action::Forward { backends, rewrite } => {
            let total: u64 = backends.weights().map(|(_, weight)| u64::from(weight)).sum();
            for (cluster, weight) in backends.weights() {
                let name = &table.cluster(cluster).name;
                writeln!(out, "  forward to cluster {name} (weight {weight} of {total})")?;
            }
            if total == 0 {
                writeln!(out, "  all weights are 0: answered 500")?;
            }
            write_rewrite(out, rewrite, path)?;
        }
        Action::Redirect(redirect) => {
            let scheme = redirect.scheme.as_deref().unwrap_or("(that of the request)");
            let host = redirect.host.as_deref().unwrap_or("(that of the request)");
            let port = redirect.port.map_or(String::new(), |port| format!(" port {port}"));
            let path = redirect.path.as_ref().map_or(path.to_owned(), |new| rewritten(new, path));
            let status = redirect.status;
            writeln!(out, "  redirect {status} to scheme {scheme} host {host}{port} path {path}")?;
        }
        Action::Respond(respond) => {
            writeln!(out, "  respond {} with {} bytes", respond.status, respond.body.len())?;
        }
    }
    write_edits(out, "request", rule.request_headers())?;
    write_edits(out, "response", rule.response_headers())?;
    if let Some(timeout) = rule.timeout() {
        writeln!(out, "  timeout {}", humantime::format_duration(timeout))?;
    }
    match rule.max_request_body() {
        Some(bytes) => writeln!(out, "  request body up to {bytes} bytes"),
        None => Ok(()),
    }
}

fn rewritten(new: &PathRewrite, path: &str) -> String {
    let mut buffer = Vec::new();
    new.write(path, &mut buffer);
    String::from_utf8_lossy(&buffer).into_owned()
}

fn write_rewrite(out: &mut String, rewrite: &Rewrite, path: &str) -> fmt::Result {
    if let Some(host) = rewrite.host() {
        writeln!(out, "  rewrite host to {host}")?;
    }
    match rewrite.path() {
        Some(new) => writeln!(out, "  rewrite path to {}", rewritten(new, path)),
        None => Ok(()),
    }
}

fn write_edits(out: &mut String, what: &str, edits: &HeaderEdits) -> fmt::Result {
    for name in &edits.remove {
        writeln!(out, "  remove {what} header {name}")?;
    }
    for (name, value) in &edits.set {
        writeln!(out, "  set {what} header {name}: {value}")?;
    }
    for (name, value) in &edits.add {
        writeln!(out, "  add {what} header {name}: {value}")?;
    }
    Ok(())
}
