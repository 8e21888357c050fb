//! Any YAML as a tree, from the parser under serde-saphyr.
//!
//! Aliases are expanded by copying what their anchor built, so that the maximum number of nodes
//! bounds them. Merge keys, tags other than those of plain types, keys that are not scalars and a
//! second document are refused.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Full, Kind, Tree};
use crate::problem::Problem;

/// Parses a YAML text.
///
/// # Errors
/// A syntax error with its place, a construct that is refused, or a limit.
pub(super) fn parse(text: &str) -> Result<Tree<'_>, Problem> {
    let mut builder = Builder { tree: Tree::new(text), open: Vec::new(), anchors: HashMap::new() };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
        }
        let place = (span.start.line() as u32, span.start.col() as u32 + 1);
        if documents > 1 {
            return Err(Problem::error("", "a second document").at(place));
        }
        builder.event(event, span).map_err(|problem| problem.at(place))?;
    }
    Ok(builder.tree)
}

fn syntax(error: &ScanError) -> Problem {
    let place = (error.marker().line() as u32, error.marker().col() as u32 + 1);
    let problem = Problem::error("", format!("not valid YAML: {}", error.kind())).at(place);
    match error.kind().to_string().contains("anchor") {
        true => problem.hint("a value that starts with `*` or `&` needs quotes: \"*.example.com\""),
        false => problem,
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Problem {
        full.problem()
    }
}

/// A collection whose end has not come yet.
struct Open {
    index: u32,
    anchor: usize,
    kind: Kind,
    children: u32,
}

struct Builder<'t> {
    tree: Tree<'t>,
    open: Vec<Open>,
    /// The finished node of each anchor, and how deep it is.
    anchors: HashMap<usize, (u32, usize)>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = scalar_kind(style, tag.as_deref())?;
                self.scalar(&text, kind, anchor, span)
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "seq")?;
                self.start(Kind::Sequence, anchor, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "map")?;
                self.start(Kind::Mapping, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.end();
                Ok(())
            }
            Event::Alias(id) => self.alias(id),
            _ => Ok(()),
        }
    }

    /// Whether the next node is a key.
    fn at_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.kind == Kind::Mapping && open.children % 2 == 0)
    }

    fn count_child(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.children += 1;
        }
    }

    fn scalar(&mut self, text: &str, kind: Kind, anchor: usize, span: Span) -> Result<(), Problem> {
        if self.at_key() && kind == Kind::Plain && text == "<<" {
            return Err(Problem::error("", "merge keys (`<<`) are not supported"));
        }
        self.count_child();
        let at = span.start.byte_offset().unwrap_or(0).min(self.tree.source.len());
        let index = match self.tree.source.get(at..at + text.len()) {
            Some(verbatim) if verbatim == text => {
                self.tree.push_slice(kind, at, at, at + text.len())?
            }
            _ => self.tree.push_text(kind, at, text)?,
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (index, 0));
        }
        Ok(())
    }

    fn start(&mut self, kind: Kind, anchor: usize, span: Span) -> Result<(), Problem> {
        if self.at_key() {
            return Err(Problem::error("", "a key must be a plain name"));
        }
        self.count_child();
        let at = span.start.byte_offset().unwrap_or(0);
        let index = self.tree.open(kind, at, self.open.len())?;
        self.open.push(Open { index, anchor, kind, children: 0 });
        Ok(())
    }

    fn end(&mut self) {
        let Some(open) = self.open.pop() else { return };
        self.tree.close(open.index);
        if open.anchor > 0 {
            let depth = self.tree.depth(open.index);
            self.anchors.insert(open.anchor, (open.index, depth));
        }
    }

    fn alias(&mut self, id: usize) -> Result<(), Problem> {
        // An anchor that is still open is not in the map: an alias inside itself would never end.
        let Some(&(start, depth)) = self.anchors.get(&id) else {
            return Err(Problem::error("", "an alias inside what it stands for"));
        };
        if self.at_key() && depth > 0 {
            return Err(Problem::error("", "a key must be a plain name"));
        }
        self.tree.copy(start, depth, self.open.len())?;
        self.count_child();
        Ok(())
    }
}

fn scalar_kind(style: ScalarStyle, tag: Option<&Tag>) -> Result<Kind, Problem> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(Kind::Plain),
        None => Ok(Kind::Quoted),
        Some(tag) => match tag.core_suffix() {
            Some("str") => Ok(Kind::Quoted),
            Some("int" | "bool" | "null" | "float") if style == ScalarStyle::Plain => {
                Ok(Kind::Plain)
            }
            _ => Err(refused_tag(tag)),
        },
    }
}

fn collection_tag(tag: Option<&Tag>, wanted: &str) -> Result<(), Problem> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(wanted) => Err(refused_tag(tag)),
        _ => Ok(()),
    }
}

fn refused_tag(tag: &Tag) -> Problem {
    Problem::error("", format!("the tag `{}` has no meaning here", tag.original()))
}
