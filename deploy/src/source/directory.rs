//! Notices that a folder has changed, and reads it when it is still.
//!
//! ```text
//! events ──┐ quiet for 100 ms, or 1 s of them      read ─▶ read ─▶ equal? ─▶ Folder
//! 30 s ────┴─────────────────────────────────────▶           └── no: again
//! ```
//!
//! The folder is watched, not its files, and so is the folder that `..data` leads to: a ConfigMap
//! is changed by renaming that link, and one that is written in place changes only behind it. Some
//! file systems tell nothing, so the folder is also read from time to time.
//!
//! # Invariants
//! - The folder is one transaction: it is given only when two readings, 20 ms apart, are equal, and
//!   only when it differs from what was given last.
//! - A folder that cannot be read is no empty folder: it gives an error, once.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::folder::{Folder, ReadError};

/// What Kubernetes renames into place when a ConfigMap changes.
const CONFIG_MAP: &str = "..data";
/// Events that may wait; more say nothing new.
const EVENTS_MAX: usize = 64;
/// A burst of events ends with this much silence.
const QUIET: Duration = Duration::from_millis(100);
/// A burst is not waited for longer than this.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// How often the folder is read without any event.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);
/// Between the two readings that must be equal.
const BETWEEN_READS: Duration = Duration::from_millis(20);
/// Readings until a folder that is never still is given up for this time.
const READS_MAX: usize = 50;

/// A watched folder.
pub struct Directory {
    path: PathBuf,
    watcher: Option<notify::RecommendedWatcher>,
    /// The folder that is watched, by device and inode.
    watched: Option<(u64, u64)>,
    /// The folder behind `..data` that is watched.
    behind: Option<PathBuf>,
    events: mpsc::Receiver<()>,
    /// What was given last: a hash, or the words of an error.
    given: Option<Result<[u8; 32], String>>,
}

/// Why a folder was not given.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It kept changing while it was read.
    #[error("{} keeps changing while it is read", .0.display())]
    Restless(PathBuf),
}

impl Directory {
    /// Watches the folder `path`. Needs a tokio runtime with time.
    #[must_use]
    pub fn watch(path: &Path) -> Directory {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and of no interest. An error says that events were
            // lost. Full means that a reading is due already.
            if event.is_err() || event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "cannot watch files; reading them every 30 s instead");
        }
        let watcher = watcher.ok();
        let path = path.to_owned();
        let mut directory =
            Directory { path, watcher, watched: None, behind: None, events, given: None };
        directory.follow();
        directory
    }

    /// Waits for the folder to differ from what was given last; at first it is given at once. To be
    /// waited for to its end: a change whose wait is given up midway may be lost.
    ///
    /// # Errors
    /// It cannot be read, or is never still. The same error is given once.
    pub async fn changed(&mut self) -> Result<Folder, DirectoryError> {
        loop {
            if self.given.is_some() {
                self.settle().await;
            }
            self.follow();
            let read = read_still(&self.path).await;
            let given = match &read {
                Ok(folder) => Ok(folder.hash()),
                Err(error) => Err(error.to_string()),
            };
            if self.given.as_ref() != Some(&given) {
                self.given = Some(given);
                return read;
            }
        }
    }

    /// Waits for a burst of events and its end, or for the next scan.
    async fn settle(&mut self) {
        let scan = Instant::now() + SCAN_INTERVAL;
        match timeout_at(scan, self.events.recv()).await {
            Ok(Some(())) => {}
            Ok(None) => return sleep(SCAN_INTERVAL).await,
            Err(_) => return,
        }
        let latest = Instant::now() + QUIET_MAX;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if !matches!(timeout_at(quiet, self.events.recv()).await, Ok(Some(()))) {
                return;
            }
        }
    }

    /// Watches the folder that has the name now, and what `..data` in it leads to now, and no
    /// longer what they were.
    fn follow(&mut self) {
        let found = std::fs::metadata(&self.path).map(|found| (found.dev(), found.ino())).ok();
        if found != self.watched {
            let path = self.path.clone();
            if let (Some(watcher), Some(_)) = (&mut self.watcher, self.watched) {
                let _ = watcher.unwatch(&path);
            }
            if found.is_some() {
                self.add(&path);
            }
            self.watched = found;
        }
        let link = self.path.join(CONFIG_MAP);
        let behind = std::fs::canonicalize(&link).ok();
        if behind != self.behind {
            if let (Some(watcher), Some(old)) = (&mut self.watcher, &self.behind) {
                // The kernel forgets the watch of a folder that is gone by itself.
                let _ = watcher.unwatch(old);
            }
            if let Some(new) = &behind {
                self.add(new);
            }
            self.behind = behind;
        }
    }

    fn add(&mut self, folder: &Path) {
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive)
        {
            let folder = folder.display();
            tracing::warn!(%error, %folder, "cannot watch the folder; reading every 30 s instead");
        }
    }
}

/// Reads a folder until two readings are equal.
///
/// # Errors
/// It cannot be read, or is never still. What vanishes between listing and reading counts as
/// change.
pub async fn read_still(path: &Path) -> Result<Folder, DirectoryError> {
    let mut last: Option<Folder> = None;
    let mut failed = None;
    for _ in 0..READS_MAX {
        match Folder::read(path) {
            Ok(folder) => {
                if last.as_ref().is_some_and(|last| last.hash() == folder.hash()) {
                    return Ok(folder);
                }
                (last, failed) = (Some(folder), None);
            }
            // Once may be the middle of a change; twice in a row is how it is.
            Err(error) if failed.is_some() => return Err(error.into()),
            Err(error) => (last, failed) = (None, Some(error)),
        }
        sleep(BETWEEN_READS).await;
    }
    Err(DirectoryError::Restless(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    }

    async fn next(directory: &mut Directory) -> Result<Folder, DirectoryError> {
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, directory.changed()).await.expect("it is noticed")
    }

    #[test]
    fn a_swap_of_the_config_maps_link_gives_the_new_files_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        for (version, text) in [("..1", "a: 1"), ("..2", "a: 2")] {
            fs::create_dir(path.join(version)).expect("a folder");
            fs::write(path.join(version).join("a.yaml"), text).expect("written");
        }
        symlink("..1", path.join("..data")).expect("linked");
        symlink("..data/a.yaml", path.join("a.yaml")).expect("linked");
        runtime().block_on(async {
            let mut directory = Directory::watch(path);
            let first = next(&mut directory).await.expect("it is read");
            assert_eq!(first.text("a.yaml"), Some("a: 1"));
            symlink("..2", path.join("..data_tmp")).expect("linked");
            fs::rename(path.join("..data_tmp"), path.join("..data")).expect("renamed");
            fs::remove_dir_all(path.join("..1")).expect("removed");
            let second = next(&mut directory).await.expect("it is read");
            assert_eq!(second.text("a.yaml"), Some("a: 2"));
            // Behind the new link, too.
            fs::write(path.join("..2").join("a.yaml"), "a: 3").expect("written");
            let third = next(&mut directory).await.expect("it is read");
            assert_eq!(third.text("a.yaml"), Some("a: 3"));
        });
    }

    #[test]
    fn a_burst_of_edits_is_one_change_and_a_lost_folder_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mesh.d");
        fs::create_dir(&path).expect("a folder");
        runtime().block_on(async {
            let mut directory = Directory::watch(&path);
            assert!(next(&mut directory).await.expect("it is read").files.is_empty());
            for nth in 0..20 {
                fs::write(path.join(format!("{nth}.yaml")), "{}").expect("written");
            }
            assert_eq!(next(&mut directory).await.expect("it is read").files.len(), 20);
            fs::remove_dir_all(&path).expect("removed");
            assert!(matches!(next(&mut directory).await, Err(DirectoryError::Read(_))));
            // Its parent tells nothing, so its return is for the next scan to find.
            fs::create_dir(&path).expect("a folder");
            directory.follow();
            fs::write(path.join("a.yaml"), "{}").expect("written");
            assert_eq!(next(&mut directory).await.expect("it is read").files.len(), 1);
        });
    }
}
