//! Values as they are written: durations, sizes, addresses.
//!
//! Each function takes the text and gives the value, or a problem in words with a hint.

use std::net::SocketAddr;
use std::time::Duration;

use crate::limits::DURATION_MAX;

/// What is wrong with a value: the message and perhaps a hint.
pub(crate) type Fault = (String, Option<String>);

fn fault(message: impl Into<String>, hint: impl Into<String>) -> Fault {
    (message.into(), Some(hint.into()))
}

/// `2s`, `500ms`, `1m30s`; whole milliseconds.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let hint = "write it like 500ms, 2s or 5m";
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text != "0" {
        return Err(fault(format!("`{text}` has no unit"), hint));
    }
    // The parser multiplies without looking; a longer text is no duration that we allow.
    if text.len() > 32 {
        return Err(fault("not a duration", hint));
    }
    let Ok(value) = humantime::parse_duration(text) else {
        return Err(fault(format!("`{text}` is not a duration"), hint));
    };
    if value.subsec_nanos() % 1_000_000 != 0 {
        return Err(fault(format!("`{text}` is not a whole number of milliseconds"), hint));
    }
    if value > DURATION_MAX {
        return Err(fault(format!("`{text}` is longer than the 7 days allowed"), hint));
    }
    Ok(value)
}

/// A number of bytes: `4096`, `64KiB`, `10MiB`, `1GiB`.
pub(super) fn bytes(text: &str) -> Result<u64, Fault> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let value = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match value {
        Some(value) if factor > 0 => Ok(value),
        _ => Err(fault(
            format!("`{text}` is not a number of bytes"),
            "write it like 4096, 64KiB or 10MiB",
        )),
    }
}

/// `ip:port`.
pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        fault(format!("`{text}` is not an ip:port"), "write it like 127.0.0.1:8080 or [::1]:8080")
    })
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Result<ipnet::IpNet, Fault> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.into());
    }
    text.parse::<ipnet::IpNet>().map(|network| network.trunc()).map_err(|_| {
        fault(
            format!("`{text}` is neither a network nor an address"),
            "write it like 10.0.0.0/8 or 10.0.0.1",
        )
    })
}

/// A whole number, optionally with a maximum.
pub(super) fn number(text: &str, max: u64) -> Result<u64, Fault> {
    match text.parse::<u64>() {
        Ok(value) if value <= max => Ok(value),
        _ => Err((format!("`{text}` is not a whole number from 0 to {max}"), None)),
    }
}
