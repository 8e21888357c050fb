//! From the text of a file to a checked configuration.

use crate::config::{Config, check, decode, warnings};
use crate::problem::{Problem, Problems, Sink};
use crate::source::{self, Format};
use crate::table::{self, Table};

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration; [`Table::compile`](crate::Table::compile) accepts it.
    pub config: Config,
    /// What in it has no effect or will surprise, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads, checks and remarks: all that `check` says about a file. Never panics, whatever `text` is.
///
/// # Errors
/// Every problem, with line, column, path and often a hint. A text that is not of its format has
/// only that problem.
pub fn load(text: &str, format: Format) -> Result<Loaded, Problems> {
    let tree = source::parse(text, format).map_err(Problems::one)?;
    let mut sink = Sink::default();
    let config = decode::config(&tree, &mut sink);
    check::config(&config, &mut sink);
    if sink.is_clean() {
        warnings::config(&config, &mut sink);
    }
    sink.place(|path| tree.locate(path));
    let warnings = sink.finish()?;
    Ok(Loaded { config, warnings })
}

/// [`load`] and [`Table::compile`] in one, which checks only once: what a reload does.
///
/// # Errors
/// Those of [`load`].
pub fn load_table(text: &str, format: Format) -> Result<(Table, Loaded), Problems> {
    let loaded = load(text, format)?;
    Ok((table::build(&loaded.config), loaded))
}
