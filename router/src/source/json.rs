//! JSON (RFC 8259) as a tree.
//!
//! One pass that keeps positions; unescaping a string and the words of a syntax error are left to
//! `serde_json`, and a test holds the two to the same verdict on every text.

use super::{Full, Kind, Tree};
use crate::problem::Problem;

/// Parses a JSON text.
///
/// # Errors
/// A syntax error with its place, or a limit.
pub(super) fn parse(text: &str) -> Result<Tree<'_>, Problem> {
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, tree: Tree::new(text) };
    let read = reader.value(0).and_then(|()| {
        reader.space();
        if reader.at == reader.bytes.len() { Ok(()) } else { Err(Fault::Syntax) }
    });
    match read {
        Ok(()) => Ok(reader.tree),
        Err(Fault::Full(full)) => Err(full.problem().at(reader.tree.position(reader.at))),
        Err(Fault::Syntax) => Err(syntax(text, reader.tree.position(reader.at))),
    }
}

/// The words of `serde_json` for what is wrong, or our own place if it sees nothing wrong.
fn syntax(text: &str, position: (u32, u32)) -> Problem {
    let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) else {
        return Problem::error("", "not valid JSON").at(position);
    };
    let message = error.to_string();
    let words = message.split(" at line ").next().unwrap_or_default();
    let place = (error.line().max(1) as u32, error.column().max(1) as u32);
    Problem::error("", format!("not valid JSON: {words}")).at(place)
}

enum Fault {
    Syntax,
    Full(Full),
}

impl From<Full> for Fault {
    fn from(full: Full) -> Fault {
        Fault::Full(full)
    }
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    tree: Tree<'t>,
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        self.space();
        match self.peek() {
            b'{' => self.collection(Kind::Mapping, b'}', depth),
            b'[' => self.collection(Kind::Sequence, b']', depth),
            b'"' => self.string(),
            _ => self.word(),
        }
    }

    fn collection(&mut self, kind: Kind, end: u8, depth: usize) -> Result<(), Fault> {
        let index = self.tree.open(kind, self.at, depth)?;
        self.at += 1;
        self.space();
        if self.peek() == end {
            self.at += 1;
            return Ok(());
        }
        loop {
            if kind == Kind::Mapping {
                self.key()?;
            }
            self.value(depth + 1)?;
            self.space();
            let seen = self.peek();
            if seen != b',' && seen != end {
                return Err(Fault::Syntax);
            }
            self.at += 1;
            if seen == end {
                self.tree.close(index);
                return Ok(());
            }
        }
    }

    fn key(&mut self) -> Result<(), Fault> {
        self.space();
        if self.peek() != b'"' {
            return Err(Fault::Syntax);
        }
        self.string()?;
        self.space();
        if self.peek() != b':' {
            return Err(Fault::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        let open = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                0..0x20 => return Err(Fault::Syntax),
                _ => self.at += 1,
            }
        }
        self.at += 1;
        if !escaped {
            self.tree.push_slice(Kind::Quoted, open, open + 1, self.at - 1)?;
            return Ok(());
        }
        let quoted = self.text.get(open..self.at).ok_or(Fault::Syntax)?;
        let text: String = serde_json::from_str(quoted).map_err(|_| Fault::Syntax)?;
        self.tree.push_text(Kind::Quoted, open, &text)?;
        Ok(())
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while matches!(self.peek(), b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.') {
            self.at += 1;
        }
        let word = &self.text[start..self.at];
        let number = || serde_json::from_str::<serde_json::Number>(word).is_ok();
        if !matches!(word, "true" | "false" | "null") && !number() {
            self.at = start;
            return Err(Fault::Syntax);
        }
        self.tree.push_slice(Kind::Plain, start, start, self.at)?;
        Ok(())
    }
}
