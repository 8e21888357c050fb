//! `report`: the report of the newest results, as tables, plots and a summary that starts with
//! where Ringway loses.
//!
//! ```text
//! <results>/latest.json     ──┐
//! <results>/detail/*.json   ──┴─▶ Input ─▶ verdicts ─┬─▶ <results>/<date>.md
//!                                                    ├─▶ <results>/<date>/<plot>.svg, .png
//!                                                    └─▶ README, between its markers
//! ```
//!
//! # Invariants
//! - Nothing is written before all of the input is understood and all of the plots are drawn.
//! - Every file is replaced whole, by rename. Of the README only what is between the markers
//!   changes.
//! - The same input gives the same files.
//!
//! # Not here
//! Measuring, and the ratios: those are the comparison's, and stand in the details.

mod input;
mod overview;
mod page;
mod plot;
mod readme;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
};

use self::input::Input;
use crate::{error::Error, terminal};

/// Options of `report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    ringway-bench report --results benches/results --readme README.md\n\n\
    writes benches/results/<date>.md, its plots into benches/results/<date>/, and shows them in\n\
    README.md between <!-- bench:begin --> and <!-- bench:end -->.")]
pub(crate) struct Options {
    /// Folder of latest.json and detail/*.json; the report goes there too
    #[arg(long, value_name = "DIR", default_value = "benches/results")]
    results: PathBuf,
    /// File whose part between <!-- bench:begin --> and <!-- bench:end --> shows the report
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
    /// Day that names the report [default: the newest among the details]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = input::day)]
    date: Option<String>,
}

/// Writes the report.
///
/// # Errors
/// When a file is missing, cannot be understood or cannot be written; the README is then unchanged.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let (page, plots) = write(options)?;
    terminal::say(&format!("{} and {plots} plots", page.display()));
    Ok(())
}

/// Writes the report; returns the path of its page, and how many plots it has.
fn write(options: &Options) -> Result<(PathBuf, usize), Error> {
    let input = Input::read(&options.results)?;
    let date = match &options.date {
        Some(date) => date.as_str(),
        None => input.newest_date(),
    };
    let place = options.readme.as_deref().map(readme::Place::read).transpose()?;
    let plots = plot::all(&input, date)?;
    let page = page::text(&input, date, &plots);

    let folder = options.results.join(date);
    fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    for plot in &plots {
        replace(&folder.join(format!("{}.svg", plot.name)), plot.svg.as_bytes())?;
        replace(&folder.join(format!("{}.png", plot.name)), &plot.png)?;
    }
    let path = options.results.join(format!("{date}.md"));
    replace(&path, page.as_bytes())?;
    if let Some(place) = place {
        place.show(&readme::block(&input, date, &plots, &place.way_to(&options.results)?))?;
    }
    Ok((path, plots.len()))
}

/// Replaces the file at `path` whole.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    fs::write(&next, bytes)
        .and_then(|()| fs::rename(&next, path))
        .map_err(Error::io(format!("write {}", path.display())))
}
