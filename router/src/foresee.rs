//! What may become of a request of which not everything is known: its headers by name alone, and
//! nothing of its query.
//!
//! The same walk over the index as [`Table::route`], with a third answer to each condition: it
//! depends.
//!
//! # Invariants
//! - Whatever the values are, [`Table::route`] gives one of the rules named; if only one is named,
//!   that one.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::explain::{named, write_action};
use crate::host::fold;
use crate::table::{Bucket, Candidate, Failure, ListenerId, PathClass, RequestKey, RuleId, Table};

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct PartialKey<'a> {
    /// Where it came in.
    pub listener: ListenerId,
    /// Host in any case.
    pub host: &'a str,
    /// Normalised path without the query.
    pub path: &'a str,
    /// Method with its case.
    pub method: &'a str,
    /// Names of its header fields, in lower case and sorted.
    pub header_names: &'a [String],
    /// Who the client has proved to be.
    pub identity: Option<&'a str>,
}

/// One answer that a request may get.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreseen {
    /// What decides whether it does, such as `the value of x-v2`; nothing if it is sure to, once
    /// the answers before it are out of the question.
    pub depends: Vec<String>,
    /// The rule, for people; empty if none matches.
    pub rule: String,
    /// What is done: clusters with their weights, a redirect, a status.
    pub answer: String,
}

/// The answers that `request` may get, in order of precedence; the last is the one that it gets if
/// nothing that it depends on holds. At least one.
#[must_use]
pub fn foresee(table: &Table, request: &PartialKey<'_>) -> Vec<Foreseen> {
    let PartialKey { listener, host, path, method, identity, .. } = *request;
    let key = RequestKey { listener, host, path, query: None, method, fields: &[], identity };
    let mut buffer = [0; 256];
    let host = fold(host, &mut buffer);
    let mut found = Vec::new();
    let sure = table.index().find(host, path, |bucket| {
        bucket.candidates.iter().find_map(|candidate| {
            let depends = depends(table, bucket, candidate, &key, request.header_names)?;
            let is_sure = depends.is_empty();
            found.push(of_rule(table, candidate.rule, path, depends));
            is_sure.then_some(())
        })
    });
    if sure.is_none() {
        let answer = "404, no rule matches".to_owned();
        found.push(Foreseen { depends: Vec::new(), rule: String::new(), answer });
    }
    found
}

/// What it depends on whether a candidate matches: nothing if it does; `None` if it does not.
fn depends(
    table: &Table,
    bucket: &Bucket<'_>,
    candidate: &Candidate,
    key: &RequestKey<'_>,
    names: &[String],
) -> Option<Vec<String>> {
    if let PathClass::Regex(regex) = bucket.path
        && !table.conditions().regex(regex).is_match(key.path.as_bytes())
    {
        return None;
    }
    if !table.index().listens(candidate.listeners, key.listener) {
        return None;
    }
    let mut depends = BTreeSet::new();
    for open in table.conditions().open(candidate.condition, key, names)? {
        match open {
            Failure::Header(test) => {
                depends.insert(format!("the value of {}", test.name));
            }
            Failure::Query(test) => {
                depends.insert(format!("the query parameter {}", test.name));
            }
            // The rest is known.
            Failure::Method(_) | Failure::Identity(_) => {}
        }
    }
    Some(depends.into_iter().collect())
}

fn of_rule(table: &Table, id: RuleId, path: &str, depends: Vec<String>) -> Foreseen {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_action(&mut text, table, table.rule(id), path);
    let mut answer = String::new();
    for line in text.lines() {
        let between = if answer.is_empty() { "" } else { ", " };
        let _ = write!(answer, "{between}{}", line.trim());
    }
    // The line of a policy means nothing to people.
    let rule = named(table, id);
    let rule = rule.split(" (line").next().unwrap_or_default().to_owned();
    Foreseen { depends, rule, answer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, Format, load_table};

    const TEXT: &str = r#"
listeners: [{name: a, address: "127.0.0.1:1"}]
clusters: [{name: c, endpoints: [{address: "127.0.0.1:2"}]}, {name: d, endpoints: [{address: "127.0.0.1:3"}]}]
routes:
  - name: r
    rules:
      - {matches: [{path: {prefix: /v}, headers: [{name: x-v, exact: "1"}]}], backends: [{cluster: d}]}
      - {matches: [{path: {prefix: /q}, query: [{name: q, exact: "1"}]}], respond: {status: 204}}
      - {matches: [{path: {prefix: /p}, headers: [{name: x-p, present: true}]}], respond: {status: 202}}
      - {matches: [{path: {prefix: /m}, method: POST, headers: [{name: x-v, exact: "1"}]}], respond: {status: 203}}
      - {matches: [{path: {prefix: /}}], backends: [{cluster: c}]}
"#;

    fn answers(path: &str, names: &[&str]) -> Vec<(Vec<String>, String)> {
        let (table, _) = load_table(TEXT, Format::Yaml).expect("it is good");
        let listener = table.listener_ids().next().expect("there is one");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (host, method, identity, header_names) = ("h", "GET", None, names.as_slice());
        let key = PartialKey { listener, host, path, method, header_names, identity };
        foresee(&table, &key).into_iter().map(|found| (found.depends, found.answer)).collect()
    }

    #[test]
    fn what_depends_on_a_value_is_said_and_not_guessed() {
        let (c, d) =
            ("forward to cluster c (weight 1 of 1)", "forward to cluster d (weight 1 of 1)");
        let sure = |answer: &str| (Vec::new(), answer.to_owned());
        let found = answers("/v/1", &["x-v"]);
        assert_eq!(found, [(vec!["the value of x-v".to_owned()], d.to_owned()), sure(c)]);
        assert_eq!(answers("/v/1", &["x-w"]), [sure(c)], "a header that is not there");
        assert_eq!(answers("/p", &["x-p"]), [sure("respond 202 with 0 bytes")]);
        assert_eq!(answers("/m", &["x-v"]), [sure(c)], "another method");
        let found = answers("/q", &[]);
        assert_eq!(found[0].0, ["the query parameter q"]);
        assert_eq!(found[1], sure(c));
    }

    #[test]
    fn the_route_is_among_what_was_foreseen() {
        let (table, _) = load_table(TEXT, Format::Yaml).expect("it is good");
        let listener = table.listener_ids().next().expect("there is one");
        for path in ["/v", "/q", "/p", "/m", "/"] {
            for value in ["1", "2"] {
                for query in [None, Some("q=1")] {
                    let fields = [("x-v", value), ("x-p", value)]
                        .map(|(name, value)| Field { name, value: value.as_bytes() });
                    let (host, method, identity) = ("h", "GET", None);
                    let fields = fields.as_slice();
                    let key = RequestKey { listener, host, path, query, method, fields, identity };
                    let rule = table.route(&key).expect("something matches");
                    let rule = of_rule(&table, rule, path, Vec::new()).rule;
                    let names = ["x-p".to_owned(), "x-v".to_owned()];
                    let header_names = names.as_slice();
                    let known = PartialKey { listener, host, path, method, header_names, identity };
                    let foreseen = foresee(&table, &known);
                    assert!(foreseen.iter().any(|found| found.rule == rule), "{path} {value}");
                }
            }
        }
    }
}
