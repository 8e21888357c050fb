//! The summary: goals counted, then where Ringway loses, what is open, and where it wins.

use std::fmt::Write;

use super::{
    input::{GOAL, Input, name},
    text::{counted, one_line, ratio},
    verdict::{self, Judged, Side, Standing},
};

/// The counted goals, in one sentence or a few.
pub(super) fn goals(input: &Input, judged: &[Judged<'_>]) -> String {
    let with_goal: Vec<&Judged<'_>> = judged.iter().filter(|one| one.has_goal()).collect();
    let standing =
        |wanted: Standing| with_goal.iter().filter(|one| one.standing() == Some(wanted)).count();
    let (aims, musts) = (standing(Standing::MeetsAim), standing(Standing::MeetsMust));
    let unresolved = with_goal.iter().filter(|one| one.row.unresolved).count();
    let mut text = format!(
        "Goals: **{} met** ({aims} of them with their aim), **{} missed**, **{unresolved} \
         unresolved**.",
        aims + musts,
        standing(Standing::Misses),
    );
    let absent = verdict::not_measured(input).len();
    if absent > 0 {
        let _ = write!(text, " {} not measured.", counted(absent, "goal"));
    }
    text
}

/// A list of all losses, or a sentence that there is none.
pub(super) fn losses(judged: &[Judged<'_>]) -> String {
    list(judged.iter().filter(|one| one.loses()), "Nowhere in these runs.", |one| {
        let missed = match one.standing() {
            Some(Standing::Misses) if one.misses_wholly() => {
                format!(", misses {}: all of its interval is above", one.promise())
            }
            Some(Standing::Misses) => {
                format!(", misses {}: the worse end of its interval is above", one.promise())
            }
            Some(Standing::MeetsAim | Standing::MeetsMust) => {
                format!(", more than the peer although within {}", one.promise())
            }
            None => ", measurably more".to_owned(),
        };
        format!("{}{missed}", headline(one))
    })
}

/// The whole section, without its heading.
pub(super) fn text(input: &Input, judged: &[Judged<'_>]) -> String {
    let mut text = format!("{}\n\n### Ringway loses\n\n", goals(input, judged));
    text += &losses(judged);
    text += "\n### Unresolved\n\n";
    text += &list(judged.iter().filter(|one| one.row.unresolved), "Nothing.", |one| {
        let promise = if one.has_goal() { format!(" ({})", one.promise()) } else { String::new() };
        format!(
            "{} `{}` against {}{promise}: the peer's interval contains 0",
            one.detail.scenario,
            one.row.metric,
            name(&one.row.peer),
        )
    });
    text += &absent(input);
    text += "\n### Meets must, misses aim\n\n";
    text += &list(judged.iter().filter(|one| one.meets_must_misses_aim()), "Nothing.", |one| {
        format!("{}: {}", headline(one), one.promise())
    });
    text += "\n### Where it wins\n\n";
    text += &wins(input, judged);
    text
}

/// `scenario metric against peer: ratio (interval)`.
fn headline(one: &Judged<'_>) -> String {
    let (scenario, row) = (&one.detail.scenario, one.row);
    let (peer, ratio) = (against(&row.peer), ratio(one.ratio()));
    format!("**{scenario}** `{}` against {peer}: {ratio}", row.metric)
}

fn against(peer: &str) -> &str {
    if peer == GOAL { "the goal" } else { name(peer) }
}

fn list<'a>(
    chosen: impl Iterator<Item = &'a Judged<'a>>,
    none: &str,
    line: impl Fn(&Judged<'_>) -> String,
) -> String {
    let mut text = String::new();
    for one in chosen {
        let _ = writeln!(text, "- {}", one_line(&line(one)));
    }
    if text.is_empty() { format!("{none}\n") } else { text }
}

fn absent(input: &Input) -> String {
    let absent = verdict::not_measured(input);
    let mut text = String::new();
    if absent.is_empty() && input.without_detail.is_empty() {
        return text;
    }
    text += "\n### Not measured\n\n";
    for (detail, goal) in absent {
        let peer = against(&goal.peer);
        let (scenario, metric) = (&detail.scenario, &goal.metric);
        let _ = writeln!(text, "- {scenario} `{metric}` against {peer}: must {}", goal.must);
    }
    for scenario in &input.without_detail {
        let _ = writeln!(text, "- {scenario}: ratios in latest.json, but no samples kept");
    }
    text
}

/// One line per scenario: what is measurably less than a rival's, metric by metric.
fn wins(input: &Input, judged: &[Judged<'_>]) -> String {
    let mut text = String::new();
    for detail in &input.details {
        let mut metrics: Vec<(&str, Vec<String>)> = Vec::new();
        for one in judged.iter().filter(|one| one.detail.scenario == detail.scenario) {
            if one.row.unresolved || !one.is_rival() || one.side() != Side::Less {
                continue;
            }
            let win = format!("{:.3} of {}", one.row.ratio, name(&one.row.peer));
            match metrics.iter_mut().find(|(metric, _)| *metric == one.row.metric) {
                Some((_, wins)) => wins.push(win),
                None => metrics.push((&one.row.metric, vec![win])),
            }
        }
        if !metrics.is_empty() {
            let metrics: Vec<String> = metrics
                .iter()
                .map(|(metric, wins)| format!("`{metric}` {}", wins.join(", ")))
                .collect();
            let _ = writeln!(text, "- **{}**: {}", detail.scenario, metrics.join("; "));
        }
    }
    if text.is_empty() { "Nowhere in these runs.\n".to_owned() } else { text }
}
