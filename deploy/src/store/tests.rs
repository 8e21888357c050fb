//! What every store must do, as one suite that each implementation's tests call.

use std::sync::Arc;
use std::time::Duration;

use ringway_tls::UnixTime;
use tokio::sync::mpsc::error::TryRecvError;

use super::limits::{
    EVENTS_KEPT_MAX, EVENTS_QUEUED_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX, WATCHES_MAX,
};
use super::*;

/// Runs every claim on a store of its own.
pub(crate) fn conforms<S: Store + 'static>(make: impl Fn() -> S) {
    entries_are_written_by_version_only(&make());
    versions_grow_over_deletion(&make());
    listing_is_by_prefix_and_sorted(&make());
    limits_hold_at_and_past_them(&make());
    of_many_writers_of_one_version_one_wins(&(Arc::new(make()) as Arc<dyn Store>));
    watchers_see_every_change_in_order(&make());
    watches_from_the_past_are_replayed_or_refused(&make());
    slow_watcher_is_cut_off(&make());
    watches_are_bounded_and_given_back(&make());
    leases_pass_on_with_growing_fences(&make());
}

fn conflict(current: Option<u64>) -> Result<u64, StoreFault> {
    Err(StoreFault::Conflict { current })
}

fn value(store: &dyn Store, key: &str) -> Option<Vec<u8>> {
    store.get(key).unwrap().map(|entry| entry.value)
}

fn entries_are_written_by_version_only(store: &dyn Store) {
    assert_eq!(store.get("a/b").unwrap(), None);
    assert_eq!(store.put_if_version("a/b", Some(1), b"x"), conflict(None));
    let first = store.put_if_version("a/b", None, b"one").unwrap();
    assert!(first > 0);
    assert_eq!(store.put_if_version("a/b", None, b"two"), conflict(Some(first)));
    let second = store.put_if_version("a/b", Some(first), b"two").unwrap();
    assert!(second > first);
    assert_eq!(store.put_if_version("a/b", Some(first), b"three"), conflict(Some(second)));
    assert_eq!(store.delete_if_version("a/b", first), conflict(Some(second)));
    assert_eq!(value(store, "a/b").unwrap(), b"two");
    store.delete_if_version("a/b", second).unwrap();
    assert_eq!(value(store, "a/b"), None);
    assert_eq!(store.delete_if_version("a/b", second), conflict(None));
}

/// Otherwise a writer that has slept over a deletion and a new entry would overwrite that.
fn versions_grow_over_deletion(store: &dyn Store) {
    let first = store.put_if_version("a", None, b"").unwrap();
    let gone = store.delete_if_version("a", first).unwrap();
    let second = store.put_if_version("a", None, b"").unwrap();
    assert!(first < gone && gone < second);
}

fn listing_is_by_prefix_and_sorted(store: &dyn Store) {
    for key in ["b/2", "b/10", "a", "b", "c", "b.x"] {
        store.put_if_version(key, None, key.as_bytes()).unwrap();
    }
    let listing = store.list("b/").unwrap();
    let keys: Vec<&str> = listing.entries.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["b/10", "b/2"]);
    assert!(listing.entries.iter().all(|(key, entry)| entry.value == key.as_bytes()));
    assert!(listing.entries.iter().all(|(_, entry)| entry.version <= listing.revision));
    assert_eq!(store.list("").unwrap().entries.len(), 6);
    assert_eq!(store.list("d").unwrap().entries, []);
}

fn limits_hold_at_and_past_them(store: &dyn Store) {
    let longest = "k".repeat(KEY_BYTES_MAX);
    store.put_if_version(&longest, None, &vec![7; VALUE_BYTES_MAX]).unwrap();
    assert_eq!(value(store, &longest).unwrap().len(), VALUE_BYTES_MAX);
    let key = store.put_if_version(&"k".repeat(KEY_BYTES_MAX + 1), None, b"");
    assert!(matches!(key, Err(StoreFault::Key(_))), "{key:?}");
    let long = store.put_if_version("long", None, &vec![7; VALUE_BYTES_MAX + 1]);
    assert!(matches!(long, Err(StoreFault::Full { .. })), "{long:?}");
    for key in ["", "a b", "a\n", "ä", "a*"] {
        assert!(matches!(store.get(key), Err(StoreFault::Key(_))), "{key:?}");
    }
}

fn of_many_writers_of_one_version_one_wins(store: &Arc<dyn Store>) {
    let mut version = store.put_if_version("a", None, b"0").unwrap();
    for round in 0..10 {
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let store = Arc::clone(store);
                std::thread::spawn(move || store.put_if_version("a", Some(version), b"x"))
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let won: Vec<u64> = results.iter().flatten().copied().collect();
        assert_eq!(won.len(), 1, "round {round}: {results:?}");
        version = won[0];
    }
}

fn watchers_see_every_change_in_order(store: &dyn Store) {
    let revision = store.put_if_version("a/0", None, b"").unwrap();
    let mut watch = store.watch("a/", revision).unwrap();
    assert_eq!(watch.try_recv(), Err(TryRecvError::Empty));
    let one = store.put_if_version("a/1", None, b"").unwrap();
    store.put_if_version("b/1", None, b"").unwrap();
    // A write that was refused is no change.
    store.put_if_version("a/1", None, b"").unwrap_err();
    let two = store.delete_if_version("a/1", one).unwrap();
    let key = || "a/1".to_owned();
    assert_eq!(watch.try_recv(), Ok(Event { revision: one, key: key(), change: Change::Put }));
    assert_eq!(watch.try_recv(), Ok(Event { revision: two, key: key(), change: Change::Delete }));
    assert_eq!(watch.try_recv(), Err(TryRecvError::Empty));
}

fn watches_from_the_past_are_replayed_or_refused(store: &dyn Store) {
    let first = store.put_if_version("a", None, b"").unwrap();
    let mut version = store.put_if_version("b", None, b"").unwrap();
    let mut watch = store.watch("", first).unwrap();
    assert_eq!(watch.try_recv().unwrap().key, "b");
    let future = store.watch("", version + 1);
    assert!(matches!(future, Err(StoreFault::Compacted { .. })), "{future:?}");
    for _ in 0..EVENTS_KEPT_MAX {
        version = store.put_if_version("b", Some(version), b"").unwrap();
    }
    assert!(store.watch("", version - EVENTS_KEPT_MAX as u64).is_ok());
    let past = store.watch("", version - EVENTS_KEPT_MAX as u64 - 1);
    assert_eq!(past.unwrap_err(), StoreFault::Compacted { oldest: version });
}

fn slow_watcher_is_cut_off(store: &dyn Store) {
    let mut version = store.put_if_version("a", None, b"").unwrap();
    let mut watch = store.watch("a", version).unwrap();
    for _ in 0..=EVENTS_QUEUED_MAX {
        version = store.put_if_version("a", Some(version), b"").unwrap();
    }
    let mut received = 0;
    while watch.try_recv().is_ok() {
        received += 1;
    }
    assert_eq!(received, EVENTS_QUEUED_MAX);
    assert_eq!(watch.try_recv(), Err(TryRecvError::Disconnected));
}

fn watches_are_bounded_and_given_back(store: &dyn Store) {
    let watches: Vec<_> = (0..WATCHES_MAX).map(|_| store.watch("", 0).unwrap()).collect();
    let past = store.watch("", 0);
    assert!(matches!(past, Err(StoreFault::Full { .. })), "{past:?}");
    drop(watches);
    assert!(store.watch("", 0).is_ok());
}

fn leases_pass_on_with_growing_fences(store: &dyn Store) {
    let at = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
    let ttl = Duration::from_secs(10);
    let first = store.lease("leader", "a", ttl, at(100)).unwrap();
    assert_eq!((first.fence, first.until_s), (1, 110));
    let held = store.lease("leader", "b", ttl, at(109));
    assert_eq!(held, Err(StoreFault::Held { holder: "a".into(), until_s: 110 }));
    // Prolonged: the same holder keeps its number.
    let prolonged = store.lease("leader", "a", ttl, at(109)).unwrap();
    assert_eq!((prolonged.fence, prolonged.until_s), (1, 119));
    // Lapsed: even the same holder gets a new one, for another may have had it.
    assert_eq!(store.lease("leader", "a", ttl, at(119)).unwrap().fence, 2);
    assert_eq!(store.lease("leader", "b", ttl, at(129)).unwrap().fence, 3);
    store.release("leader", "a").unwrap();
    assert!(store.lease("leader", "a", ttl, at(130)).is_err());
    store.release("leader", "b").unwrap();
    assert_eq!(store.lease("leader", "a", ttl, at(130)).unwrap().fence, 4);
    assert!(matches!(store.lease("leader", "", ttl, at(130)), Err(StoreFault::Key(_))));
    assert!(matches!(store.lease("a b", "a", ttl, at(130)), Err(StoreFault::Key(_))));
}
