//! The rules of the house, read from manifests and sources: who may depend on whom, and how long
//! things may be.
//!
//! What is over a mark today stands in [`OVER_THE_MARK`] with the most it may measure. The list is a
//! ratchet: a thing that grows fails, and so does an entry for one that is back under its mark.
//!
//! # Not here
//! What rustfmt, clippy, rustc and cargo-deny see by themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The members of the workspace and the names of their packages.
const MEMBERS: [(&str, &str); 8] = [
    ("proxy", "ringway"),
    ("tls", "ringway-tls"),
    ("router", "ringway-router"),
    ("stats", "ringway-stats"),
    ("protocol", "ringway-protocol"),
    ("benches", "ringway-bench"),
    ("deploy", "ringway-push"),
    ("testing", "ringway-testing"),
];
/// Members that decide and measure: they move no bytes.
const LEAVES: [&str; 4] = ["tls", "router", "stats", "protocol"];
/// What only those who move bytes may name.
const TRANSPORT: [&str; 3] = ["monoio", "h2", "httparse"];
/// Other runtimes and sockets, which a leaf has no use for either.
const RUNTIMES: [&str; 5] = ["hyper", "hyper-util", "io-uring", "mio", "tokio"];

/// Lines of a file, and of a function, without tests.
const FILE_LINES_MARK: usize = 600;
const FUNCTION_LINES_MARK: usize = 70;

/// What is measured, where, and the most it may be. Entries are lowered and removed, never added.
const OVER_THE_MARK: &[(&str, &str, usize)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A line of a `[dependencies]` section of any kind.
struct Dependency {
    name: String,
    rest: String,
}

/// The dependencies of a manifest, those for tests and builds included.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut in_section = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            assert!(!section.contains("dependencies."), "[{section}]: one line for each, please");
            in_section = section.ends_with("dependencies");
        } else if in_section && !line.is_empty() && !line.starts_with('#') {
            let end = line.find(['.', '=', ' ']).expect("a dependency has a value");
            let (name, rest) = line.split_at(end);
            found.push(Dependency {
                name: name.trim_matches('"').to_owned(),
                rest: rest.to_owned(),
            });
        }
    }
    found
}

fn member_dependencies(folder: &str) -> Vec<Dependency> {
    dependencies(&read(&root().join(folder).join("Cargo.toml")))
}

#[test]
fn the_workspace_has_eight_members() {
    let manifest = read(&root().join("Cargo.toml"));
    let line = manifest.lines().find_map(|line| line.strip_prefix("members = "));
    let mut members: Vec<&str> =
        line.expect("members on one line").split('"').skip(1).step_by(2).collect();
    let mut expected: Vec<&str> = MEMBERS.iter().map(|(folder, _)| *folder).collect();
    members.sort_unstable();
    expected.sort_unstable();
    assert_eq!(members, expected);
    for (folder, package) in MEMBERS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{package}\"")), "{folder} is not {package}");
    }
}

#[test]
fn leaves_know_neither_each_other_nor_any_transport() {
    for leaf in LEAVES {
        for Dependency { name, .. } in member_dependencies(leaf) {
            let allowed = !name.starts_with("ringway")
                && !TRANSPORT.contains(&&*name)
                && !RUNTIMES.contains(&&*name);
            assert!(allowed, "{leaf} depends on {name}");
        }
    }
}

#[test]
fn only_proxy_and_benches_name_the_transport() {
    for (folder, _) in MEMBERS.iter().filter(|(name, _)| !["proxy", "benches"].contains(name)) {
        for Dependency { name, .. } in member_dependencies(folder) {
            assert!(!TRANSPORT.contains(&&*name), "{folder} depends on {name}");
        }
    }
}

#[test]
fn deploy_uses_router_tls_and_protocol_only() {
    for Dependency { name, .. } in member_dependencies("deploy") {
        let allowed = ["ringway-router", "ringway-tls", "ringway-protocol", "ringway-testing"];
        let allowed = allowed.contains(&&*name);
        assert!(allowed || !name.starts_with("ringway"), "deploy depends on {name}");
    }
}

#[test]
fn testing_is_for_tests_and_knows_nobody() {
    assert_eq!(member_dependencies("testing").len(), 0);
    for (folder, _) in MEMBERS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        let shipped = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        assert!(folder == "testing" || !shipped.contains("ringway-testing"), "{folder}");
    }
}

#[test]
fn nothing_depends_on_benches_or_deploy() {
    let folders = MEMBERS.iter().map(|(folder, _)| *folder).chain(["proxy/fuzz"]);
    for folder in folders {
        for Dependency { name, .. } in member_dependencies(folder) {
            let top = ["ringway-bench", "ringway-push"].contains(&&*name);
            assert!(!top, "{folder} depends on {name}");
        }
    }
}

#[test]
fn versions_are_chosen_by_the_workspace_alone() {
    for (folder, _) in MEMBERS {
        for Dependency { name, rest } in member_dependencies(folder) {
            assert!(rest.contains("workspace = true"), "{folder}: {name} has a version of its own");
        }
    }
    // Under another name, a dependency would slip past the rules above.
    for Dependency { name, rest } in dependencies(&read(&root().join("Cargo.toml"))) {
        assert!(!rest.contains("package ="), "{name} is another package renamed");
    }
}

/// Files of a folder and the folders in it, but not what is built or found by fuzzing.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    for entry in entries {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !["target", "corpus"].contains(&name) {
                files(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

/// Every file that people write, by its path from the root.
fn written() -> BTreeMap<String, String> {
    let mut paths = Vec::new();
    for folder in MEMBERS.iter().map(|(folder, _)| *folder).chain([".ci"]) {
        files(&root().join(folder), &mut paths);
    }
    let at_root = fs::read_dir(root()).expect("the root can be read").flatten();
    paths.extend(at_root.map(|entry| entry.path()).filter(|path| path.is_file()));
    let name = |path: &Path| {
        let relative = path.strip_prefix(root()).expect("it is under the root");
        relative.to_str().expect("a path is text").to_owned()
    };
    // What is not text has no lines to measure.
    paths.iter().filter_map(|path| Some((name(path), fs::read_to_string(path).ok()?))).collect()
}

fn rust() -> impl Iterator<Item = (String, String)> {
    written().into_iter().filter(|(name, _)| name.ends_with(".rs"))
}

/// The lines before the tests; none of a file that is all tests.
fn without_tests<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ");
    let end = lines.windows(2).position(tests).unwrap_or(lines.len());
    lines[..end].to_vec()
}

/// Name and length of each function, as rustfmt lays it out: it ends at the first brace that is
/// indented like its first line.
fn functions(lines: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line.trim_start()) else { continue };
        let rest = &lines[at..];
        let ends_head = |line: &&str| line.trim_end().ends_with(['{', '}', ';']);
        let head = rest.iter().position(ends_head).unwrap_or(0);
        if !rest[head].trim_end().ends_with('{') {
            found.push((name, head + 1));
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", &line[..indent]);
        let body = rest[head..].iter().position(|line| **line == *close);
        found.push((name, head + body.unwrap_or(rest.len() - head - 1) + 1));
    }
    found
}

/// The name, if the line begins a function.
fn function_name(line: &str) -> Option<String> {
    let mut rest = line;
    if let Some(visible) = rest.strip_prefix("pub") {
        let end = if visible.starts_with('(') { visible.find(')')? + 1 } else { 0 };
        rest = visible[end..].strip_prefix(' ')?;
    }
    for word in ["const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    Some(name.split(['(', '<']).next().unwrap_or_default().to_owned())
}

/// The width that rustfmt keeps code to.
fn columns_max() -> usize {
    let settings = read(&root().join("rustfmt.toml"));
    let width = settings.lines().find_map(|line| line.strip_prefix("max_width = "));
    width.expect("a width is set").parse().expect("it is a number")
}

/// Everything over a mark: what, where, how much.
fn over_the_mark() -> Vec<(&'static str, String, usize)> {
    let columns_max = columns_max();
    // rustfmt sees to code and leaves literals alone; comments are ours.
    let too_wide =
        |line: &&&str| line.trim_start().starts_with("//") && line.chars().count() > columns_max;
    let mut measured = Vec::new();
    for (name, text) in rust() {
        if !text.starts_with("//! ") {
            measured.push(("without //! at its head", name.clone(), 1));
        }
        let lines = without_tests(&name, &text);
        if lines.len() > FILE_LINES_MARK {
            measured.push(("lines of the file", name.clone(), lines.len()));
        }
        let wide = lines.iter().filter(too_wide).count();
        if wide > 0 {
            measured.push(("comments too wide", name.clone(), wide));
        }
        for (function, length) in functions(&lines) {
            if length > FUNCTION_LINES_MARK {
                measured.push(("lines of the function", format!("{name} {function}"), length));
            }
        }
    }
    measured
}

#[test]
fn nothing_over_the_mark_grows() {
    let measured = over_the_mark();
    let mut wrong = Vec::new();
    for (what, place, measure) in &measured {
        let mut entries = OVER_THE_MARK.iter();
        let allowed =
            entries.any(|entry| entry.0 == *what && entry.1 == *place && *measure <= entry.2);
        if !allowed {
            wrong.push(format!("{place}: {measure} {what}"));
        }
    }
    for (what, place, _) in OVER_THE_MARK {
        if !measured.iter().any(|found| found.0 == *what && found.1 == *place) {
            wrong.push(format!("{place}: under the mark again, remove its entry for {what}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lengths_are_measured_as_laid_out() {
    let text = "fn a() {}\n\
                pub(crate) const fn b<T>(\n    x: T,\n) -> T {\n    x\n}\n\
                impl C {\n    async fn d(&self) {\n        if e {\n        }\n    }\n}\n\
                trait F {\n    fn g();\n}\n";
    let lines: Vec<&str> = text.lines().collect();
    let expected = [("a", 1), ("b", 5), ("d", 4), ("g", 1)];
    assert_eq!(functions(&lines), expected.map(|(name, length)| (name.to_owned(), length)));
    let tested = "//! A.\nfn a() {}\n#[cfg(test)]\nmod tests;\n";
    assert_eq!(without_tests("x/src/a.rs", tested).len(), 2);
    assert!(without_tests("x/src/a/tests.rs", tested).is_empty());
}

#[test]
fn nothing_is_left_for_later() {
    // Spelt apart, so that this file may stand in the search.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for (name, text) in written().iter().filter(|(name, _)| *name != "Cargo.lock") {
        for (number, line) in text.lines().enumerate() {
            let found = words.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{name}:{}: {}", number + 1, line.trim());
        }
    }
}

#[test]
fn leaves_read_no_clock_but_that_of_stats() {
    for (name, text) in rust().filter(|(name, _)| name != "stats/src/clock.rs") {
        if !LEAVES.iter().any(|leaf| name.starts_with(&format!("{leaf}/src/"))) {
            continue;
        }
        for line in without_tests(&name, &text) {
            assert!(!line.contains("Instant::now") && !line.contains("SystemTime::now"), "{name}");
        }
    }
}

#[test]
fn scripts_are_well_formed() {
    let mut scripts = Vec::new();
    files(&root().join(".ci"), &mut scripts);
    assert!(!scripts.is_empty());
    for script in scripts {
        let checked = Command::new("bash").arg("-n").arg(&script).output().expect("bash runs");
        let complaint = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{}: {complaint}", script.display());
    }
}
