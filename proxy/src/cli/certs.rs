//! `ringway certs`: the certificates that a running proxy uses, or those of its files.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use ringway_router::Table;
use serde_json::Value;

use super::status::left;
use super::{EXIT_CONFIG, ask, complain, say, table_of};
use crate::admin::certificates;
use crate::control::credentials::Store;
use crate::control::reload::Rejection;
use crate::control::status::CredentialStatus;
use crate::run::ADMIN_DEFAULT;

/// Shows the certificates of the proxy that runs with `file`; with `of_files`, or when none runs,
/// those that the files hold now.
pub(super) fn show(file: &Path, of_files: bool) -> ExitCode {
    let table = match table_of(file) {
        Ok(table) => table,
        Err(code) => return code,
    };
    let address = table.admin().unwrap_or(ADMIN_DEFAULT);
    if !of_files {
        match ask::admin(address, "/certs") {
            Ok(report) => {
                say(&format!("in use by the proxy with the admin address {address}:"));
                print(&report);
                return ExitCode::SUCCESS;
            }
            Err(error) => {
                say(&format!("no proxy answers at {address} ({error}); what the files hold:"));
            }
        }
    }
    match of(file, &table) {
        Ok(status) => {
            print(&certificates::report(&status));
            ExitCode::SUCCESS
        }
        Err(rejection) => {
            complain(&rejection.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// What the certificate files that `table` names hold, checked as at a start.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn of(file: &Path, table: &Table) -> Result<CredentialStatus, Rejection> {
    let mut store = Store::new(file);
    let path = || file.display().to_string();
    let loaded = store.load(table);
    loaded.map_err(|faults| Rejection::Credentials { path: path(), faults })?;
    Ok(CredentialStatus { shown: store.shown(), ..CredentialStatus::default() })
}

fn print(report: &Value) {
    let generation = report["generation"].as_u64().unwrap_or_default();
    if generation > 0 {
        say(&format!("generation {generation}"));
    }
    let certificates = report["certificates"].as_array().map(Vec::as_slice).unwrap_or_default();
    if certificates.is_empty() {
        say("no certificates: the file names none");
    }
    for certificate in certificates {
        print_one(certificate);
    }
    for problem in report["problems"].as_array().into_iter().flatten() {
        complain(&format!("newer files are not in use: {}", problem.as_str().unwrap_or_default()));
    }
}

fn print_one(certificate: &Value) {
    let text = |field: &str| certificate[field].as_str().unwrap_or_default().to_owned();
    let title = match certificate["identity"].as_str() {
        Some(identity) => identity.to_owned(),
        None => text("subject"),
    };
    let depth = certificate["depth"].as_u64().unwrap_or_default();
    let name = if depth == 0 { text("name") } else { format!("{}, issuer {depth}", text("name")) };
    say(&format!("\n{name}: {title}"));
    let names: Vec<&str> = certificate["dns_names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !names.is_empty() {
        say(&format!("  names        {}", names.join(", ")));
    }
    say(&format!("  issued by    {}", text("issuer")));
    say(&format!("  key          {}, serial {}", text("key"), text("serial")));
    let moment = |field: &str| certificate[field].as_i64().unwrap_or_default();
    let (from, until) = (moment("not_before"), moment("not_after"));
    say(&format!("  valid        {} to {}, {}", date(from), date(until), left(until)));
    say(&format!("  sha256       {}", text("sha256")));
}

fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}
