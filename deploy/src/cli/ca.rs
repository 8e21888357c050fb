//! `ringway-push ca`: the certificate authority of a pusher, whether it runs or not.
//!
//! A pusher that runs has its state locked: it is asked over its address, by the certificate in the
//! `operator` folder of the state. Else the state itself is opened.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringway_tls::UnixTime;

use super::{EXIT_RUNTIME, EXIT_USAGE, client, complain, files, say};
use crate::ca::{Answer, Authority, CaFault, Command, Made, answer};
use crate::store::StoreFault;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    access: client::Access,
    /// Print one JSON document.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Ca(#[from] CaFault),
    #[error(transparent)]
    Client(#[from] client::ClientFault),
    #[error("{}: {error}", path.display())]
    Write { path: PathBuf, error: std::io::Error },
}

pub(super) fn run(args: &Args) -> ExitCode {
    match done(args) {
        Ok(Answer { words, json, done, .. }) => {
            say(if args.json { json.to_string() } else { words }.trim_end());
            if done { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) }
        }
        Err(fault) => {
            complain(&fault.to_string());
            ExitCode::from(match fault {
                Fault::Ca(CaFault::Input(_) | CaFault::Refused(_)) => EXIT_USAGE,
                // The same, as a pusher that runs says it.
                Fault::Client(client::ClientFault::Refused(refused))
                    if ["input", "identity"].contains(&refused.code.as_str()) =>
                {
                    EXIT_USAGE
                }
                _ => EXIT_RUNTIME,
            })
        }
    }
}

fn done(args: &Args) -> Result<Answer, Fault> {
    let answered = match args.access.state() {
        Some(state) => match Authority::in_folder(state) {
            Ok(ca) => answer(&ca, &args.command, UnixTime::now())?,
            Err(CaFault::Store(StoreFault::InUse { .. })) => asked(args)?,
            Err(fault) => return Err(fault.into()),
        },
        None => asked(args)?,
    };
    if let (Command::Operator { out, .. }, Some(made)) = (&args.command, &answered.made) {
        write_made(out, made).map_err(|error| Fault::Write { path: out.clone(), error })?;
    }
    Ok(answered)
}

fn asked(args: &Args) -> Result<Answer, client::ClientFault> {
    args.access.client()?.post("/v1/ca", &args.command)
}

/// Writes key and certificate as `--operator` of other commands takes them, and as curl does.
fn write_made(folder: &Path, made: &Made) -> std::io::Result<()> {
    files::make_private_folder(folder)?;
    let pair = format!("{}{}", made.chain, made.key);
    for (name, text) in [
        ("svid.pem", &pair),
        ("tls.key", &made.key),
        ("tls.crt", &made.chain),
        ("bundle.pem", &made.roots),
    ] {
        files::write_private(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::ca::{Keys, Lives};
    use crate::store::Local;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// What a command of `ringway-push ca` answers in `folder`.
    fn ca(folder: &Path, words: &[&str]) -> Result<Answer, CaFault> {
        let line = Line::try_parse_from([&["ca"], words].concat()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_782_864_000));
        answer(&Authority::in_folder(folder)?, &line.args.command, now)
    }

    #[test]
    fn commands_work_on_the_folder_of_a_pusher_that_does_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(matches!(ca(folder, &["show"]), Err(CaFault::NoAuthority)));
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_782_864_000));
        let store = Arc::new(Local::open(&folder.join("state.redb")).unwrap());
        let keys = Keys::folder(&folder.join("keys")).unwrap();
        drop(Authority::open(store, keys, "mesh.example", Lives::default(), now).unwrap());

        let id = "spiffe://mesh.example/ns/shop/sa/web";
        let made = ca(folder, &["token", "create", id, "--ttl", "2h"]).unwrap();
        assert!(made.words.starts_with("ringway-join-"));
        assert_eq!(made.json["view"]["until_s"], 1_782_864_000 + 7200);
        let name = made.json["view"]["name"].as_str().unwrap();
        assert!(ca(folder, &["token", "list"]).unwrap().words.contains("1 of 1 uses left"));
        assert!(ca(folder, &["token", "revoke", name]).unwrap().done);
        assert!(!ca(folder, &["token", "revoke", name]).unwrap().done);

        assert!(ca(folder, &["deny", id, "--reason", "stolen", "--for", "1d"]).unwrap().done);
        let shown = ca(folder, &["show"]).unwrap();
        assert!(shown.words.contains("denied spiffe://mesh.example/ns/shop/sa/web"));
        assert_eq!(shown.json["phase"]["name"], "steady");
        assert!(ca(folder, &["allow", id]).unwrap().done);
        assert!(!ca(folder, &["allow", id]).unwrap().done);

        assert_eq!(ca(folder, &["rotate"]).unwrap().json["began"], true);
        assert_eq!(ca(folder, &["rotate"]).unwrap().json["began"], false);
        assert_eq!(ca(folder, &["rotate", "--abort"]).unwrap().json["phase"]["name"], "reverting");

        let out = folder.join("ann");
        let role = ["operator", "releaser", "ann", "--out", out.to_str().unwrap()];
        let answer = ca(folder, &role).unwrap();
        for _ in 0..2 {
            write_made(&out, answer.made.as_ref().unwrap()).unwrap();
        }
        assert_eq!(answer.json["id"], "spiffe://mesh.example/operator/releaser/ann");
        assert!(!answer.json.to_string().contains("PRIVATE"));
        let mode = std::fs::metadata(out.join("tls.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(ca(folder, &["deny", "x", "--reason", ""]), Err(CaFault::Input(_))));
    }
}
