//! `ringway-push intention`: whether one workload reaches a service, and who would serve it.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_RUNTIME, EXIT_USAGE, complain, counted, load, refuse, say};
use crate::compile::Options;
use crate::intention::{Answer, Request, ask};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The workload that calls, by name or identity.
    #[arg(value_name = "SRC")]
    from: String,
    /// The service that is called, by name or host.
    #[arg(value_name = "DST")]
    to: String,
    /// The method, such as GET.
    #[arg(value_name = "METHOD", requires = "path")]
    method: Option<String>,
    /// The path, such as /orders.
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// The folder.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let loaded = match load(&args.dir, &Options::default()) {
        Ok(loaded) => loaded,
        Err(refusal) => return refuse(&args.dir, refusal),
    };
    let request = args.method.as_deref().zip(args.path.as_deref());
    let request = request.map(|(method, path)| Request { method, path });
    match ask(&loaded.mesh, &args.from, &args.to, request) {
        Ok(answer) => {
            if args.json {
                say(&serde_json::json!(answer).to_string());
            } else {
                print(args, &answer);
            }
            if answer.reachable { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) }
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn print(args: &Args, answer: &Answer) {
    let verdict = if answer.reachable { "reaches" } else { "does not reach" };
    say(&format!("{} {verdict} {}: {}", args.from, args.to, answer.because));
    if let Some(rule) = &answer.rule {
        say(&format!("  by {rule}"));
    }
    for server in &answer.servers {
        let who = match server.identities.as_slice() {
            [] => "outside the mesh".to_owned(),
            identities => identities.join(" or "),
        };
        let count = counted(server.endpoints.len(), "endpoint");
        say(&format!("  to {} (weight {}), {who}, {count}", server.cluster, server.weight));
    }
    say("  authorization is not enforced yet: whoever imports a service may call it");
}
