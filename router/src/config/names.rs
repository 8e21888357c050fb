//! What names, values and paths of a file may be made of.
//!
//! Each function says in words what is wrong.

use crate::limits::{
    FILE_NAME_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, PREFIX_SEGMENTS_MAX, SPIFFE_BYTES_MAX,
    TOKEN_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX, VALUE_BYTES_MAX,
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

/// Name of a file.
pub(super) fn file_name(text: &str) -> Check {
    if text.is_empty() {
        return Err("a file is required".to_owned());
    }
    if text.len() > FILE_NAME_BYTES_MAX {
        return Err(format!("the name of a file has at most {FILE_NAME_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("the name of a file has no control characters".to_owned());
    }
    Ok(())
}

/// Identity of a workload: a SPIFFE id with a path.
pub(crate) fn identity(text: &str) -> Check {
    if spiffe(text)? {
        return Ok(());
    }
    Err("is a trust domain and not somebody in it: write spiffe://trust-domain/path".to_owned())
}

/// An identity, or with `/*` at its end everything below.
pub(super) fn identity_pattern(text: &str) -> Check {
    match text.strip_suffix("/*") {
        Some(above) => spiffe(above).map(|_| ()),
        None => identity(text),
    }
}

/// A SPIFFE id (SPIFFE-ID section 2), in the one way to write it. Gives whether it has a path.
fn spiffe(text: &str) -> Result<bool, String> {
    if text.len() > SPIFFE_BYTES_MAX {
        return Err(format!("an identity has at most {SPIFFE_BYTES_MAX} bytes"));
    }
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return Err("an identity is written spiffe://trust-domain/path".to_owned());
    };
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    if domain.is_empty() || domain.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(format!("a trust domain has 1 to {TRUST_DOMAIN_BYTES_MAX} bytes"));
    }
    let is_mark = |byte: u8| b".-_".contains(&byte);
    let of_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || is_mark(byte);
    if !domain.bytes().all(of_domain) {
        let message = "a trust domain has lower-case letters, digits, `.`, `-` and `_` only";
        return Err(message.to_owned());
    }
    for segment in path.iter().flat_map(|path| path.split('/')) {
        let message = match segment {
            "" => "an identity has no empty segments and no slash at its end",
            "." | ".." => "an identity has no segments `.` and `..`",
            "*" => "`/*` stands only at the end of a match",
            _ if segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte)) => {
                continue;
            }
            _ => "the path of an identity has letters, digits, `.`, `-`, `_` and slashes only",
        };
        return Err(message.to_owned());
    }
    Ok(path.is_some())
}

/// A name that TLS can ask for and a certificate can be for (RFC 6066 section 3, RFC 1123 section
/// 2.1): stricter than what is looked up.
pub(super) fn server_name(text: &str) -> Check {
    let name = text.strip_suffix('.').unwrap_or(text);
    crate::host::name_is_valid(name)?;
    if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        return Err("a label neither starts nor ends with `-`".to_owned());
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a name does not end in a number".to_owned());
    }
    Ok(())
}
