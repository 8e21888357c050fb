//! `ringway-push compile`: the static file of every workload's sidecar, or of an Envoy in its
//! place.
//!
//! # Invariants
//! - A file is there whole or not at all: written beside, synced, renamed.
//! - Nothing is written if one workload cannot be.
//! - Files of workloads that are gone are named and left alone: a sidecar may run with them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::{EXIT_CONFIG, EXIT_RUNTIME, EXIT_USAGE, complain, load, placed, refuse, say};
use crate::compile::{IdentityFiles, Options, compile, envoy, with_endpoints};
use crate::diagnostic::Diagnostic;
use crate::limits::TABLE_BYTES_MAX;
use crate::model::{Mesh, Workload, place};
use crate::source::Folder;

/// Where an Envoy's admin server is if nothing is said.
const ENVOY_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// Whose files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The sidecar's: WORKLOAD.json, for `ringway run`.
    Ringway,
    /// Envoy's bootstrap: WORKLOAD.envoy.json, for `envoy -c`.
    Envoy,
}

impl Format {
    /// What the name of a file ends in.
    fn ending(self) -> &'static str {
        match self {
            Format::Ringway => ".json",
            Format::Envoy => ".envoy.json",
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the mesh.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Where the files are written, one for each workload.
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// Where sidecars find FOLDER/WORKLOAD/tls.crt, tls.key and ca.crt [default: id/svid.pem
    /// and id/bundle.pem beside the file].
    #[arg(long, value_name = "FOLDER")]
    certificates: Option<PathBuf>,
    /// Refuse a workload whose tables may take more.
    #[arg(long, value_name = "MIB", default_value_t = TABLE_BYTES_MAX >> 20)]
    table_mib_max: usize,
    /// Whose files are written. What has no equal in Envoy is refused by name.
    #[arg(long, value_enum, default_value_t = Format::Ringway)]
    format: Format,
    /// Address of the admin server of Envoy, with `--format envoy` [default: 127.0.0.1:9901].
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// A file to be written.
struct Written {
    /// Its text.
    text: String,
    /// What is said of it.
    about: String,
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
    if args.format == Format::Ringway && args.admin.is_some() {
        complain("--admin is for --format envoy");
        return ExitCode::from(EXIT_USAGE);
    }
    let loaded = match load(&args.dir, &args.options("workload")) {
        Ok(loaded) => loaded,
        Err(refusal) => return refuse(&args.dir, refusal),
    };
    for diagnostic in &loaded.diagnostics {
        complain(&placed(&args.dir, diagnostic));
    }
    let (mut files, mut refused) = (BTreeMap::new(), Vec::new());
    for (name, object) in &loaded.mesh.workloads {
        match written(args, &loaded.mesh, &object.value) {
            Ok(file) => _ = files.insert(name.as_str(), file),
            Err(diagnostics) => refused.extend(diagnostics),
        }
    }
    if !refused.is_empty() {
        if let Ok(folder) = Folder::read(&args.dir) {
            place(&folder, &mut refused);
        }
        for diagnostic in &refused {
            complain(&placed(&args.dir, diagnostic));
        }
        return ExitCode::from(EXIT_CONFIG);
    }
    if let Err((path, error)) = write_all(args, &files) {
        complain(&format!("cannot write {}: {error}", path.display()));
        return ExitCode::from(EXIT_RUNTIME);
    }
    report_gone(args, &loaded.mesh);
    ExitCode::SUCCESS
}

/// The file of a workload.
fn written(args: &Args, mesh: &Mesh, workload: &Workload) -> Result<Written, Vec<Diagnostic>> {
    let options = args.options(&workload.name);
    if args.format == Format::Envoy {
        let bootstrap = envoy(mesh, workload, &options, args.admin.unwrap_or(ENVOY_ADMIN))?;
        return Ok(Written { text: format!("{bootstrap:#}\n"), about: "for Envoy".to_owned() });
    }
    let policy = compile(mesh, workload, &options)?;
    let about = format!(
        "policy {}, at most {} KiB in the sidecar",
        &policy.hash[..12],
        policy.table_bytes.div_ceil(1024),
    );
    Ok(Written { text: laid_out(&with_endpoints(&policy)), about })
}

fn write_all(args: &Args, files: &BTreeMap<&str, Written>) -> Result<(), (PathBuf, io::Error)> {
    let out = &args.out;
    fs::create_dir_all(out).map_err(|error| (out.to_owned(), error))?;
    for (name, file) in files {
        let path = out.join(format!("{name}{}", args.format.ending()));
        write(out, &path, &file.text).map_err(|error| (path.clone(), error))?;
        say(&format!("{}: {}", path.display(), file.about));
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
fn report_gone(args: &Args, mesh: &Mesh) {
    let Ok(entries) = fs::read_dir(&args.out) else { return };
    let mut gone: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    gone.retain(|path| {
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = file.strip_suffix(args.format.ending()).unwrap_or_default();
        // The names of workloads have no dots: one with a dot is somebody else's.
        !name.is_empty() && !name.contains('.') && !mesh.workloads.contains_key(name)
    });
    gone.sort();
    for path in gone {
        complain(&format!("{}: no such workload any more; the file is left", path.display()));
    }
}
