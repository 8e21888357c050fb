//! The proxies under test: one folder each in `benches/peers/`.
//!
//! ```text
//! benches/peers/haproxy/peer.yaml             how it is started, asked for its version, reloaded
//! benches/peers/haproxy/plain/main.cfg        a setup: templates, rendered into a fresh folder
//! benches/peers/haproxy/routes/{main.cfg,routes.map}
//! ```
//! Templates are Jinja (`minijinja`). They know `here` (their folder), `http`, `tcp`, `admin` (own
//! addresses), `origin_http`, `origin_tcp`, `ringway` (the program), what `variables` in peer.yaml
//! adds, with a table `hosts`, `marker` and `generation`, and for TLS `certs` (the folder that
//! `certificates` describes), `mutual` and `resumes`.
//!
//! # Invariants
//! - A reload renders everything beside what is in force and then renames: no proxy reads half.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
};

use minijinja::{
    Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig, value::merge_maps,
};
use rustix::process::Signal;
use serde::Deserialize;

use super::{Bench, probe, scenario::Tls, table::Table};
use crate::{child::Child, error::Error};

/// The one that the others are compared with.
pub(super) const OURS: &str = "ringway";
/// No proxy at all.
pub(super) const DIRECT: &str = "direct";

/// A proxy that can be measured.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: String,
    manifest: Manifest,
    /// The folder of its setups.
    templates: PathBuf,
}

/// `peer.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// The peer whose templates this one takes.
    templates: Option<String>,
    /// Serves in the foreground with one worker.
    command: Vec<String>,
    /// The same, able to reload.
    reloadable: Option<Vec<String>>,
    version: Vec<String>,
    /// Says whether the program takes its configuration at all.
    check: Option<Vec<String>>,
    reload: Option<Reload>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// How a proxy learns of new files.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reload {
    /// It watches them.
    File,
    Signal(SignalName),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum SignalName {
    Hup,
    Usr2,
}

/// What a proxy is started for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    /// The folder of templates.
    pub(super) name: &'a str,
    pub(super) table: Option<Table>,
    /// Whether it will have to reload.
    pub(super) reloads: bool,
    pub(super) tls: Option<Tls>,
}

impl Setup<'_> {
    /// Whether the proxy answers to plain HTTP/1.1.
    fn is_plain(&self) -> bool {
        ["plain", "routes"].contains(&self.name)
    }
}

/// Where a proxy under test listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) http: SocketAddr,
    pub(super) tcp: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// A running proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) peer: Rc<Peer>,
    pub(super) child: Child,
    pub(super) addresses: Addresses,
    files: Files,
}

/// The rendered configuration of one proxy.
#[derive(Debug)]
struct Files {
    templates: PathBuf,
    here: PathBuf,
}

impl Peer {
    /// The peer of `folder` called `id`.
    ///
    /// # Errors
    /// When there is none, or its `peer.yaml` cannot be understood.
    pub(super) fn read(folder: &Path, id: &str) -> Result<Rc<Self>, Error> {
        let path = folder.join(id).join("peer.yaml");
        let text = fs::read_to_string(&path)
            .map_err(Error::io(format!("read the peer {}", path.display())))?;
        let manifest: Manifest = serde_saphyr::from_str(&text).map_err(|error| {
            Error::Malformed { what: path.display().to_string(), detail: error.to_string() }
        })?;
        let templates = folder.join(manifest.templates.as_deref().unwrap_or(id));
        Ok(Rc::new(Self { id: id.to_owned(), manifest, templates }))
    }

    /// Whether it can be set up like this at all.
    pub(super) fn has(&self, setup: &str) -> bool {
        self.templates.join(setup).is_dir()
    }

    /// Whether it is Ringway, on whichever backend.
    pub(super) fn is_ringway(&self) -> bool {
        self.templates.ends_with(OURS)
    }

    /// Why the program does not take this setup yet, in its own words.
    pub(super) fn waits_for(
        &self,
        bench: &Bench,
        setup: Setup<'_>,
    ) -> Result<Option<String>, Error> {
        let Some(check) = &self.manifest.check else { return Ok(None) };
        let addresses = Addresses::free(bench)?;
        let files = Files::new(bench, self, setup.name, &addresses)?;
        files.render(bench, self, &addresses, setup)?;
        let output = self.command(bench, check, &files.here)?.output();
        let output = output.map_err(Error::io(format!("run {} check", self.id)))?;
        if output.status.success() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let line = text.lines().find(|line| line.contains("not supported by this version"));
        match line {
            Some(line) => Ok(Some(line.trim().to_owned())),
            None => Err(Error::Malformed {
                what: format!("the configuration {} of {}", setup.name, self.id),
                detail: text,
            }),
        }
    }

    /// The setups that it has, by name.
    pub(super) fn setups(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.templates).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> =
            folders.map(|entry| entry.file_name().display().to_string()).collect();
        names.sort();
        names
    }

    /// The version that the program reports, or nothing if it cannot be run.
    pub(super) fn version(&self, bench: &Bench) -> Option<String> {
        let words = &self.manifest.version;
        let output = self.command(bench, words, Path::new("")).ok()?.output().ok()?;
        // nginx says its version on standard error.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty())?;
        let words = line.split_once("version: ").map_or(line, |(_, version)| version);
        Some(words.split(" - ").next().unwrap_or(words).trim().to_owned())
    }

    fn command(&self, bench: &Bench, words: &[String], here: &Path) -> Result<Command, Error> {
        let ringway = bench.ringway.as_deref().map(|path| path.display().to_string());
        let words = words
            .iter()
            .map(|word| {
                render(
                    word,
                    &context! { ringway => ringway.as_deref(), here => here.display().to_string() },
                )
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.malformed("peer.yaml", &error))?;
        let (program, arguments) = words
            .split_first()
            .ok_or_else(|| Error::Usage(format!("peer {} has an empty command", self.id)))?;
        let mut command = Command::new(program);
        command.args(arguments);
        // Packages put daemons where only root's path leads.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        Ok(command)
    }

    fn malformed(&self, file: &str, error: &minijinja::Error) -> Error {
        Error::Malformed { what: format!("{file} of {}", self.id), detail: error.to_string() }
    }
}

fn render(template: &str, values: &Value) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build()?;
    environment.set_syntax(syntax);
    // Envoy names host and port apart.
    environment.add_filter("address", |address: String| match address.rsplit_once(':') {
        Some((host, port)) => format!("{{address: {host}, port_value: {port}}}"),
        None => address,
    });
    environment.render_str(template, values)
}

/// What the templates of `peer` may name.
fn values(
    peer: &Peer,
    here: &Path,
    addresses: &Addresses,
    (origin_http, origin_tcp): (SocketAddr, SocketAddr),
    certs: &Path,
    setup: Setup<'_>,
) -> Value {
    let tls = setup.tls.unwrap_or_default();
    let values = context! {
        certs => certs.display().to_string(),
        mutual => tls.mutual,
        resumes => tls.resumes,
        here => here.display().to_string(),
        http => addresses.http.to_string(),
        tcp => addresses.tcp.to_string(),
        admin => addresses.admin.to_string(),
        origin_http => origin_http.to_string(),
        origin_tcp => origin_tcp.to_string(),
    };
    let table = setup.table.map_or_else(|| context! {}, Table::values);
    let variables = peer.manifest.variables.iter();
    let variables = variables.map(|(name, text)| (name.as_str(), text.as_str()));
    merge_maps([values, table, Value::from_pairs(variables)])
}

impl Files {
    fn new(bench: &Bench, peer: &Peer, setup: &str, addresses: &Addresses) -> Result<Self, Error> {
        let name = format!("{}-{}", peer.id, addresses.http.port());
        Ok(Self { templates: peer.templates.join(setup), here: bench.scratch.make_folder(&name)? })
    }

    /// Renders every template beside the file in force; the names of those that differ from it.
    fn prepare(
        &self,
        bench: &Bench,
        peer: &Peer,
        addresses: &Addresses,
        setup: Setup<'_>,
    ) -> Result<Vec<PathBuf>, Error> {
        let reading = || Error::io(format!("read the templates in {}", self.templates.display()));
        let origins = (bench.origin_http, bench.origin_tcp);
        let certs = bench.certificates.folder();
        let values = values(peer, &self.here, addresses, origins, certs, setup);
        let mut changed = Vec::new();
        for entry in fs::read_dir(&self.templates).map_err(reading())? {
            let entry = entry.map_err(reading())?;
            let template = fs::read_to_string(entry.path()).map_err(reading())?;
            let name = entry.file_name().display().to_string();
            let text = render(&template, &values).map_err(|error| peer.malformed(&name, &error))?;
            let path = self.here.join(name);
            if fs::read_to_string(&path).is_ok_and(|earlier| earlier == text) {
                continue;
            }
            fs::write(next(&path), text).map_err(Error::io("write a configuration"))?;
            changed.push(path);
        }
        Ok(changed)
    }

    fn commit(changed: &[PathBuf]) -> Result<(), Error> {
        for path in changed {
            fs::rename(next(path), path).map_err(Error::io("replace a configuration"))?;
        }
        Ok(())
    }

    fn render(
        &self,
        bench: &Bench,
        peer: &Peer,
        addresses: &Addresses,
        setup: Setup<'_>,
    ) -> Result<(), Error> {
        Self::commit(&self.prepare(bench, peer, addresses, setup)?)
    }
}

fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

/// New files of a proxy, ready to be put in force.
#[derive(Debug)]
pub(super) struct Prepared(Vec<PathBuf>);

impl Proxy {
    /// Starts `peer` and waits until it answers through the origin, or at least listens.
    pub(super) fn start(bench: &Bench, peer: &Rc<Peer>, setup: Setup<'_>) -> Result<Self, Error> {
        let mut proxy = Self::spawn(bench, peer, setup)?;
        if setup.is_plain() {
            proxy.wait_for_answer(setup.table)?;
        } else {
            proxy.child.wait_for(proxy.addresses.http)?;
        }
        Ok(proxy)
    }

    /// Starts `peer` and does not wait.
    pub(super) fn spawn(bench: &Bench, peer: &Rc<Peer>, setup: Setup<'_>) -> Result<Self, Error> {
        Self::spawn_at(bench, peer, setup, Addresses::free(bench)?)
    }

    /// Starts `peer` where it is told and does not wait.
    pub(super) fn spawn_at(
        bench: &Bench,
        peer: &Rc<Peer>,
        setup: Setup<'_>,
        addresses: Addresses,
    ) -> Result<Self, Error> {
        let files = Files::new(bench, peer, setup.name, &addresses)?;
        files.render(bench, peer, &addresses, setup)?;
        let words = match &peer.manifest.reloadable {
            Some(words) if setup.reloads => words,
            _ => &peer.manifest.command,
        };
        let command = peer.command(bench, words, &files.here)?;
        let log = files.here.join("output.log");
        let core = Some(bench.proxy_core);
        let child = Child::start(&peer.id, command, core, Some(log), &bench.guard)?;
        Ok(Self { peer: Rc::clone(peer), child, addresses, files })
    }

    /// Waits for a 200 through the HTTP listener.
    pub(super) fn wait_for_answer(&mut self, table: Option<Table>) -> Result<(), Error> {
        let host = if table.is_some() { super::table::MARKER } else { "ready" };
        probe::wait_for_answer(&mut self.child, self.addresses.http, host)
    }

    /// Renders the files of another table beside those in force.
    pub(super) fn prepare(&self, bench: &Bench, setup: Setup<'_>) -> Result<Prepared, Error> {
        self.files.prepare(bench, &self.peer, &self.addresses, setup).map(Prepared)
    }

    /// Puts the files in force; the proxy takes them when it can.
    pub(super) fn reload(&self, prepared: &Prepared) -> Result<(), Error> {
        Files::commit(&prepared.0)?;
        match self.peer.manifest.reload {
            Some(Reload::File) => {}
            Some(Reload::Signal(SignalName::Hup)) => self.child.process().signal(Signal::HUP),
            Some(Reload::Signal(SignalName::Usr2)) => self.child.process().signal(Signal::USR2),
            None => {
                return Err(Error::Usage(format!("peer {} cannot reload", self.peer.id)));
            }
        }
        Ok(())
    }
}

impl Addresses {
    fn free(bench: &Bench) -> Result<Self, Error> {
        let free = || bench.scratch.free_address();
        Ok(Self { http: free()?, tcp: free()?, admin: free()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_known_is_an_error_and_a_final_line_end_stays() {
        assert!(render("{{ nothing }}", &context! {}).is_err());
        assert_eq!(render("a {{ b }}\n", &context! { b => 1 }).unwrap(), "a 1\n");
        let address = context! { http => "127.0.0.1:80" };
        let filled = render("{{ http | address }}", &address).unwrap();
        assert_eq!(filled, "{address: 127.0.0.1, port_value: 80}");
    }

    /// The rendered `main` of a setup.
    fn rendered(peer: &Peer, setup: &str, file: &str) -> String {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses { http: address(1), tcp: address(2), admin: address(3) };
        let origins = (address(4), address(5));
        let table = Some(Table { routes: 25, generation: 7 });
        let tls = Some(Tls { mutual: true, resumes: true, hybrid: false });
        let setup_values = Setup { name: setup, table, reloads: false, tls };
        let there = Path::new("/there");
        let values = values(peer, there, &addresses, origins, there, setup_values);
        let template = fs::read_to_string(peer.templates.join(setup).join(file)).unwrap();
        render(&template, &values).unwrap()
    }

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
    }

    #[test]
    fn every_template_of_every_peer_names_what_is_known() {
        for entry in fs::read_dir(folder()).unwrap() {
            let id = entry.unwrap().file_name().display().to_string();
            let peer = Peer::read(&folder(), &id).unwrap();
            assert!(peer.has("plain") && peer.has("routes"), "{id}");
            for setup in fs::read_dir(&peer.templates).unwrap().map(Result::unwrap) {
                let setup_name = setup.file_name().display().to_string();
                for file in fs::read_dir(setup.path()).into_iter().flatten().map(Result::unwrap) {
                    let text =
                        rendered(&peer, &setup_name, &file.file_name().display().to_string());
                    assert!(!text.contains("{{"), "{id} {setup_name}: {text}");
                }
            }
        }
    }

    #[test]
    fn the_router_takes_our_own_templates_without_warnings() {
        let ours = Peer::read(&folder(), OURS).unwrap();
        for (setup, routes) in [("plain", 1), ("routes", 26)] {
            let text = rendered(&ours, setup, "main.yaml");
            let loaded = ringway_router::load(&text, ringway_router::Format::Yaml).unwrap();
            assert_eq!(loaded.config.routes.len(), routes, "{setup}");
            assert!(loaded.warnings.is_empty(), "{setup}: {:?}", loaded.warnings);
        }
    }
}
