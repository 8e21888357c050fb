//! Join tokens: what a workload that has no certificate yet shows instead.
//!
//! A token is 128 random bits, of which the store has the BLAKE3 digest. It is found by that: no
//! comparison takes a time that depends on how much of a guess is right.
//!
//! # Invariants
//! - A use is taken by a write that names the version read: of two who take the last one, one gets
//!   it.
//! - A use is taken after all else has been checked, so that a request that fails costs none.

use std::time::Duration;

use ringway_tls::{SpiffeId, UnixTime};
use serde::{Deserialize, Serialize};

use super::authority::{Authority, hex};
use super::csr::Applicant;
use super::fault::{CaFault, Refusal};
use super::identity::{self, Pattern};
use super::issue::Issued;
use super::keys::{Secret, random};
use super::limits::{
    NOTE_BYTES_MAX, TOKEN_ATTEMPTS_MAX, TOKEN_BYTES_MAX, TOKEN_REMEMBERED_S, TOKEN_TTL_S_MAX,
    TOKEN_USES_MAX, TOKENS_MAX,
};
use crate::store::StoreFault;

pub(super) const TOKENS: &str = "ca/token/";
/// Makes a token known as one, to people and to scanners of secrets.
const PREFIX: &str = "ringway-join-";
/// Digits of a digest that name a token to people.
const NAME_DIGITS: usize = 12;

/// What a token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Whom it is for.
    pub pattern: Pattern,
    /// How long it can be used; at most 90 days.
    pub ttl: Duration,
    /// How often it can be used; `1 <= uses <= TOKEN_USES_MAX`.
    pub uses: u32,
    /// For people; at most 256 bytes.
    pub note: String,
}

/// A token as it was made. It cannot be shown again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What the sidecar gets.
    pub token: Secret,
    /// What is known of it.
    pub view: TokenView,
}

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// Names it: 12 hexadecimal digits.
    pub name: String,
    /// Whom it is for.
    pub pattern: String,
    /// In seconds since 1970.
    pub until_s: u64,
    /// How often it can still be used.
    pub uses_left: u32,
    /// How often it could be.
    pub uses: u32,
    /// For people.
    pub note: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pattern: String,
    pub(super) until_s: u64,
    uses_left: u32,
    uses: u32,
    note: String,
}

impl Authority {
    /// Makes a token.
    ///
    /// # Errors
    /// [`CaFault::Input`] for what it cannot be, [`CaFault::Full`] for too many.
    pub fn create_token(&self, request: &TokenRequest, now: UnixTime) -> Result<NewToken, CaFault> {
        request.pattern.check(&self.trust_domain)?;
        let ttl_s = request.ttl.as_secs();
        if ttl_s == 0 || ttl_s > TOKEN_TTL_S_MAX {
            return Err(CaFault::Input("a token lives 1 s to 90 d".into()));
        }
        if request.uses == 0 || request.uses > TOKEN_USES_MAX {
            return Err(CaFault::Input(format!("a token has 1 to {TOKEN_USES_MAX} uses")));
        }
        if request.note.len() > NOTE_BYTES_MAX {
            return Err(CaFault::Full { what: "bytes of the note", max: NOTE_BYTES_MAX });
        }
        if self.store.list(TOKENS)?.entries.len() >= TOKENS_MAX {
            return Err(CaFault::Full { what: "tokens", max: TOKENS_MAX });
        }
        let text = Secret::new(format!("{PREFIX}{}", hex(&random::<16>()?)));
        let key = key(text.expose());
        let record = Record {
            pattern: request.pattern.to_string(),
            until_s: now.as_secs() + ttl_s,
            uses_left: request.uses,
            uses: request.uses,
            note: request.note.clone(),
        };
        self.write(&key, None, &record)?;
        Ok(NewToken { token: text, view: view(&key, record) })
    }

    /// All tokens, those that are used up or lately expired included.
    ///
    /// # Errors
    /// What the store says.
    pub fn tokens(&self) -> Result<Vec<TokenView>, CaFault> {
        let records = self.list::<Record>(TOKENS)?;
        Ok(records.into_iter().map(|(key, _, record)| view(&key, record)).collect())
    }

    /// Removes the token `name`: who uses it is told that it is not known. Returns whether it was
    /// there.
    ///
    /// # Errors
    /// [`CaFault::Input`] if that is no name; what the store says.
    pub fn revoke_token(&self, name: &str) -> Result<bool, CaFault> {
        if name.len() != NAME_DIGITS || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(CaFault::Input(format!("{name} names no token: 12 hexadecimal digits do")));
        }
        let mut revoked = false;
        for (key, _) in self.store.list(&format!("{TOKENS}{name}"))?.entries {
            // A use at the same moment may change it: then again.
            for _ in 0..TOKEN_ATTEMPTS_MAX {
                if self.delete(&key)? || self.store.get(&key)?.is_none() {
                    break;
                }
            }
            revoked = true;
        }
        Ok(revoked)
    }

    /// The first certificate of a workload, for a token. `asked` may be left out if the token is
    /// for one identity; `draw` is a random number.
    ///
    /// # Errors
    /// [`CaFault::Refused`] with what is wrong; the token has lost a use only if signing itself
    /// failed.
    pub fn join(
        &self,
        token: &str,
        asked: Option<&SpiffeId>,
        csr: &[u8],
        now: UnixTime,
        draw: u32,
    ) -> Result<Issued, CaFault> {
        if token.len() > TOKEN_BYTES_MAX || !token.starts_with(PREFIX) {
            return Err(Refusal::TokenUnknown.into());
        }
        let key = key(token);
        for _ in 0..TOKEN_ATTEMPTS_MAX {
            let read = self.read::<Record>(&key)?;
            let (version, mut record) = read.ok_or(Refusal::TokenUnknown)?;
            let id = record.check(asked, now)?;
            identity::check_workload(&id, &self.trust_domain)?;
            self.check_denied(&id, None, now)?;
            let applicant = Applicant::read(csr)?;
            record.uses_left -= 1;
            match self.write(&key, Some(version), &record) {
                Ok(_) => return self.workload(&applicant, id, now, draw),
                Err(CaFault::Store(StoreFault::Conflict { .. })) => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Refusal::TokenBusy.into())
    }
}

impl Record {
    /// The identity that the token gives, if it still does.
    fn check(&self, asked: Option<&SpiffeId>, now: UnixTime) -> Result<SpiffeId, CaFault> {
        if now.as_secs() > self.until_s {
            return Err(Refusal::TokenExpired { since_s: now.as_secs() - self.until_s }.into());
        }
        let pattern = Pattern::parse(&self.pattern)?;
        let id = match (asked, pattern.only()) {
            (Some(asked), _) => asked.clone(),
            (None, Some(only)) => only.clone(),
            (None, None) => return Err(Refusal::IdentityOpen(self.pattern.clone()).into()),
        };
        if !pattern.matches(&id) {
            let (pattern, asked) = (self.pattern.clone(), id.to_string());
            return Err(Refusal::TokenOtherIdentity { pattern, asked }.into());
        }
        if self.uses_left == 0 {
            return Err(Refusal::TokenUsedUp.into());
        }
        Ok(id)
    }

    /// Whether even that it has expired may be forgotten.
    pub(super) fn is_forgotten(&self, now_s: u64) -> bool {
        self.until_s.saturating_add(TOKEN_REMEMBERED_S) < now_s
    }
}

fn key(token: &str) -> String {
    format!("{TOKENS}{}", blake3::hash(token.as_bytes()).to_hex())
}

fn view(key: &str, record: Record) -> TokenView {
    let digest = key.strip_prefix(TOKENS).unwrap_or(key);
    TokenView {
        name: digest.chars().take(NAME_DIGITS).collect(),
        pattern: record.pattern,
        until_s: record.until_s,
        uses_left: record.uses_left,
        uses: record.uses,
        note: record.note,
    }
}
