//! Notices that files have changed: an edit, a rename, a ConfigMap's `..data` swap.
//!
//! The directory is watched, not the file: whoever replaces a file by renaming would leave a
//! watch on the old one behind. So are those of the certificate files. Some file systems tell
//! nothing, so the files are also looked at from time to time; whether their bytes have changed is
//! the reloader's to say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// What Kubernetes renames into place when a ConfigMap changes; the file is a link through it.
const CONFIG_MAP: &str = "..data";

/// What an event says of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was renamed into place: what is there is all of it.
    Whole,
    /// Something has happened, and more may follow.
    Part,
}

/// Events that may wait: writing a file and renaming it are some ten.
pub const EVENTS_MAX: usize = 64;
/// An editor's burst of events ends with this much silence.
const QUIET: Duration = Duration::from_millis(10);
/// A burst is not waited for longer than this.
const QUIET_MAX: Duration = Duration::from_millis(200);
/// How often the file is looked at without any event.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the watch.
pub struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    watched: Vec<PathBuf>,
    looker: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looker.abort();
    }
}

/// Watches the directory of `path` and says on `changed` that it is time to look.
#[must_use]
pub fn start(path: &Path, changed: mpsc::Sender<Change>) -> Watch {
    let name = path.file_name().map(OsString::from);
    let events = changed.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event too, and of no interest.
        if let Ok(event) = event
            && !event.kind.is_access()
        {
            // Full means that a look is due already.
            let _ = events.try_send(change(&event, name.as_ref()));
        }
    });
    if let Err(error) = &watcher {
        tracing::warn!(%error, "cannot watch files; looking every 10 s instead");
    }
    let looker = tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let _ = changed.try_send(Change::Part);
        }
    });
    let mut watch = Watch { watcher: watcher.ok(), watched: Vec::new(), looker };
    watch.add(directory(path));
    watch
}

impl Watch {
    /// Watches `folders` too, and no others but the first.
    pub fn follow(&mut self, folders: &[PathBuf]) {
        let folders: Vec<PathBuf> = folders.iter().map(|folder| named(folder)).collect();
        for gone in self.watched.split_off(self.watched.len().min(1)) {
            if folders.contains(&gone) {
                self.watched.push(gone);
            } else if let Some(watcher) = &mut self.watcher {
                let _ = watcher.unwatch(&gone);
            }
        }
        for folder in folders {
            if !self.watched.contains(&folder) {
                self.add(folder);
            }
        }
    }

    fn add(&mut self, folder: PathBuf) {
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive)
        {
            let folder = folder.display();
            tracing::warn!(%error, %folder, "cannot watch the folder; looking every 10 s instead");
        }
        self.watched.push(folder);
    }
}

fn directory(path: &Path) -> PathBuf {
    named(path.parent().unwrap_or(path))
}

/// A folder that has a name: the one that the process is in has none.
fn named(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() }
}

fn change(event: &notify::Event, name: Option<&OsString>) -> Change {
    let renamed = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To)));
    let target = event.paths.last().and_then(|path| path.file_name());
    let ours = target.is_some_and(|target| {
        target == CONFIG_MAP || name.is_some_and(|name| target == name.as_os_str())
    });
    if renamed && ours { Change::Whole } else { Change::Part }
}

/// Waits until the burst of events that `first` began is over, or the file is whole.
pub async fn settle(first: Change, changes: &mut mpsc::Receiver<Change>) {
    let burst = async {
        let mut change = first;
        while change == Change::Part {
            match tokio::time::timeout(QUIET, changes.recv()).await {
                Ok(Some(next)) => change = next,
                Ok(None) | Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(QUIET_MAX, burst).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_renamed_to_the_file_or_the_config_maps_link_is_whole() {
        let name = OsString::from("main.yaml");
        let said = |kind: EventKind, target: &str| {
            let event = notify::Event::new(kind).add_path(Path::new("/etc/ringway").join(target));
            change(&event, Some(&name))
        };
        let renamed = |mode| EventKind::Modify(ModifyKind::Name(mode));
        assert_eq!(said(renamed(RenameMode::To), "main.yaml"), Change::Whole);
        assert_eq!(said(renamed(RenameMode::To), CONFIG_MAP), Change::Whole);
        assert_eq!(said(renamed(RenameMode::To), "main.yaml~"), Change::Part, "an editor's copy");
        assert_eq!(said(renamed(RenameMode::From), "main.yaml"), Change::Part, "it is gone");
        assert_eq!(said(EventKind::Modify(ModifyKind::Any), "main.yaml"), Change::Part);
    }
}
