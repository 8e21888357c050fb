//! What is done with a request, as data: forwarding with edits, redirects, direct responses.
//!
//! # Invariants
//! - Names in edits are tokens and never frame a message; values have no control characters. The
//!   table's compiler checked both, so that writing them cannot split a head.
//! - Nothing here allocates but the buffers that callers pass in.

use std::sync::Arc;

use crate::table::ClusterId;

/// What a rule does with a request.
#[derive(Debug)]
pub enum Action {
    /// Sends it to one of some clusters.
    Forward {
        /// Which clusters, by weight.
        backends: Backends,
        /// Changes of the request line.
        rewrite: Rewrite,
    },
    /// Sends the client elsewhere.
    Redirect(Box<Redirect>),
    /// Answers directly.
    Respond(Arc<Respond>),
}

/// Clusters and their weights.
#[derive(Clone, Debug)]
pub struct Backends(Choice);

#[derive(Clone, Debug)]
enum Choice {
    One(ClusterId),
    /// Each cluster with the sum of the weights up to and including its own; the last sum is not 0.
    Weighted(Arc<[(u32, ClusterId)]>),
    /// Weights are all 0.
    Nobody(Arc<[(u32, ClusterId)]>),
}

impl Backends {
    /// `weights` add up to less than 2^32.
    pub(crate) fn new(weights: &[(u32, ClusterId)]) -> Backends {
        if let [(1.., cluster)] = weights {
            return Backends(Choice::One(*cluster));
        }
        let mut sum = 0;
        let sums: Arc<[(u32, ClusterId)]> = weights
            .iter()
            .map(|(weight, cluster)| {
                sum += weight;
                (sum, *cluster)
            })
            .collect();
        Backends(if sum == 0 { Choice::Nobody(sums) } else { Choice::Weighted(sums) })
    }

    /// The cluster for a request, in proportion to the weights over uniform `draw`s. `None` if the
    /// weights are all 0: the request is then answered 500 (Gateway API, HTTPBackendRef).
    #[inline]
    pub fn pick(&self, draw: u32) -> Option<ClusterId> {
        match &self.0 {
            Choice::One(cluster) => Some(*cluster),
            Choice::Nobody(_) => None,
            Choice::Weighted(sums) => {
                let (total, _) = sums.last()?;
                let point = (u64::from(draw) * u64::from(*total)) >> 32;
                sums.iter().find(|(sum, _)| point < u64::from(*sum)).map(|(_, cluster)| *cluster)
            }
        }
    }

    /// The clusters with their weights, in the order of the file. A single cluster counts as weight
    /// 1.
    pub fn weights(&self) -> impl Iterator<Item = (ClusterId, u32)> + '_ {
        let (one, sums): (Option<ClusterId>, &[(u32, ClusterId)]) = match &self.0 {
            Choice::One(cluster) => (Some(*cluster), &[]),
            Choice::Weighted(sums) | Choice::Nobody(sums) => (None, sums),
        };
        let mut before = 0;
        let many = sums.iter().map(move |(sum, cluster)| {
            let weight = sum - before;
            before = *sum;
            (*cluster, weight)
        });
        one.into_iter().map(|cluster| (cluster, 1)).chain(many)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Choice::One(_) => 0,
            Choice::Weighted(sums) | Choice::Nobody(sums) => 16 + size_of_val::<[_]>(sums),
        }
    }
}

/// Changes of header fields. Done in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderEdits {
    /// Names whose fields are all removed. Compare without case.
    pub remove: Vec<Box<str>>,
    /// Fields that replace all of their name.
    pub set: Vec<(Box<str>, Box<str>)>,
    /// Fields added beside those of their name.
    pub add: Vec<(Box<str>, Box<str>)>,
}

/// The edits of a rule that has none.
pub(crate) static NO_EDITS: HeaderEdits =
    HeaderEdits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };

impl HeaderEdits {
    /// Whether nothing is changed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Whether the incoming fields of `name` are dropped: removed, or replaced by what is set.
    #[inline]
    pub fn drops(&self, name: &str) -> bool {
        self.remove.iter().any(|removed| removed.eq_ignore_ascii_case(name))
            || self.set.iter().any(|(set, _)| set.eq_ignore_ascii_case(name))
    }

    /// The fields to write after the incoming ones that were not dropped: what is set, then what is
    /// added.
    pub fn appended(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().chain(&self.add).map(|(name, value)| (&**name, &**value))
    }
}

/// Changes of the request line on its way to a cluster.
#[derive(Clone, Debug, Default)]
pub struct Rewrite(Option<Arc<RewriteParts>>);

#[derive(Debug)]
struct RewriteParts {
    host: Option<Box<str>>,
    path: Option<PathRewrite>,
}

impl Rewrite {
    pub(crate) fn new(host: Option<Box<str>>, path: Option<PathRewrite>) -> Rewrite {
        let any = host.is_some() || path.is_some();
        Rewrite(any.then(|| Arc::new(RewriteParts { host, path })))
    }

    /// Whether nothing is changed.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The new `Host`.
    #[inline]
    pub fn host(&self) -> Option<&str> {
        self.0.as_ref()?.host.as_deref()
    }

    /// The new path.
    #[inline]
    pub fn path(&self) -> Option<&PathRewrite> {
        self.0.as_ref()?.path.as_ref()
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let Some(parts) = &self.0 else { return 0 };
        let host = parts.host.as_ref().map_or(0, |host| host.len());
        let path = parts.path.as_ref().map_or(0, PathRewrite::heap_bytes);
        16 + size_of::<RewriteParts>() + host + path
    }
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces the whole path.
    Full(Box<str>),
    /// Replaces the prefix that the rule matched.
    Prefix {
        /// Bytes of the matched prefix without a slash at its end; 0 for `/`.
        matched: usize,
        /// What stands there instead, without a slash at its end; empty for `/`.
        replacement: Box<str>,
    },
}

impl PathRewrite {
    /// Appends the new path to `out`. `path` is normalised, matched the rule and has no query.
    ///
    /// What follows the prefix is joined with exactly one slash (Gateway API,
    /// `ReplacePrefixMatch`): `/foo` to `/bar` makes `/foo` into `/bar`, `/foo/` into `/bar/` and
    /// `/foo/x` into `/bar/x`; `/foo` to `/` makes `/foo/x` into `/x` and `/foo` into `/`.
    pub fn write(&self, path: &str, out: &mut Vec<u8>) {
        match self {
            PathRewrite::Full(full) => out.extend_from_slice(full.as_bytes()),
            PathRewrite::Prefix { matched, replacement } => {
                let rest = path.get(*matched..).unwrap_or("");
                out.extend_from_slice(replacement.as_bytes());
                if !rest.is_empty() && !rest.starts_with('/') {
                    out.push(b'/');
                }
                out.extend_from_slice(rest.as_bytes());
                if replacement.is_empty() && rest.is_empty() {
                    out.push(b'/');
                }
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            PathRewrite::Full(text) | PathRewrite::Prefix { replacement: text, .. } => text.len(),
        }
    }
}

/// Sends the client elsewhere. What is `None` stays as the request had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Box<str>>,
    /// New host.
    pub host: Option<Box<str>>,
    /// New port.
    pub port: Option<u16>,
    /// New path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// What a redirect starts from: the target of the request.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `http` or `https`, as the client spoke.
    pub scheme: &'a str,
    /// Host of the request; a port in it is ignored.
    pub host: &'a str,
    /// Port of the listener.
    pub port: u16,
    /// Normalised path.
    pub path: &'a str,
    /// Query without the question mark.
    pub query: Option<&'a str>,
}

impl Redirect {
    /// Appends the value of `Location` to `out`: always absolute, the query kept.
    ///
    /// The port is the rule's; otherwise, if the rule names a scheme, that scheme's own; otherwise
    /// the listener's (Gateway API, `HTTPRequestRedirectFilter`). A scheme's own port is not
    /// written.
    pub fn location(&self, target: &Target<'_>, out: &mut Vec<u8>) {
        let scheme = self.scheme.as_deref().unwrap_or(target.scheme);
        let own_port = if scheme == "https" { 443 } else { 80 };
        let inherited = if self.scheme.is_some() { own_port } else { target.port };
        let port = self.port.unwrap_or(inherited);
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        let host = self.host.as_deref().unwrap_or_else(|| crate::host::without_port(target.host));
        out.extend_from_slice(host.as_bytes());
        if port != own_port {
            out.push(b':');
            push_decimal(port, out);
        }
        match &self.path {
            Some(path) => path.write(target.path, out),
            None => out.extend_from_slice(target.path.as_bytes()),
        }
        if let Some(query) = target.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }
}

fn push_decimal(number: u16, out: &mut Vec<u8>) {
    let mut divisor = 10_000;
    while divisor > 1 && number < divisor {
        divisor /= 10;
    }
    while divisor > 0 {
        out.push(b'0' + (number / divisor % 10) as u8);
        divisor /= 10;
    }
}

/// An answer without an origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// `Content-Type`; `None` if there is no body.
    pub content_type: Option<Box<str>>,
    /// At most [`RESPOND_BYTES_MAX`](crate::limits::RESPOND_BYTES_MAX).
    pub body: Box<[u8]>,
    /// Further fields.
    pub headers: Box<[(Box<str>, Box<str>)]>,
}

#[cfg(test)]
mod tests;
