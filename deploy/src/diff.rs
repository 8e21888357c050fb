//! What would be different for whom, between two meshes.
//!
//! Policies are compared, not files: moving an object to another file or writing a value in another
//! way changes nothing. Lists of named things are compared by name, rules after what both have in
//! common at either end.
//!
//! ```text
//! workload web
//!   + may call db:pg
//!   ~ route shop:http/shop-canary rule 1: backends.shop-v2:http.weight: 10 -> 50
//!   ~ endpoints of shop:http: +2 -1
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::compile::{self, Endpoint, Options, Policy};
use crate::diagnostic::Diagnostic;
use crate::model::Mesh;

/// Whether something came, went or is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is different.
    Changed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Came, went or different.
    pub how: How,
    /// What, in words: `route shop:http/shop-canary rule 1`.
    pub what: String,
    /// The field that is different, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Its value before; absent if it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Its value after; absent if it is not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.how {
            How::Added => '+',
            How::Removed => '-',
            How::Changed => '~',
        };
        write!(f, "{mark} {}", self.what)?;
        let Some(field) = &self.field else { return Ok(()) };
        let shown = |value: &Option<Value>| match value {
            None => "default".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        write!(f, ": {field}: {} -> {}", shown(&self.from), shown(&self.to))
    }
}

/// What is different for one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkloadDiff {
    /// Its name.
    pub workload: String,
    /// Whether it came, went or is different.
    pub how: How,
    /// What is different; empty if it came or went.
    pub changes: Vec<Change>,
}

/// Compares two meshes: only workloads that differ.
///
/// # Errors
/// One of them does not compile, which an accepted mesh does.
pub fn diff(before: &Mesh, after: &Mesh) -> Result<Vec<WorkloadDiff>, Vec<Diagnostic>> {
    let options = Options::default();
    let names: BTreeSet<&String> = before.workloads.keys().chain(after.workloads.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let (old, new) = (before.workloads.get(name), after.workloads.get(name));
        let (how, changes) = match (old, new) {
            (Some(old), Some(new)) => {
                let mut changes = Vec::new();
                let pair = [before.identity(&old.value), after.identity(&new.value)];
                field(&mut changes, "the workload", "identity", pair.map(|id| Some(id.into())));
                let old = compile::compile(before, &old.value, &options)?;
                let new = compile::compile(after, &new.value, &options)?;
                policies(&mut changes, &old, &new);
                (How::Changed, changes)
            }
            (None, _) => (How::Added, Vec::new()),
            (_, None) => (How::Removed, Vec::new()),
        };
        if how != How::Changed || !changes.is_empty() {
            found.push(WorkloadDiff { workload: name.clone(), how, changes });
        }
    }
    Ok(found)
}

/// Elements of a list by name.
type Named = BTreeMap<String, Value>;

fn named(policy: &Value, list: &str) -> Named {
    let elements = policy.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let name = |element: &Value| Some((element.get("name")?.as_str()?.to_owned(), element.clone()));
    elements.iter().filter_map(name).collect()
}

fn policies(changes: &mut Vec<Change>, old: &Policy, new: &Policy) {
    let parse = |policy: &Policy| serde_json::from_str(&policy.text).unwrap_or(Value::Null);
    let (before, after): (Value, Value) = (parse(old), parse(new));
    let lists = |list| (named(&before, list), named(&after, list));
    by_name(changes, lists("listeners"), |name| format!("listener {name}"), objects);
    let cluster = |name: &str| match name.strip_prefix("local:") {
        Some(port) => format!("application behind {port}"),
        None => format!("may call {name}"),
    };
    by_name(changes, lists("clusters"), cluster, objects);
    by_name(changes, lists("routes"), |name| format!("route {name}"), route);
    for (name, set) in &new.endpoints {
        let Some(before) = old.endpoints.get(name) else { continue };
        let missing = |set: &Vec<Endpoint>, from: &Vec<Endpoint>| {
            set.iter().filter(|one| !from.contains(*one)).count()
        };
        let (added, removed) = (missing(set, before), missing(before, set));
        if added + removed > 0 {
            let what = format!("endpoints of {name}: +{added} -{removed}");
            changes.push(Change { how: How::Changed, what, field: None, from: None, to: None });
        }
    }
}

/// Compares two lists of named things.
fn by_name(
    changes: &mut Vec<Change>,
    (before, after): (Named, Named),
    what: impl Fn(&str) -> String,
    compare: impl Fn(&mut Vec<Change>, &str, &Value, &Value),
) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        match (before.get(name), after.get(name)) {
            (Some(old), Some(new)) => compare(changes, &what(name), old, new),
            (old, _) => {
                let how = if old.is_some() { How::Removed } else { How::Added };
                let what = what(name);
                changes.push(Change { how, what, field: None, from: None, to: None });
            }
        }
    }
}

/// Compares routes: all but the rules as objects, rules one by one.
fn route(changes: &mut Vec<Change>, what: &str, old: &Value, new: &Value) {
    let rules = |route: &Value| {
        let rules = route.get("rules").and_then(Value::as_array);
        rules.cloned().unwrap_or_default()
    };
    let without_rules = |route: &Value| {
        let mut route = route.clone();
        route.as_object_mut().map(|fields| fields.remove("rules"));
        route
    };
    objects(changes, what, &without_rules(old), &without_rules(new));
    let (old, new) = (rules(old), rules(new));
    let least = old.len().min(new.len());
    let common = |pairs: &mut dyn Iterator<Item = (&Value, &Value)>, most: usize| {
        pairs.take(most).take_while(|(old, new)| old == new).count()
    };
    let start = common(&mut old.iter().zip(&new), least);
    let end = common(&mut old.iter().rev().zip(new.iter().rev()), least - start);
    let (before, after) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    for nth in 0..before.len().max(after.len()) {
        let what = format!("{what} rule {}", start + nth);
        match (before.get(nth), after.get(nth)) {
            (Some(old), Some(new)) => objects(changes, &what, &by_cluster(old), &by_cluster(new)),
            (old, _) => {
                let how = if old.is_some() { How::Removed } else { How::Added };
                changes.push(Change { how, what, field: None, from: None, to: None });
            }
        }
    }
}

/// A rule whose backends are found by the cluster they name.
fn by_cluster(rule: &Value) -> Value {
    let mut rule = rule.clone();
    let Some(backends) = rule.get_mut("backends") else { return rule };
    let mut found = Map::new();
    for backend in backends.as_array().into_iter().flatten() {
        let name = backend.get("cluster").and_then(Value::as_str).unwrap_or_default();
        let weight = backend.get("weight").cloned().unwrap_or_else(|| 1.into());
        if found.insert(name.to_owned(), serde_json::json!({"weight": weight})).is_some() {
            // Named twice, they are only found by their place.
            return rule;
        }
    }
    *backends = Value::Object(found);
    rule
}

/// Compares the fields of two objects, down to single values.
fn objects(changes: &mut Vec<Change>, what: &str, old: &Value, new: &Value) {
    fields(changes, what, "", Some(old), Some(new));
}

fn fields(
    changes: &mut Vec<Change>,
    what: &str,
    path: &str,
    old: Option<&Value>,
    new: Option<&Value>,
) {
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (old, new) {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            fields(changes, what, &path, before.get(name), after.get(name));
        }
        return;
    }
    field(changes, what, path, [old.cloned(), new.cloned()]);
}

fn field(changes: &mut Vec<Change>, what: &str, path: &str, [from, to]: [Option<Value>; 2]) {
    if from != to {
        let (what, field) = (what.to_owned(), Some(path.to_owned()));
        changes.push(Change { how: How::Changed, what, field, from, to });
    }
}
