//! Response heads, from the bytes of an upstream to the bytes for a client, asked with HEAD and
//! with another method.

use ringway::http1::compose::{self, Persistence};
use ringway::http1::request::Fields;
use ringway::http1::response::{self, ResponseHead};
use ringway::http1::scan::Scanner;
use ringway::limits::HEAD_FIELDS_MAX;
use ringway::sys::block::Block;
use ringway_router::HeaderEdits;

use super::wire::{self, Framing, NameValue};

const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "content-length",
];
/// Fields that the proxy writes of its own.
const OWN: [&str; 5] = ["content-length", "transfer-encoding", "connection", "upgrade", "date"];
const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let Some(head) = wire::scan(input, Scanner::new) else { return };
    let mut fields = Fields::new_const();
    let mut head_fields = Fields::new_const();
    let parsed = response::parse(head, &mut fields, false);
    let to_head = response::parse(head, &mut head_fields, true);
    assert_eq!(parsed.is_ok(), to_head.is_ok(), "the method decides only where the body ends");
    let (Ok(parsed), Ok(to_head)) = (parsed, to_head) else { return };
    assert_eq!(Framing::of(&to_head.body), Framing::None);
    check_against_letters(&parsed, head);
    check_composed(&parsed, false);
    check_composed(&to_head, true);
}

fn check_against_letters(parsed: &ResponseHead<'_>, head: &[u8]) {
    let (line, stated) = wire::read(head);
    let digits = format!("{:03}", parsed.status);
    assert!(line.starts_with(b"HTTP/1."));
    assert_eq!(line.get(9..12), Some(digits.as_bytes()));
    assert!(parsed.reason.is_empty() || line.get(13..) == Some(parsed.reason.as_bytes()));

    let given: Vec<NameValue<'_>> =
        parsed.fields.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    assert_eq!(given, stated);
    let coded = stated.iter().any(|(name, _)| wire::is_one_of(name, &["transfer-encoding"]));
    assert!(!coded || line.starts_with(b"HTTP/1.1"), "no coding in 1.0");
    let framing = match (parsed.status, Framing::stated(&stated)) {
        (100..200 | 204 | 304, _) => Framing::None,
        (_, Some(framing)) => framing,
        (_, None) => Framing::UntilClose,
    };
    assert_eq!(Framing::of(&parsed.body), framing);
    assert!(framing != Framing::UntilClose || !parsed.keep_alive);
}

fn check_composed(parsed: &ResponseHead<'_>, to_head: bool) {
    let framing = Framing::of(&parsed.body);
    let persistence = match (parsed.status, parsed.upgrade, &framing) {
        (101, Some(_), _) => Persistence::Upgrade,
        (_, _, Framing::UntilClose) => Persistence::Close,
        _ => Persistence::Open,
    };
    let mut out = Block::large();
    let edits = HeaderEdits::default();
    compose::response(parsed, &parsed.body, persistence, DATE, &edits, &mut out)
        .expect("a head of a few KiB fits");

    let written = wire::scan(out.data(), Scanner::new).expect("what was written is a head");
    assert_eq!(written.len(), out.len(), "something follows the head");
    let (first, fields) = wire::read(written);
    assert_eq!(first, format!("HTTP/1.1 {} {}", parsed.status, parsed.reason).as_bytes());
    let kept = kept(parsed);
    wire::assert_only_own_added(&fields, &kept, &OWN, 0);

    if fields.len() <= HEAD_FIELDS_MAX {
        let mut again = Fields::new_const();
        let again =
            response::parse(written, &mut again, to_head).expect("what was written is understood");
        assert_eq!((again.status, again.reason), (parsed.status, parsed.reason));
        assert_eq!(Framing::of(&again.body), framing);
        let may_state_length = !matches!(parsed.status, 100..200 | 204);
        assert_eq!(again.claimed_length, parsed.claimed_length.filter(|_| may_state_length));
        assert!(again.dated || parsed.status < 200);
    }
}

/// Fields that are passed on as they are.
fn kept<'a>(parsed: &ResponseHead<'a>) -> Vec<NameValue<'a>> {
    let mut kept = Vec::new();
    for (index, field) in parsed.fields.iter().enumerate() {
        if parsed.dropped & (1 << index) != 0 {
            continue;
        }
        let name = field.name.as_bytes();
        assert!(!wire::is_one_of(name, &HOP_BY_HOP), "{} goes on", field.name);
        assert!(wire::is_clean(name) && wire::is_clean(field.value));
        kept.push((name, field.value));
    }
    kept
}
