//! The report's page, `<date>.md`.

use std::fmt::Write;

use super::{
    input::{Input, name},
    overview,
    plot::Plot,
    summary, table,
    text::one_line,
    verdict,
};

/// Stands at the end of every report.
const LIMITS: &str = "\
## What these figures must not be used for

- **Not capacity.** Client, origin and proxy share two cores of a virtual machine; no rate in here says
  what a machine can serve.
- **Not other networks.** Everything goes over loopback: no device, no interrupts of one, no loss, and a
  round trip of microseconds.
- **CPU time comes from closed loops**: as many requests in flight as connections, the next one when the
  last is answered. Under a lighter load each wakeup serves fewer requests and costs more per request.
- **Ratios hold within a run**: proxies that took turns on the same machine in the same minutes. A figure
  of one day beside one of another day compares the days.
- An interval says how far the median would move if the same rounds were drawn again. It does not cover
  another machine, kernel, version or configuration.
";

/// The whole page.
pub(super) fn text(input: &Input, date: &str, plots: &[Plot]) -> String {
    let judged = verdict::all(input);
    let mut text = format!("# Measurements of {date}\n\n{}", header(input));
    text += "\nLower is better in every row. A ratio is Ringway's median divided by the contender's; in \
             brackets its 95 % interval, by bootstrap over the rounds. The worse end of the interval \
             decides about a goal.\n";
    let _ = write!(text, "\n## Summary\n\n{}", summary::text(input, &judged));
    let _ = write!(text, "\n## Overview\n\nMedians; a loss is bold.\n\n");
    text += &overview::table(input, &judged);
    text += "\n## Plots\n\n";
    for plot in plots {
        let _ = writeln!(text, "{}\n", plot.shown(date));
    }
    text += "## Scenarios\n\n";
    for detail in &input.details {
        text += &table::section(detail, &judged);
    }
    text + LIMITS
}

/// Where and how the figures came about; what differs is given with its scenarios.
fn header(input: &Input) -> String {
    let mut text = String::new();
    let mut line = |title: &str, values: &[(&str, Vec<&str>)]| {
        let known: Vec<_> = values.iter().filter(|(value, _)| !value.is_empty()).collect();
        let shown: Vec<String> = known
            .iter()
            .map(|(value, scenarios)| match values.len() {
                1 => format!("`{}`", one_line(value)),
                _ => format!("`{}` ({})", one_line(value), scenarios.join(", ")),
            })
            .collect();
        if !shown.is_empty() {
            let _ = writeln!(text, "- {title}: {}", shown.join("; "));
        }
    };
    let commits = input.distinct(|detail| &detail.run.commit);
    let several = commits.len() > 1;
    line(if several { "**several commits**" } else { "commit" }, &commits);
    line("measured on", &input.distinct(|detail| &detail.date));
    line("kernel", &input.distinct(|detail| &detail.run.kernel));
    line("TCP congestion control", &input.distinct(|detail| &detail.run.congestion_control));
    line("backend", &input.distinct(|detail| &detail.run.backend));
    let mut programs: Vec<&String> =
        input.details.iter().flat_map(|detail| detail.run.versions.keys()).collect();
    programs.sort_by_key(|program| super::input::contender_order(program));
    programs.dedup();
    for program in programs {
        let mut versions: Vec<&String> =
            input.details.iter().filter_map(|detail| detail.run.versions.get(program)).collect();
        versions.sort_unstable();
        versions.dedup();
        let shown: Vec<String> =
            versions.iter().map(|version| format!("`{}`", one_line(version))).collect();
        let _ = writeln!(text, "- {}: {}", name(program), shown.join("; "));
    }
    let _ = write!(text, "\n```console\n");
    for (command, _) in input.distinct(|detail| &detail.run.command) {
        let _ = writeln!(text, "$ {}", one_line(command));
    }
    text + "```\n"
}
