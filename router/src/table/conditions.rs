//! Conditions on method, header fields, query parameters and the identity of the client.
//!
//! # Invariants
//! - A condition's tests name each header and each parameter at most once; header names are
//!   lower-case.

use std::borrow::Cow;
use std::fmt;

use regex::bytes::Regex;

use super::RequestKey;
use crate::path::hex;

/// A header field of a request.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Name in any case.
    pub name: &'a str,
    /// Value without the white space around it.
    pub value: &'a [u8],
}

/// What must hold of a header field or a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Test {
    pub(crate) name: Box<str>,
    pub(crate) value: Value,
}

/// What must hold of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Exact(Box<str>),
    Regex(u32),
    Present,
}

/// All conditions of one match but the path's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    /// Number of the method's text.
    pub(crate) method: Option<u16>,
    pub(crate) headers: u8,
    pub(crate) queries: u8,
    /// Where its tests start: headers, then queries.
    pub(crate) first: u32,
    /// Number of the identity wanted, or `ANYBODY`.
    pub(crate) identity: u32,
}

/// An identity that a client must have proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    text: Box<str>,
    /// Whether everything below `text` is meant, and not `text` itself.
    below: bool,
}

impl Wanted {
    /// Reads `spiffe://trust-domain/path`, or the same with `/*` at its end.
    pub(super) fn new(text: &str) -> Wanted {
        match text.strip_suffix("/*") {
            Some(text) => Wanted { text: text.into(), below: true },
            None => Wanted { text: text.into(), below: false },
        }
    }

    fn holds(&self, identity: &str) -> bool {
        match identity.strip_prefix(&*self.text) {
            Some(rest) if self.below => rest.len() > 1 && rest.starts_with('/'),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.below { f.write_str("/*") } else { Ok(()) }
    }
}

/// No condition.
pub(crate) const ALWAYS: u32 = u32::MAX;
/// No condition on the identity.
pub(super) const ANYBODY: u32 = u32::MAX;

/// The conditions of a table.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    pub(super) methods: Vec<Box<str>>,
    pub(super) conditions: Vec<Condition>,
    pub(super) identities: Vec<Wanted>,
    pub(super) tests: Vec<Test>,
    pub(super) regexes: Vec<Regex>,
}

/// The first condition of a match that does not hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure<'a> {
    Method(&'a str),
    Header(&'a Test),
    Query(&'a Test),
    Identity(&'a Wanted),
}

impl Conditions {
    /// A regular expression by its number.
    #[inline]
    pub(crate) fn regex(&self, number: u32) -> &Regex {
        &self.regexes[number as usize]
    }

    /// Whether a condition holds for a request.
    #[inline]
    pub(crate) fn hold(&self, number: u32, request: &RequestKey<'_>) -> bool {
        number == ALWAYS || self.failure(number, request).is_none()
    }

    /// What of a condition does not hold for a request.
    pub(crate) fn failure(&self, number: u32, request: &RequestKey<'_>) -> Option<Failure<'_>> {
        let condition = self.conditions.get(number as usize)?;
        if let Some(method) = condition.method {
            let method = &*self.methods[usize::from(method)];
            if method != request.method {
                return Some(Failure::Method(method));
            }
        }
        let (headers, queries) = self.tests(condition);
        for test in headers {
            if !self.header_holds(test, request.fields) {
                return Some(Failure::Header(test));
            }
        }
        let query = request.query.unwrap_or("");
        if let Some(test) = queries.iter().find(|test| !self.query_holds(test, query)) {
            return Some(Failure::Query(test));
        }
        let wanted = self.identities.get(condition.identity as usize)?;
        let holds = request.identity.is_some_and(|identity| wanted.holds(identity));
        (!holds).then_some(Failure::Identity(wanted))
    }

    /// What a condition still depends on if of the fields only `names` are known, in lower case,
    /// and nothing of the query; `None` if it cannot hold.
    pub(crate) fn open(
        &self,
        number: u32,
        request: &RequestKey<'_>,
        names: &[String],
    ) -> Option<Vec<Failure<'_>>> {
        let Some(condition) = self.conditions.get(number as usize) else {
            return Some(Vec::new());
        };
        let method = condition.method.map(|number| &*self.methods[usize::from(number)]);
        let wanted = self.identities.get(condition.identity as usize);
        let is_wanted = |wanted: &Wanted| request.identity.is_some_and(|id| wanted.holds(id));
        let is_there = |test: &Test| names.iter().any(|name| **name == *test.name);
        let (headers, queries) = self.tests(condition);
        let is_out = method.is_some_and(|method| method != request.method)
            || wanted.is_some_and(|wanted| !is_wanted(wanted))
            || !headers.iter().all(is_there);
        if is_out {
            return None;
        }
        let values = headers.iter().filter(|test| test.value != Value::Present);
        Some(values.map(Failure::Header).chain(queries.iter().map(Failure::Query)).collect())
    }

    /// Tests of the headers and of the query parameters.
    pub(crate) fn tests(&self, condition: &Condition) -> (&[Test], &[Test]) {
        let headers = condition.first as usize + usize::from(condition.headers);
        let end = headers + usize::from(condition.queries);
        (&self.tests[condition.first as usize..headers], &self.tests[headers..end])
    }

    fn header_holds(&self, test: &Test, fields: &[Field<'_>]) -> bool {
        let is = |field: &&Field<'_>| field.name.eq_ignore_ascii_case(&test.name);
        let mut values = fields.iter().filter(is).map(|field| field.value);
        let Some(first) = values.next() else { return false };
        match &test.value {
            Value::Present => true,
            Value::Exact(wanted) => joined_equals(first, values, wanted.as_bytes()),
            Value::Regex(number) => self.regex(*number).is_match(&join(first, values)),
        }
    }

    fn query_holds(&self, test: &Test, query: &str) -> bool {
        let Some(raw) = parameter(query, &test.name) else { return false };
        match &test.value {
            Value::Present => true,
            Value::Exact(wanted) => decoded_equals(raw, wanted.as_bytes()),
            Value::Regex(number) => self.regex(*number).is_match(&decode(raw)),
        }
    }

    /// Gives back what building took in advance.
    pub(super) fn shrink(&mut self) {
        self.methods.shrink_to_fit();
        self.conditions.shrink_to_fit();
        self.identities.shrink_to_fit();
        self.tests.shrink_to_fit();
        self.regexes.shrink_to_fit();
    }

    /// Bytes on the heap, without regular expressions.
    pub(super) fn bytes(&self) -> usize {
        let of_test = |test: &Test| match &test.value {
            Value::Exact(value) => test.name.len() + value.len(),
            Value::Regex(_) | Value::Present => test.name.len(),
        };
        self.methods.iter().map(|method| method.len() + size_of::<Box<str>>()).sum::<usize>()
            + size_of_val::<[_]>(&self.conditions)
            + size_of_val::<[_]>(&self.identities)
            + self.identities.iter().map(|wanted| wanted.text.len()).sum::<usize>()
            + size_of_val::<[_]>(&self.tests)
            + self.tests.iter().map(of_test).sum::<usize>()
            + size_of_val::<[_]>(&self.regexes)
    }
}

/// Whether `first` and `others`, joined by commas, are `wanted`.
fn joined_equals<'a>(first: &[u8], others: impl Iterator<Item = &'a [u8]>, wanted: &[u8]) -> bool {
    let Some(mut rest) = wanted.strip_prefix(first) else { return false };
    for value in others {
        match rest.strip_prefix(b",").and_then(|rest| rest.strip_prefix(value)) {
            Some(left) => rest = left,
            None => return false,
        }
    }
    rest.is_empty()
}

/// `first` and `others` joined by commas; a single value is not copied.
fn join<'a>(first: &'a [u8], others: impl Iterator<Item = &'a [u8]>) -> Cow<'a, [u8]> {
    let mut joined = Cow::Borrowed(first);
    for value in others {
        let joined = joined.to_mut();
        joined.push(b',');
        joined.extend_from_slice(value);
    }
    joined
}

/// The value, still encoded, of the first parameter called `name`.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q [u8]> {
    let mut rest = query.as_bytes();
    loop {
        let end = memchr::memchr(b'&', rest);
        let pair = &rest[..end.unwrap_or(rest.len())];
        let (key, value) = match memchr::memchr(b'=', pair) {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        if !pair.is_empty() && decoded_equals(key, name.as_bytes()) {
            return Some(value);
        }
        rest = &rest[end? + 1..];
    }
}

/// The first decoded byte of `raw` and what follows; `%` without two digits stands for itself.
#[inline]
fn decode_one(raw: &[u8]) -> Option<(u8, &[u8])> {
    match raw {
        [b'%', high, low, rest @ ..] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => Some((high << 4 | low, rest)),
            _ => Some((b'%', &raw[1..])),
        },
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

fn decoded_equals(mut raw: &[u8], wanted: &[u8]) -> bool {
    for byte in wanted {
        match decode_one(raw) {
            Some((decoded, rest)) if decoded == *byte => raw = rest,
            _ => return false,
        }
    }
    raw.is_empty()
}

fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, left)) = decode_one(rest) {
        decoded.push(byte);
        rest = left;
    }
    Cow::Owned(decoded)
}
