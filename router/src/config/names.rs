//! What names, values and paths of a file may be made of.
//!
//! Each function says in words what is wrong.

use crate::limits::{
    NAME_BYTES_MAX, PATH_BYTES_MAX, PREFIX_SEGMENTS_MAX, TOKEN_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::path::{Normalised, normalise_path};

type Check = Result<(), String>;

/// Name of a listener, route or cluster: it stands in metrics and log lines.
pub(super) fn name(text: &str) -> Check {
    if text.is_empty() {
        return Err("a name is required".to_owned());
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(format!("a name has at most {NAME_BYTES_MAX} bytes"));
    }
    let control = |text: &str| text.chars().any(char::is_control);
    if text.bytes().any(|byte| !(0x20..0x7f).contains(&byte)) && control(text) {
        return Err("a name has no control characters".to_owned());
    }
    Ok(())
}

/// A token (RFC 9110 section 5.6.2): method or name of a header field.
pub(super) fn token(text: &str, what: &str) -> Check {
    if text.is_empty() {
        return Err(format!("{what} is required"));
    }
    if text.len() > TOKEN_BYTES_MAX {
        return Err(format!("{what} has at most {TOKEN_BYTES_MAX} bytes"));
    }
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match text.bytes().all(is_token) {
        true => Ok(()),
        false => Err(format!("{what} has letters, digits and !#$%&'*+-.^_`|~ only")),
    }
}

/// Fields that frame a message or belong to one connection (RFC 9110 sections 7.6.1 and 8.6, RFC
/// 9112 section 6).
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Name of a header field that may be edited.
pub(super) fn editable(text: &str) -> Check {
    token(text, "the name of a header field")?;
    let lower = text.to_ascii_lowercase();
    if lower == "host" {
        return Err("`Host` is changed by `rewrite.host`".to_owned());
    }
    if FRAMING.contains(&lower.as_str()) {
        return Err(format!("`{text}` frames the message or belongs to one connection"));
    }
    Ok(())
}

/// Value of a header field (RFC 9110 section 5.5).
pub(super) fn field_value(text: &str) -> Check {
    if text.len() > VALUE_BYTES_MAX {
        return Err(format!("a value has at most {VALUE_BYTES_MAX} bytes"));
    }
    if text.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
        return Err("a value has no control characters".to_owned());
    }
    if text.trim_matches([' ', '\t']).len() != text.len() {
        return Err("a value has no white space around it".to_owned());
    }
    Ok(())
}

/// A path as requests have it after normalisation.
pub(super) fn path(text: &str) -> Check {
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("a path has at most {PATH_BYTES_MAX} bytes"));
    }
    let mut normal = Vec::new();
    match normalise_path(text.as_bytes(), &mut normal) {
        Ok(Normalised::Unchanged) => Ok(()),
        Ok(Normalised::Rewritten) => Err(format!(
            "requests are compared in normal form: write `{}`",
            String::from_utf8_lossy(&normal)
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// A path prefix: whole segments, none of them empty.
pub(super) fn prefix(text: &str) -> Check {
    path(text)?;
    if text.contains("//") {
        return Err("a prefix has no empty segments".to_owned());
    }
    let segments = text.trim_end_matches('/').bytes().filter(|byte| *byte == b'/').count();
    if segments > PREFIX_SEGMENTS_MAX {
        return Err(format!("a prefix has at most {PREFIX_SEGMENTS_MAX} segments"));
    }
    Ok(())
}
