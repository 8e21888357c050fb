//! `ringway-push ca`: the certificate authority of a state folder, while no pusher runs on it.
//!
//! A pusher that runs has the folder locked; the same commands over its address are another part.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use ringway_tls::{UnixTime, duration_words};
use serde_json::{Value, json};

use super::{EXIT_RUNTIME, EXIT_USAGE, complain, say};
use crate::ca::{
    Authority, CaFault, Credentials, Pattern, Phase, Role, Subject, TokenRequest, TokenView, View,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The state folder of the pusher.
    #[arg(long, value_name = "FOLDER", global = true, default_value = "/var/lib/ringway-push")]
    state: PathBuf,
    /// Print one JSON document.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show roots, issuers, the rotation and the deny list.
    Show,
    /// Begin to replace the root; the running pusher takes the further steps.
    Rotate {
        /// Go back to the old root, as long as it is in the bundle.
        #[arg(long)]
        abort: bool,
    },
    /// Deny an identity, or one certificate by its serial number.
    Deny {
        /// spiffe://DOMAIN/PATH or 32 hexadecimal digits.
        subject: String,
        /// Why; for people and the peer's log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For how long; for good, if it is left out.
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        time: Option<Duration>,
    },
    /// Take a denial back. Exits with 1 if there is none.
    Allow {
        /// As it was denied.
        subject: String,
    },
    /// Tokens that workloads join with.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Issue key and certificate of an operator.
    Operator {
        /// viewer, editor, releaser or ca-admin.
        role: String,
        /// A name of one segment.
        name: String,
        /// How long it is valid; 30 days by default.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        life: Option<Duration>,
        /// Where tls.crt, tls.key and ca.crt go.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is printed once and cannot be shown again.
    Create {
        /// spiffe://DOMAIN/PATH, or spiffe://DOMAIN/PATH/* for all below it.
        pattern: String,
        /// How long it can be used.
        #[arg(long, value_name = "TIME", default_value = "1h",
              value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// How often it can be used.
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// For people.
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// List tokens, without what is secret.
    List,
    /// Remove a token. Exits with 1 if there is none.
    Revoke {
        /// Its name, of 12 hexadecimal digits.
        name: String,
    },
}

/// What a command found: in words, as JSON, and whether it did what was asked.
struct Answer {
    words: String,
    json: Value,
    done: bool,
}

impl Answer {
    fn new(words: String, json: impl serde::Serialize, done: bool) -> Answer {
        // What is shown has text for keys, which is all that could fail.
        Answer { words, json: serde_json::to_value(json).unwrap_or(Value::Null), done }
    }
}

pub(super) fn run(args: &Args) -> ExitCode {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(since);
    match Authority::in_folder(&args.state).and_then(|ca| answer(&ca, &args.command, now)) {
        Ok(Answer { words, json, done }) => {
            say(if args.json { json.to_string() } else { words }.trim_end());
            if done { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) }
        }
        Err(fault) => {
            complain(&fault.to_string());
            ExitCode::from(match fault {
                CaFault::Input(_) | CaFault::Refused(_) => EXIT_USAGE,
                _ => EXIT_RUNTIME,
            })
        }
    }
}

fn answer(ca: &Authority, command: &Command, now: UnixTime) -> Result<Answer, CaFault> {
    match command {
        Command::Show => {
            let view = ca.view(now)?;
            Ok(Answer::new(shown(&view, now), &view, true))
        }
        Command::Rotate { abort } => {
            let began = if *abort { ca.abort_rotation(now)? } else { ca.rotate(now)? };
            let view = ca.view(now)?;
            let words = match (*abort, began) {
                (_, true) => format!("begun: {}", phase_words(&view.phase)),
                (false, false) => format!("under way before: {}", phase_words(&view.phase)),
                (true, false) => format!("nothing to abort: {}", phase_words(&view.phase)),
            };
            let json = json!({ "began": began, "epoch": view.epoch, "phase": view.phase });
            Ok(Answer::new(words, json, true))
        }
        Command::Deny { subject, reason, time } => {
            let until = time.map(|time| {
                UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()).saturating_add(time))
            });
            let denial = ca.deny(Subject::parse(subject)?, reason, until, now)?;
            let revoked: usize = ca.crls(now)?.iter().map(|crl| crl.entries).sum();
            let words = format!("denied: {subject}; {revoked} certificates on revocation lists");
            Ok(Answer::new(words, json!({ "denial": denial, "revoked": revoked }), true))
        }
        Command::Allow { subject } => {
            let was_denied = ca.allow(&Subject::parse(subject)?)?;
            let words = format!("{subject}: {}", if was_denied { "allowed" } else { "not denied" });
            Ok(Answer::new(words, json!({ "was_denied": was_denied }), was_denied))
        }
        Command::Token(command) => token(ca, command, now),
        Command::Operator { role, name, life, out } => {
            let credentials = ca.operator(role.parse::<Role>()?, name, *life, now)?;
            write_credentials(out, &credentials)?;
            let left = duration_words(credentials.issued.until_s - now.as_secs());
            let words = format!("{}: valid for {left}", credentials.issued.id);
            let issued = &credentials.issued;
            let json =
                json!({ "id": issued.id, "serial": issued.serial, "until_s": issued.until_s });
            Ok(Answer::new(words, json, true))
        }
    }
}

fn token(ca: &Authority, command: &TokenCommand, now: UnixTime) -> Result<Answer, CaFault> {
    match command {
        TokenCommand::Create { pattern, ttl, uses, note } => {
            let pattern = Pattern::parse(pattern)?;
            let request = TokenRequest { pattern, ttl: *ttl, uses: *uses, note: note.clone() };
            let made = ca.create_token(&request, now)?;
            let text = made.token.expose().to_owned();
            let json = json!({ "token": text, "view": made.view });
            Ok(Answer::new(text, json, true))
        }
        TokenCommand::List => {
            let tokens = ca.tokens()?;
            let lines: Vec<_> = tokens.iter().map(|token| token_words(token, now)).collect();
            Ok(Answer::new(lines.join("\n"), &tokens, true))
        }
        TokenCommand::Revoke { name } => {
            let was_there = ca.revoke_token(name)?;
            let words = format!("{name}: {}", if was_there { "revoked" } else { "not known" });
            Ok(Answer::new(words, json!({ "was_there": was_there }), was_there))
        }
    }
}

fn phase_words(phase: &Phase) -> String {
    let (old, new) = match phase {
        Phase::Steady { root } => return format!("steady, root {}", root.as_str()),
        Phase::Dropping { gone, root, .. } => {
            let (gone, root) = (gone.as_str(), root.as_str());
            return format!("dropping: root {gone} is out of the bundle, {root} signs");
        }
        Phase::Introduced { old, new, .. }
        | Phase::Issuing { old, new, .. }
        | Phase::Reverting { old, new, .. } => (old.as_str(), new.as_str()),
    };
    match phase {
        Phase::Issuing { .. } => format!("issuing: {new} signs, {old} runs out"),
        Phase::Reverting { .. } => format!("reverting: {old} signs again, {new} runs out"),
        _ => format!("introduced: {new} is made known, {old} signs"),
    }
}

fn shown(view: &View, now: UnixTime) -> String {
    let mut lines = vec![
        format!("{}: bundle of epoch {}", view.trust_domain, view.epoch),
        format!("roots sha256 {}", view.roots_sha256),
        phase_words(&view.phase),
    ];
    for authority in &view.authorities {
        let kind = if authority.root.is_some() { "issuer" } else { "root" };
        let signs = if authority.id == view.issuer { ", signs" } else { "" };
        let key = if authority.has_key { "" } else { ", its key is not here" };
        let left = left_words(authority.until_s, now);
        lines.push(format!("{kind} {}: {left}{signs}{key}", authority.id.as_str()));
    }
    lines.push(format!("{} certificates, {} tokens", view.issued, view.tokens));
    for denial in &view.denials {
        let (Subject::Identity(subject) | Subject::Serial(subject)) = &denial.subject;
        let until = denial.until_s.map_or("for good".to_owned(), |at_s| left_words(at_s, now));
        lines.push(format!("denied {subject}, {until}: {}", denial.reason));
    }
    lines.join("\n")
}

fn token_words(token: &TokenView, now: UnixTime) -> String {
    let TokenView { name, pattern, uses_left, uses, note, .. } = token;
    let left = left_words(token.until_s, now);
    format!("{name} {pattern}: {uses_left} of {uses} uses left, {left} {note}")
        .trim_end()
        .to_owned()
}

fn left_words(until_s: u64, now: UnixTime) -> String {
    match until_s.checked_sub(now.as_secs()) {
        Some(left_s) => format!("{} left", duration_words(left_s)),
        None => "expired".to_owned(),
    }
}

fn write_credentials(folder: &Path, credentials: &Credentials) -> Result<(), CaFault> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| CaFault::Key { doing: "write", path, text: error.to_string() }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let issued = &credentials.issued;
    let files = [
        ("tls.key", credentials.key_pem.expose(), 0o600),
        ("tls.crt", issued.chain_pem.as_str(), 0o644),
        ("ca.crt", issued.bundle_pem.as_str(), 0o644),
    ];
    for (name, text, mode) in files {
        let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
        // One that is there may have another mode.
        let _ = fs::remove_file(&new);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let mut file = options.open(&new).map_err(failed(&new))?;
        file.write_all(text.as_bytes()).map_err(failed(&new))?;
        fs::rename(&new, &path).map_err(failed(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

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
        ca(folder, &role).unwrap();
        let answer = ca(folder, &role).unwrap();
        assert_eq!(answer.json["id"], "spiffe://mesh.example/operator/releaser/ann");
        assert!(!answer.json.to_string().contains("PRIVATE"));
        let mode = fs::metadata(out.join("tls.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(ca(folder, &["deny", "x", "--reason", ""]), Err(CaFault::Input(_))));
    }
}
