//! Prints what was found to a terminal, as it is found. The written report is another program.

use crate::{
    results::{
        Row, Run,
        detail::{Detail, Goal},
        short,
    },
    sample, terminal,
};

/// A ratio closer to 1 than this is a tie, however narrow its interval.
const TIE: f64 = 0.01;

/// Where and with what the results come about.
pub(super) fn run(run: &Run) {
    let Run { commit, kernel, congestion_control, .. } = run;
    terminal::say(&format!("commit {commit}, kernel {kernel}, TCP {congestion_control}"));
    for (program, version) in &run.versions {
        terminal::say(&format!("  {program}: {version}"));
    }
}

/// One scenario: figures, then ratios, then what else there is to know.
pub(super) fn detail(detail: &Detail) {
    terminal::say(&format!("\n{}: {}", detail.scenario, detail.about));
    for series in &detail.series {
        let median = sample::median(&series.samples);
        let least = series.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let most = series.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let split = series.user_share.map(|user| {
            format!("user {} + system {}", short(user * median), short((1.0 - user) * median))
        });
        let line = format!(
            "  {:26} {:14} {:>7} {:5} {:>7} .. {:7}  {}",
            series.metric,
            series.peer,
            short(median),
            series.unit,
            short(least),
            short(most),
            split.unwrap_or_default(),
        );
        terminal::say(line.trim_end());
    }
    for row in &detail.rows {
        terminal::say(&format!(
            "  {:26} {:14} {:>7.2} ours / theirs, {:.2} .. {:.2}: {}",
            row.metric,
            row.peer,
            row.ratio,
            row.low,
            row.high,
            verdict(row, &detail.goals),
        ));
    }
    let machine = &detail.machine;
    let rate = detail.rate.map(|rate| format!("latency at {rate}/s; ")).unwrap_or_default();
    terminal::say(&format!(
        "  {rate}{} rounds void, {} ms stolen, {} ms in soft interrupts",
        machine.void_rounds, machine.stolen_ms, machine.softirq_ms,
    ));
    for (peer, agreed) in &detail.negotiated {
        terminal::say(&format!("  {peer}: {agreed}"));
    }
    for note in &detail.notes {
        terminal::say(&format!("  {note}"));
    }
}

fn verdict(row: &Row, goals: &[Goal]) -> String {
    if row.unresolved {
        return "unresolved, theirs is within the noise".to_owned();
    }
    let goal = goals.iter().find(|goal| goal.metric == row.metric && goal.peer == row.peer);
    // A row against a goal has the goal itself as `theirs`.
    let must = if row.peer == "goal" { Some(1.0) } else { goal.map(|goal| goal.must) };
    match must {
        Some(must) if row.high <= must => format!("meets {must}"),
        Some(must) => format!("misses {must}"),
        None if row.high < 1.0 - TIE => "less".to_owned(),
        None if row.low > 1.0 + TIE => "more".to_owned(),
        None => "alike".to_owned(),
    }
}
