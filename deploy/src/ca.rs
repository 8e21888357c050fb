//! The certificate authority of the mesh: who is a member, for how long, and by which root.
//!
//! ```text
//! token ──▶ join ───┐                       ┌─▶ root, 10 y ──▶ issuer, 1 y ──▶ leaf, 24 h
//! leaf ───▶ renew ──┼─▶ [deny list] ─▶ sign ┤      │                            │
//! operator, serving ┘                       └─▶ serial recorded ──▶ CRL      SPIFFE ID, one
//!                    rotation: which roots are in the bundle, which one signs
//! ```
//!
//! # Invariants
//! - A certificate says what the authority decides: of a signing request only its key is used.
//! - A leaf has one URI, which is its identity, and nobody gets a reserved one by token or renewal.
//! - A serial number is recorded before its certificate exists.
//! - Nothing here reads a clock, and jitter comes in as an argument. Keys, serial numbers and
//!   tokens are random bytes of the kernel.
//! - Refusals are typed ([`Refusal`]): the peer is told one word, the log has the rest.
//!
//! An authority at another place (OpenBao, cert-manager) would take over what [`Authority`] does
//! with its issuers, in `issue`; there is no trait for that before there is a second one.
//!
//! # Not here
//! TLS and connections (`server`); when to renew what (the sidecars); rate limits.

mod authority;
mod command;
mod csr;
mod deny;
mod fault;
mod identity;
mod issue;
mod keys;
pub mod limits;
mod lives;
mod rotation;
mod token;
mod view;

pub use authority::Authority;
pub(crate) use authority::hex;
pub use command::{Answer, Command, Made, TokenCommand, answer};
pub use deny::{Crl, Denial, Subject};
pub use fault::{CaFault, Refusal};
pub(crate) use identity::check_workload;
pub use identity::{Pattern, Role};
pub use issue::{Credentials, Issued, Peer};
pub use keys::{Keys, Secret};
pub use lives::{Lives, renew_at_s};
pub use rotation::{AuthorityId, Gate, Phase, Rotation, Wait};
pub use token::{NewToken, TokenRequest, TokenView};
pub use view::{Advanced, AuthorityView, Bundle, Swept, View};

#[cfg(test)]
mod tests;
