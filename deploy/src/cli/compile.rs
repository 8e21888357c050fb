//! `ringway-push compile`: the static file of every workload's sidecar.
//!
//! # Invariants
//! - A file is there whole or not at all: written beside, synced, renamed.
//! - Files of workloads that are gone are named and left alone: a sidecar may run with them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::{EXIT_CONFIG, EXIT_RUNTIME, complain, load, placed, refuse, say};
use crate::compile::{IdentityFiles, Options, Policy, compile, with_endpoints};
use crate::limits::TABLE_BYTES_MAX;
use crate::model::Mesh;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the mesh.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Where the files are written, one <workload>.json each.
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// Where sidecars find FOLDER/<workload>/tls.crt, tls.key and ca.crt [default: id/chain.pem,
    /// key.pem and bundle.pem beside the file].
    #[arg(long, value_name = "FOLDER")]
    certificates: Option<PathBuf>,
    /// Refuse a workload whose tables may take more.
    #[arg(long, value_name = "MIB", default_value_t = TABLE_BYTES_MAX >> 20)]
    table_mib_max: usize,
}

impl Args {
    fn options(&self, workload: &str) -> Options {
        let files = |folder: &PathBuf| {
            // A sidecar finds files from where its own file is.
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            let folder = folder.join(workload);
            IdentityFiles::in_folder(&folder.to_string_lossy(), ["tls.crt", "tls.key", "ca.crt"])
        };
        let identity = self.certificates.as_ref().map(files);
        Options {
            identity: identity.unwrap_or_else(|| IdentityFiles::in_state_folder(false)),
            table_bytes_max: self.table_mib_max.saturating_mul(1 << 20),
        }
    }
}

pub(super) fn run(args: &Args) -> ExitCode {
    let loaded = match load(&args.dir, &args.options("workload")) {
        Ok(loaded) => loaded,
        Err(refusal) => return refuse(&args.dir, refusal),
    };
    for diagnostic in &loaded.diagnostics {
        complain(&placed(&args.dir, diagnostic));
    }
    let mut policies = BTreeMap::new();
    for (name, object) in &loaded.mesh.workloads {
        match compile(&loaded.mesh, &object.value, &args.options(name)) {
            Ok(policy) => _ = policies.insert(name.as_str(), policy),
            Err(diagnostics) => {
                for diagnostic in &diagnostics {
                    complain(&placed(&args.dir, diagnostic));
                }
                return ExitCode::from(EXIT_CONFIG);
            }
        }
    }
    match write_all(&args.out, &policies) {
        Ok(()) => {}
        Err((path, error)) => {
            complain(&format!("cannot write {}: {error}", path.display()));
            return ExitCode::from(EXIT_RUNTIME);
        }
    }
    report_gone(&args.out, &loaded.mesh);
    ExitCode::SUCCESS
}

fn write_all(out: &Path, policies: &BTreeMap<&str, Policy>) -> Result<(), (PathBuf, io::Error)> {
    fs::create_dir_all(out).map_err(|error| (out.to_owned(), error))?;
    for (name, policy) in policies {
        let path = out.join(format!("{name}.json"));
        let written = write(out, &path, &laid_out(&with_endpoints(policy)));
        written.map_err(|error| (path.clone(), error))?;
        say(&format!(
            "{}: policy {}, at most {} KiB in the sidecar",
            path.display(),
            &policy.hash[..12],
            policy.table_bytes.div_ceil(1024),
        ));
    }
    let synced = fs::File::open(out).and_then(|folder| folder.sync_all());
    synced.map_err(|error| (out.to_owned(), error))
}

/// A text of JSON on several lines.
fn laid_out(text: &str) -> String {
    let laid_out = serde_json::from_str::<Value>(text).map(|value| format!("{value:#}\n"));
    laid_out.unwrap_or_else(|_| text.to_owned())
}

fn write(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    // Who runs with the file watches its folder, and takes what is renamed into place.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = fs::File::create(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| fs::rename(&beside, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    renamed
}

/// Names the files of workloads that are gone.
fn report_gone(out: &Path, mesh: &Mesh) {
    let Ok(entries) = fs::read_dir(out) else { return };
    let mut gone: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    gone.retain(|path| {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = path.extension().is_some_and(|ending| ending == "json");
        is_ours && !name.starts_with('.') && !mesh.workloads.contains_key(name)
    });
    gone.sort();
    for path in gone {
        complain(&format!("{}: no such workload any more; the file is left", path.display()));
    }
}
