//! A folder of a mesh: whatever is in it, what is accepted compiles for every workload, and every
//! policy is a file that a sidecar takes.
//!
//! An input is all files of the folder, one behind the other. A line `# file: NAME` begins the
//! next; what stands before the first is `a.yaml`.

use ringway_push::compile::{Options, Policies};
use ringway_push::diagnostic::Diagnostic;
use ringway_push::model::{Loaded, Mode, accept};
use ringway_push::source::Folder;
use ringway_router::{Format, Table, load};

const MARK: &str = "# file: ";

/// Checks one input.
///
/// # Panics
/// When a property does not hold.
pub fn check(input: &[u8]) {
    let (files, options) = (files(input), Options::default());
    let folder = Folder::of(files.clone());
    let loaded =
        accept(&folder, None, Mode::Quarantine, &options).expect("quarantine refuses nothing");
    let policies = &loaded.policies;
    assert!(loaded.mesh.workloads.keys().eq(policies.of.keys()), "a workload without a policy");
    for policy in policies.classes.values() {
        let read = load(&policy.text, Format::Json).expect("a sidecar takes it");
        Table::compile(&read.config).expect("what was accepted compiles");
    }
    check_same(&folder, &loaded, &options);
    check_strict(files, &folder, &loaded, &options);
}

fn files(input: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("a.yaml".to_owned(), Vec::new())];
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let name = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(MARK));
        match name.map(|name| name.trim_end().to_owned()) {
            // A folder has one file of a name.
            Some(name) if !files.iter().any(|(known, _)| *known == name) => {
                files.push((name, Vec::new()));
            }
            _ => files.last_mut().expect("there is a first").1.extend_from_slice(line),
        }
    }
    files
}

/// Read once more, alone or with what was accepted at hand, the folder is the same mesh.
fn check_same(folder: &Folder, loaded: &Loaded, options: &Options) {
    for previous in [None, Some(&loaded.accepted)] {
        let again = accept(folder, previous, Mode::Quarantine, options);
        let again = again.expect("quarantine refuses nothing");
        assert_eq!(again.accepted, loaded.accepted);
        assert_eq!(texts(&again.policies), texts(&loaded.policies));
        if previous.is_none() {
            assert_eq!(again.diagnostics, loaded.diagnostics);
        }
    }
}

/// Strict mode takes exactly what has no error in it, and files may come in any order then.
fn check_strict(
    mut files: Vec<(String, Vec<u8>)>,
    folder: &Folder,
    loaded: &Loaded,
    options: &Options,
) {
    let is_good = !loaded.diagnostics.iter().any(Diagnostic::is_error);
    assert_eq!(accept(folder, None, Mode::Strict, options).is_ok(), is_good);
    if !is_good {
        return;
    }
    let last = files.len();
    for (nth, (name, _)) in files.iter_mut().enumerate() {
        let ending = if name.ends_with(".json") { "json" } else { "yaml" };
        *name = format!("{:03}.{ending}", last - nth);
    }
    let turned = accept(&Folder::of(files), None, Mode::Strict, options).expect("the same files");
    assert_eq!(texts(&turned.policies), texts(&loaded.policies), "the order of files shows");
}

/// The text of each workload's policy, by its name.
fn texts(policies: &Policies) -> Vec<(&str, &str)> {
    let text = |name: &String| policies.policy(name).map_or("", |policy| &*policy.text);
    policies.of.keys().map(|name| (name.as_str(), text(name))).collect()
}
