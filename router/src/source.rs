//! Text as a tree whose nodes know where they stand.
//!
//! ```text
//! YAML ──▶ yaml.rs (the common subset, one pass) ──┐
//!    └──▶ full_yaml.rs (everything, serde-saphyr) ──┼──▶ Tree ──▶ config::decode
//! JSON ──▶ json.rs ────────────────────────────────┘
//! ```
//!
//! A [`Tree`] is one array in document order, 16 bytes a node: a collection is followed by its
//! children, and `next` leads past them. A mapping's children are key, value, key, value. Text that
//! stands verbatim in the file is not copied. Nothing is interpreted here: `5` is a plain scalar,
//! whatever it will mean.
//!
//! # Invariants
//! - `index < next <= entries.len()` for every entry; keys are scalars.
//! - No node is deeper than `NESTING_MAX` and there are at most `NODES_MAX`.
//! - `yaml.rs` accepts a text only if `full_yaml.rs` makes the same tree of it; in doubt it
//!   declines. It exists because serde-saphyr takes 0.9 s for 100 000 one-line routes.

mod full_yaml;
mod json;
mod yaml;

use std::cell::OnceCell;
use std::path::Path;

use crate::limits::{FILE_BYTES_MAX, NESTING_MAX, NODES_MAX};
use crate::problem::Problem;

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

impl Format {
    /// By the ending of the file's name: `.json` is JSON, anything else YAML.
    pub fn from_path(path: &Path) -> Format {
        match path.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("json") => Format::Json,
            _ => Format::Yaml,
        }
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A scalar without quotes: text, number, truth value or null, as its reader decides.
    Plain,
    /// A scalar that is text.
    Quoted,
    /// A list.
    Sequence,
    /// Keys and values.
    Mapping,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Byte offset in the file of the node's first character.
    at: u32,
    /// Byte offset of its text in the file, or in `unescaped`.
    text: u32,
    /// Bytes of its text (28 bits), whether that is in `unescaped`, and its kind.
    len_and_kind: u32,
    /// Index of the first entry after the node and all in it.
    next: u32,
}

const LEN_BITS: u32 = 28;
const UNESCAPED: u32 = 1 << 31;

impl Entry {
    fn kind(self) -> Kind {
        match (self.len_and_kind >> LEN_BITS) & 3 {
            0 => Kind::Plain,
            1 => Kind::Quoted,
            2 => Kind::Sequence,
            _ => Kind::Mapping,
        }
    }

    fn len(self) -> usize {
        (self.len_and_kind & ((1 << LEN_BITS) - 1)) as usize
    }
}

/// A parsed file.
#[derive(Debug)]
pub struct Tree<'t> {
    source: &'t str,
    unescaped: String,
    entries: Vec<Entry>,
    line_starts: OnceCell<Vec<u32>>,
}

/// A node of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    tree: &'a Tree<'a>,
    index: u32,
}

/// Parses `text`.
///
/// # Errors
/// The text is too large, not of the format, or exceeds a limit.
pub fn parse(text: &str, format: Format) -> Result<Tree<'_>, Problem> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("{} bytes are more than the {FILE_BYTES_MAX} allowed", text.len());
        return Err(Problem::error("", message));
    }
    match format {
        Format::Json => json::parse(text),
        Format::Yaml => match yaml::parse(text) {
            Some(tree) => Ok(tree),
            None => full_yaml::parse(text),
        },
    }
}

/// Too deep or too many: why a tree could not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Nesting,
    Nodes,
}

impl Full {
    fn problem(self) -> Problem {
        match self {
            Full::Nesting => {
                Problem::error("", format!("nested deeper than the {NESTING_MAX} levels allowed"))
            }
            Full::Nodes => Problem::error("", format!("more than the {NODES_MAX} values allowed"))
                .hint("aliases count as often as they are used"),
        }
    }
}

impl<'t> Tree<'t> {
    /// An empty tree over `source`, which has at most `FILE_BYTES_MAX` bytes.
    fn new(source: &'t str) -> Tree<'t> {
        // A scalar and its separator take about eight bytes in a dense file.
        let entries = Vec::with_capacity((source.len() / 8).clamp(16, NODES_MAX));
        Tree { source, unescaped: String::new(), entries, line_starts: OnceCell::new() }
    }

    fn push(&mut self, entry: Entry) -> Result<u32, Full> {
        if self.entries.len() >= NODES_MAX {
            return Err(Full::Nodes);
        }
        self.entries.push(entry);
        Ok(self.entries.len() as u32 - 1)
    }

    /// Appends a scalar whose text is `start..end` of the source.
    fn push_slice(&mut self, kind: Kind, at: usize, start: usize, end: usize) -> Result<u32, Full> {
        let next = self.entries.len() as u32 + 1;
        let len_and_kind = (end - start) as u32 | (kind as u32) << LEN_BITS;
        self.push(Entry { at: at as u32, text: start as u32, len_and_kind, next })
    }

    /// Appends a scalar whose text differs from the source.
    fn push_text(&mut self, kind: Kind, at: usize, text: &str) -> Result<u32, Full> {
        // Aliases may repeat a long text; what they add up to is bounded like the file.
        if self.unescaped.len() + text.len() > FILE_BYTES_MAX {
            return Err(Full::Nodes);
        }
        let next = self.entries.len() as u32 + 1;
        let start = self.unescaped.len() as u32;
        self.unescaped.push_str(text);
        let len_and_kind = text.len() as u32 | (kind as u32) << LEN_BITS | UNESCAPED;
        self.push(Entry { at: at as u32, text: start, len_and_kind, next })
    }

    /// Appends a collection, to be closed by [`Tree::close`] after its children.
    fn open(&mut self, kind: Kind, at: usize, depth: usize) -> Result<u32, Full> {
        if depth >= NESTING_MAX {
            return Err(Full::Nesting);
        }
        self.push_slice(kind, at, 0, 0)
    }

    /// How many levels of collections start at a finished node, itself included.
    fn depth(&self, index: u32) -> usize {
        let entry = self.entries[index as usize];
        let mut ends: Vec<u32> = Vec::new();
        let mut deepest = 0;
        for (inner, at) in self.entries[index as usize..entry.next as usize].iter().zip(index..) {
            while ends.last().is_some_and(|end| *end <= at) {
                ends.pop();
            }
            if matches!(inner.kind(), Kind::Sequence | Kind::Mapping) {
                ends.push(inner.next);
                deepest = deepest.max(ends.len());
            }
        }
        deepest
    }

    /// Appends a copy of a finished node `levels` deep, at `depth`.
    fn copy(&mut self, index: u32, levels: usize, depth: usize) -> Result<(), Full> {
        if depth + levels > NESTING_MAX {
            return Err(Full::Nesting);
        }
        let range = index as usize..self.entries[index as usize].next as usize;
        let shift = self.entries.len() as u32 - index;
        if self.entries.len() + range.len() > NODES_MAX {
            return Err(Full::Nodes);
        }
        for at in range {
            let entry = self.entries[at];
            self.entries.push(Entry { next: entry.next + shift, ..entry });
        }
        Ok(())
    }

    fn close(&mut self, index: u32) {
        self.entries[index as usize].next = self.entries.len() as u32;
    }

    /// The whole document; `None` if it is empty.
    pub fn root(&self) -> Option<Node<'_>> {
        (!self.entries.is_empty()).then_some(Node { tree: self, index: 0 })
    }

    /// Line of a byte offset, from 1, and where that line starts.
    fn line(&self, at: usize) -> (u32, usize) {
        let starts = self.line_starts.get_or_init(|| {
            let breaks = memchr::memchr_iter(b'\n', self.source.as_bytes());
            std::iter::once(0).chain(breaks.map(|at| at as u32 + 1)).collect()
        });
        let line = starts.partition_point(|start| *start as usize <= at);
        (line as u32, starts[line.saturating_sub(1)] as usize)
    }

    /// Line and column of a byte offset, from 1; the column in characters, far to the right in
    /// bytes.
    fn position(&self, at: usize) -> (u32, u32) {
        // A whole file may stand on one line; counting its characters for every problem would take
        // minutes.
        const COUNTED_MAX: usize = 4096;
        let (line, start) = self.line(at);
        let before = self.source.get(start..at).unwrap_or("");
        let width = match before.len() {
            0..COUNTED_MAX => before.chars().count(),
            bytes => bytes,
        };
        (line, width as u32 + 1)
    }

    /// Where `path` (`routes[0].rules[1].timeout`) stands, or the innermost part of it that is
    /// there.
    pub fn locate(&self, path: &str) -> (u32, u32) {
        let Some(mut node) = self.root() else { return (1, 1) };
        let mut rest = path;
        while let Some((inner, left)) = node.step(rest) {
            (node, rest) = (inner, left);
        }
        node.position()
    }
}

impl<'a> Node<'a> {
    fn entry(self) -> Entry {
        self.tree.entries[self.index as usize]
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        self.entry().kind()
    }

    /// Its text; empty for collections.
    pub fn text(self) -> &'a str {
        let entry = self.entry();
        let from: &'a str = match entry.len_and_kind & UNESCAPED {
            0 => self.tree.source,
            _ => &self.tree.unescaped,
        };
        let start = entry.text as usize;
        from.get(start..start + entry.len()).unwrap_or("")
    }

    /// Whether it is an absent value: nothing, `~` or `null`.
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Plain && matches!(self.text(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// Line and column, from 1.
    pub fn position(self) -> (u32, u32) {
        self.tree.position(self.entry().at as usize)
    }

    /// Line, from 1.
    pub fn line(self) -> u32 {
        self.tree.line(self.entry().at as usize).0
    }

    /// The node as one line of YAML that reads as the same tree, wherever its text came from.
    #[must_use]
    pub fn to_line(self) -> String {
        let mut line = String::new();
        self.write_line(&mut line);
        line
    }

    fn write_line(self, out: &mut String) {
        let (open, close) = match self.kind() {
            Kind::Sequence => ('[', ']'),
            Kind::Mapping => ('{', '}'),
            Kind::Plain if self.is_null() => return out.push('~'),
            Kind::Plain if is_word(self.text()) => return out.push_str(self.text()),
            Kind::Plain | Kind::Quoted => {
                // Only where a number or a truth value is read does a quote matter, and what is no
                // word is neither.
                return out.push_str(&serde_json::Value::from(self.text()).to_string());
            }
        };
        out.push(open);
        for (nth, child) in self.children().enumerate() {
            out.push_str(match (nth, self.kind()) {
                (0, _) => "",
                (nth, Kind::Mapping) if nth % 2 == 1 => ": ",
                _ => ", ",
            });
            child.write_line(out);
        }
        out.push(close);
    }

    /// The elements of a sequence, or keys and values of a mapping in turn.
    pub fn children(self) -> Children<'a> {
        Children { tree: self.tree, index: self.index + 1, end: self.entry().next }
    }

    /// Keys and values of a mapping.
    pub fn pairs(self) -> impl Iterator<Item = (Node<'a>, Node<'a>)> {
        let mut children = self.children();
        std::iter::from_fn(move || Some((children.next()?, children.next()?)))
    }

    /// One step along `path`: the node it leads to and what is left of the path.
    fn step(self, path: &str) -> Option<(Node<'a>, &str)> {
        match self.kind() {
            Kind::Sequence => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let node = self.children().nth(index.parse().ok()?)?;
                Some((node, rest))
            }
            Kind::Mapping => {
                let path = path.strip_prefix('.').unwrap_or(path);
                let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
                self.pairs().find_map(|(key, value)| {
                    let rest = path.strip_prefix(key.text())?;
                    let found = if value.is_null() { key } else { value };
                    (ends(rest) && !key.text().is_empty()).then_some((found, rest))
                })
            }
            Kind::Plain | Kind::Quoted => None,
        }
    }
}

/// Whether a plain scalar stays one when it stands in a flow collection.
fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
}

/// Iterates over the nodes directly inside one.
#[derive(Clone, Debug)]
pub struct Children<'a> {
    tree: &'a Tree<'a>,
    index: u32,
    end: u32,
}

impl<'a> Iterator for Children<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        if self.index >= self.end {
            return None;
        }
        let node = Node { tree: self.tree, index: self.index };
        self.index = node.entry().next;
        Some(node)
    }
}

#[cfg(test)]
mod tests;
