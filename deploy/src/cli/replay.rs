//! `ringway-push replay`: what a folder would change for requests that sidecars have seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::client::Access;
use super::{EXIT_RUNTIME, Refusal, complain, counted, load, refuse, say};
use crate::compile::Options;
use crate::model::Loaded;
use crate::replay::{Effect, Material, Replay, replay};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    access: Access,
    /// A folder to compare with what runs [default: the pusher's own, as it is now].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let candidate = match args.dir.as_deref().map(compiled).transpose() {
        Ok(candidate) => candidate,
        Err(refusal) => return refuse(args.dir.as_deref().unwrap_or(Path::new("")), refusal),
    };
    let asked = args.access.client().and_then(|client| client.post("/v1/replay", &()));
    let mut material: Material = match asked {
        Ok(material) => material,
        Err(fault) => {
            complain(&fault.to_string());
            return ExitCode::from(EXIT_RUNTIME);
        }
    };
    if let Some(candidate) = candidate {
        material.candidate = candidate;
    }
    let found = replay(&material);
    if args.json {
        let document = serde_json::to_value(&found).unwrap_or_default();
        say(&format!("{document:#}"));
    } else {
        found.workloads.iter().for_each(|effect| say(&words(effect)));
    }
    notes(&found).iter().for_each(|note| complain(note));
    if found.workloads.is_empty() || found.changes() {
        return ExitCode::from(EXIT_RUNTIME);
    }
    ExitCode::SUCCESS
}

/// The policies of a folder, by identity.
fn compiled(folder: &Path) -> Result<BTreeMap<String, String>, Refusal> {
    let Loaded { mesh, policies, .. } = load(folder, &Options::default())?;
    let mut texts = BTreeMap::new();
    for (name, object) in &mesh.workloads {
        if let Some(policy) = policies.policy(name) {
            texts.insert(mesh.identity(&object.value), policy.text.clone());
        }
    }
    Ok(texts)
}

/// Why there is less to go by than there could be.
fn notes(found: &Replay) -> Vec<String> {
    let mut notes = found.problems.clone();
    if !found.off.is_empty() {
        notes.push(format!(
            "{} no samples: {}; `control: {{samples: true}}` in a sidecar's file turns them on",
            if found.off.len() == 1 { "1 sidecar keeps" } else { "some sidecars keep" },
            found.off.join(", ")
        ));
    }
    if !found.silent.is_empty() {
        notes.push(format!("no answer from {}", found.silent.join(", ")));
    }
    if found.workloads.is_empty() {
        notes.push("there are no samples to replay".to_owned());
    }
    notes
}

fn words(effect: &Effect) -> String {
    let sidecars = counted(effect.sidecars, "sidecar");
    let requests = counted(effect.requests as usize, "sampled request");
    let head = format!("{} ({sidecars}, {requests})", effect.workload);
    if effect.kept {
        return format!(
            "{head}: no workload of the mesh any more, its sidecars keep what they run"
        );
    }
    let mut lines = vec![match effect.changed {
        0 if effect.requests == 0 => format!("{head}: nothing seen yet"),
        0 => format!("{head}: no answer is sure to change"),
        changed => format!("{head}: {changed} would be answered otherwise"),
    }];
    for change in &effect.changes {
        let client = change.client.as_ref().map(|client| format!(" from {client}"));
        lines.push(format!(
            "  {}{}: {} -> {}",
            counted(change.count as usize, "request"),
            client.unwrap_or_default(),
            change.from,
            change.to
        ));
        lines.push(format!("    such as {}", change.examples.join(", ")));
    }
    for open in &effect.open {
        lines.push(format!(
            "  {}: depends on {}",
            counted(open.count as usize, "request"),
            open.depends_on.join(" and ")
        ));
        lines.push(format!("    such as {}", open.examples.join(", ")));
    }
    if effect.outdated > 0 {
        let outdated = counted(effect.outdated as usize, "request");
        lines.push(format!("  {outdated} of listeners that are not in use any more"));
    }
    lines.join("\n")
}
