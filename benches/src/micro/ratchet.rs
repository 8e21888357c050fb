//! The figures that may not grow: one line for each workload, its name and its instructions.
//!
//! # Invariants
//! - A workload without an entry fails, and so does an entry without its workload.
//!
//! # Not here
//! Counting: `callgrind`.

use std::fmt::Write;

/// A figure may be that much above its entry. Moved code moves inlining, a little; another version
/// of the compiler does more, and comes with its own figures.
const TOLERANCE: f64 = 0.03;
/// And that much, so that one instruction does not fail the shortest.
const TOLERANCE_INSTRUCTIONS: f64 = 1.0;

/// What one operation of a workload costs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// Name of the workload.
    pub(super) name: String,
    /// Instructions by operation.
    pub(super) instructions: f64,
}

/// Reads a ratchet; lines that begin with `#` are for people.
pub(super) fn parse(text: &str) -> Result<Vec<Figure>, String> {
    let lines = text.lines().map(str::trim);
    let entries = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let figure = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        let instructions = number.trim().parse().ok().filter(|number: &f64| number.is_finite())?;
        Some(Figure { name: name.to_owned(), instructions })
    };
    entries.map(|line| figure(line).ok_or_else(|| format!("not an entry: {line}"))).collect()
}

/// Writes one that has what was counted.
pub(super) fn text(figures: &[Figure], versions: &str) -> String {
    let mut text = String::from(
        "# Instructions per operation, the most they may be. Written by `make bench-instructions \
         UPDATE=1`.\n",
    );
    text.push_str("# Counted with: ");
    text.push_str(versions);
    text.push('\n');
    for figure in figures {
        // A string takes everything.
        let _ = writeln!(text, "{:<28} {:>11.1}", figure.name, figure.instructions);
    }
    text
}

/// The figures beside their entries, for people.
pub(super) fn table(figures: &[Figure], held: &[Figure]) -> Vec<String> {
    let mut lines = vec![format!("{:<28} {:>11} {:>11}", "instructions", "now", "ratchet")];
    for figure in figures {
        let mut line = format!("{:<28} {:>11.1}", figure.name, figure.instructions);
        if let Some(most) = entry(&figure.name, held) {
            let difference = (figure.instructions / most - 1.0) * 100.0;
            let _ = write!(line, " {most:>11.1} {difference:>+7.1} %");
        }
        lines.push(line);
    }
    lines
}

/// What is against the rules, in words.
pub(super) fn wrong(figures: &[Figure], held: &[Figure]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Figure { name, instructions } in figures {
        match entry(name, held) {
            None => wrong.push(format!("{name} has no entry")),
            Some(most) if *instructions > most + tolerance(most) => {
                wrong.push(format!("{name} grew from {most:.1} to {instructions:.1}"));
            }
            Some(_) => {}
        }
    }
    let stale = held.iter().filter(|held| entry(&held.name, figures).is_none());
    wrong.extend(stale.map(|held| format!("{} is no workload any more", held.name)));
    wrong
}

/// Workloads that are so far below their entries that growth could hide there.
pub(super) fn fallen(figures: &[Figure], held: &[Figure]) -> Vec<String> {
    let below = |figure: &&Figure| {
        let most = entry(&figure.name, held);
        most.is_some_and(|most| figure.instructions < most - tolerance(most))
    };
    figures.iter().filter(below).map(|figure| figure.name.clone()).collect()
}

fn entry(name: &str, figures: &[Figure]) -> Option<f64> {
    figures.iter().find(|figure| figure.name == name).map(|figure| figure.instructions)
}

fn tolerance(most: f64) -> f64 {
    (most * TOLERANCE).max(TOLERANCE_INSTRUCTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, instructions: f64) -> Figure {
        Figure { name: name.to_owned(), instructions }
    }

    #[test]
    fn growth_up_to_the_tolerance_is_let_through_and_more_is_not() {
        let held = [figure("long", 1000.0), figure("short", 10.0)];
        assert!(wrong(&[figure("long", 1030.0), figure("short", 11.0)], &held).is_empty());
        let grown = wrong(&[figure("long", 1030.1), figure("short", 11.1)], &held);
        assert_eq!(
            grown,
            ["long grew from 1000.0 to 1030.1", "short grew from 10.0 to 11.1"].map(str::to_owned)
        );
    }

    #[test]
    fn a_figure_far_below_its_entry_is_named_and_is_not_wrong() {
        let held = [figure("a", 1000.0), figure("b", 1000.0)];
        let now = [figure("a", 969.0), figure("b", 970.0)];
        assert_eq!(fallen(&now, &held), ["a"]);
        assert!(wrong(&now, &held).is_empty());
    }

    #[test]
    fn workloads_and_entries_are_the_same_set() {
        let wrong = wrong(&[figure("new", 1.0)], &[figure("old", 1.0)]);
        assert_eq!(wrong, ["new has no entry", "old is no workload any more"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let figures = [figure("a", 12.5), figure("b", 600_000.0)];
        assert_eq!(parse(&text(&figures, "rustc 1")), Ok(figures.to_vec()));
        for broken in ["a", "a b", "a 1 2", "a inf"] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }
}
