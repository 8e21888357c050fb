//! What a new policy would change for requests that sidecars have seen.
//!
//! ```text
//! sidecars ─ samples ─┐                                        ┌─▶ stays as it is
//! policies that run ──┼─ for each key: old answers, new ones ──┼─▶ changes: from what to what
//! candidate ──────────┘                                        └─▶ depends on a value
//! ```
//!
//! # Invariants
//! - Nothing is guessed: of headers only names are known and of queries nothing, so what depends on
//!   a value is said to.
//! - Pure: equal material gives equal results.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ringway_protocol::{SampleKey, Sampled, Samples};
use ringway_router::{Foreseen, Format, PartialKey, Table, foresee, load_table};
use serde::{Deserialize, Serialize};

/// Requests that are shown for each change.
const EXAMPLES_MAX: usize = 3;

/// A sidecar that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarSamples {
    /// The workload of its identity; `None` if there is none in the mesh.
    pub workload: Option<String>,
    /// Its identity.
    pub identity: String,
    /// Its node.
    pub node: String,
    /// Hash of the policy that it runs.
    pub running: Option<String>,
    /// What it has seen; `None` if it has not answered.
    pub samples: Option<Samples>,
}

/// What is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// The sidecars that are connected.
    pub sidecars: Vec<SidecarSamples>,
    /// Texts of the policies that run, by hash.
    pub policies: BTreeMap<String, String>,
    /// Texts of the policies that would run, by identity.
    pub candidate: BTreeMap<String, String>,
}

/// Requests for which the answer would be another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Who asks: an identity; `None` for clients that have proved none.
    pub client: Option<String>,
    /// The answer now.
    pub from: String,
    /// The answer then.
    pub to: String,
    /// Sampled requests.
    pub count: u64,
    /// Some of them, as `METHOD host/path`.
    pub examples: Vec<String>,
}

/// Requests of which a value decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Open {
    /// What: `the value of x-v2`, `the query parameter q`.
    pub depends_on: Vec<String>,
    /// Sampled requests.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// What would change for the sidecars of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// The workload, or its identity if the mesh does not know it.
    pub workload: String,
    /// Sidecars with samples.
    pub sidecars: usize,
    /// Sampled requests.
    pub requests: u64,
    /// Those of a listener that the policy in use does not have: they say nothing.
    pub outdated: u64,
    /// Those for which the answer would be another.
    pub changed: u64,
    /// How.
    pub changes: Vec<Change>,
    /// Those of which a value decides.
    pub open: Vec<Open>,
    /// The mesh has no such workload any more: its sidecars keep what they run.
    pub kept: bool,
}

/// What would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// By workload.
    pub workloads: Vec<Effect>,
    /// Sidecars that keep no samples: it is off in their files.
    pub off: Vec<String>,
    /// Sidecars that have not answered.
    pub silent: Vec<String>,
    /// Policies that cannot be compared, and why.
    pub problems: Vec<String>,
}

impl Replay {
    /// Whether the answer to a sampled request would be another.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.workloads.iter().any(|effect| effect.changed > 0)
    }
}

/// Compares.
#[must_use]
pub fn replay(material: &Material) -> Replay {
    let mut replay = Replay::default();
    let mut asked: BTreeMap<(&str, &str), Vec<&Samples>> = BTreeMap::new();
    for sidecar in &material.sidecars {
        let name = format!("{} on {}", called(sidecar), sidecar.node);
        match (&sidecar.samples, &sidecar.running) {
            (None, _) => replay.silent.push(name),
            (Some(samples), _) if !samples.enabled => replay.off.push(name),
            (Some(_), None) => replay.problems.push(format!("{name} runs no policy yet")),
            (Some(samples), Some(hash)) => {
                asked.entry((&sidecar.identity, hash)).or_default().push(samples);
            }
        }
    }
    for ((identity, hash), samples) in asked {
        let known = material.sidecars.iter().find(|sidecar| sidecar.identity == identity);
        let workload = known.map_or(identity, called).to_owned();
        match effect(material, identity, hash, &samples) {
            Ok(effect) => replay.workloads.push(Effect { workload, ..effect }),
            Err(problem) => replay.problems.push(format!("{workload}: {problem}")),
        }
    }
    replay
}

fn called(sidecar: &SidecarSamples) -> &str {
    sidecar.workload.as_deref().unwrap_or(&sidecar.identity)
}

fn effect(
    material: &Material,
    identity: &str,
    hash: &str,
    samples: &[&Samples],
) -> Result<Effect, String> {
    let table = |text: Option<&String>, which: &str| {
        let text = text.ok_or_else(|| format!("the {which} policy is missing"))?;
        load_table(text, Format::Json).map(|(table, _)| table).map_err(|found| found.to_string())
    };
    let old = table(material.policies.get(hash), "running")?;
    let kept = !material.candidate.contains_key(identity);
    let new = if kept { None } else { Some(table(material.candidate.get(identity), "new")?) };
    let mut effect = Effect { sidecars: samples.len(), kept, ..Effect::default() };
    for Sampled { key, count } in samples.iter().flat_map(|samples| &samples.keys) {
        let count = u64::from(*count);
        effect.requests += count;
        let Some(before) = answers(&old, key) else {
            effect.outdated += count;
            continue;
        };
        let Some(new) = &new else { continue };
        let gone = || vec![sure("refused: nothing listens there any more")];
        effect.judge(key, count, &before, &answers(new, key).unwrap_or_else(gone));
    }
    effect.changes.sort_by_key(|change| (Reverse(change.count), change.from.clone()));
    effect.open.sort_by_key(|open| Reverse(open.count));
    Ok(effect)
}

/// The answers that a request may get; `None` if there is no such listener.
fn answers(table: &Table, key: &SampleKey) -> Option<Vec<Foreseen>> {
    let listener = table.listener_named(&key.listener)?;
    let request = PartialKey {
        listener,
        host: &key.host,
        path: &key.path,
        method: &key.method,
        header_names: &key.header_names,
        identity: key.identity.as_deref(),
    };
    let mut found = foresee(table, &request);
    for foreseen in &mut found {
        // Which rule it is does not matter to whoever asks, nor does the weight of an only cluster.
        foreseen.rule.clear();
        foreseen.answer = foreseen.answer.replace(" (weight 1 of 1)", "");
    }
    Some(found)
}

fn sure(answer: &str) -> Foreseen {
    Foreseen { depends: Vec::new(), rule: String::new(), answer: answer.to_owned() }
}

impl Effect {
    fn judge(&mut self, key: &SampleKey, count: u64, before: &[Foreseen], after: &[Foreseen]) {
        let texts = |found: &[Foreseen]| -> BTreeSet<String> {
            found.iter().map(|foreseen| foreseen.answer.clone()).collect()
        };
        let (old, new) = (texts(before), texts(after));
        if before == after || old.len() == 1 && old == new {
            return;
        }
        let example = format!("{} {}{}", key.method, key.host, key.path);
        let show = |examples: &mut Vec<String>| {
            if examples.len() < EXAMPLES_MAX && !examples.contains(&example) {
                examples.push(example.clone());
            }
        };
        if old.is_disjoint(&new) {
            let joined =
                |texts: BTreeSet<String>| texts.into_iter().collect::<Vec<String>>().join(" or ");
            let (from, to, client) = (joined(old), joined(new), key.identity.clone());
            self.changed += count;
            let known = self.changes.iter().position(|change| {
                (&change.client, &change.from, &change.to) == (&client, &from, &to)
            });
            let at = known.unwrap_or_else(|| {
                self.changes.push(Change { client, from, to, count: 0, examples: Vec::new() });
                self.changes.len() - 1
            });
            self.changes[at].count += count;
            show(&mut self.changes[at].examples);
            return;
        }
        let depends = before.iter().chain(after).flat_map(|foreseen| foreseen.depends.clone());
        let depends_on: Vec<String> = depends.collect::<BTreeSet<String>>().into_iter().collect();
        let known = self.open.iter().position(|open| open.depends_on == depends_on);
        let at = known.unwrap_or_else(|| {
            self.open.push(Open { depends_on, count: 0, examples: Vec::new() });
            self.open.len() - 1
        });
        self.open[at].count += count;
        show(&mut self.open[at].examples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"listeners": [{"name": "a", "address": "127.0.0.1:1"}],
        "clusters": [{"name": "c", "endpoints": [{"address": "127.0.0.1:2"}]}],
        "routes": [{"name": "r", "rules": [{"backends": [{"cluster": "c"}]}]}]}"#;

    fn key(path: &str, header_names: &[&str]) -> Sampled {
        let key = SampleKey {
            listener: "a".into(),
            method: "GET".into(),
            host: "shop".into(),
            path: path.into(),
            header_names: header_names.iter().map(|name| (*name).to_owned()).collect(),
            identity: None,
        };
        Sampled { key, count: 2 }
    }

    fn material(rules: &str, keys: Vec<Sampled>) -> Material {
        let samples = Samples {
            node: "n".parse().expect("a name"),
            stream: 1,
            enabled: true,
            seen: 9,
            left_out: 0,
            keys,
        };
        let sidecar = SidecarSamples {
            workload: Some("web".into()),
            identity: "spiffe://d/web".into(),
            node: "n".into(),
            running: Some("h".into()),
            samples: Some(samples),
        };
        let new = OLD.replace(r#"[{"backends""#, &format!(r#"[{rules}{{"backends""#));
        Material {
            sidecars: vec![sidecar],
            policies: [("h".to_owned(), OLD.to_owned())].into(),
            candidate: [("spiffe://d/web".to_owned(), new)].into(),
        }
    }

    #[test]
    fn the_same_policy_changes_nothing() {
        let found = replay(&material("", vec![key("/", &["x-v"])]));
        assert!(!found.changes() && found.problems.is_empty(), "{found:?}");
        assert_eq!((found.workloads[0].requests, found.workloads[0].sidecars), (2, 1));
    }

    #[test]
    fn a_changed_route_changes_exactly_the_requests_that_it_matches() {
        let rules = r#"{"matches": [{"path": {"prefix": "/x"}}], "respond": {"status": 410}}, "#;
        let keys = vec![key("/x/1", &[]), key("/x/2", &[]), key("/y", &[])];
        let found = replay(&material(rules, keys));
        let effect = &found.workloads[0];
        assert_eq!((effect.changed, effect.requests), (4, 6));
        let change = Change {
            client: None,
            from: "forward to cluster c".into(),
            to: "respond 410 with 0 bytes".into(),
            count: 4,
            examples: vec!["GET shop/x/1".into(), "GET shop/x/2".into()],
        };
        assert_eq!(effect.changes, [change]);
    }

    #[test]
    fn what_a_value_decides_is_open() {
        let rules = r#"{"matches": [{"headers": [{"name": "x-v", "exact": "1"}]}],
            "respond": {"status": 410}}, "#;
        let found = replay(&material(rules, vec![key("/", &["x-v"]), key("/", &[])]));
        let effect = &found.workloads[0];
        assert!(!found.changes());
        assert_eq!(effect.open.len(), 1);
        assert_eq!(effect.open[0].depends_on, ["the value of x-v"]);
        assert_eq!(effect.open[0].count, 2, "those without the header are sure");
    }

    #[test]
    fn sidecars_without_samples_are_named() {
        let mut asked = material("", Vec::new());
        let mut other = asked.sidecars[0].clone();
        other.samples = None;
        asked.sidecars.push(other);
        asked.sidecars[0].samples.as_mut().expect("there are").enabled = false;
        let found = replay(&asked);
        assert_eq!(found.off, ["web on n"]);
        assert_eq!(found.silent, ["web on n"]);
        assert!(found.workloads.is_empty());
    }
}
