//! Who may be who: identities of workloads, of operators, of the pusher, and patterns of tokens.
//!
//! ```text
//! spiffe://DOMAIN/operator/ROLE/NAME   an operator        by the command line only
//! spiffe://DOMAIN/ringway/pusher       the pusher itself  by itself only
//! spiffe://DOMAIN/...                  a workload         by token, then by renewal
//! ```

use std::fmt;
use std::str::FromStr;

use ringway_tls::SpiffeId;
use serde::{Deserialize, Serialize};

use super::fault::{CaFault, Refusal};
use super::limits::OPERATOR_NAME_BYTES_MAX;

/// First segments of paths that no workload can have.
const RESERVED: [&str; 2] = ["operator", "ringway"];

/// What an operator may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at everything but keys.
    Viewer,
    /// Change drafts and labels.
    Editor,
    /// Release, pause, roll back.
    Releaser,
    /// Issue, deny, rotate.
    CaAdmin,
}

impl Role {
    /// All, the one that may least first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Editor, Role::Releaser, Role::CaAdmin];

    /// Whether this role may do what asks for `needed`.
    #[must_use]
    pub fn allows(self, needed: Role) -> bool {
        self >= needed
    }

    /// As it stands in an identity.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Editor => "editor",
            Role::Releaser => "releaser",
            Role::CaAdmin => "ca-admin",
        }
    }

    /// The role and the name of an operator of the mesh `trust_domain`; `None` for all others.
    #[must_use]
    pub fn of<'i>(id: &'i SpiffeId, trust_domain: &str) -> Option<(Role, &'i str)> {
        if id.trust_domain() != trust_domain {
            return None;
        }
        let (role, name) = id.path().strip_prefix("/operator/")?.split_once('/')?;
        if name.contains('/') {
            return None;
        }
        Some((role.parse().ok()?, name))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = CaFault;

    fn from_str(text: &str) -> Result<Role, CaFault> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            CaFault::Input(format!("{text} is no role: viewer, editor, releaser, ca-admin"))
        })
    }
}

/// The pusher's own identity.
pub(crate) fn pusher(trust_domain: &str) -> Result<SpiffeId, CaFault> {
    parse(&format!("spiffe://{trust_domain}/ringway/pusher"))
}

pub(crate) fn operator(trust_domain: &str, role: Role, name: &str) -> Result<SpiffeId, CaFault> {
    if name.is_empty() || name.len() > OPERATOR_NAME_BYTES_MAX || name.contains('/') {
        return Err(CaFault::Input("an operator's name is one segment of 1 to 64 bytes".into()));
    }
    parse(&format!("spiffe://{trust_domain}/operator/{role}/{name}"))
}

pub(crate) fn parse(text: &str) -> Result<SpiffeId, CaFault> {
    SpiffeId::parse(text).map_err(|fault| CaFault::Input(format!("{text}: {fault}")))
}

/// Whether a workload of the mesh can have this identity.
pub(crate) fn check_workload(id: &SpiffeId, trust_domain: &str) -> Result<(), Refusal> {
    let first = id.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    let is_ours = id.trust_domain() == trust_domain && !first.is_empty();
    if is_ours && !RESERVED.contains(&first) {
        return Ok(());
    }
    Err(Refusal::Identity(id.to_string()))
}

/// Identities that a token is for: one, or all below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Matches);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Matches {
    One(SpiffeId),
    /// Ids whose path goes on after that of this one.
    Below(SpiffeId),
}

impl Pattern {
    /// Reads `spiffe://DOMAIN/PATH` or `spiffe://DOMAIN/PATH/*`; the star stands for one or more
    /// segments.
    ///
    /// # Errors
    /// [`CaFault::Input`] if it is neither.
    pub fn parse(text: &str) -> Result<Pattern, CaFault> {
        match text.strip_suffix("/*") {
            Some(above) => Ok(Pattern(Matches::Below(parse(above)?))),
            None => Ok(Pattern(Matches::One(parse(text)?))),
        }
    }

    /// Whether `id` is one of them.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match &self.0 {
            Matches::One(one) => one == id,
            Matches::Below(above) => {
                let rest = id.as_str().strip_prefix(above.as_str());
                rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
            }
        }
    }

    /// The identity, if there is only one.
    #[must_use]
    pub fn only(&self) -> Option<&SpiffeId> {
        match &self.0 {
            Matches::One(one) => Some(one),
            Matches::Below(_) => None,
        }
    }

    /// Whether some workload of the mesh can match.
    pub(crate) fn check(&self, trust_domain: &str) -> Result<(), Refusal> {
        match &self.0 {
            Matches::One(one) => check_workload(one, trust_domain),
            // All of a trust domain, reserved paths left out when a token is used.
            Matches::Below(all) if all.path().is_empty() && all.trust_domain() == trust_domain => {
                Ok(())
            }
            Matches::Below(above) => check_workload(above, trust_domain),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Matches::One(one) => write!(f, "{one}"),
            Matches::Below(above) => write!(f, "{above}/*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    #[test]
    fn role_allows_what_lesser_roles_may() {
        for (place, role) in Role::ALL.into_iter().enumerate() {
            for (other_place, other) in Role::ALL.into_iter().enumerate() {
                assert_eq!(role.allows(other), place >= other_place, "{role} {other}");
            }
            let operator = operator("mesh", role, "ann").unwrap();
            assert_eq!(Role::of(&operator, "mesh"), Some((role, "ann")));
            assert_eq!(Role::of(&operator, "other"), None);
        }
        for text in ["spiffe://mesh/operator/root/ann", "spiffe://mesh/operator/viewer"] {
            assert_eq!(Role::of(&id(text), "mesh"), None, "{text}");
        }
        assert_eq!(Role::of(&id("spiffe://mesh/operator/viewer/a/b"), "mesh"), None);
        assert_eq!(Role::of(&id("spiffe://mesh/x/operator/viewer/a"), "mesh"), None);
    }

    #[test]
    fn workload_is_never_under_a_reserved_path() {
        for text in ["/operator", "/operator/ca-admin/eve", "/ringway/pusher", "/ringway", ""] {
            let id = id(&format!("spiffe://mesh{text}"));
            assert_eq!(check_workload(&id, "mesh"), Err(Refusal::Identity(id.to_string())));
        }
        for text in ["/operators/a", "/ns/operator/sa/ringway", "/Operator/a"] {
            assert_eq!(check_workload(&id(&format!("spiffe://mesh{text}")), "mesh"), Ok(()));
        }
        assert!(check_workload(&id("spiffe://other/a"), "mesh").is_err());
    }

    #[test]
    fn pattern_matches_whole_segments() {
        let pattern = Pattern::parse("spiffe://mesh/ns/a/*").unwrap();
        assert!(pattern.matches(&id("spiffe://mesh/ns/a/sa/web")));
        assert!(!pattern.matches(&id("spiffe://mesh/ns/a")));
        assert!(!pattern.matches(&id("spiffe://mesh/ns/ab/sa/web")));
        assert!(!pattern.matches(&id("spiffe://mesh2/ns/a/sa/web")));
        let all = Pattern::parse("spiffe://mesh/*").unwrap();
        assert!(all.matches(&id("spiffe://mesh/a")) && !all.matches(&id("spiffe://mesh.x/a")));
        assert!(all.check("mesh").is_ok() && all.check("other").is_err());
        for text in ["spiffe://mesh/a*", "spiffe://mesh/*/b", "*", "spiffe://mesh/a/"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        assert!(Pattern::parse("spiffe://mesh/operator/*").unwrap().check("mesh").is_err());
    }
}
