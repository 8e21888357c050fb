//! What an operator asks of a pusher that runs: `status`, `release`, `rollout`, `rollback`,
//! `history`.

use std::process::ExitCode;

use clap::Subcommand;
use ringway_tls::duration_words;
use serde_json::Value;

use super::client::{Access, ClientFault};
use super::run::ProfileArg;
use super::{EXIT_RUNTIME, complain, say};
use crate::server::core::Ask;
use crate::server::operate::{Rollback, Rollout};

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    access: Access,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct AskArgs {
    /// Why, for the history.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Take the place of a rollout that is under way.
    #[arg(long)]
    supersede: bool,
    /// Skip the waits, but not the stage.
    #[arg(long)]
    now: bool,
    /// How it is rolled out [default: as the pusher is set up].
    #[arg(long, value_enum, conflicts_with = "now")]
    profile: Option<ProfileArg>,
}

impl AskArgs {
    fn ask(&self, force: bool) -> Ask {
        let now = self.now.then_some(ProfileArg::Now);
        Ask {
            message: self.message.clone(),
            force,
            supersede: self.supersede,
            profile: self.profile.or(now).map(Into::into),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    ask: AskArgs,
    /// Release although much would be gone.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    ask: AskArgs,
    /// The release to go back to [default: the good one before the last good one].
    #[arg(value_name = "RELEASE")]
    to: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RolloutArgs {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Let nobody else apply the release.
    Pause,
    /// Go on.
    Resume,
    /// Stop, and bring those who applied it back.
    Abort,
    /// Skip the waits.
    Now,
}

impl From<Action> for Rollout {
    fn from(action: Action) -> Rollout {
        match action {
            Action::Pause => Rollout::Pause,
            Action::Resume => Rollout::Resume,
            Action::Abort => Rollout::Abort,
            Action::Now => Rollout::Now,
        }
    }
}

fn ended(result: Result<(), ClientFault>, words: &str) -> ExitCode {
    match result {
        Ok(()) => {
            say(words);
            ExitCode::SUCCESS
        }
        Err(fault) => {
            complain(&fault.to_string());
            ExitCode::from(EXIT_RUNTIME)
        }
    }
}

pub(super) fn release(args: &ReleaseArgs) -> ExitCode {
    let ask = args.ask.ask(args.force);
    let asked = args.access.client().and_then(|client| client.post::<()>("/v1/release", &ask));
    ended(asked, "released; `ringway-push status` shows how it goes")
}

pub(super) fn rollback(args: &RollbackArgs) -> ExitCode {
    let back = Rollback { to: args.to, ask: args.ask.ask(false) };
    let asked = args.access.client().and_then(|client| client.post::<()>("/v1/rollback", &back));
    ended(asked, "released again; `ringway-push status` shows how it goes")
}

pub(super) fn rollout(args: &RolloutArgs) -> ExitCode {
    let action = Rollout::from(args.action);
    let asked = args.access.client().and_then(|client| client.post::<()>("/v1/rollout", &action));
    ended(asked, "done")
}

/// Shows how everything stands. Exits with 1 if something failed, was halted, is held or
/// quarantined.
pub(super) fn status(args: &ShowArgs) -> ExitCode {
    shown(args, "/v1/status", |status| {
        let well = status["fleet"]["failures"].as_array().is_none_or(Vec::is_empty)
            && status["held"].is_null()
            && status["disk_problem"].is_null()
            && status["rollout"]["progress"]["halted"].is_null()
            && status["quarantined"].as_array().is_none_or(Vec::is_empty);
        (status_words(status), well)
    })
}

/// Shows the releases, the newest first.
pub(super) fn history(args: &ShowArgs) -> ExitCode {
    shown(args, "/v1/history", |history| {
        let entries = history.as_array().map(Vec::as_slice).unwrap_or_default();
        let lines: Vec<String> = entries.iter().rev().map(history_line).collect();
        (if lines.is_empty() { "no releases yet".to_owned() } else { lines.join("\n") }, true)
    })
}

fn shown(args: &ShowArgs, path: &str, words: impl FnOnce(&Value) -> (String, bool)) -> ExitCode {
    match args.access.client().and_then(|client| client.get::<Value>(path)) {
        Ok(value) => {
            let (words, well) = words(&value);
            say(if args.json { format!("{value:#}") } else { words }.trim_end());
            if well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) }
        }
        Err(fault) => {
            complain(&fault.to_string());
            ExitCode::from(EXIT_RUNTIME)
        }
    }
}

fn history_line(entry: &Value) -> String {
    let release = &entry["release"];
    let outcome = match &entry["outcome"] {
        Value::String(word) => word.clone(),
        Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let text = |field: &str| release[field].as_str().unwrap_or_default().to_owned();
    let (author, message) = (text("author"), text("message"));
    let line = format!("release {}: {outcome}, by {author}", release["number"]);
    if message.is_empty() { line } else { format!("{line}: {message}") }
}

fn status_words(status: &Value) -> String {
    let mut lines = Vec::new();
    match status["rollout_text"].as_str() {
        Some(text) => lines.push(text.to_owned()),
        None => lines.push("nothing was released yet".to_owned()),
    }
    if let Some(problem) = status["disk_problem"].as_str() {
        lines.push(format!("STATE: {problem}; it is tried again, and sidecars run on as they are"));
    }
    if !status["held"].is_null() {
        let Value::Object(held) = &status["held"] else { return lines.join("\n") };
        lines.push(format!(
            "HELD: {} of {} {} would be gone; `ringway-push release --force` releases it nevertheless",
            held["gone"], held["before"], held["what"].as_str().unwrap_or_default()
        ));
    } else if status["waiting"] == true {
        lines.push("a release waits: `ringway-push release`".to_owned());
    }
    for diagnostic in status["diagnostics"].as_array().into_iter().flatten() {
        lines.push(format!("mesh: {}", diagnostic.as_str().unwrap_or_default()));
    }
    for object in status["quarantined"].as_array().into_iter().flatten() {
        let key = &object["object"];
        lines.push(format!(
            "quarantined: {} {}: {}",
            key["kind"].as_str().unwrap_or_default(),
            key["name"].as_str().unwrap_or_default(),
            object["fate"].as_str().unwrap_or_default().replace('_', " ")
        ));
    }
    for (identity, clusters) in status["stale"].as_object().into_iter().flatten() {
        let clusters: Vec<&str> =
            clusters.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        lines.push(format!(
            "stale: {identity} keeps the last endpoints of {}, the folder has none",
            clusters.join(", ")
        ));
    }
    for sidecar in status["sidecars"].as_array().into_iter().flatten() {
        lines.push(sidecar_line(sidecar));
    }
    lines.join("\n")
}

fn sidecar_line(row: &Value) -> String {
    let sidecar = &row["sidecar"];
    let version = |field: &str| match &sidecar[field] {
        Value::Null => "-".to_owned(),
        version => {
            let hash = version["hash"].as_str().and_then(|hash| hash.get(..12)).unwrap_or_default();
            format!("{hash}@{}", version["generation"])
        }
    };
    let left = sidecar["certificate_left_ms"].as_i64();
    let left = left.map_or("no certificate".to_owned(), |left| match left {
        1.. => format!("certificate {} left", duration_words(left.unsigned_abs() / 1000)),
        _ => "certificate EXPIRED".to_owned(),
    });
    let connected = if sidecar["connection"]["connected"].is_null() { "away" } else { "connected" };
    let name = row["workload"].as_str().or(row["identity"].as_str()).unwrap_or_default();
    let mut line = format!(
        "{name} on {}: {connected}, wanted {}, staged {}, applied {}, {left}",
        row["node"].as_str().unwrap_or_default(),
        version("wanted"),
        version("staged"),
        version("applied"),
    );
    // Words of a sidecar, not of this terminal.
    let words = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    if let Some(reason) = sidecar["failure"]["reason"].as_str() {
        let kind = sidecar["failure"]["kind"].as_str().unwrap_or_default();
        line += &format!("\n  {kind}: {}", words(reason));
    }
    if let Some(problem) = sidecar["renewal_problem"].as_str() {
        line += &format!("\n  certificate not renewed: {}", words(problem));
    }
    line
}
