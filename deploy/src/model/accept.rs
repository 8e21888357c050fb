//! From the files of a folder to a mesh: what is good goes in, what is bad stays as it was.
//!
//! ```text
//! new version ──bad?──▶ last accepted version ──bad?──▶ left out
//! taken out, but still named by others ──────▶ last accepted version
//! ```
//!
//! An object is replaced, everything is checked again, until nothing is left to blame. Each round
//! replaces at least one object for good, and none more than twice.
//!
//! # Invariants
//! - A file that cannot be read changes nothing: its objects stay.
//! - An object defined twice is in by neither definition.
//! - Strict mode accepts all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ringway_router::{Format, Problem, Severity, read};
use serde::{Deserialize, Serialize};

use super::check::{self, Checked};
use super::decode::{self, Found};
use super::{AnyObject, Mesh};
use crate::compile::{Options, Policies};
use crate::diagnostic::{Diagnostic, Key, Kind, Origin};
use crate::limits::{DIAGNOSTICS_MAX, OBJECTS_MAX};
use crate::source::{Folder, ReadError};

/// What is done about a bad object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Its last accepted version stays, the rest moves on.
    #[default]
    Quarantine,
    /// Everything is refused.
    Strict,
}

/// An accepted object as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedObject {
    /// The file that it stood in.
    pub file: String,
    /// And the line.
    pub line: u32,
    /// Itself, as one line of YAML.
    pub text: String,
}

/// The objects of the last accepted mesh: what a bad object falls back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// By kind and name.
    pub objects: BTreeMap<Kind, BTreeMap<String, AcceptedObject>>,
}

impl Accepted {
    fn get(&self, key: &Key) -> Option<AnyObject> {
        let kept = self.objects.get(&key.kind)?.get(&key.name)?;
        let (file, line) = (kept.file.clone(), kept.line);
        decode::kept(key, Origin { file, line, column: 1, path: None }, &kept.text)
    }

    fn keys(&self) -> impl Iterator<Item = (Key, &AcceptedObject)> {
        self.objects.iter().flat_map(|(kind, objects)| {
            objects.iter().map(|(name, object)| (Key::new(*kind, name), object))
        })
    }
}

/// What became of a bad object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Its last accepted version stays.
    Kept,
    /// There is none: it is left out.
    LeftOut,
}

/// An object that is not in the mesh as its file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// Which.
    pub object: Key,
    /// What became of it.
    pub fate: Fate,
}

/// An accepted mesh.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The mesh.
    pub mesh: Mesh,
    /// What it compiles to.
    pub policies: Policies,
    /// Its objects, for the next time.
    pub accepted: Accepted,
    /// What is wrong and what is worth a look, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// The objects that are not in it as their files have them.
    pub quarantined: Vec<Quarantined>,
}

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Strict mode, and something is wrong.
    #[error("{} problems", .0.iter().filter(|diagnostic| diagnostic.is_error()).count())]
    Refused(Vec<Diagnostic>),
}

impl Mesh {
    /// Reads the folder `path` and accepts what is good in it.
    ///
    /// # Errors
    /// The folder cannot be read, or in strict mode something is wrong.
    pub fn load(path: &Path, previous: Option<&Accepted>, mode: Mode) -> Result<Loaded, LoadError> {
        let folder = Folder::read(path)?;
        accept(&folder, previous, mode, &Options::default()).map_err(LoadError::Refused)
    }
}

/// One object on its way into the mesh.
#[derive(Default)]
struct Slot {
    /// The version that is in it now.
    current: Option<AnyObject>,
    /// The last accepted version, while it may still come in.
    fallback: Option<AnyObject>,
    /// Whether `current` differs from the last accepted version.
    is_new: bool,
    /// Whether it is in the mesh otherwise than its file has it.
    is_quarantined: bool,
}

struct Acceptor<'p> {
    previous: Option<&'p Accepted>,
    slots: BTreeMap<Key, Slot>,
    diagnostics: Vec<Diagnostic>,
}

/// Accepts what is good in a folder. Never panics, whatever is in it.
///
/// # Errors
/// In strict mode, everything that is wrong.
pub fn accept(
    folder: &Folder,
    previous: Option<&Accepted>,
    mode: Mode,
    options: &Options,
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut acceptor = Acceptor { previous, slots: BTreeMap::new(), diagnostics: Vec::new() };
    acceptor.read(folder);
    let (mesh, policies) = acceptor.settle(options);
    let Acceptor { slots, mut diagnostics, .. } = acceptor;
    place(folder, &mut diagnostics);
    if mode == Mode::Strict && diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let (mut accepted, mut quarantined) = (Accepted::default(), Vec::new());
    for (key, slot) in slots {
        if slot.is_quarantined {
            let fate = if slot.current.is_some() { Fate::Kept } else { Fate::LeftOut };
            quarantined.push(Quarantined { object: key.clone(), fate });
        }
        if let Some(object) = slot.current {
            let Origin { file, line, .. } = object.origin().clone();
            let kept = AcceptedObject { file, line, text: object.text().to_owned() };
            accepted.objects.entry(key.kind).or_default().insert(key.name, kept);
        }
    }
    Ok(Loaded { mesh, policies, accepted, diagnostics, quarantined })
}

impl Acceptor<'_> {
    /// Reads every file into slots.
    fn read(&mut self, folder: &Folder) {
        for (name, why) in &folder.unread {
            let warning = Problem::warning("", *why);
            self.diagnostics.push(Diagnostic::of_file(name, None, "", warning));
        }
        let mut origins: BTreeMap<Key, Origin> = BTreeMap::new();
        let mut twice = BTreeSet::new();
        let mut incomplete = BTreeSet::new();
        let mut count = 0;
        for file in &folder.files {
            let decoded = decode::file(file);
            self.diagnostics.extend(decoded.diagnostics);
            if decoded.incomplete {
                incomplete.insert(file.name.as_str());
            }
            for (key, origin, found) in decoded.objects {
                count += 1;
                if count > OBJECTS_MAX {
                    let message = format!("more than the {OBJECTS_MAX} objects allowed");
                    self.diagnostics.push(Diagnostic::error(key, &origin, "", message));
                    incomplete.insert(file.name.as_str());
                    break;
                }
                if let Some(first) = origins.get(&key) {
                    self.diagnostics.push(defined_twice(&key, first, &origin));
                    twice.insert(key);
                    continue;
                }
                origins.insert(key.clone(), origin);
                self.take(key, found);
            }
        }
        for key in twice {
            self.take(key, Found::Bad);
        }
        self.keep_unread(&incomplete);
    }

    fn take(&mut self, key: Key, found: Found) {
        let last = self.previous.and_then(|previous| previous.get(&key));
        let slot = match found {
            Found::Good(object) => {
                let is_new = last.as_ref().is_none_or(|last| last.text() != object.text());
                let fallback = last.filter(|_| is_new);
                Slot { current: Some(object), fallback, is_new, is_quarantined: false }
            }
            Found::Bad => Slot { current: last, is_quarantined: true, ..Slot::default() },
        };
        self.slots.insert(key, slot);
    }

    /// Keeps the objects of files of which not everything could be read.
    fn keep_unread(&mut self, incomplete: &BTreeSet<&str>) {
        let Some(previous) = self.previous.filter(|_| !incomplete.is_empty()) else { return };
        for (key, object) in previous.keys() {
            if incomplete.contains(object.file.as_str()) && !self.slots.contains_key(&key) {
                let current = previous.get(&key);
                self.slots.insert(key, Slot { current, is_quarantined: true, ..Slot::default() });
            }
        }
    }

    /// Puts the last accepted version in place of an object, or nothing.
    fn replace(&mut self, key: &Key) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.current = slot.fallback.take();
            (slot.is_new, slot.is_quarantined) = (false, true);
        }
    }

    /// Replaces what is to blame until nothing is.
    fn settle(&mut self, options: &Options) -> (Mesh, Policies) {
        loop {
            let mut mesh = Mesh::default();
            for (key, slot) in &self.slots {
                if let Some(object) = &slot.current {
                    mesh.insert(key, object);
                }
            }
            let Checked { faults, warnings, policies } = check::mesh(&mesh, options);
            if faults.is_empty() {
                self.diagnostics.extend(warnings);
                return (mesh, policies);
            }
            let (mut blamed, mut restored) = (BTreeSet::new(), false);
            for fault in faults {
                self.diagnostics.push(self.explained(fault.diagnostic, fault.needs.as_ref()));
                if fault.needs.as_ref().is_some_and(|needs| self.restore(needs)) {
                    restored = true;
                } else {
                    blamed.extend(self.culprit(&fault.blame));
                }
            }
            for key in &blamed {
                self.replace(key);
            }
            if blamed.is_empty() && !restored {
                // A fault without anybody to blame: rather no mesh than no end.
                self.slots.clear();
            }
        }
    }

    /// Whom to replace: the first that is new, or else the first that is there.
    fn culprit(&self, blame: &[Key]) -> Option<Key> {
        let slot = |key: &Key| self.slots.get(key).filter(|slot| slot.current.is_some());
        let is_new = |key: &&Key| slot(key).is_some_and(|slot| slot.is_new);
        let is_there = |key: &&Key| slot(key).is_some();
        blame.iter().find(is_new).or_else(|| blame.iter().find(is_there)).cloned()
    }

    /// Brings back an object that was taken out of the files while others still name it.
    fn restore(&mut self, key: &Key) -> bool {
        if let Some(slot) = self.slots.get(key) {
            // Another fault of this round may have brought it back.
            return slot.current.is_some();
        }
        let Some(object) = self.previous.and_then(|previous| previous.get(key)) else {
            return false;
        };
        let slot = Slot { current: Some(object), is_quarantined: true, ..Slot::default() };
        self.slots.insert(key.clone(), slot);
        true
    }

    /// Says of a name that leads nowhere if that is only because its object is bad.
    fn explained(&self, diagnostic: Diagnostic, needs: Option<&Key>) -> Diagnostic {
        let left_out = |key: &&Key| self.slots.get(*key).is_some_and(|slot| slot.is_quarantined);
        match needs.filter(left_out) {
            Some(key) => diagnostic.hint(format!("{key} is left out, because it is wrong itself")),
            None => diagnostic,
        }
    }
}

fn defined_twice(key: &Key, first: &Origin, second: &Origin) -> Diagnostic {
    let message = format!("is here and in {}:{}:{}", first.file, first.line, first.column);
    let hint = match key.kind {
        Kind::Mesh => "a mesh has one `mesh` over all its files",
        Kind::Endpoints => "put the addresses in one list",
        Kind::Service | Kind::Route | Kind::Workload => "rename or remove one of them",
    };
    Diagnostic::error(key.clone(), second, "", message).hint(hint)
}

/// Finds the places, sorts, and leaves out what was said already or is too much.
pub(crate) fn place(folder: &Folder, diagnostics: &mut Vec<Diagnostic>) {
    let mut unplaced: BTreeMap<String, Vec<&mut Diagnostic>> = BTreeMap::new();
    for diagnostic in diagnostics.iter_mut().filter(|diagnostic| diagnostic.is_unplaced()) {
        unplaced.entry(diagnostic.file.clone()).or_default().push(diagnostic);
    }
    for (name, diagnostics) in unplaced {
        let format = Format::from_path(Path::new(&name));
        let tree = folder.text(&name).and_then(|text| read::parse(text, format).ok());
        for diagnostic in diagnostics.into_iter().take(DIAGNOSTICS_MAX) {
            if let Some(tree) = &tree {
                diagnostic.locate(|path| tree.locate(path));
            }
        }
    }
    let order = |one: &Diagnostic| {
        (one.file.clone(), one.line, one.column, one.path.clone(), one.message.clone())
    };
    diagnostics.sort_by_cached_key(order);
    diagnostics.dedup_by(|a, b| order(a) == order(b) && a.object == b.object);
    if diagnostics.len() > DIAGNOSTICS_MAX {
        // What refuses is worth more than what is worth a look.
        diagnostics.sort_by_key(|one| one.severity == Severity::Warning);
        let more = diagnostics.len() - DIAGNOSTICS_MAX;
        diagnostics.truncate(DIAGNOSTICS_MAX);
        let (key, message) = (Key::new(Kind::Mesh, ""), format!("{more} more are not listed"));
        diagnostics.push(Diagnostic::error(key, &Origin::default(), "", message));
    }
}
