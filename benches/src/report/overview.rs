//! One table over all scenarios: what was promised, with a column for each contender.

use super::{
    input::{DIRECT, GOAL, Input, OURS, name, series},
    text::{short, table_line},
    verdict::Judged,
};
use crate::sample;

/// The table; a loss is bold. Only what has a goal, or all of it where nothing has.
pub(super) fn table(input: &Input, judged: &[Judged<'_>]) -> String {
    let promised = judged.iter().any(Judged::has_goal);
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for one in judged.iter().filter(|one| one.has_goal() || !promised) {
        let line = (one.detail.scenario.as_str(), one.row.metric.as_str());
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let mut columns: Vec<&str> = input.contenders.iter().map(String::as_str).collect();
    columns.retain(|column| *column != DIRECT);
    columns.push(GOAL);

    let titles = ["scenario", "metric", "unit"].into_iter();
    let heads = titles.chain(columns.iter().map(|column| name(column)));
    let mut text = table_line(&heads.map(str::to_owned).collect::<Vec<_>>());
    text += &table_line(&vec!["---".to_owned(); columns.len() + 3]);
    for (scenario, metric) in lines {
        let of_line: Vec<&Judged<'_>> = judged
            .iter()
            .filter(|one| one.detail.scenario == scenario && one.row.metric == metric)
            .collect();
        let unit = of_line.first().map_or("", |one| one.row.unit.as_str());
        let mut cells = vec![scenario.to_owned(), format!("`{metric}`"), unit.to_owned()];
        cells.extend(columns.iter().map(|column| cell(&of_line, metric, column)));
        text += &table_line(&cells);
    }
    text
}

/// A contender's median, and after it our ratio to it.
fn cell(of_line: &[&Judged<'_>], metric: &str, contender: &str) -> String {
    let Some(first) = of_line.first() else {
        return String::new();
    };
    let Some(one) = of_line.iter().find(|one| one.row.peer == contender) else {
        let samples = series(first.detail, metric, contender).map(|series| &series.samples);
        return match samples {
            Some(samples) => short(sample::median(samples)),
            None if contender == OURS => short(first.row.ours),
            None => String::new(),
        };
    };
    let theirs = short(one.row.theirs);
    if one.row.unresolved {
        return format!("{theirs} (unresolved)");
    }
    let row = one.row;
    let text = format!("{theirs} ({:.2}, {:.2} to {:.2})", row.ratio, row.low, row.high);
    if one.loses() { format!("**{text}**") } else { text }
}
