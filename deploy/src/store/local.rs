//! The store of one machine: one file, by redb.
//!
//! ```text
//! state.redb.lock   held as long as a process has the store open; says which
//! state.redb.new    a store that is being made; renamed when it is whole
//! state.redb        entries: key ─▶ (version, value); meta: revision
//! ```
//!
//! # Invariants
//! - A file that is there is opened or refused, never replaced. All its pages are verified by their
//!   checksums when it is opened.
//! - Both files are readable by their owner alone; the mode is put back when a store is opened.
//! - A write returns when it is on disk. One that fails may be there nevertheless; redb takes no
//!   other after it, so the file is opened anew before the next, once there is room.
//!
//! # Not here
//! Copies: with no process having the store open, copying the file is one.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageError, Table, TableDefinition,
};
use tokio::sync::mpsc;

use super::limits::{CACHE_BYTES_MAX, ENTRIES_MAX};
use super::watch::Hub;
use super::{Change, Event, Listing, Store, StoreFault, Versioned, check_key, check_value};

const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
/// What the tables mean; a file with another number is refused.
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;

/// Bytes that must be free before a store is opened anew: closed, it cannot even be read.
const ROOM_BYTES: usize = 1 << 20;

/// A store in one file.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    disk: Box<dyn Disk>,
    /// `None` if it could not be opened anew.
    database: RwLock<Option<Database>>,
    /// A write has failed.
    is_broken: AtomicBool,
    /// Locked over every write, so that events are in the order of revisions.
    hub: Mutex<Hub>,
    /// Held until the store is dropped; the kernel gives it back if the process is killed.
    _lock: File,
}

/// Where the file is; tests have one that is full at times.
trait Disk: fmt::Debug + Send + Sync {
    /// Opens a store that is there.
    fn open(&self, path: &Path) -> Result<Database, DatabaseError>;

    /// Whether [`ROOM_BYTES`] can be written beside `path`.
    fn has_room(&self, path: &Path) -> std::io::Result<()>;
}

/// That of the system.
#[derive(Debug)]
struct System;

impl Disk for System {
    fn open(&self, path: &Path) -> Result<Database, DatabaseError> {
        builder().open(path)
    }

    fn has_room(&self, path: &Path) -> std::io::Result<()> {
        let room = beside(path, "room");
        let written = (|| {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&room)?;
            file.write_all(&vec![0; ROOM_BYTES])?;
            file.sync_all()
        })();
        let removed = fs::remove_file(&room);
        written.and(removed)
    }
}

impl Local {
    /// Opens the store in `path`; makes one if there is no such file.
    ///
    /// # Errors
    /// [`StoreFault::InUse`], [`StoreFault::Corrupt`], or what the system says.
    pub fn open(path: &Path) -> Result<Local, StoreFault> {
        Local::open_on(path, Box::new(System))
    }

    fn open_on(path: &Path, disk: Box<dyn Disk>) -> Result<Local, StoreFault> {
        let lock = lock(path)?;
        match fs::metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => create(path)?,
            Err(error) => return Err(io("look for the store")(error)),
        }
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io("guard the store"))?;
        let database = disk.open(path).map_err(|error| opening(path, error))?;
        let revision = revision(&database).map_err(|error| corrupt(path, &error))?;
        Ok(Local {
            path: path.to_owned(),
            disk,
            database: RwLock::new(Some(database)),
            is_broken: AtomicBool::new(false),
            hub: Mutex::new(Hub::new(revision)),
            _lock: lock,
        })
    }

    /// Does something with the database, if it is open.
    fn with<R>(
        &self,
        act: impl FnOnce(&Database) -> Result<R, StoreFault>,
    ) -> Result<R, StoreFault> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let closed = || io("use the store")(std::io::Error::other("it could not be opened anew"));
        act(database.as_ref().ok_or_else(closed)?)
    }

    /// Opens the file anew after a write has failed. Watchers are cut off: what has happened
    /// meanwhile is not known.
    fn open_anew(&self, hub: &mut Hub) -> Result<(), StoreFault> {
        self.disk.has_room(&self.path).map_err(io("wait for room on the disk"))?;
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // It has the file locked.
        *database = None;
        let opened = self.disk.open(&self.path).map_err(|error| opening(&self.path, error))?;
        let revision = revision(&opened).map_err(|error| corrupt(&self.path, &error))?;
        (*database, *hub) = (Some(opened), Hub::new(revision));
        self.is_broken.store(false, Ordering::Relaxed);
        tracing::info!("{}: opened anew after a failed write", self.path.display());
        Ok(())
    }

    /// Changes the entry of `key` by `edit` and tells the watchers.
    fn change(
        &self,
        key: &str,
        expected: Option<u64>,
        change: Change,
        edit: impl FnOnce(&mut Table<'_, &str, (u64, &[u8])>, u64) -> Result<(), redb::Error>,
    ) -> Result<u64, StoreFault> {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_broken.load(Ordering::Relaxed) {
            self.open_anew(&mut hub)?;
        }
        let written = self.with(|database| write(database, key, expected, edit));
        if matches!(written, Err(StoreFault::Io { .. })) {
            self.is_broken.store(true, Ordering::Relaxed);
        }
        let revision = written?;
        hub.publish(Event { revision, key: key.to_owned(), change });
        Ok(revision)
    }
}

/// Changes the entry of `key` by `edit`. Gives the revision of that.
fn write(
    database: &Database,
    key: &str,
    expected: Option<u64>,
    edit: impl FnOnce(&mut Table<'_, &str, (u64, &[u8])>, u64) -> Result<(), redb::Error>,
) -> Result<u64, StoreFault> {
    let write = database.begin_write().map_err(medium("begin a write"))?;
    let revision = {
        let mut entries = write.open_table(ENTRIES).map_err(medium("open the entries"))?;
        let found = entries.get(key).map_err(medium("read an entry"))?;
        let current = found.map(|entry| entry.value().0);
        if current != expected {
            return Err(StoreFault::Conflict { current });
        }
        let count = entries.len().map_err(medium("count the entries"))?;
        if current.is_none() && count >= ENTRIES_MAX {
            return Err(StoreFault::Full { what: "entries", max: ENTRIES_MAX });
        }
        let mut meta = write.open_table(META).map_err(medium("open the revision"))?;
        let before = meta.get(REVISION).map_err(medium("read the revision"))?;
        let revision = before.map_or(0, |revision| revision.value()) + 1;
        meta.insert(REVISION, revision).map_err(medium("write the revision"))?;
        edit(&mut entries, revision).map_err(medium("write an entry"))?;
        revision
    };
    write.commit().map_err(medium("write to disk"))?;
    Ok(revision)
}

impl Store for Local {
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreFault> {
        check_key(key)?;
        self.with(|database| {
            let read = database.begin_read().map_err(medium("begin to read"))?;
            let entries = read.open_table(ENTRIES).map_err(medium("open the entries"))?;
            let entry = entries.get(key).map_err(medium("read an entry"))?;
            Ok(entry.map(|entry| versioned(entry.value())))
        })
    }

    fn list(&self, prefix: &str) -> Result<Listing, StoreFault> {
        self.with(|database| {
            let read = database.begin_read().map_err(medium("begin to read"))?;
            let meta = read.open_table(META).map_err(medium("open the revision"))?;
            let revision = meta.get(REVISION).map_err(medium("read the revision"))?;
            let revision = revision.map_or(0, |revision| revision.value());
            let table = read.open_table(ENTRIES).map_err(medium("open the entries"))?;
            let mut entries = Vec::new();
            for entry in table.range(prefix..).map_err(medium("list entries"))? {
                let (key, entry) = entry.map_err(medium("list entries"))?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                entries.push((key.value().to_owned(), versioned(entry.value())));
            }
            Ok(Listing { revision, entries })
        })
    }

    fn put_if_version(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
    ) -> Result<u64, StoreFault> {
        check_key(key)?;
        check_value(value)?;
        self.change(key, expected, Change::Put, |entries, revision| {
            entries.insert(key, (revision, value))?;
            Ok(())
        })
    }

    fn delete_if_version(&self, key: &str, expected: u64) -> Result<u64, StoreFault> {
        check_key(key)?;
        self.change(key, Some(expected), Change::Delete, |entries, _| {
            entries.remove(key)?;
            Ok(())
        })
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<mpsc::Receiver<Event>, StoreFault> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner).watch(prefix, after)
    }
}

fn versioned((version, value): (u64, &[u8])) -> Versioned {
    Versioned { version, value: value.to_vec() }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES_MAX).set_check_integrity_on_open(true);
    builder
}

/// Takes the lock beside `path`, which tells who has it.
fn lock(path: &Path) -> Result<File, StoreFault> {
    let place = beside(path, "lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&place).map_err(io("open the lock of the store"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who it is is only said if it can be read.
            let _ = file.read_to_string(&mut holder);
            let known = !holder.is_empty();
            let holder = if known { holder } else { "another process".to_owned() };
            return Err(StoreFault::InUse { path: path.to_owned(), holder });
        }
        Err(fs::TryLockError::Error(error)) => return Err(io("lock the store")(error)),
    }
    file.set_len(0).map_err(io("write the lock of the store"))?;
    write!(file, "process {}", std::process::id()).map_err(io("write the lock of the store"))?;
    Ok(file)
}

/// Makes an empty store under another name and renames it. The caller has the lock, so that what a
/// killed process left under that name is nobody's.
fn create(path: &Path) -> Result<(), StoreFault> {
    let new = beside(path, "new");
    match fs::remove_file(&new) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io("remove an unfinished store")(error)),
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(io("make the store"))?;
    let database = builder().create(&new).map_err(|error| opening(&new, error))?;
    let write = database.begin_write().map_err(medium("begin a write"))?;
    {
        write.open_table(ENTRIES).map_err(medium("make the entries"))?;
        let mut meta = write.open_table(META).map_err(medium("make the revision"))?;
        meta.insert(REVISION, 0).map_err(medium("write the revision"))?;
        meta.insert(FORMAT, FORMAT_NOW).map_err(medium("write the format"))?;
    }
    write.commit().map_err(medium("write to disk"))?;
    database.close().map_err(medium("close the new store"))?;
    fs::rename(&new, path).map_err(io("name the store"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(io("open the folder"))?;
    folder.sync_all().map_err(io("write the folder to disk"))
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

/// The revision of a store in the format of today.
fn revision(database: &Database) -> Result<u64, String> {
    let read = database.begin_read().map_err(|error| error.to_string())?;
    let meta = read.open_table(META).map_err(|error| error.to_string())?;
    read.open_table(ENTRIES).map_err(|error| error.to_string())?;
    let number = |name: &str| match meta.get(name) {
        Ok(Some(number)) => Ok(number.value()),
        Ok(None) => Err(format!("there is no {name} in it")),
        Err(error) => Err(error.to_string()),
    };
    match number(FORMAT)? {
        FORMAT_NOW => number(REVISION),
        other => Err(format!("it has format {other}, this version reads {FORMAT_NOW}")),
    }
}

fn opening(path: &Path, error: DatabaseError) -> StoreFault {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreFault::InUse { path: path.to_owned(), holder: "another process".to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            io("open the store")(error)
        }
        error => corrupt(path, &error.to_string()),
    }
}

fn corrupt(path: &Path, text: &str) -> StoreFault {
    StoreFault::Corrupt { path: path.to_owned(), text: text.to_owned() }
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> StoreFault {
    move |error| StoreFault::Io { doing, text: error.to_string() }
}

fn medium<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> StoreFault {
    move |error| StoreFault::Io { doing, text: error.to_string() }
}

#[cfg(test)]
mod tests;
