//! Path normalisation: one form for routing, policy and forwarding alike.
//!
//! - Percent-encoded unreserved characters are decoded, other escapes get upper-case digits (RFC
//!   3986 6.2.2.1, .2).
//! - `.` and `..` segments, also encoded, are resolved (RFC 3986 5.2.4); going above the root is
//!   an error.
//! - `%2F` stays as it is, slashes are not merged: origins tell them apart.
//!
//! # Invariants
//! - The result starts with `/`, and normalising it again changes nothing.
//! - What origins read in different ways is an error: controls, spaces, non-ASCII, `#`,
//!   backslash, `%00`, bad escapes.

use thiserror::Error;

/// How a path came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalised {
    /// It was normal already; nothing was written.
    Unchanged,
    /// The normal form was written.
    Rewritten,
}

/// Why a path has no normal form. All are the client's doing (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A byte that no path may have: control, space, non-ASCII, `#`, `?` or backslash.
    #[error("the path has the byte 0x{0:02x}, which must be percent-encoded")]
    Byte(u8),
    /// `%` without two hexadecimal digits.
    #[error("the path has a % without two hexadecimal digits")]
    Escape,
    /// `%00`.
    #[error("the path has an encoded zero byte")]
    Zero,
    /// More `..` than segments before them.
    #[error("the path leads above the root")]
    AboveRoot,
}

/// What a byte does in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Slash,
    Dot,
    Percent,
    Refused,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        if byte <= 0x20 || byte >= 0x7f {
            classes[byte] = Class::Refused;
        }
        byte += 1;
    }
    classes[b'#' as usize] = Class::Refused;
    classes[b'?' as usize] = Class::Refused;
    classes[b'\\' as usize] = Class::Refused;
    classes[b'/' as usize] = Class::Slash;
    classes[b'.' as usize] = Class::Dot;
    classes[b'%' as usize] = Class::Percent;
    classes
};

/// Normalises `raw`, a path without its query. If it is not normal yet, `out` is cleared and takes
/// the normal form.
///
/// # Errors
/// The path has no normal form; `out` is then unspecified.
pub fn normalise_path(raw: &[u8], out: &mut Vec<u8>) -> Result<Normalised, PathError> {
    if raw.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    let mut previous = Class::Plain;
    for byte in raw {
        let class = CLASSES[usize::from(*byte)];
        match class {
            Class::Plain | Class::Slash => {}
            // A segment that starts with a dot may be `.` or `..`: rare enough for the slow way.
            Class::Dot if previous != Class::Slash => {}
            Class::Dot | Class::Percent => return rewrite(raw, out),
            Class::Refused => return Err(PathError::Byte(*byte)),
        }
        previous = class;
    }
    Ok(Normalised::Unchanged)
}

fn rewrite(raw: &[u8], out: &mut Vec<u8>) -> Result<Normalised, PathError> {
    out.clear();
    out.reserve(raw.len());
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match CLASSES[usize::from(*byte)] {
            Class::Plain | Class::Dot => out.push(*byte),
            Class::Slash => {
                end_segment(out)?;
                out.push(b'/');
            }
            Class::Percent => {
                let [high, low, tail @ ..] = tail else { return Err(PathError::Escape) };
                rest = tail;
                push_escape(*high, *low, out)?;
            }
            Class::Refused => return Err(PathError::Byte(*byte)),
        }
    }
    end_path(out)?;
    let changed = if out == raw { Normalised::Unchanged } else { Normalised::Rewritten };
    Ok(changed)
}

fn push_escape(high: u8, low: u8, out: &mut Vec<u8>) -> Result<(), PathError> {
    let (Some(high), Some(low)) = (hex(high), hex(low)) else { return Err(PathError::Escape) };
    match high << 4 | low {
        0 => return Err(PathError::Zero),
        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(byte),
        _ => {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend([b'%', DIGITS[usize::from(high)], DIGITS[usize::from(low)]]);
        }
    }
    Ok(())
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Resolves the segment at the end of `out`, whose slash follows, if it is `.` or `..`: what is
/// left takes that slash.
fn end_segment(out: &mut Vec<u8>) -> Result<(), PathError> {
    if out.ends_with(b"/.") {
        out.truncate(out.len() - 2);
    } else if out.ends_with(b"/..") {
        out.truncate(out.len() - 3);
        let parent = memchr::memrchr(b'/', out).ok_or(PathError::AboveRoot)?;
        out.truncate(parent);
    }
    Ok(())
}

/// Resolves the last segment of a path, which no slash follows: `/a/..` is `/`.
fn end_path(out: &mut Vec<u8>) -> Result<(), PathError> {
    let before = out.len();
    end_segment(out)?;
    if out.len() != before {
        out.push(b'/');
    }
    Ok(())
}

#[cfg(test)]
mod tests;
