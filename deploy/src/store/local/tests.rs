//! The suite of all stores, and what only a file has: kills, corruption, modes, a second process.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::process::{Command, Stdio};

use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;

const WRITER: &str = "RINGWAY_TEST_STORE_WRITER";

fn open(folder: &tempfile::TempDir) -> Result<Local, StoreFault> {
    Local::open(&folder.path().join("state.redb"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A store whose folder lives as long as it does.
#[derive(Debug)]
struct Scratch {
    store: Local,
    _folder: tempfile::TempDir,
}

impl Store for Scratch {
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreFault> {
        self.store.get(key)
    }
    fn list(&self, prefix: &str) -> Result<Listing, StoreFault> {
        self.store.list(prefix)
    }
    fn put_if_version(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
    ) -> Result<u64, StoreFault> {
        self.store.put_if_version(key, expected, value)
    }
    fn delete_if_version(&self, key: &str, expected: u64) -> Result<u64, StoreFault> {
        self.store.delete_if_version(key, expected)
    }
    fn watch(&self, prefix: &str, after: u64) -> Result<mpsc::Receiver<Event>, StoreFault> {
        self.store.watch(prefix, after)
    }
}

#[test]
fn local_file_is_a_store() {
    super::super::tests::conforms(|| {
        let folder = tempfile::tempdir().unwrap();
        Scratch { store: open(&folder).unwrap(), _folder: folder }
    });
}

#[test]
fn entries_versions_and_the_revision_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).unwrap();
    let version = store.put_if_version("a", None, b"one").unwrap();
    let gone = store.put_if_version("b", None, b"two").unwrap();
    let gone = store.delete_if_version("b", gone).unwrap();
    drop(store);
    let store = open(&folder).unwrap();
    assert_eq!(store.get("a").unwrap(), Some(Versioned { version, value: b"one".to_vec() }));
    assert_eq!(store.list("").unwrap().revision, gone);
    // What happened before is not known: list first.
    assert!(matches!(store.watch("", version), Err(StoreFault::Compacted { .. })));
    assert!(store.watch("", gone).is_ok());
    assert_eq!(store.put_if_version("b", None, b"").unwrap(), gone + 1);
}

#[test]
fn files_are_readable_by_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    drop(open(&folder).unwrap());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&folder.path().join("state.redb.lock")), 0o600);
    fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
    drop(open(&folder).unwrap());
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn second_opener_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).unwrap();
    let path = folder.path().join("state.redb");
    let holder = format!("process {}", std::process::id());
    assert_eq!(open(&folder).unwrap_err(), StoreFault::InUse { path, holder });
    drop(store);
    assert!(open(&folder).is_ok());
}

#[test]
fn unfinished_store_of_a_killed_process_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state.redb.new"), b"half").unwrap();
    let store = open(&folder).unwrap();
    assert_eq!(store.list("").unwrap().entries, []);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    for content in [&b""[..], b"x", &[0; 4096], &[0xff; 100_000]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        fs::write(&path, content).unwrap();
        let fault = open(&folder).unwrap_err();
        assert!(matches!(fault, StoreFault::Corrupt { .. }), "{fault}");
        assert!(fault.to_string().contains("restore it from a copy"), "{fault}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

/// A byte is changed on each page in turn: the store opens with what was written, for a page may be
/// unused, or is refused.
#[test]
fn flipped_byte_is_refused_or_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = open(&folder).unwrap();
    for number in 0..200 {
        let value = vec![number as u8; 300];
        store.put_if_version(&format!("entry/{number}"), None, &value).unwrap();
    }
    let expected = store.list("").unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for page in 0..whole.len() / 4096 {
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        let place = page * 4096 + 64 + page % 512;
        file.seek(SeekFrom::Start(place as u64)).unwrap();
        file.write_all(&[whole[place] ^ 0x5a]).unwrap();
        drop(file);
        match open(&folder) {
            Ok(store) => assert_eq!(store.list("").unwrap(), expected, "page {page}"),
            Err(StoreFault::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("page {page}: {other}"),
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(refused > 10, "{refused} pages were in use");
}

/// Not a claim: the process that [`writes_that_were_reported_survive_a_kill`] starts and kills.
#[test]
fn writer_process() {
    let Ok(path) = std::env::var(WRITER) else { return };
    let store = Local::open(Path::new(&path)).unwrap();
    for number in 0.. {
        let value = vec![number as u8; 2000];
        store.put_if_version(&format!("entry/{number:08}"), None, &value).unwrap();
        println!("\nwritten {number}");
    }
}

#[test]
fn writes_that_were_reported_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let mut written = 0_u64;
    for round in 1..=3 {
        fs::remove_file(&path).ok();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::local::tests::writer_process", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut last = None;
        for line in &mut lines {
            if let Some(number) = line.unwrap().strip_prefix("written ") {
                last = Some(number.parse::<u64>().unwrap());
            }
            if last >= Some(17 * round) {
                break;
            }
        }
        // SIGKILL, in the middle of the next write or near it.
        writer.kill().unwrap();
        writer.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            last = line.strip_prefix("written ").and_then(|n| n.parse().ok()).or(last);
        }
        let last = last.unwrap();
        let store = Local::open(&path).unwrap();
        let listing = store.list("").unwrap();
        let count = listing.entries.len() as u64;
        // The one being written may be there or not, but not in part.
        assert!([last + 1, last + 2].contains(&count), "{count} entries, {last} was the last");
        assert_eq!(listing.revision, count);
        for (number, (key, entry)) in listing.entries.iter().enumerate() {
            assert_eq!(*key, format!("entry/{number:08}"));
            assert_eq!(entry.value, vec![number as u8; 2000]);
        }
        written += count;
    }
    assert!(written > 100);
}

/// A disk that is full at times.
#[derive(Debug, Clone, Default)]
struct Small(Arc<AtomicBool>);

impl Small {
    fn set_full(&self, is_full: bool) {
        self.0.store(is_full, Ordering::Relaxed);
    }

    fn room(&self) -> std::io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for Small {
    fn open(&self, path: &Path) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        builder()
            .create_with_backend(SmallFile { file: FileBackend::new(file)?, disk: self.clone() })
    }

    fn has_room(&self, _: &Path) -> std::io::Result<()> {
        self.room()
    }
}

#[derive(Debug)]
struct SmallFile {
    file: FileBackend,
    disk: Small,
}

impl StorageBackend for SmallFile {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.disk.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.disk.room()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.disk.room()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }
}

#[test]
fn a_store_whose_disk_was_full_is_read_meanwhile_and_written_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (path, disk) = (folder.path().join("state.redb"), Small::default());
    let store = Local::open_on(&path, Box::new(disk.clone())).unwrap();
    let version = store.put_if_version("a", None, b"one").unwrap();
    let mut watch = store.watch("", version).unwrap();
    disk.set_full(true);
    for _ in 0..3 {
        let refused = store.put_if_version("b", None, &[7; 100_000]);
        assert!(matches!(refused, Err(StoreFault::Io { .. })), "{refused:?}");
        assert_eq!(store.get("a").unwrap().map(|entry| entry.value), Some(b"one".to_vec()));
    }
    disk.set_full(false);
    let written = store.put_if_version("b", None, b"two").unwrap();
    assert_eq!(store.list("").unwrap().entries.len(), 2);
    assert!(store.put_if_version("a", Some(version), b"three").unwrap() > written);
    assert_eq!(watch.blocking_recv(), None, "it is cut off and lists again");
    drop(store);
    assert_eq!(open(&folder).unwrap().list("").unwrap().entries.len(), 2);
}
