//! Figures as a person reads them.

pub(super) use crate::results::short;
use crate::sample::Ratio;

/// A ratio with its interval, fine enough to see on which side of a goal it is.
pub(super) fn ratio(Ratio { ratio, low, high }: Ratio) -> String {
    format!("{ratio:.3} ({low:.3} to {high:.3})")
}

/// "1 thing", "2 things".
pub(super) fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// A line of a Markdown table.
pub(super) fn table_line(cells: &[String]) -> String {
    // A bar inside a cell would end it.
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Words in a line of their own: no line break of a message may end a list or a table.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
