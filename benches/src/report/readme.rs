//! What the README shows of the newest report, between its markers.
//!
//! # Invariants
//! - Only what is between the markers changes; the markers stand once each, in order, or it is an
//!   error and nothing changes.
//! - Showing the same report twice changes nothing.

use std::{
    fmt::Write,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{input::Input, overview, plot::Plot, summary, verdict};
use crate::error::Error;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// A file with a place for the report.
#[derive(Debug)]
pub(super) struct Place<'a> {
    path: &'a Path,
    text: String,
    /// Where what is between the markers begins and ends, in bytes of `text`.
    from: usize,
    to: usize,
}

impl<'a> Place<'a> {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or the markers are not there once each and in order.
    pub(super) fn read(path: &'a Path) -> Result<Self, Error> {
        let text =
            fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
        let wrong = |detail: String| Error::Malformed { what: path.display().to_string(), detail };
        let once = |marker: &str| {
            let mut places = text.match_indices(marker).map(|(at, _)| at);
            match (places.next(), places.next()) {
                (Some(at), None) => Ok(at),
                (None, _) => Err(wrong(format!("it has no {marker}"))),
                (Some(_), Some(_)) => Err(wrong(format!("it has {marker} more than once"))),
            }
        };
        let (from, to) = (once(BEGIN)? + BEGIN.len(), once(END)?);
        if to < from {
            return Err(wrong(format!("{END} stands before {BEGIN}")));
        }
        Ok(Self { path, text, from, to })
    }

    /// Puts `block` between the markers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn show(&self, block: &str) -> Result<(), Error> {
        let (before, after) = (&self.text[..self.from], &self.text[self.to..]);
        super::replace(self.path, format!("{before}\n{block}{after}").as_bytes())
    }

    /// The relative way from this file to `folder`, as a link has it.
    ///
    /// # Errors
    /// When one of them is not there.
    pub(super) fn way_to(&self, folder: &Path) -> Result<String, Error> {
        let whole = |path: &Path| {
            path.canonicalize().map_err(Error::io(format!("find {}", path.display())))
        };
        let (file, folder) = (whole(self.path)?, whole(folder)?);
        let from: Vec<Component<'_>> = file.parent().unwrap_or(&file).components().collect();
        let to: Vec<Component<'_>> = folder.components().collect();
        let shared = from.iter().zip(&to).take_while(|(left, right)| left == right).count();
        let up = from[shared..].iter().map(|_| Component::ParentDir);
        let way: PathBuf = up.chain(to[shared..].iter().copied()).collect();
        let way = way.display().to_string();
        Ok(if way.is_empty() { ".".to_owned() } else { way })
    }
}

/// The plots that a README has room for, by how their names begin; of each the first.
const SHOWN: [&str; 4] = ["cpu-requests", "cpu-bytes", "latency-", "memory"];

/// What stands between the markers; `results` is the way to the folder of the results.
pub(super) fn block(input: &Input, date: &str, plots: &[Plot], results: &str) -> String {
    let judged = verdict::all(input);
    let mut text = format!(
        "Newest report: [{date}]({results}/{date}.md), commit {}.\n\n{}\n\nWhere Ringway loses:\n\n",
        input.commits().join(", "),
        summary::goals(input, &judged),
    );
    text += &summary::losses(&judged);
    text += "\nMedians of the promised figures, lower is better. In brackets Ringway's ratio to it and \
             the 95 % interval of that; a loss is bold.\n\n";
    text += &overview::table(input, &judged);
    for start in SHOWN {
        if let Some(plot) = plots.iter().find(|plot| plot.name.starts_with(start)) {
            let _ = write!(text, "\n{}\n", plot.shown(&format!("{results}/{date}")));
        }
    }
    text
}
