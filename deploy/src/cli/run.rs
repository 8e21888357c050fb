//! `ringway-push run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;

use super::{EXIT_CONFIG, EXIT_RUNTIME, EXIT_USAGE, complain};
use crate::ca::Lives;
use crate::model::Mode;
use crate::release::Profile;
use crate::rollout::Waits;
use crate::server::core::Settings;
use crate::server::{self, Options, RunFault};

/// How a change is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProfileArg {
    /// Canary, 1 %, 10 %, 50 %, all; each watched for two minutes.
    Standard,
    /// The same steps without waiting.
    Dev,
    /// Staged by all, then applied by all.
    Now,
}

impl From<ProfileArg> for Profile {
    fn from(profile: ProfileArg) -> Profile {
        match profile {
            ProfileArg::Standard => Profile::Standard,
            ProfileArg::Dev => Profile::Dev,
            ProfileArg::Now => Profile::Now,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the mesh.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// The folder of the state; made if it is missing. Keep it: it holds the keys of the mesh.
    #[arg(long, value_name = "FOLDER", default_value = "ringway-push-state")]
    state: PathBuf,
    /// Where sidecars and operators connect.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7443")]
    listen: SocketAddr,
    /// Where metrics and the fleet page are, in plaintext.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7480")]
    admin: SocketAddr,
    /// What the pusher is called, a DNS name or an address, for those who check names, such as
    /// curl; may be given several times.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// How changes of the folder are rolled out.
    #[arg(long, value_enum, default_value_t = ProfileArg::Standard)]
    profile: ProfileArg,
    /// How long a sidecar watches itself after it applied a release, in the standard profile.
    #[arg(long, value_name = "TIME", default_value = "60s",
          value_parser = humantime::parse_duration)]
    probation: Duration,
    /// How long a step is watched after that, in the standard profile.
    #[arg(long, value_name = "TIME", default_value = "60s",
          value_parser = humantime::parse_duration)]
    bake: Duration,
    /// Changes of the folder wait for `ringway-push release`.
    #[arg(long)]
    manual: bool,
    /// Refuse the folder as a whole if anything in it is wrong.
    #[arg(long)]
    strict: bool,
    /// How long the pusher may be away before the first certificate expires; leaves live 2.5 times
    /// as long [default: 9.6 h, leaves of 24 h].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    outage_budget: Option<Duration>,
    /// Lives of root, issuer, leaf and operator certificates and how far clocks may differ, as
    /// five times with commas between; for trying out and tests.
    #[arg(long, value_name = "TIMES", value_parser = lives, conflicts_with = "outage_budget")]
    lives: Option<Lives>,
    /// What is logged.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::level_filters::LevelFilter,
}

fn lives(text: &str) -> Result<Lives, String> {
    let times: Result<Vec<Duration>, _> =
        text.split(',').map(|time| humantime::parse_duration(time.trim())).collect();
    match times.map_err(|error| error.to_string())?.as_slice() {
        [root, issuer, leaf, operator, skew] => {
            Lives::new(*root, *issuer, *leaf, *operator, *skew).map_err(|fault| fault.to_string())
        }
        other => Err(format!("five times are needed, these are {}", other.len())),
    }
}

pub(super) fn run(args: Args) -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_max_level(args.log_level)
        .with_writer(std::io::stderr)
        .init();
    let lives = match (args.lives, args.outage_budget) {
        (Some(lives), _) => lives,
        (None, Some(budget)) => match Lives::default().with_outage_budget(budget) {
            Ok(lives) => lives,
            Err(fault) => {
                complain(&fault.to_string());
                return ExitCode::from(EXIT_USAGE);
            }
        },
        (None, None) => Lives::default(),
    };
    let options = Options {
        dir: args.dir,
        state: args.state,
        listen: args.listen,
        admin: args.admin,
        names: args.names,
        lives,
        settings: Settings {
            profile: args.profile.into(),
            waits: Waits {
                probation_ms: args.probation.as_millis() as u64,
                bake_ms: args.bake.as_millis() as u64,
                ..Waits::default()
            },
            manual: args.manual,
            mode: if args.strict { Mode::Strict } else { Mode::Quarantine },
        },
    };
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(&fault.to_string());
            ExitCode::from(match fault {
                RunFault::Folder(_) => EXIT_CONFIG,
                _ => EXIT_RUNTIME,
            })
        }
    }
}
