//! Text to tree: the quick YAML reader against the full one, JSON against serde_json, limits.

use proptest::prelude::*;

use super::*;

/// A tree as text: kinds, texts and places.
fn show(node: Node<'_>, out: &mut String) {
    let place = node.position();
    match node.kind() {
        // Where nothing stands, the full reader writes `~` and the two may differ about the place.
        Kind::Plain if matches!(node.text(), "" | "~") => out.push_str("~ "),
        Kind::Quoted if node.text().is_empty() => out.push_str("'' "),
        Kind::Plain => out.push_str(&format!("{}@{place:?} ", node.text())),
        Kind::Quoted => out.push_str(&format!("{:?}@{place:?} ", node.text())),
        kind => {
            out.push_str(if kind == Kind::Mapping { "{ " } else { "[ " });
            node.children().for_each(|child| show(child, out));
            out.push_str("] ");
        }
    }
}

fn shown(tree: &Tree<'_>) -> String {
    let mut out = String::new();
    if let Some(root) = tree.root() {
        show(root, &mut out);
    }
    out
}

/// Whether the quick reader accepts; if it does, the full one must agree.
fn agree(text: &str) -> bool {
    let Some(quick) = yaml::parse(text) else { return false };
    match full_yaml::parse(text) {
        Ok(full) => assert_eq!(shown(&quick), shown(&full), "for {text:?}"),
        Err(problem) => panic!("only the full reader refuses {text:?}: {problem}"),
    }
    true
}

const SAMPLE: &str = r#"# A comment
---
admin: 127.0.0.1:4191   # trailing
empty:
listeners:
- {name: in, address: "0.0.0.0:80", 'q': 'it''s'}
-   name: two
    trusted_proxies:
      - 10.0.0.0/8
      - - nested
        - x
routes:
  - name: a b c
    hosts: [a.example.com, "*.b", # why
      c]
    rules:
      - matches: [{path: {regex: "\\d+\"x"}}]
        timeout: 2s
      -
        respond: {status: 200, headers: {}}
clusters: []
"#;

#[test]
fn quick_reader_takes_the_usual_and_agrees_with_the_full_one() {
    assert!(agree(SAMPLE));
    assert!(agree(""));
    assert!(agree("# nothing\n"));
    assert!(agree("a: b"));
    assert!(agree("- a\n- b: c\n  d: e\n"));
    assert!(agree("a:\n- b\n- c\nd: e\n"));
    assert!(agree("{a: b, c: [d, e,],}\n"));
}

#[test]
fn quick_reader_declines_what_it_does_not_know() {
    let declined = [
        "a: |\n  text\n",
        "a: &x b\n",
        "a: *x\n",
        "a: !!str b\n",
        "a: b\n  c\n",
        "a:\tb\n",
        "<<: {a: b}\n",
        "? a\n: b\n",
        "a: b: c\n",
        "a: [b: c]\n",
        "a: b\n---\nc: d\n",
        "%YAML 1.2\n",
        "a: \"b\n  c\"\n",
        "a: é\n",
        "a: >\n  b\n",
        "[a, b\n",
        "a: 'b\n",
        "a: b\n c: d\n",
        "...\n",
        "a: {b, c}\n",
        "a: \"\\x41\"\n",
        "\u{feff}a: b\n",
        "a: b\r\n",
        "a: [b]c\n",
        "a: \"b\"c\n",
    ];
    for text in declined {
        assert!(!agree(text), "{text:?}");
    }
}

#[test]
fn anchors_and_aliases_are_expanded() {
    let tree = parse("a: &x {b: [c, d]}\ne: *x\nf: &y g\nh: *y\n", Format::Yaml).unwrap();
    let text = shown(&tree);
    assert!(text.starts_with("{ a@(1, 1) { b@(1, 8) [ c@(1, 12) d@(1, 15) ] ]"), "{text}");
    assert!(text.contains("e@(2, 1) { b@(1, 8) [ c@"), "{text}");
    assert!(text.contains("h@(4, 1) g@(3, 7)"), "{text}");
}

#[test]
fn alias_bombs_end_at_the_maximum_of_nodes() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..9 {
        let one = format!("*a{}", n - 1);
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![one; 10].join(", ")));
    }
    let problem = parse(&bomb, Format::Yaml).unwrap_err();
    assert!(problem.message.contains("values allowed"), "{problem}");
}

#[test]
fn what_has_no_meaning_in_a_configuration_is_refused_with_its_place() {
    let refused = [
        ("a: 1\n<<: {b: c}\n", (2, 1), "merge keys"),
        ("a: !point [1]\n", (1, 11), "tag"),
        ("a: b\n---\nc: d\n", (2, 1), "second document"),
        ("? [a]\n: b\n", (1, 3), "key"),
        ("a: &x [*x]\n", (1, 8), "alias"),
        ("hosts: [*.example.com]\n", (1, 9), "anchor"),
    ];
    for (text, place, word) in refused {
        let problem = parse(text, Format::Yaml).unwrap_err();
        assert!(problem.message.contains(word), "{text:?}: {problem}");
        assert_eq!((problem.line, problem.column), place, "{text:?}: {problem}");
    }
}

#[test]
fn nesting_is_accepted_at_its_maximum_and_refused_one_past() {
    for (format, open, close) in [(Format::Yaml, "[", "]"), (Format::Json, "[", "]")] {
        let nested = |depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
        assert!(parse(&nested(NESTING_MAX), format).is_ok());
        let problem = parse(&nested(NESTING_MAX + 1), format).unwrap_err();
        assert!(problem.message.contains("nested deeper"), "{problem}");
        let alias =
            "a: &x [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]\nb: [[[[[[[[[[[[[[[[*x]]]]]]]]]]]]]]]]\n";
        assert!(parse(alias, Format::Yaml).is_err());
    }
}

#[test]
fn nodes_are_accepted_at_their_maximum_and_refused_one_past() {
    let list = |scalars: usize| format!("[{}1]", "1,".repeat(scalars - 1));
    assert!(parse(&list(NODES_MAX - 1), Format::Json).is_ok());
    let problem = parse(&list(NODES_MAX), Format::Json).unwrap_err();
    assert!(problem.message.contains("values allowed"), "{problem}");
}

#[test]
fn file_is_accepted_at_its_maximum_size_and_refused_one_past() {
    let mut text = "#".repeat(FILE_BYTES_MAX - 1);
    text.push('\n');
    assert!(parse(&text, Format::Yaml).is_ok());
    text.push('\n');
    assert!(parse(&text, Format::Yaml).unwrap_err().message.contains("bytes"));
}

#[test]
fn json_syntax_errors_have_their_place() {
    let problem = parse("{\"a\": [1,\n  2,]}", Format::Json).unwrap_err();
    assert_eq!((problem.line, problem.column), (2, 5), "{problem}");
    assert!(problem.message.starts_with("not valid JSON: "), "{problem}");
}

/// Pieces that YAML and JSON are made of, so that random texts come near the grammar.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b: ",
        "c:",
        "- ",
        "-",
        "\n",
        "\n  ",
        "\n    ",
        "\n- ",
        " ",
        "  ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ",",
        "\"x\"",
        "'y'",
        "\"",
        "'",
        "# z",
        " # z",
        "1",
        "null",
        "~",
        "/p",
        ":",
        "*",
        "&",
        "\\",
        "|",
        ">",
        "---\n",
        "...",
        "%",
        "!",
        "?",
        "? ",
        "key: v\n",
        "key: [v]\n",
        "k: {a: b}",
        "true",
        "-1",
        ".5",
        "1e3",
        "\\u0041",
        "\"\\n\"",
        "''",
        "<<: ",
        "\t",
        "é",
        "=",
        "+",
        "(",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// The sample with a few pieces put in or cut out.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (0..SAMPLE.len(), 0..6_usize, pieces());
    prop::collection::vec(edit, 1..4).prop_map(|edits| {
        let mut text = SAMPLE.to_owned();
        for (at, cut, piece) in edits {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &piece);
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]

    #[test]
    fn quick_and_full_readers_agree_on_random_text(text in pieces()) {
        agree(&text);
    }

    #[test]
    fn quick_and_full_readers_agree_on_mutations_of_a_file(text in mutated()) {
        agree(&text);
    }

    #[test]
    fn json_is_accepted_exactly_when_serde_json_accepts(text in pieces()) {
        let ours = parse(&text, Format::Json).is_ok();
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "for {:?}", text);
    }
}

#[test]
fn a_node_on_one_line_reads_as_the_same_tree() {
    let text = "a: [1, true, 'true', ~, \"x: y\", -3, 0x1]\nb:\n  c d: |\n    two\n    lines\n";
    let tree = parse(text, Format::Yaml).expect("it is valid");
    let line = tree.root().expect("it has a root").to_line();
    let again = parse(&line, Format::Yaml).expect("the line is valid");
    let mut shown = Vec::new();
    for tree in [&tree, &again] {
        let mut nodes = vec![tree.root().expect("a root")];
        let mut texts = Vec::new();
        while let Some(node) = nodes.pop() {
            texts.push(if node.is_null() { "~".to_owned() } else { node.text().to_owned() });
            nodes.extend(node.children());
        }
        shown.push(texts);
    }
    assert_eq!(shown[0], shown[1], "{line}");
    assert!(line.contains("[1, true, \"true\", ~, \"x: y\", \"-3\", 0x1]"), "{line}");
}
