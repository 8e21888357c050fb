//! The commands of the authority: the same on the folder of a pusher that does not run and, over
//! the network, for one that does.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use ringway_tls::{UnixTime, duration_words};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Authority, CaFault, Pattern, Phase, Role, Subject, TokenRequest, TokenView, View};

/// A command.
#[derive(Debug, Clone, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
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
        #[serde(skip)]
        out: PathBuf,
    },
}

/// A command about tokens.
#[derive(Debug, Clone, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenCommand {
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

/// Key and certificate that a command made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Private key, PEM.
    pub key: String,
    /// Chain, PEM.
    pub chain: String,
    /// Roots, PEM.
    pub roots: String,
}

/// What a command found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// In words.
    pub words: String,
    /// The same for programs.
    pub json: Value,
    /// Whether it did what was asked.
    pub done: bool,
    /// What is to be written where the command was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

impl Answer {
    fn new(words: String, json: impl Serialize, done: bool) -> Answer {
        // What is shown has text for keys, which is all that could fail.
        let json = serde_json::to_value(json).unwrap_or(Value::Null);
        Answer { words, json, done, made: None }
    }
}

/// Does what a command says.
///
/// # Errors
/// [`CaFault`].
pub fn answer(ca: &Authority, command: &Command, now: UnixTime) -> Result<Answer, CaFault> {
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
        Command::Operator { role, name, life, .. } => {
            let credentials = ca.operator(role.parse::<Role>()?, name, *life, now)?;
            let left = duration_words(credentials.issued.until_s - now.as_secs());
            let words = format!("{}: valid for {left}", credentials.issued.id);
            let issued = &credentials.issued;
            let json =
                json!({ "id": issued.id, "serial": issued.serial, "until_s": issued.until_s });
            let made = Made {
                key: credentials.key_pem.expose().to_owned(),
                chain: issued.chain_pem.clone(),
                roots: issued.bundle_pem.clone(),
            };
            Ok(Answer { made: Some(made), ..Answer::new(words, json, true) })
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
