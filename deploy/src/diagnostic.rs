//! What is wrong with a mesh, where, and what to do about it.
//!
//! A [`Diagnostic`] names the object that it is about (`route shop-canary`), the place in its file
//! and the path into the object. It may be made without a place; [`Diagnostic::locate`] finds that
//! from the path.
//!
//! # Invariants
//! - Diagnostics of one load are in the order of files and lines, each there once.

use std::fmt;

use ringway_router::{Problem, Severity};
use serde::{Deserialize, Serialize};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What holds for the whole mesh.
    Mesh,
    /// A service.
    Service,
    /// Where a port of a service is.
    Endpoints,
    /// How requests for a service are answered.
    Route,
    /// A class of sidecars.
    Workload,
}

impl Kind {
    /// The key that objects of the kind stand under.
    #[must_use]
    pub fn list(self) -> &'static str {
        match self {
            Kind::Mesh => "mesh",
            Kind::Service => "services",
            Kind::Endpoints => "endpoints",
            Kind::Route => "routes",
            Kind::Workload => "workloads",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Mesh => "mesh",
            Kind::Service => "service",
            Kind::Endpoints => "endpoints",
            Kind::Route => "route",
            Kind::Workload => "workload",
        })
    }
}

/// Which object: there is at most one of a kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Its name; of endpoints `service` or `service:port`, empty for the mesh.
    pub name: String,
}

impl Key {
    /// The object of this kind and name.
    pub fn new(kind: Kind, name: impl Into<String>) -> Key {
        Key { kind, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.is_empty() {
            true => self.kind.fmt(f),
            false => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Where an object stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Name of the file in its folder.
    pub file: String,
    /// Its first line, from 1.
    pub line: u32,
    /// And the column in it, from 1.
    pub column: u32,
    /// Path into the file, `services[3]`; `None` if the object is not from the file as it is now,
    /// but the last accepted version.
    pub path: Option<String>,
}

/// One thing wrong with a mesh, or worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The object that it is about; `None` for a file or folder as a whole.
    pub object: Option<Key>,
    /// Name of the file; empty for the folder.
    pub file: String,
    /// Line, from 1; 0 if unknown.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub column: u32,
    /// Path into the object, `rules[1].timeout`; empty for the whole of it.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, if that can be said.
    pub hint: Option<String>,
    /// Refused or only remarked.
    pub severity: Severity,
    /// Path into the file of what it is about, where the place is still to be found.
    seek: Option<String>,
}

impl Diagnostic {
    /// A refusal of `path` in the object `key`, which stands at `origin`.
    pub fn error(key: Key, origin: &Origin, path: &str, message: impl Into<String>) -> Diagnostic {
        let inner = |outer: &String| match path.starts_with('[') || path.is_empty() {
            true => format!("{outer}{path}"),
            false => format!("{outer}.{path}"),
        };
        Diagnostic {
            object: Some(key),
            file: origin.file.clone(),
            line: origin.line,
            column: origin.column,
            path: path.to_owned(),
            message: message.into(),
            hint: None,
            severity: Severity::Error,
            seek: origin.path.as_ref().map(inner),
        }
    }

    /// A remark on `path` in the object `key`.
    pub fn warning(
        key: Key,
        origin: &Origin,
        path: &str,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(key, origin, path, message) }
    }

    /// A problem of the file called `file`, and of `object` in it, whose paths start with `prefix`.
    #[must_use]
    pub fn of_file(file: &str, object: Option<Key>, prefix: &str, problem: Problem) -> Diagnostic {
        let inner = problem.path.strip_prefix(prefix).unwrap_or(&problem.path);
        Diagnostic {
            object,
            file: file.to_owned(),
            line: problem.line,
            column: problem.column,
            path: inner.trim_start_matches('.').to_owned(),
            message: problem.message,
            hint: problem.hint,
            severity: problem.severity,
            seek: None,
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// Whether it refuses its object.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Puts it where `locate` says that a path of its file stands.
    pub fn locate(&mut self, locate: impl FnOnce(&str) -> (u32, u32)) {
        if let Some(path) = self.seek.take() {
            (self.line, self.column) = locate(&path);
        }
    }

    /// Whether its place is still to be found in its file.
    #[must_use]
    pub fn is_unplaced(&self) -> bool {
        self.seek.is_some()
    }

    /// As `--json` prints it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "severity": if self.is_error() { "error" } else { "warning" },
            "kind": self.object.as_ref().map(|key| key.kind),
            "name": self.object.as_ref().map(|key| &key.name),
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.column)?;
            }
            f.write_str(" ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if let Some(key) = &self.object {
            write!(f, "{key}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}
