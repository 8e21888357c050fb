//! The command line: `run`, `check`, `explain`, `certs`, `status`, `health`.
//!
//! # Invariants
//! - Exit codes are 64 for a wrong command line, 78 for a wrong file, 1 for everything else that
//!   goes wrong (sysexits.h).

mod ask;
mod certs;
mod status;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ringway_router::{Field, Severity, Table, explain};
use tracing::level_filters::LevelFilter;

use crate::control::reload::{self, Rejection};
use crate::health::{self, Health, HealthError};
use crate::io::backend;
use crate::logging;
use crate::run::{self, Options, StartError};

/// Version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("RINGWAY_COMMIT"), ")");

const EXIT_RUNTIME: u8 = 1;
const EXIT_USAGE: u8 = 64;
const EXIT_CONFIG: u8 = 78;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// A service-mesh sidecar that reads a static file.
#[derive(Debug, Parser)]
#[command(name = "ringway", version = VERSION, styles = STYLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    ///
    /// Reads the file, listens, and forwards until SIGTERM. The file is watched: an edit takes
    /// effect at once and closes no connection; a wrong one is reported and changes nothing.
    Run(RunArgs),
    /// Check a file, and the certificate files that it names, without running it.
    ///
    /// Prints every problem with its line, column and a hint, and warnings about rules that can
    /// never match. Exits with 78 if there is a problem.
    Check(CheckArgs),
    /// Say which rule answers a request, and why.
    ///
    /// Compiles the file with the code that the proxy runs, and shows the rules that were looked
    /// at and the first condition that failed in each.
    Explain(ExplainArgs),
    /// Show the certificates in use: identity, chain, expiry, fingerprint.
    ///
    /// Asks the proxy that runs with the file at its admin address. If none answers, reads the
    /// files and checks them as a start would.
    Certs(CertsArgs),
    /// Show what the pusher has said to the proxy that runs with the file, and what became of it.
    ///
    /// Asks the proxy at its admin address. Exits with 0 if it runs what the pusher wants and is
    /// connected, else with 1.
    Status(StatusArgs),
    /// Ask a gRPC server how it is, by the health protocol of gRPC.
    ///
    /// Prints SERVING, NOT_SERVING, SERVICE_UNKNOWN or UNKNOWN. Exits with 0 for SERVING and with 1
    /// for everything else, so that it serves as an exec probe.
    Health(HealthArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration, YAML or JSON.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// How bytes are moved.
    #[arg(long, value_enum, default_value_t = backend::Request::Auto)]
    backend: backend::Request,
    /// Number of worker threads [default: what affinity and cgroup allow].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Keep each worker on one processor.
    #[arg(long)]
    pin: bool,
    /// What is logged.
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The configuration, YAML or JSON.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The configuration, YAML or JSON.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The method, such as GET.
    #[arg(value_name = "METHOD")]
    method: String,
    /// The target: http://host/path?query, or /path?query with a Host header.
    #[arg(value_name = "URL")]
    url: String,
    /// A header field of the request; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The identity that the client has proved, such as spiffe://cluster.local/ns/default/sa/web.
    #[arg(long, value_name = "SPIFFE-ID")]
    identity: Option<String>,
    /// The listener that the request comes in by [default: the first http1 one].
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
}

#[derive(Debug, Args)]
struct CertsArgs {
    /// The configuration, YAML or JSON.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Read the files, whatever runs.
    #[arg(long)]
    files: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// The configuration, YAML or JSON.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// The server, HTTP/2 without TLS.
    #[arg(value_name = "IP:PORT")]
    address: SocketAddr,
    /// The service to ask about [default: the server as a whole].
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// How long it may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    timeout_ms: u32,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
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
        Command::Run(args) => run_proxy(args),
        Command::Check(args) => check(&args.file),
        Command::Explain(args) => explain_request(&args),
        Command::Certs(args) => certs::show(&args.file, args.files),
        Command::Status(args) => status::show(&args.file, args.json),
        Command::Health(args) => ask_health(&args),
    }
}

fn run_proxy(args: RunArgs) -> ExitCode {
    let logging = logging::start(args.log_level.into());
    let options = Options {
        config: args.config,
        backend: args.backend,
        workers: args.workers.map(usize::from),
        pin: args.pin,
    };
    let ended = run::run(options);
    // The last lines of the log first.
    drop(logging);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(match error {
                StartError::Config(
                    Rejection::Invalid { .. }
                    | Rejection::Unreadable { .. }
                    | Rejection::Credentials { .. },
                ) => EXIT_CONFIG,
                StartError::Config(Rejection::Bind { .. })
                | StartError::Backend(_)
                | StartError::Admin { .. }
                | StartError::Pusher(_)
                | StartError::State(_)
                | StartError::System(_) => EXIT_RUNTIME,
            })
        }
    }
}

fn check(file: &Path) -> ExitCode {
    let compiled = reload::read(file)
        .and_then(|bytes| reload::compile(file, &bytes))
        .and_then(|(table, loaded)| certs::of(file, &table).map(|_| (table, loaded)));
    match compiled {
        Ok((table, loaded)) => {
            for warning in &loaded.warnings {
                say(&format!("{}:{warning}", file.display()));
            }
            let (routes, clusters) = (table.route_count(), table.clusters().len());
            let (listeners, hash) = (table.listeners().len(), table.hash().short().to_string());
            say(&format!(
                "{}: valid: {listeners} listeners, {routes} routes, {clusters} clusters, {} bytes, \
                 table {hash}",
                file.display(),
                table.bytes(),
            ));
            ExitCode::SUCCESS
        }
        Err(Rejection::Invalid { path, problems }) => {
            for problem in &problems.0 {
                let word = match problem.severity {
                    Severity::Error => "",
                    Severity::Warning => "warning: ",
                };
                complain(&format!("{path}:{word}{problem}"));
            }
            let count = problems.0.len();
            complain(&format!("{path}: {count} problem{}", if count == 1 { "" } else { "s" }));
            ExitCode::from(EXIT_CONFIG)
        }
        Err(other) => {
            complain(&other.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn explain_request(args: &ExplainArgs) -> ExitCode {
    let table = match table_of(&args.file) {
        Ok(table) => table,
        Err(code) => return code,
    };
    let listener = match &args.listener {
        Some(name) => match table.listener_named(name) {
            Some(listener) => Some(listener),
            None => {
                complain(&format!("there is no listener `{name}`"));
                return ExitCode::from(EXIT_USAGE);
            }
        },
        None => None,
    };
    let fields: Vec<Field<'_>> =
        args.headers.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
    let identity = args.identity.as_deref();
    let explanation = explain(&table, listener, &args.method, &args.url, &fields, identity);
    say(explanation.to_string().trim_end());
    if explanation.rule.is_some() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) }
}

fn ask_health(args: &HealthArgs) -> ExitCode {
    let patience = Duration::from_millis(args.timeout_ms.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime
        .map_err(HealthError::Connect)
        .and_then(|runtime| runtime.block_on(health::check(args.address, &args.service, patience)));
    match &asked {
        Ok(health) => say(&health.to_string()),
        Err(error) => complain(&format!("{}: {error}", args.address)),
    }
    let serves = matches!(asked, Ok(Health::Serving));
    if serves { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) }
}

/// The table of a file, or how to exit after saying what is wrong with it.
fn table_of(file: &Path) -> Result<Table, ExitCode> {
    let compiled = reload::read(file).and_then(|bytes| reload::compile(file, &bytes));
    compiled.map(|(table, _)| table).map_err(|rejection| {
        complain(&rejection.to_string());
        ExitCode::from(EXIT_CONFIG)
    })
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
