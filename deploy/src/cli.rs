//! The command line: `run` and what asks it (`status`, `release`, `rollout`, `rollback`, `history`,
//! `replay`, `ca`), and what needs no pusher (`compile`, `check`, `diff`, `intention`).
//!
//! # Invariants
//! - Exit codes are 64 for a wrong command line, 78 for a wrong mesh, 1 for everything else that
//!   goes wrong (sysexits.h).
//! - With `--json` standard output is one JSON document, and nothing else.

mod ca;
mod check;
mod client;
mod compile;
mod diff;
pub(crate) mod files;
mod intention;
mod operate;
mod replay;
mod run;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand};

use crate::compile::Options;
use crate::diagnostic::Diagnostic;
use crate::model::{Loaded, Mode, accept};
use crate::source::Folder;

/// Exit code for what goes wrong while a command runs.
pub const EXIT_RUNTIME: u8 = 1;
/// Exit code for a wrong command line.
pub const EXIT_USAGE: u8 = 64;
/// Exit code for a wrong mesh.
pub const EXIT_CONFIG: u8 = 78;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The config pusher: from a folder of services, routes and workloads to what each sidecar runs.
#[derive(Debug, Parser)]
#[command(name = "ringway-push", version, styles = STYLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pusher: read a folder, issue certificates, tell sidecars what to do.
    ///
    /// Until SIGTERM. The folder is watched; what it says is checked, staged on all sidecars,
    /// applied step by step and undone by itself if it does harm.
    Run(run::Args),
    /// Show what every sidecar runs, and how the rollout stands.
    ///
    /// Exits with 1 if something failed, is held or quarantined.
    Status(operate::ShowArgs),
    /// Release what the folder says now, if it waits for that or is held.
    Release(operate::ReleaseArgs),
    /// Pause, resume, abort or hurry the rollout.
    Rollout(operate::RolloutArgs),
    /// Release again what an earlier release had.
    Rollback(operate::RollbackArgs),
    /// Show the releases and what became of them.
    History(operate::ShowArgs),
    /// Say what the folder would change for requests that sidecars have seen.
    ///
    /// Asks the sidecars that keep samples (`control.samples`) and compares the answers of the
    /// policies that run with those of the folder. What depends on the value of a header or of a
    /// query is said to, not guessed. Exits with 1 if something would change, or nothing can be
    /// said.
    Replay(replay::Args),
    /// The certificate authority: roots, tokens, operators, denials.
    ///
    /// Works on the state folder, whether the pusher runs on it or not.
    Ca(ca::Args),
    /// Write the static file of every workload's sidecar, or of an Envoy in its place.
    ///
    /// `ringway run` reads what is written; no pusher is needed then. Nothing is written if
    /// something is wrong.
    Compile(compile::Args),
    /// Check a folder without writing anything.
    ///
    /// Prints every problem with its file, line, column, object and a hint. Exits with 78 if there
    /// is one.
    Check(check::Args),
    /// Say what differs between two folders, for each workload.
    ///
    /// Compares what sidecars would run, not texts.
    Diff(diff::Args),
    /// Say whether one workload reaches a service, and who would serve it.
    ///
    /// Exits with 0 if it does and with 1 if not. Authorization is not enforced yet: whoever
    /// imports a service may call it.
    Intention(intention::Args),
}

/// Runs the command line of the process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Run(args) => run::run(args),
        Command::Status(args) => operate::status(&args),
        Command::Release(args) => operate::release(&args),
        Command::Rollout(args) => operate::rollout(&args),
        Command::Rollback(args) => operate::rollback(&args),
        Command::History(args) => operate::history(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Ca(args) => ca::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Intention(args) => intention::run(&args),
    }
}

/// Why a command has no mesh to go on with.
enum Refusal {
    /// The folder cannot be read.
    Unreadable(String),
    /// Something in it is wrong.
    Wrong(Vec<Diagnostic>),
}

/// Reads a folder of which everything must be good.
fn load(folder: &Path, options: &Options) -> Result<Loaded, Refusal> {
    let read = Folder::read(folder).map_err(|error| Refusal::Unreadable(error.to_string()))?;
    accept(&read, None, Mode::Strict, options).map_err(Refusal::Wrong)
}

/// Says why there is no mesh.
fn refuse(folder: &Path, refusal: Refusal) -> ExitCode {
    match refusal {
        Refusal::Unreadable(error) => complain(&error),
        Refusal::Wrong(diagnostics) => {
            for diagnostic in &diagnostics {
                complain(&placed(folder, diagnostic));
            }
            let count = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
            complain(&format!("{}: {}", folder.display(), counted(count, "problem")));
        }
    }
    ExitCode::from(EXIT_CONFIG)
}

/// A diagnostic with its file as the shell finds it.
fn placed(folder: &Path, diagnostic: &Diagnostic) -> String {
    match diagnostic.file.is_empty() {
        true => format!("{}: {diagnostic}", folder.display()),
        false => format!("{}/{diagnostic}", folder.display()),
    }
}

/// `1 problem`, `2 problems`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A line on standard output. A reader that has gone away is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error, red where people look.
fn complain(line: &str) {
    let mut out = std::io::stderr();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = if colour { writeln!(out, "\x1b[31m{line}\x1b[0m") } else { writeln!(out, "{line}") };
}
