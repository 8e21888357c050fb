//! A temporary folder that goes when its owner goes, and ports that nobody uses.

use std::{
    collections::HashSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{error::Error, guard::Guard};

/// Ports are taken from below the range that the kernel gives to outgoing connections, so that a
/// client of this very measurement cannot sit on one.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A folder in the system's temporary folder, and the ports handed out so far.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    ports: Mutex<HashSet<u16>>,
}

impl Scratch {
    /// Makes the folder. Peers that drop their privileges can still read in it.
    pub(crate) fn new(guard: &Guard) -> Result<Self, Error> {
        let name = format!("ringway-bench-{}-{:x}", std::process::id(), fastrand::u32(..));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).map_err(Error::io("make a temporary folder"))?;
        guard.remove_later(&folder);
        let readable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&folder, readable).map_err(Error::io("open the temporary folder"))?;
        Ok(Self { folder, ports: Mutex::new(HashSet::new()) })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes an empty folder inside and says where it is.
    pub(crate) fn make_folder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join(name);
        fs::create_dir(&path).map_err(Error::io(format!("make the folder {name}")))?;
        Ok(path)
    }

    /// A local address that nothing listens on and that was not handed out before.
    pub(crate) fn free_address(&self) -> Result<SocketAddr, Error> {
        for _ in 0..1000 {
            let port = fastrand::u16(PORTS);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let fresh = self.ports.lock().is_ok_and(|mut ports| ports.insert(port));
            if fresh && TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        Err(Error::Usage(format!("no free port between {} and {}", PORTS.start, PORTS.end)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The guard tries again when this process is gone.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
