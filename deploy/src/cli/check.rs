//! `ringway-push check`: what is wrong with a folder, and what is worth a look.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_CONFIG, Refusal, complain, counted, load, placed, refuse, say};
use crate::compile::{Options, Policies};
use crate::diagnostic::Diagnostic;
use crate::model::{Loaded, Mesh};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Exit with 78 for warnings, too.
    #[arg(long)]
    strict: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let (diagnostics, mesh) = match load(&args.dir, &Options::default()) {
        Ok(Loaded { diagnostics, mesh, policies, .. }) => (diagnostics, Some((mesh, policies))),
        Err(Refusal::Wrong(diagnostics)) => (diagnostics, None),
        Err(refusal) => return refuse(&args.dir, refusal),
    };
    let good = mesh.is_some() && (!args.strict || diagnostics.is_empty());
    if args.json {
        print_json(&diagnostics, mesh.as_ref().map(|(mesh, _)| mesh), good);
    } else {
        for diagnostic in &diagnostics {
            let line = placed(&args.dir, diagnostic);
            if diagnostic.is_error() { complain(&line) } else { say(&line) }
        }
        let folder = args.dir.display();
        match mesh {
            Some((mesh, policies)) if good => {
                say(&format!("{folder}: valid: {}", summary(&mesh, &policies)));
            }
            _ => complain(&format!("{folder}: {}", counted(diagnostics.len(), "problem"))),
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

fn summary(mesh: &Mesh, policies: &Policies) -> String {
    let classes = policies.classes.len();
    [
        counted(mesh.services.len(), "service"),
        counted(mesh.routes.len(), "route"),
        counted(mesh.workloads.len(), "workload"),
        format!("{classes} different policies"),
    ]
    .join(", ")
}

fn print_json(diagnostics: &[Diagnostic], mesh: Option<&Mesh>, good: bool) {
    let counts = mesh.map(|mesh| {
        serde_json::json!({
            "services": mesh.services.len(),
            "routes": mesh.routes.len(),
            "workloads": mesh.workloads.len(),
        })
    });
    let diagnostics: Vec<_> = diagnostics.iter().map(Diagnostic::to_json).collect();
    let document = serde_json::json!({"valid": good, "mesh": counts, "problems": diagnostics});
    say(&document.to_string());
}
