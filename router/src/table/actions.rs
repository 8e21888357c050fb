//! Rules of the configuration as rules of the table; equal parts of different rules share memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::{ClusterId, RouteId, Rule};
use crate::action::{Action, Backends, HeaderEdits, PathRewrite, Redirect, Respond, Rewrite};
use crate::config::{
    HeaderEditsConfig, MatchConfig, PathConfig, RedirectConfig, ReplaceConfig, RespondConfig,
    RewriteConfig, RuleConfig,
};

/// Builds rules. The configuration was checked.
pub(super) struct Rules<'c> {
    pub(super) clusters: HashMap<&'c str, ClusterId, foldhash::fast::FixedState>,
    edits: Shared<HeaderEdits>,
    responses: Shared<Respond>,
    backends: HashMap<Vec<(u32, ClusterId)>, Backends, foldhash::fast::FixedState>,
    heap_bytes: usize,
}

type Shared<T> = HashMap<Arc<T>, (), foldhash::fast::FixedState>;

fn shared<T: Eq + Hash>(all: &mut Shared<T>, value: T) -> Arc<T> {
    match all.entry(Arc::new(value)) {
        Entry::Occupied(known) => Arc::clone(known.key()),
        Entry::Vacant(new) => {
            let value = Arc::clone(new.key());
            new.insert(());
            value
        }
    }
}

impl<'c> Rules<'c> {
    pub(super) fn new(
        clusters: HashMap<&'c str, ClusterId, foldhash::fast::FixedState>,
    ) -> Rules<'c> {
        Rules {
            clusters,
            edits: Shared::default(),
            responses: Shared::default(),
            backends: HashMap::default(),
            heap_bytes: 0,
        }
    }

    pub(super) fn rule(&mut self, route: RouteId, config: &RuleConfig) -> Rule {
        Rule {
            route,
            line: config.line,
            timeout_ms: config.timeout.map_or(0, milliseconds),
            idle_timeout_ms: milliseconds(config.idle_timeout),
            max_request_body: config.max_request_body.unwrap_or(u64::MAX),
            action: self.action(config),
            request_headers: self.header_edits(config.request_headers.as_deref()),
            response_headers: self.header_edits(config.response_headers.as_deref()),
        }
    }

    fn action(&mut self, config: &RuleConfig) -> Action {
        let matched = matched_prefix(&config.matches).unwrap_or(0);
        if let Some(redirect) = &config.redirect {
            let redirect = Box::new(new_redirect(redirect, matched));
            self.heap_bytes += size_of::<Redirect>();
            return Action::Redirect(redirect);
        }
        if let Some(respond) = &config.respond {
            return Action::Respond(shared(&mut self.responses, new_respond(respond)));
        }
        let rewrite = new_rewrite(config.rewrite.as_deref(), matched);
        self.heap_bytes += rewrite.heap_bytes();
        Action::Forward { backends: self.backends(config), rewrite }
    }

    fn backends(&mut self, config: &RuleConfig) -> Backends {
        let weights = config.backends.iter().filter_map(|backend| {
            Some((backend.weight, *self.clusters.get(backend.cluster.as_str())?))
        });
        let weights: Vec<(u32, ClusterId)> = weights.collect();
        if let [(1.., _)] = weights[..] {
            return Backends::new(&weights);
        }
        let heap_bytes = &mut self.heap_bytes;
        let new = |weights: &Vec<(u32, ClusterId)>| {
            let backends = Backends::new(weights);
            *heap_bytes += backends.heap_bytes();
            backends
        };
        self.backends.entry(weights).or_insert_with_key(new).clone()
    }

    fn header_edits(&mut self, config: Option<&HeaderEditsConfig>) -> Option<Arc<HeaderEdits>> {
        let config = config?;
        let pair = |(name, value): (&String, &String)| (boxed(name), boxed(value));
        let edits = HeaderEdits {
            remove: config.remove.iter().map(|name| boxed(name)).collect(),
            set: config.set.iter().map(pair).collect(),
            add: config.add.iter().map(pair).collect(),
        };
        Some(shared(&mut self.edits, edits))
    }

    /// Bytes on the heap that the rules built so far refer to.
    pub(super) fn heap_bytes(&self) -> usize {
        let of_pairs = |pairs: &[(Box<str>, Box<str>)]| {
            let text: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
            text + size_of_val(pairs)
        };
        let of_edits = |edits: &Arc<HeaderEdits>| {
            let removed: usize = edits.remove.iter().map(|name| name.len() + 16).sum();
            size_of::<HeaderEdits>() + of_pairs(&edits.set) + of_pairs(&edits.add) + removed
        };
        let of_respond = |respond: &Arc<Respond>| {
            size_of::<Respond>() + respond.body.len() + of_pairs(&respond.headers)
        };
        self.heap_bytes
            + self.edits.keys().map(of_edits).sum::<usize>()
            + self.responses.keys().map(of_respond).sum::<usize>()
    }
}

fn boxed(text: &str) -> Box<str> {
    text.into()
}

/// The limits relate the longest duration to 32 bits.
pub(super) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// The prefix that all matches of a rule share, in bytes without a slash at its end (0 for `/` and
/// for no path); `None` if they do not share one.
pub(crate) fn matched_prefix(matches: &[MatchConfig]) -> Option<usize> {
    let prefix = |config: &MatchConfig| match &config.path {
        None => Some(String::new()),
        Some(PathConfig::Prefix(prefix)) => {
            Some(prefix.strip_suffix('/').unwrap_or(prefix).to_owned())
        }
        Some(PathConfig::Exact(_) | PathConfig::Regex(_)) => None,
    };
    let Some(first) = matches.first() else { return Some(0) };
    let wanted = prefix(first)?;
    let all = matches.iter().all(|other| prefix(other).as_ref() == Some(&wanted));
    all.then_some(wanted.len())
}

fn new_path(config: &ReplaceConfig, matched: usize) -> PathRewrite {
    match config {
        ReplaceConfig::Full(path) => PathRewrite::Full(boxed(path)),
        ReplaceConfig::Prefix(path) => PathRewrite::Prefix {
            matched,
            replacement: boxed(path.strip_suffix('/').unwrap_or(path)),
        },
    }
}

fn new_rewrite(config: Option<&RewriteConfig>, matched: usize) -> Rewrite {
    let Some(config) = config else { return Rewrite::default() };
    let path = config.path.as_ref().map(|path| new_path(path, matched));
    Rewrite::new(config.host.as_deref().map(boxed), path)
}

fn new_redirect(config: &RedirectConfig, matched: usize) -> Redirect {
    Redirect {
        scheme: config.scheme.as_deref().map(boxed),
        host: config.host.as_deref().map(boxed),
        port: config.port,
        path: config.path.as_ref().map(|path| new_path(path, matched)),
        status: config.status,
    }
}

fn new_respond(config: &RespondConfig) -> Respond {
    let content_type = config.content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
    Respond {
        status: config.status,
        content_type: (!config.body.is_empty()).then(|| boxed(content_type)),
        body: config.body.as_bytes().into(),
        headers: config.headers.iter().map(|(name, value)| (boxed(name), boxed(value))).collect(),
    }
}
