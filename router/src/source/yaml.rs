//! The YAML that configuration files are written in, as a tree, in one pass.
//!
//! Accepted are printable ASCII, block and flow collections, plain and quoted scalars on one line,
//! comments and one leading `---`. Everything else (anchors, tags, block scalars, scalars over
//! several lines, tabs, other scripts), and whatever is doubtful or wrong, is *declined*: the full
//! parser then reads the text, slower, and words the error.
//!
//! # Invariants
//! - Where this accepts, the full parser makes the same tree; a property test holds them together.
//! - A function that gives `None` declined; the text is then left alone.

use super::{Kind, Tree};

/// The tree of `text`, or `None` if the full parser must read it.
pub(super) fn parse(text: &str) -> Option<Tree<'_>> {
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
        return None;
    }
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, tree: Tree::new(text) };
    let Some(mut column) = reader.next_line()? else { return Some(reader.tree) };
    if column == 0 && reader.rest().starts_with(b"---\n") {
        reader.at += 4;
        column = reader.next_line()??;
    }
    reader.block(column, 0)?;
    match reader.next_line()? {
        None => Some(reader.tree),
        Some(_) => None,
    }
}

/// Bytes of a key; the YAML maximum is 1024 characters.
const KEY_BYTES_MAX: usize = 256;

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    tree: Tree<'t>,
}

/// Where a plain scalar stands: in flow collections more characters end it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Block,
    Flow,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t [u8] {
        &self.bytes[self.at..]
    }

    /// The byte `ahead` of the current one; a line feed at the end of the text.
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(b'\n')
    }

    fn spaces(&mut self) {
        while self.peek(0) == b' ' {
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        let feed = memchr::memchr(b'\n', self.rest());
        self.at = feed.map_or(self.bytes.len(), |feed| self.at + feed + 1);
    }

    /// Goes to the first character of the next line with content and gives its column; `None` at
    /// the end. The reader is at the start of a line. Declines document markers and directives.
    #[allow(clippy::option_option, reason = "the outer one declines, the inner one is the end")]
    fn next_line(&mut self) -> Option<Option<usize>> {
        loop {
            let start = self.at;
            self.spaces();
            if self.at >= self.bytes.len() {
                return Some(None);
            }
            match self.peek(0) {
                b'\n' => self.at += 1,
                b'#' => self.skip_line(),
                b'-' | b'.' | b'%' if self.at == start && !self.starts_entry() => {
                    let opens = self.rest().starts_with(b"---\n") && self.is_empty();
                    return opens.then_some(Some(0));
                }
                _ => return Some(Some(self.at - start)),
            }
        }
    }

    /// Whether nothing was read yet.
    fn is_empty(&self) -> bool {
        self.tree.root().is_none()
    }

    /// Whether a `-` of a block sequence stands here.
    fn starts_entry(&self) -> bool {
        self.peek(0) == b'-' && matches!(self.peek(1), b' ' | b'\n')
    }

    /// Ends a line after a value: spaces, perhaps a comment.
    fn end_line(&mut self) -> Option<()> {
        let start = self.at;
        self.spaces();
        match self.peek(0) {
            b'\n' => {}
            b'#' if self.at > start => {}
            _ => return None,
        }
        self.skip_line();
        Some(())
    }

    /// A node that starts here, at `column`.
    fn block(&mut self, column: usize, depth: usize) -> Option<()> {
        if self.starts_entry() {
            return self.block_sequence(column, depth);
        }
        if self.key_length().is_some() {
            return self.block_mapping(column, depth);
        }
        self.inline(Context::Block, depth)?;
        self.end_line()
    }

    fn block_sequence(&mut self, column: usize, depth: usize) -> Option<()> {
        let index = self.tree.open(Kind::Sequence, self.at, depth).ok()?;
        loop {
            let dash = self.at;
            self.at += 1;
            self.spaces();
            if matches!(self.peek(0), b'\n' | b'#') {
                self.end_line_after(dash + 1)?;
                match self.next_line()? {
                    Some(inner) if inner > column => self.block(inner, depth + 1)?,
                    _ => return None,
                }
            } else {
                self.block(column + self.at - dash, depth + 1)?;
            }
            let next = self.next_line()?;
            if next == Some(column) && self.starts_entry() {
                continue;
            }
            if next.is_some_and(|next| next > column) {
                return None;
            }
            self.back_to_line_start();
            self.tree.close(index);
            return Some(());
        }
    }

    /// Like `end_line`, where the spaces since `start` were skipped already.
    fn end_line_after(&mut self, start: usize) -> Option<()> {
        if self.peek(0) == b'#' && self.at == start {
            return None;
        }
        self.skip_line();
        Some(())
    }

    /// The line that was looked at belongs to an outer collection.
    fn back_to_line_start(&mut self) {
        if self.at >= self.bytes.len() {
            return;
        }
        let before = self.bytes.get(..self.at).unwrap_or_default();
        self.at = memchr::memrchr(b'\n', before).map_or(0, |feed| feed + 1);
    }

    fn block_mapping(&mut self, column: usize, depth: usize) -> Option<()> {
        let index = self.tree.open(Kind::Mapping, self.at, depth).ok()?;
        loop {
            self.key()?;
            let colon = self.at;
            self.spaces();
            if matches!(self.peek(0), b'\n' | b'#') {
                self.end_line_after(colon)?;
                self.block_value(column, depth)?;
            } else {
                self.inline(Context::Block, depth + 1)?;
                self.end_line()?;
            }
            let next = self.next_line()?;
            if next == Some(column) && !self.starts_entry() {
                self.key_length()?;
                continue;
            }
            if next.is_some_and(|next| next >= column) {
                return None;
            }
            self.back_to_line_start();
            self.tree.close(index);
            return Some(());
        }
    }

    /// The value of a key at `column` whose line has nothing after the colon.
    fn block_value(&mut self, column: usize, depth: usize) -> Option<()> {
        match self.next_line()? {
            Some(inner) if inner > column => self.block(inner, depth + 1),
            Some(inner) if inner == column && self.starts_entry() => {
                self.block_sequence(inner, depth + 1)
            }
            _ => {
                self.back_to_line_start();
                let at = self.at;
                self.tree.push_slice(Kind::Plain, at, at, at).ok()?;
                Some(())
            }
        }
    }

    /// Bytes of the key that starts here, quotes included, if a key with its colon does.
    fn key_length(&self) -> Option<usize> {
        let rest = self.rest();
        let length = match rest.first()? {
            quote @ (b'"' | b'\'') => {
                let inner = &rest[1..rest.len().min(KEY_BYTES_MAX)];
                let end = memchr::memchr3(*quote, b'\\', b'\n', inner)?;
                if inner[end] != *quote {
                    return None;
                }
                end + 2
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' => {
                let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./".contains(byte);
                rest.iter().take(KEY_BYTES_MAX).take_while(|byte| is_key(byte)).count()
            }
            _ => return None,
        };
        let colon = rest.get(length) == Some(&b':');
        let ends = matches!(rest.get(length + 1), Some(b' ' | b'\n') | None);
        (colon && ends).then_some(length)
    }

    /// A key and its colon.
    fn key(&mut self) -> Option<()> {
        let length = self.key_length()?;
        let (at, end) = (self.at, self.at + length);
        let pushed = match self.peek(0) {
            b'"' | b'\'' => self.tree.push_slice(Kind::Quoted, at, at + 1, end - 1),
            _ => self.tree.push_slice(Kind::Plain, at, at, end),
        };
        self.at = end + 1;
        pushed.ok().map(drop)
    }

    /// A flow collection or a scalar.
    fn inline(&mut self, context: Context, depth: usize) -> Option<()> {
        match self.peek(0) {
            b'[' => self.flow(Kind::Sequence, b']', depth),
            b'{' => self.flow(Kind::Mapping, b'}', depth),
            b'"' => self.double_quoted(),
            b'\'' => self.single_quoted(),
            _ => self.plain(context),
        }
    }

    fn flow(&mut self, kind: Kind, end: u8, depth: usize) -> Option<()> {
        let index = self.tree.open(kind, self.at, depth).ok()?;
        self.at += 1;
        loop {
            self.flow_space()?;
            if self.peek(0) == end {
                break;
            }
            if kind == Kind::Mapping {
                self.key()?;
                self.flow_space()?;
            }
            self.inline(Context::Flow, depth + 1)?;
            self.flow_space()?;
            match self.peek(0) {
                b',' => self.at += 1,
                seen if seen == end => break,
                _ => return None,
            }
        }
        self.at += 1;
        self.tree.close(index);
        Some(())
    }

    /// White space, line feeds and comments inside a flow collection.
    fn flow_space(&mut self) -> Option<()> {
        loop {
            let start = self.at;
            self.spaces();
            match self.bytes.get(self.at)? {
                b'\n' => self.at += 1,
                b'#' if self.at > start || self.at_line_start() => self.skip_line(),
                b'#' => return None,
                // Here a marker could end the document.
                b'-' | b'.' | b'%' if self.at_line_start() => return None,
                _ => return Some(()),
            }
        }
    }

    fn at_line_start(&self) -> bool {
        self.at == 0 || self.bytes[self.at - 1] == b'\n'
    }

    fn plain(&mut self, context: Context) -> Option<()> {
        match self.peek(0) {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'/' | b'.' | b'+' | b'~' => {}
            b'(' | b'^' | b'$' | b'\\' | b'=' => {}
            b'-' if self.peek(1).is_ascii_alphanumeric() => {}
            _ => return None,
        }
        let start = self.at;
        loop {
            match self.peek(0) {
                b'\n' => break,
                b' ' if self.peek(1) == b'#' => break,
                b':' if matches!(self.peek(1), b' ' | b'\n') => return None,
                b':' if context == Context::Flow && b",[]{}".contains(&self.peek(1)) => {
                    return None;
                }
                b',' | b']' | b'}' if context == Context::Flow => break,
                b'[' | b'{' if context == Context::Flow => return None,
                _ => self.at += 1,
            }
        }
        let mut end = self.at;
        while self.bytes[end - 1] == b' ' {
            end -= 1;
        }
        self.tree.push_slice(Kind::Plain, start, start, end).ok().map(drop)
    }

    fn single_quoted(&mut self) -> Option<()> {
        let open = self.at;
        self.at += 1;
        let mut doubled = false;
        loop {
            let next = memchr::memchr2(b'\'', b'\n', self.rest())?;
            self.at += next;
            match (self.peek(0), self.peek(1)) {
                (b'\'', b'\'') => {
                    doubled = true;
                    self.at += 2;
                }
                (b'\'', _) => break,
                _ => return None,
            }
        }
        let (start, end) = (open + 1, self.at);
        self.at += 1;
        if doubled {
            let text = self.text[start..end].replace("''", "'");
            return self.tree.push_text(Kind::Quoted, open, &text).ok().map(drop);
        }
        self.tree.push_slice(Kind::Quoted, open, start, end).ok().map(drop)
    }

    fn double_quoted(&mut self) -> Option<()> {
        let open = self.at;
        self.at += 1;
        let mut text: Option<String> = None;
        let mut copied = self.at;
        loop {
            let next = memchr::memchr3(b'"', b'\\', b'\n', self.rest())?;
            self.at += next;
            match self.peek(0) {
                b'"' => break,
                b'\\' => {
                    let letter = match self.peek(1) {
                        plain @ (b'"' | b'\\' | b'/') => char::from(plain),
                        b'n' => '\n',
                        b't' => '\t',
                        _ => return None,
                    };
                    let text = text.get_or_insert_default();
                    text.push_str(&self.text[copied..self.at]);
                    text.push(letter);
                    self.at += 2;
                    copied = self.at;
                }
                _ => return None,
            }
        }
        let end = self.at;
        self.at += 1;
        let pushed = match text {
            Some(mut text) => {
                text.push_str(&self.text[copied..end]);
                self.tree.push_text(Kind::Quoted, open, &text)
            }
            None => self.tree.push_slice(Kind::Quoted, open, open + 1, end),
        };
        pushed.ok().map(drop)
    }
}
