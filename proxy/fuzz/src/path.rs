//! Path normalisation: nothing left to normalise, and equal to a list of decoded segments.

use ringway_router::{Normalised, normalise_path};

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let normal = normal(input);
    assert_eq!(normal, naive(input));
    let Some(path) = normal else { return };
    assert_eq!(self::normal(&path).as_deref(), Some(&*path), "not normal yet");
    assert!(path.starts_with(b"/"));
    assert!(path.iter().all(|byte| byte.is_ascii_graphic() && !b"#?\\".contains(byte)));
    let segments = path.split(|&byte| byte == b'/');
    assert!(segments.into_iter().all(|segment| segment != b"." && segment != b".."));
}

fn normal(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"left over".to_vec();
    match normalise_path(raw, &mut out).ok()? {
        Normalised::Unchanged => Some(raw.to_vec()),
        Normalised::Rewritten => {
            assert_ne!(out, raw, "rewritten as it was");
            Some(out)
        }
    }
}

/// Decodes each segment, then resolves the list of them.
fn naive(raw: &[u8]) -> Option<Vec<u8>> {
    let mut resolved: Vec<Vec<u8>> = Vec::new();
    let raw_segments: Vec<&[u8]> = raw.strip_prefix(b"/")?.split(|&byte| byte == b'/').collect();
    let last = raw_segments.len() - 1;
    for (index, raw_segment) in raw_segments.iter().enumerate() {
        let segment = decoded(raw_segment)?;
        match segment.as_slice() {
            b"." => {}
            b".." => drop(resolved.pop()?),
            _ => {
                resolved.push(segment);
                continue;
            }
        }
        // What ends in a dot segment is a folder.
        if index == last {
            resolved.push(Vec::new());
        }
    }
    Some(resolved.iter().flat_map(|segment| [b"/", segment.as_slice()].concat()).collect())
}

fn decoded(segment: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(segment).ok()?;
    let mut out = Vec::new();
    let mut parts = text.split('%');
    out.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let digits =
            part.get(..2).filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(|&byte| byte != 0)?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    let allowed = |byte: &u8| byte.is_ascii_graphic() && !b"#?\\".contains(byte);
    out.iter().all(allowed).then_some(out)
}
