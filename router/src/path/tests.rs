//! Normal forms of paths: examples of RFC 3986, what is refused, and a model made of segments.

use proptest::prelude::*;

use super::*;

fn normal(raw: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut out = b"left over".to_vec();
    Ok(match normalise_path(raw, &mut out)? {
        Normalised::Unchanged => raw.to_vec(),
        Normalised::Rewritten => out,
    })
}

#[test]
fn normal_forms_are_those_of_rfc_3986() {
    for (raw, expected) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a//b/", "/a//b/"),
        ("/%7Ea%2d", "/~a-"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%5cb", "/a%5Cb"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/../../c", "/c"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e", "/"),
        ("/./", "/"),
        ("/a//../b", "/a/b"),
        ("/.a", "/.a"),
        ("/..a/...", "/..a/..."),
        ("/a/b;c=1/../d", "/a/d"),
        ("/%2541", "/%2541"),
        ("/a%2f..", "/a%2F.."),
        ("/a%2f../b", "/a%2F../b"),
    ] {
        let found = normal(raw.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        assert_eq!(found.as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn ambiguous_paths_are_errors() {
    for (raw, error) in [
        (&b""[..], PathError::NotAbsolute),
        (b"a", PathError::NotAbsolute),
        (b"*", PathError::NotAbsolute),
        (b"/..", PathError::AboveRoot),
        (b"/../a", PathError::AboveRoot),
        (b"/a/../..", PathError::AboveRoot),
        (b"/%2e%2e/", PathError::AboveRoot),
        (b"/%", PathError::Escape),
        (b"/%4", PathError::Escape),
        (b"/%4g", PathError::Escape),
        (b"/%+1", PathError::Escape),
        (b"/%00", PathError::Zero),
        (b"/a b", PathError::Byte(b' ')),
        (b"/a\\b", PathError::Byte(b'\\')),
        (b"/a#b", PathError::Byte(b'#')),
        (b"/a?b", PathError::Byte(b'?')),
        (b"/a\tb", PathError::Byte(b'\t')),
        (b"/a\x7f", PathError::Byte(0x7f)),
        (b"/\xc3\xa9", PathError::Byte(0xc3)),
        (b"/%41\xff", PathError::Byte(0xff)),
    ] {
        assert_eq!(normal(raw), Err(error), "{raw:?}");
    }
}

/// Segments as a list, resolved one after the other.
fn model(raw: &[u8]) -> Result<Vec<u8>, PathError> {
    if raw.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let byte = raw[at];
        at += 1;
        if byte != b'%' {
            if byte <= b' ' || byte >= 0x7f || b"#?\\".contains(&byte) {
                return Err(PathError::Byte(byte));
            }
            decoded.push(byte);
            continue;
        }
        let digits = raw.get(at..at + 2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
        let value = u8::from_str_radix(digits.ok_or(PathError::Escape)?, 16).unwrap();
        at += 2;
        match value {
            0 => return Err(PathError::Zero),
            b'-' | b'.' | b'_' | b'~' => decoded.push(value),
            value if value.is_ascii_alphanumeric() => decoded.push(value),
            value => decoded.extend(format!("%{value:02X}").bytes()),
        }
    }
    let segments: Vec<&[u8]> = decoded[1..].split(|byte| *byte == b'/').collect();
    let mut kept: Vec<&[u8]> = Vec::new();
    for (nth, segment) in segments.iter().enumerate() {
        let last = nth + 1 == segments.len();
        match *segment {
            b"." => {}
            b".." => _ = kept.pop().ok_or(PathError::AboveRoot)?,
            other => {
                kept.push(other);
                continue;
            }
        }
        if last {
            kept.push(b"");
        }
    }
    let mut path = Vec::new();
    for segment in kept {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    Ok(path)
}

fn raw_path() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "/", "/", ".", "..", "%2e", "%2E", "%2f", "a", "b", "%41", "%7e", "%c3", "%", "%0", "%00",
        "\\", " ", "#", "?", "\u{e9}", "/../", "/./", "%25", ";", "~", "\x01",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()).into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(5000)))]

    #[test]
    fn normal_form_equals_that_of_a_naive_model(raw in raw_path()) {
        match (normal(&raw), model(&raw)) {
            (Ok(ours), Ok(model)) => prop_assert_eq!(ours, model),
            (ours, model) => prop_assert_eq!(ours.is_err(), model.is_err()),
        }
    }

    #[test]
    fn normalising_a_normal_form_changes_nothing(raw in raw_path()) {
        if let Ok(once) = normal(&raw) {
            let mut out = Vec::new();
            prop_assert_eq!(normalise_path(&once, &mut out), Ok(Normalised::Unchanged));
            prop_assert!(once.starts_with(b"/"));
            let text = String::from_utf8(once).unwrap();
            prop_assert!(!text.split('/').any(|segment| segment == "." || segment == ".."));
        }
    }

    #[test]
    fn any_bytes_are_normalised_or_refused(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = normal(&raw);
    }
}
