//! What is wrong with a configuration, where, and what to do about it.
//!
//! A [`Problem`] stands at a line and column of the file and at a path into the model
//! (`routes[0].rules[1].timeout`). All problems of a file are gathered in one [`Problems`], never
//! only the first; past [`crate::limits::PROBLEMS_MAX`] they are counted.
//!
//! # Not here
//! The name of the file: who read it puts it in front.

use std::fmt;

use crate::limits::PROBLEMS_MAX;

/// Whether a problem refuses the file or only deserves a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted; something in it has no effect or will surprise.
    Warning,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; 0 when the configuration did not come from a file.
    pub line: u32,
    /// Column in the line in characters, from 1; 0 like `line`.
    pub column: u32,
    /// Path into the model, `routes[0].rules[1].timeout`; empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, if that can be said.
    pub hint: Option<String>,
    /// Refused or only remarked.
    pub severity: Severity,
}

impl Problem {
    /// A refusal at `path`, not yet placed in a file.
    #[must_use]
    pub fn error(path: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem {
            line: 0,
            column: 0,
            path: path.into(),
            message: message.into(),
            hint: None,
            severity: Severity::Error,
        }
    }

    /// A remark at `path`, not yet placed in a file.
    #[must_use]
    pub fn warning(path: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(path, message) }
    }

    /// The same problem with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// The same problem at a place of the file.
    #[must_use]
    pub fn at(mut self, (line, column): (u32, u32)) -> Problem {
        (self.line, self.column) = (line, column);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
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

/// All problems of a configuration, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The only problem of a file.
    pub(crate) fn one(problem: Problem) -> Problems {
        Problems(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, problem) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Gathers problems while a configuration is read and checked.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    dropped: usize,
}

impl Sink {
    /// Keeps `problem`, or counts it past the maximum.
    pub(crate) fn push(&mut self, problem: Problem) {
        let list = match problem.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if list.len() >= PROBLEMS_MAX {
            self.dropped += 1;
            return;
        }
        list.push(problem);
    }

    /// Whether `path` or something inside it was refused already.
    pub(crate) fn refused(&self, path: &str) -> bool {
        self.errors.iter().any(|problem| {
            let rest = problem.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Whether exactly `path` was refused already.
    pub(crate) fn refused_at(&self, path: &str) -> bool {
        self.errors.iter().any(|problem| problem.path == path)
    }

    /// Whether nothing was refused.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Puts every problem that has no place yet where `locate` says.
    pub(crate) fn place(&mut self, locate: impl Fn(&str) -> (u32, u32)) {
        for problem in self.errors.iter_mut().chain(&mut self.warnings) {
            if problem.line == 0 {
                (problem.line, problem.column) = locate(&problem.path);
            }
        }
    }

    /// The remarks if nothing was refused, otherwise the refusals.
    ///
    /// # Errors
    /// Every refusal, in the order of the file.
    pub(crate) fn finish(mut self) -> Result<Vec<Problem>, Problems> {
        if self.errors.is_empty() {
            self.warnings.sort_by_key(|problem| (problem.line, problem.column));
            return Ok(self.warnings);
        }
        self.errors.sort_by_key(|problem| (problem.line, problem.column));
        if self.dropped > 0 {
            self.errors
                .push(Problem::error("", format!("{} more problems are not listed", self.dropped)));
        }
        Err(Problems(self.errors))
    }
}
