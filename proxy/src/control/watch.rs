//! Notices that the file has changed: an edit, a rename, a ConfigMap's `..data` swap.
//!
//! The directory is watched, not the file: whoever replaces a file by renaming would leave a
//! watch on the old one behind. Some file systems tell nothing, so the file is also looked at
//! from time to time; whether its bytes have changed is the reloader's to say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// An editor's burst of events ends with this much silence.
const QUIET: Duration = Duration::from_millis(10);
/// A burst is not waited for longer than this.
const QUIET_MAX: Duration = Duration::from_millis(200);
/// How often the file is looked at without any event.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the watch.
pub struct Watch {
    _watcher: Option<notify::RecommendedWatcher>,
    looker: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looker.abort();
    }
}

/// Watches the directory of `path` and says on `changed` that it is time to look.
#[must_use]
pub fn start(path: &Path, changed: mpsc::Sender<()>) -> Watch {
    let directory = directory(path);
    let events = changed.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event too, and of no interest.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Full means that a look is due already.
            let _ = events.try_send(());
        }
    });
    let watcher = watcher.and_then(|mut watcher| {
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(%error, "cannot watch the file; looking every 10 s instead");
    }
    let looker = tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let _ = changed.try_send(());
        }
    });
    Watch { _watcher: watcher.ok(), looker }
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Waits until a burst of events is over.
pub async fn settle(changes: &mut mpsc::Receiver<()>) {
    let burst = async {
        while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|event| event.is_some()) {
        }
    };
    let _ = tokio::time::timeout(QUIET_MAX, burst).await;
}
