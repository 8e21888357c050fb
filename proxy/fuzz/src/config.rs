//! Configuration files, in both formats: what is accepted compiles, answers any request, and says
//! the same as its own explanation.

use ringway_router::config::{MatchConfig, PathConfig, ValueConfig};
use ringway_router::limits::HOST_BYTES_MAX;
use ringway_router::{
    Action, Addresses, ClusterTls, Config, EndpointTable, Field, Format, HeaderEdits, ListenerId,
    Mtls, Normalised, Protocol, RequestKey, Rule, Severity, Table, TableHash, Target, explain,
    load, normalise_path,
};

use super::wire::{is_clean, is_token};

/// Requests made of one configuration, at most.
const REQUESTS_MAX: usize = 64;

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let json = read(text, Format::Json);
    let yaml = read(text, Format::Yaml);
    if let (Some(json), Some(yaml)) = (json, yaml) {
        assert_eq!(json, yaml, "one text, two meanings");
    }
    check_both_yaml_readers(text, yaml);
}

/// The quick reader of YAML declines a document mark with a comment behind it; the full reader,
/// which then reads the text, must understand the same.
fn check_both_yaml_readers(text: &str, hash: Option<TableHash>) {
    let has_marks = text.contains("---") || text.contains("...") || text.contains('\u{feff}');
    if has_marks || text.split(['\n', '\r']).any(|line| line.starts_with('%')) {
        return;
    }
    let marked = format!("--- # the full reader\n{text}");
    assert_eq!(read(&marked, Format::Yaml), hash, "the two readers of YAML differ");
}

/// Loads, compiles and asks; the table's identity if the text is accepted.
fn read(text: &str, format: Format) -> Option<TableHash> {
    let loaded = match load(text, format) {
        Ok(loaded) => loaded,
        Err(problems) => {
            assert!(!problems.0.is_empty() && !problems.to_string().is_empty());
            let mut places = problems.0.iter();
            assert!(places.all(|problem| problem.severity == Severity::Error));
            return None;
        }
    };
    assert!(loaded.warnings.iter().all(|warning| warning.severity == Severity::Warning));
    let table = Table::compile(&loaded.config).expect("what was accepted compiles");
    let endpoints = EndpointTable::build(&table, &Addresses::new(), None);
    for cluster in table.cluster_ids() {
        let balance = table.cluster(cluster).balance;
        let _ = endpoints.pick(cluster, balance, &mut 0, 1 << 40, None);
    }
    check_tls(&table, &loaded.config);
    ask(&table, &loaded.config);
    Some(*table.hash())
}

/// TLS is spoken exactly where the file says so, and every server name has its cluster.
fn check_tls(table: &Table, config: &Config) {
    for (said, listener) in config.listeners.iter().zip(table.listeners()) {
        let tls = said.tls.is_some() || said.mtls != Mtls::Disabled;
        assert_eq!((listener.speaks_tls(), listener.mtls), (tls, said.mtls));
        for (route, host) in said.sni.iter().flat_map(|r| r.hosts.iter().map(move |h| (r, h))) {
            let name = host.replace('*', "x.y");
            if name.len() > HOST_BYTES_MAX {
                continue;
            }
            let found = listener.sni.cluster_for(Some(&name));
            let cluster = found.map(|id| &*table.cluster(id).name);
            // Another, more specific name may hold for what is made of a suffix.
            assert!(cluster == Some(&*route.cluster) || cluster.is_some() && host.contains('*'));
        }
    }
    for (said, cluster) in config.clusters.iter().zip(table.clusters()) {
        match &cluster.tls {
            None => assert!(said.tls.is_none() && said.identity.is_empty()),
            Some(ClusterTls::Mesh { expected, .. }) => {
                assert!(!expected.is_empty() && expected.len() == said.identity.len());
            }
            Some(ClusterTls::Outside { server_name, .. }) => {
                assert!(said.tls.is_some() && said.identity.is_empty());
                let named = cluster.endpoints.iter().all(|endpoint| endpoint.literal.is_none());
                assert!(server_name.is_some() || named, "nothing to check a certificate for");
            }
        }
    }
}

/// Asks for every host and match that the configuration names, and for things that it does not.
fn ask(table: &Table, config: &Config) {
    let mut left = REQUESTS_MAX;
    let http = |id: &ListenerId| table.listener(*id).protocol == Protocol::Http1;
    let anything = MatchConfig::default();
    for listener in table.listener_ids().filter(http) {
        for route in &config.routes {
            let hosts = route.hosts.iter().map(String::as_str).chain(["", "x.y:1"]);
            for host in hosts {
                let matches = route.rules.iter().flat_map(|rule| &rule.matches);
                for condition in matches.chain([&anything]) {
                    if left == 0 {
                        return;
                    }
                    left -= 1;
                    ask_one(table, listener, &host.replace('*', "x.y"), condition);
                }
            }
        }
    }
}

fn ask_one(table: &Table, listener: ListenerId, host: &str, condition: &MatchConfig) {
    let paths = match &condition.path {
        Some(PathConfig::Exact(path) | PathConfig::Regex(path)) => vec![path.clone()],
        Some(PathConfig::Prefix(path)) => vec![path.clone(), format!("{path}/x"), path.repeat(2)],
        None => vec!["/".to_owned(), "/%zz".to_owned()],
    };
    let method = condition.method.as_deref().unwrap_or("GET");
    let mut fields = vec![Field { name: "Host", value: host.as_bytes() }];
    fields.extend(condition.headers.iter().map(|test| {
        let value = value(&test.value).as_bytes();
        Field { name: &test.name, value }
    }));
    let pairs = condition.query.iter().map(|test| format!("{}={}", test.name, value(&test.value)));
    let query = pairs.collect::<Vec<_>>().join("&");
    let identity = condition.identity.as_ref().map(|wanted| wanted.replace('*', "x"));
    let identity = identity.as_deref();
    for path in &paths {
        // No path of a request has them; a regular expression may.
        if path.contains("://") || query.contains(['#', '?']) {
            continue;
        }
        let target = format!("{path}?{query}");
        let explained = explain(table, Some(listener), method, &target, &fields, identity);
        assert!(!explained.to_string().is_empty());
        let mut normal = Vec::new();
        let path = match normalise_path(path.as_bytes(), &mut normal) {
            Ok(Normalised::Unchanged) => path,
            Ok(Normalised::Rewritten) => std::str::from_utf8(&normal).expect("a path is ASCII"),
            Err(_) => continue,
        };
        let query = Some(&*query);
        let key = RequestKey { listener, host, path, query, method, fields: &fields, identity };
        let rule = table.route(&key);
        assert_eq!(rule, explained.rule, "the explanation is of another rule");
        if let Some(rule) = rule {
            let rule = table.rule(rule);
            assert!(!table.route_name(rule.route()).is_empty());
            act(rule, &key);
        }
    }
}

fn value(test: &ValueConfig) -> &str {
    match test {
        ValueConfig::Exact(text) | ValueConfig::Regex(text) => text,
        ValueConfig::Present(_) => "present",
    }
}

/// Nothing that a rule writes into a head can break it.
fn act(rule: &Rule, key: &RequestKey<'_>) {
    check_edits(rule.request_headers());
    check_edits(rule.response_headers());
    let mut out = Vec::new();
    match rule.action() {
        Action::Forward { rewrite, backends } => {
            let _ = backends.pick(u32::MAX);
            if let Some(path) = rewrite.path() {
                path.write(key.path, &mut out);
                assert_eq!(
                    normalise_path(&out, &mut Vec::new()),
                    Ok(Normalised::Unchanged),
                    "rewritten to {:?}",
                    String::from_utf8_lossy(&out)
                );
            }
            assert!(rewrite.host().is_none_or(|host| is_clean(host.as_bytes())));
        }
        Action::Redirect(redirect) => {
            let target = Target { scheme: "http", host: "a", port: 1, path: key.path, query: None };
            redirect.location(&target, &mut out);
            assert!(out.iter().all(u8::is_ascii_graphic), "{:?}", String::from_utf8_lossy(&out));
        }
        Action::Respond(respond) => {
            for (name, value) in &respond.headers {
                assert!(name.bytes().all(is_token) && is_clean(value.as_bytes()));
            }
        }
    }
}

fn check_edits(edits: &HeaderEdits) {
    for (name, value) in edits.appended() {
        assert!(!name.is_empty() && name.bytes().all(is_token) && is_clean(value.as_bytes()));
    }
}
