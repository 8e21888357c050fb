//! From host and path to candidates, in order of precedence.
//!
//! A *group* is what one host pattern has. Exact paths and prefixes of all groups stand in one hash
//! table; a group keeps the set of segment counts that its prefixes have, so that only those
//! lengths are looked up, longest first. Suffix hosts are found likewise by label counts.
//!
//! # Invariants
//! - Candidates of one bucket are contiguous and in order of precedence.
//! - Prefixes have at least one segment, no empty one and no slash at the end; the prefix `/` is
//!   in `any`.

use super::slots::{self, Slots};
use super::{ListenerId, RuleId};
use crate::limits::PREFIX_SEGMENTS_MAX;

/// A match of a rule, without host and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) rule: RuleId,
    /// Number of the condition, or `ALWAYS`.
    pub(crate) condition: u32,
    /// Number of the set of listeners; 0 is all.
    pub(crate) listeners: u32,
}

/// A part of an array.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Range {
    #[inline]
    fn of<T>(self, all: &[T]) -> &[T] {
        &all[self.start as usize..self.end as usize]
    }
}

/// What the rules of one host pattern have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group {
    /// Bit n: some prefix has n segments. Bit 0: some path is exact.
    pub(super) paths: u32,
    pub(super) regexes: Range,
    pub(super) any: Range,
}

/// A host pattern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub(super) text: u32,
    pub(super) len: u8,
    pub(super) suffix: bool,
    pub(super) group: Group,
}

/// An exact path or a prefix of one group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) host: u32,
    pub(super) text: u32,
    pub(super) len: u16,
    pub(super) exact: bool,
    pub(super) candidates: Range,
}

/// What of the path led to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathClass {
    /// The whole path.
    Exact,
    /// Its first bytes.
    Prefix(usize),
    /// To be seen: the number of a regular expression.
    Regex(u32),
    /// Nothing.
    Any,
}

/// Candidates that agree in host and path.
#[derive(Debug)]
pub(crate) struct Bucket<'a> {
    /// The host pattern: a name, a suffix with its dot, or nothing for any.
    pub(crate) host: &'a str,
    pub(crate) path: PathClass,
    pub(crate) candidates: &'a [Candidate],
}

/// The index of a table.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(super) text: String,
    /// The first is the pattern for any host.
    pub(super) hosts: Vec<Host>,
    pub(super) host_slots: Slots,
    /// Bit n: some suffix has n labels.
    pub(super) suffix_labels: u64,
    pub(super) paths: Vec<Path>,
    pub(super) path_slots: Slots,
    pub(super) candidates: Vec<Candidate>,
    /// Regular expressions of the paths of groups, and for each its candidate.
    pub(super) regexes: Vec<u32>,
    pub(super) regex_candidates: Vec<Candidate>,
    /// Sets of listeners as bits; the first, which stands for all, is empty.
    pub(super) listener_sets: Vec<Box<[u64]>>,
}

/// Hash spaces of the two kinds of hosts; those of paths follow.
pub(super) const EXACT_HOSTS: u32 = 0;
pub(super) const SUFFIX_HOSTS: u32 = 1;

/// Hash space of the paths of a host.
#[inline]
pub(super) fn path_space(host: u32, exact: bool) -> u32 {
    2 + host * 2 + u32::from(exact)
}

impl Index {
    /// Calls `seen` for every bucket that host and path lead to, in order of precedence, until it
    /// gives something. `host` is folded; `None` is a host that no pattern but any holds for.
    #[inline]
    pub(crate) fn find<T>(
        &self,
        host: Option<&[u8]>,
        path: &str,
        mut seen: impl FnMut(&Bucket<'_>) -> Option<T>,
    ) -> Option<T> {
        if let Some(host) = host {
            if let Some(exact) = self.host(host, false) {
                let found = self.find_in(exact, path, &mut seen);
                if found.is_some() {
                    return found;
                }
            }
            if self.suffix_labels != 0 {
                let found = self.find_suffix(host, path, &mut seen);
                if found.is_some() {
                    return found;
                }
            }
        }
        self.find_in(0, path, &mut seen)
    }

    fn find_suffix<T>(
        &self,
        host: &[u8],
        path: &str,
        seen: &mut impl FnMut(&Bucket<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut labels = host.iter().filter(|byte| **byte == b'.').count();
        for (dot, _) in host.iter().enumerate().filter(|(_, byte)| **byte == b'.') {
            // The suffix from this dot on has as many labels as dots; one label must stand before
            // it.
            let known = labels < 64 && self.suffix_labels & (1 << labels) != 0;
            labels -= 1;
            if dot == 0 || !known {
                continue;
            }
            if let Some(suffix) = self.host(&host[dot..], true) {
                let found = self.find_in(suffix, path, seen);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    #[inline]
    fn host(&self, text: &[u8], suffix: bool) -> Option<u32> {
        let space = if suffix { SUFFIX_HOSTS } else { EXACT_HOSTS };
        self.host_slots.find(slots::hash(space, text), |number| {
            let host = &self.hosts[number as usize];
            host.suffix == suffix && self.slice(host.text, usize::from(host.len)) == text
        })
    }

    #[inline]
    fn slice(&self, start: u32, len: usize) -> &[u8] {
        &self.text.as_bytes()[start as usize..start as usize + len]
    }

    #[inline]
    fn find_in<T>(
        &self,
        host: u32,
        path: &str,
        seen: &mut impl FnMut(&Bucket<'_>) -> Option<T>,
    ) -> Option<T> {
        let entry = &self.hosts[host as usize];
        let name = &self.text[entry.text as usize..][..usize::from(entry.len)];
        let group = &entry.group;
        if group.paths != 0 {
            let found = self.find_path(host, name, path, seen);
            if found.is_some() {
                return found;
            }
        }
        for nth in group.regexes.start..group.regexes.end {
            let regex = self.regexes[nth as usize];
            let candidates = &self.regex_candidates[nth as usize..=nth as usize];
            let found = seen(&Bucket { host: name, path: PathClass::Regex(regex), candidates });
            if found.is_some() {
                return found;
            }
        }
        let candidates = group.any.of(&self.candidates);
        if candidates.is_empty() {
            return None;
        }
        seen(&Bucket { host: name, path: PathClass::Any, candidates })
    }

    fn find_path<T>(
        &self,
        host: u32,
        name: &str,
        path: &str,
        seen: &mut impl FnMut(&Bucket<'_>) -> Option<T>,
    ) -> Option<T> {
        let paths = self.hosts[host as usize].group.paths;
        if paths & 1 != 0
            && let Some(candidates) = self.path(host, path.as_bytes(), true)
        {
            let found = seen(&Bucket { host: name, path: PathClass::Exact, candidates });
            if found.is_some() {
                return found;
            }
        }
        let mut ends = [0; PREFIX_SEGMENTS_MAX + 1];
        // No prefix of this host is longer, so nobody asks where later segments end.
        let most = (paths >> 1).checked_ilog2().map_or(0, |bit| bit as usize + 1);
        let mut count = segment_ends(path.as_bytes(), &mut ends[..=most]);
        while count > 0 {
            let len = ends[count];
            if paths & (1 << count) != 0
                && let Some(candidates) = self.path(host, &path.as_bytes()[..len], false)
            {
                let class = PathClass::Prefix(len);
                let found = seen(&Bucket { host: name, path: class, candidates });
                if found.is_some() {
                    return found;
                }
            }
            count -= 1;
        }
        None
    }

    #[inline]
    fn path(&self, host: u32, text: &[u8], exact: bool) -> Option<&[Candidate]> {
        let hash = slots::hash(path_space(host, exact), text);
        let number = self.path_slots.find(hash, |number| {
            let path = &self.paths[number as usize];
            path.host == host
                && path.exact == exact
                && self.slice(path.text, usize::from(path.len)) == text
        })?;
        Some(self.paths[number as usize].candidates.of(&self.candidates))
    }

    /// Whether a set of listeners has `listener`.
    #[inline]
    pub(crate) fn listens(&self, set: u32, listener: ListenerId) -> bool {
        if set == 0 {
            return true;
        }
        let word = self.listener_sets[set as usize].get(listener.index() / 64);
        word.is_some_and(|word| word & (1 << (listener.index() % 64)) != 0)
    }

    /// Gives back what building took in advance.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.hosts.shrink_to_fit();
        self.host_slots.shrink();
        self.paths.shrink_to_fit();
        self.path_slots.shrink();
        self.candidates.shrink_to_fit();
        self.regexes.shrink_to_fit();
        self.regex_candidates.shrink_to_fit();
        self.listener_sets.shrink_to_fit();
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
            + size_of_val::<[_]>(&self.hosts)
            + self.host_slots.bytes()
            + size_of_val::<[_]>(&self.paths)
            + self.path_slots.bytes()
            + size_of_val::<[_]>(&self.candidates)
            + size_of_val::<[_]>(&self.regexes)
            + size_of_val::<[_]>(&self.regex_candidates)
            + self.listener_sets.iter().map(|set| 16 + size_of_val::<[_]>(set)).sum::<usize>()
    }

    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }
}

/// Where the first segments of `path` end: `ends[n]` after n of them. Gives how many there are, at
/// most what `ends` holds.
#[inline]
fn segment_ends(path: &[u8], ends: &mut [usize]) -> usize {
    let most = ends.len() - 1;
    if path.first() != Some(&b'/') {
        return 0;
    }
    let mut count = 0;
    // Segments are short: a plain loop is over before a search by blocks has begun.
    for (at, byte) in path.iter().enumerate().skip(1) {
        if count == most {
            return count;
        }
        if *byte == b'/' {
            count += 1;
            ends[count] = at;
        }
    }
    if count < most {
        count += 1;
        ends[count] = path.len();
    }
    count
}
