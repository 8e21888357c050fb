//! What the sidecar's compiler says about a policy, said about the objects that it comes from.
//!
//! # Invariants
//! - No problem is lost: what has no better place is the workload's.

use ringway_router::{Problem, Severity};

use super::compose::{Composed, Source};
use crate::diagnostic::{Diagnostic, Key, Kind};

/// Remarks that are about a policy and not about what somebody wrote.
const OF_POLICIES: [&str; 2] = ["nothing is mutual TLS", "there are no routes"];

/// Says problems of a composed configuration at their sources.
pub(super) fn mapped(composed: &Composed<'_>, problems: Vec<Problem>) -> Vec<Diagnostic> {
    let of_policy = |problem: &Problem| {
        let is_remark = problem.severity == Severity::Warning;
        is_remark && OF_POLICIES.iter().any(|text| problem.message.contains(text))
    };
    let said = problems.into_iter().filter(|problem| !of_policy(problem));
    said.map(|problem| diagnostic(composed, problem)).collect()
}

fn diagnostic(composed: &Composed<'_>, problem: Problem) -> Diagnostic {
    let (key, path) = source(composed, &problem.path);
    let origin = composed.mesh.origin(&key);
    let mut diagnostic = Diagnostic::error(key, &origin, &path, problem.message);
    (diagnostic.hint, diagnostic.severity) = (problem.hint, problem.severity);
    diagnostic
}

/// The object that `path` of a configuration comes from, and the path in it.
fn source(composed: &Composed<'_>, path: &str) -> (Key, String) {
    let workload = || Key::new(Kind::Workload, &composed.workload.name);
    let Some((list, index, rest)) = element(path) else { return (workload(), String::new()) };
    let sources = match list {
        "listeners" => &composed.listeners,
        "routes" => &composed.routes,
        _ => &composed.clusters,
    };
    let rest = rest.trim_start_matches('.');
    match sources.get(index) {
        None => (workload(), String::new()),
        Some(Source::Outbound) => (workload(), "outbound".to_owned()),
        Some(Source::Serve(nth)) => {
            let field = match (list, rest) {
                ("listeners", "address") => ".listen".to_owned(),
                ("listeners", "mtls") => ".mtls".to_owned(),
                ("clusters", rest) if rest.starts_with("endpoints") => {
                    rest.trim_end_matches(".address").replacen("endpoints", ".application", 1)
                }
                _ => String::new(),
            };
            (workload(), format!("serves[{nth}]{field}"))
        }
        Some(Source::Import(nth)) => {
            let field = if rest == "address" { ".listen" } else { "" };
            (workload(), format!("imports[{nth}]{field}"))
        }
        Some(Source::Route(name)) => {
            let is_ours = rest.starts_with("rules");
            let path = rest.replace("].cluster", "].service");
            (Key::new(Kind::Route, name), if is_ours { path } else { String::new() })
        }
        Some(Source::Service(name)) => {
            let is_ours = rest.starts_with("hosts");
            let path = if is_ours { rest.to_owned() } else { String::new() };
            (Key::new(Kind::Service, name), path)
        }
        Some(Source::Cluster(service, endpoints)) => {
            if let Some(name) = endpoints.as_ref().filter(|_| rest.starts_with("endpoints")) {
                let path = rest.replacen("endpoints", "addresses", 1);
                return (Key::new(Kind::Endpoints, name), path);
            }
            let path = match rest {
                rest if rest.starts_with("identity") => rest.replacen("identity", "identities", 1),
                "name" | "endpoints" | "protocol" => String::new(),
                rest => rest.to_owned(),
            };
            (Key::new(Kind::Service, service), path)
        }
    }
}

/// `routes[2].rules[1]` as `routes`, 2 and `.rules[1]`.
fn element(path: &str) -> Option<(&str, usize, &str)> {
    let (list, rest) = path.split_once('[')?;
    let (index, rest) = rest.split_once(']')?;
    Some((list, index.parse().ok()?, rest))
}
