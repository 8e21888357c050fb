//! `ringway-bench certs`: an authority and certificates of a mesh, for trying things out.
//!
//! ```text
//! FOLDER/ca.crt, ca.key       the authority; kept, so that the next call rotates the leaves
//! FOLDER/NAME/tls.crt, tls.key, ca.crt
//! ```
//!
//! # Invariants
//! - Files are replaced by renaming: a proxy that watches them reads whole ones.
//! - Keys are readable by their owner alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;

use crate::authority::Authority;
use crate::error::Error;
use crate::terminal;

/// Options of `ringway-bench certs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the files go
    #[arg(long, value_name = "FOLDER", default_value = "bench-out/certs")]
    folder: PathBuf,
    /// The trust domain of the identities
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
    /// How long the certificates are valid
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    life: Duration,
    /// Workloads: each gets the identity spiffe://DOMAIN/ns/default/sa/WORKLOAD
    #[arg(value_name = "WORKLOAD", default_values = ["web", "shop"])]
    workloads: Vec<String>,
}

/// Makes the certificates.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let folder = &options.folder;
    fs::create_dir_all(folder).map_err(Error::io("make the folder of the certificates"))?;
    let key = fs::read_to_string(folder.join("ca.key")).ok();
    let kept = key.is_some();
    let authority = Authority::new(key.as_deref())?;
    if !kept {
        replace(&folder.join("ca.key"), &authority.key)?;
        replace(&folder.join("ca.crt"), &authority.certificate)?;
    }
    let roots = fs::read_to_string(folder.join("ca.crt")).map_err(Error::io("read ca.crt"))?;
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for workload in &options.workloads {
        let id = format!("spiffe://{}/ns/default/sa/{workload}", options.trust_domain);
        let leaf = authority.leaf(&id, &[workload], &both, options.life)?;
        let home = folder.join(workload);
        fs::create_dir_all(&home).map_err(Error::io("make a workload's folder"))?;
        replace(&home.join("ca.crt"), &roots)?;
        replace(&home.join("tls.key"), &leaf.key)?;
        replace(&home.join("tls.crt"), &leaf.certificate)?;
        terminal::say(&format!("{}: {id}", home.display()));
    }
    Ok(())
}

fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let failed = || format!("write {}", path.display());
    let next = path.with_extension("next");
    let written = (|| {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&next, path)
    })();
    written.map_err(Error::io(failed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_call_rotates_leaves_of_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            folder: folder.path().to_owned(),
            trust_domain: "t.example".to_owned(),
            life: Duration::from_secs(3600),
            workloads: vec!["a".to_owned()],
        };
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        run(&options).unwrap();
        let (roots, leaf) = (read("a/ca.crt"), read("a/tls.crt"));
        run(&options).unwrap();
        assert_eq!(read("a/ca.crt"), roots);
        assert_ne!(read("a/tls.crt"), leaf);
        let of = |text: &str| ringway_tls::Bundle::parse(text.as_bytes(), &[]).unwrap();
        let pair = ringway_tls::KeyPair::parse(
            read("a/tls.crt").as_bytes(),
            read("a/tls.key").as_bytes(),
            None,
        );
        let pair = pair.unwrap();
        of(&roots).check(&pair, ringway_tls::UnixTime::now()).unwrap();
        assert_eq!(pair.as_identity().unwrap().as_str(), "spiffe://t.example/ns/default/sa/a");
    }
}
