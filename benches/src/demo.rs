//! `make run`: three origins, the proxy, and a file that takes effect when it is edited.
//!
//! The proxy runs with a fresh copy of `deploy/examples/quickstart.yaml`, so that a person can
//! break it without harm; the next start begins with the shipped file again.
//!
//! # Invariants
//! - Nothing is started unless every port is free: half a demo explains nothing.
//! - However this program ends, the guard ends what it started.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use crate::{child::Child, compare, error::Error, guard::Guard, terminal};

const QUICKSTART: &str = include_str!("../../deploy/examples/quickstart.yaml");
/// Addresses that the quickstart file names; a test holds both together.
const LISTENER: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:4191";
const VARIANTS: [(&str, &str); 3] =
    [("v1", "127.0.0.1:9001"), ("v2", "127.0.0.1:9002"), ("v3", "127.0.0.1:9003")];

/// Options of `ringway-bench demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folder for the file to edit
    #[arg(long, value_name = "FOLDER", default_value = "bench-out/demo")]
    folder: PathBuf,
    /// The proxy to run (default: the one built beside this program)
    #[arg(long, value_name = "PROGRAM")]
    ringway: Option<PathBuf>,
}

/// Runs until it is interrupted, or until the proxy or the origin ends.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let ringway = match &options.ringway {
        Some(path) => path.clone(),
        None => compare::beside("ringway")?,
    };
    let listener = address(LISTENER)?;
    for text in VARIANTS.iter().map(|(_, text)| *text).chain([ADMIN, LISTENER]) {
        must_be_free(address(text)?)?;
    }
    fs::create_dir_all(&options.folder).map_err(Error::io("make the demo's folder"))?;
    let file = options.folder.join("quickstart.yaml");
    fs::write(&file, QUICKSTART).map_err(Error::io("copy the quickstart file"))?;

    let guard = Arc::new(Guard::start()?);
    let program = std::env::current_exe().map_err(Error::io("find the own program"))?;
    let mut command = Command::new(program);
    command.arg("origin");
    for (name, text) in VARIANTS {
        command.arg("--variant").arg(format!("{name}={text}"));
    }
    let log = options.folder.join("origin.log");
    let mut origin = Child::start("origin", command, None, Some(log), &guard)?;
    for (_, text) in VARIANTS {
        origin.wait_for(address(text)?)?;
    }
    let mut command = Command::new(ringway);
    command.args(["run", "--config"]).arg(&file);
    let mut proxy = Child::start("ringway", command, None, None, &guard)?;
    proxy.wait_for(listener)?;
    terminal::say(&things_to_try(&file));
    loop {
        origin.check()?;
        if let Some(status) = proxy.ended()? {
            return match status.success() {
                true => Ok(()),
                false => proxy.check(),
            };
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn address(text: &str) -> Result<SocketAddr, Error> {
    text.parse().map_err(|_| Error::Usage(format!("{text} is no address")))
}

fn must_be_free(address: SocketAddr) -> Result<(), Error> {
    TcpListener::bind(address).map(drop).map_err(|_| Error::PortTaken { address })
}

fn things_to_try(file: &Path) -> String {
    let file = file.display();
    format!(
        "
Ringway listens on {LISTENER}. In another terminal, in this folder, try:

  curl http://{LISTENER}/                                  # nine of ten: v1
  curl http://{LISTENER}/ -H 'x-version: 3'                # by header: v3
  curl http://{LISTENER}/ -H 'Host: beta.example'          # by host: v3
  curl http://{LISTENER}/v2/anything                       # by path: v2, without /v2
  curl -i http://{LISTENER}/echo                           # the fields that the origin sees
  curl -i http://{LISTENER}/old                            # a redirect
  curl -i http://{LISTENER}/slow/2000                      # a timeout, with its cause
  for i in $(seq 20); do curl -s http://{LISTENER}/; done | sort | uniq -c

Edit {file}: it takes effect at once.

  sed -i 's/weight: 90/weight: 0/' {file}
  curl http://{LISTENER}/                                  # v2 from now on
  sed -i 's/cluster: v2/cluster: nowhere/' {file}  # refused, v2 goes on

Metrics, readiness and the running table:

  curl http://{ADMIN}/metrics
  curl http://{ADMIN}/ready
  curl http://{ADMIN}/config

Ctrl-C ends the proxy and its origins.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_address_of_the_demo() {
        for text in VARIANTS.iter().map(|(_, text)| *text).chain([ADMIN, LISTENER]) {
            assert!(QUICKSTART.contains(text), "{text}");
        }
    }

    #[test]
    fn the_suggested_edits_change_the_file() {
        for text in ["weight: 90", "cluster: v2"] {
            assert!(QUICKSTART.contains(text), "{text}");
        }
    }
}
