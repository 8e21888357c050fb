//! `ringway-push diff`: what differs between two folders, for each workload.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_CONFIG, complain, load, refuse, say};
use crate::compile::Options;
use crate::diff::{How, diff};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder as it was.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The folder as it shall be.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let mut meshes = Vec::new();
    for folder in [&args.before, &args.after] {
        match load(folder, &Options::default()) {
            Ok(loaded) => meshes.push(loaded.mesh),
            Err(refusal) => return refuse(folder, refusal),
        }
    }
    let found = match diff(&meshes[0], &meshes[1]) {
        Ok(found) => found,
        Err(diagnostics) => {
            diagnostics.iter().for_each(|diagnostic| complain(&diagnostic.to_string()));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if args.json {
        say(&serde_json::json!({"workloads": found}).to_string());
        return ExitCode::SUCCESS;
    }
    if found.is_empty() {
        say("no sidecar would notice");
    }
    for workload in &found {
        match workload.how {
            How::Added => say(&format!("workload {}: new", workload.workload)),
            How::Removed => say(&format!("workload {}: gone", workload.workload)),
            How::Changed => say(&format!("workload {}", workload.workload)),
        }
        for change in &workload.changes {
            say(&format!("  {change}"));
        }
    }
    ExitCode::SUCCESS
}
