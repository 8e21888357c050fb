//! Bars of one metric by scenario and contender, with the medians' intervals.
//!
//! # Invariants
//! - Bars begin at 0, in every panel: a bar's length is its figure.
//! - Scenarios that do not fit beside each other go on in a further panel with a scale of its own.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    super::input::{Input, series},
    Area, Heading, INK, Line, Plot, Trouble,
    axis::{Axis, axes},
    colour, draw, font, legend, under,
};
use crate::{error::Error, limits::PANEL_BARS_MAX, sample};

/// Height of a panel, in pixels.
const PANEL: u32 = 600;
/// A group is at least as wide as so many bars, so that its name has room.
const GROUP_LEAST: f64 = 3.0;

/// What a plot of bars shows.
pub(super) struct Subject {
    name: &'static str,
    metric: &'static str,
    title: &'static str,
    axis: &'static str,
}

pub(super) const REQUESTS: Subject = Subject {
    name: "cpu-requests",
    metric: "cpu_us_per_request",
    title: "CPU time per request",
    axis: "us, user and system",
};

pub(super) const BYTES: Subject = Subject {
    name: "cpu-bytes",
    metric: "cpu_s_per_gb",
    title: "CPU time per GB",
    axis: "s, user and system",
};

struct Group<'a> {
    scenario: &'a str,
    bars: Vec<Bar<'a>>,
}

struct Bar<'a> {
    contender: &'a str,
    median: f64,
    low: f64,
    high: f64,
}

impl Group<'_> {
    /// In bars, the gap after it included.
    fn width(&self) -> f64 {
        GROUP_LEAST.max(self.bars.len() as f64) + 1.0
    }
}

/// The plot, unless nobody has figures for it.
pub(super) fn plot(input: &Input, date: &str, subject: &Subject) -> Result<Option<Plot>, Error> {
    let groups = groups(input, subject.metric);
    if groups.is_empty() {
        return Ok(None);
    }
    let panels = panels(&groups);
    let contenders: Vec<&str> =
        groups.iter().flat_map(|group| group.bars.iter().map(|bar| bar.contender)).collect();
    let how = "median and its 95 % interval, lower is better";
    let heading = Heading {
        name: subject.name.to_owned(),
        title: subject.title.to_owned(),
        under: under(how, date, &input.commits()),
        legend: legend(input, &contenders, |_| Line::Bar),
    };
    let height = super::HEAD as u32 + PANEL * panels.len() as u32;
    draw(&heading, height, |area| {
        for (part, panel) in area.split_evenly((panels.len(), 1)).iter().zip(&panels) {
            draw_panel(input, part, panel, subject.axis)?;
        }
        Ok(())
    })
    .map(Some)
}

fn groups<'a>(input: &'a Input, metric: &str) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    for detail in &input.details {
        let mut bars = Vec::new();
        for contender in &input.contenders {
            let samples = series(detail, metric, contender).map(|series| &series.samples);
            if let Some(samples) = samples.filter(|samples| !samples.is_empty()) {
                let (low, high) = sample::interval(samples);
                bars.push(Bar { contender, median: sample::median(samples), low, high });
            }
        }
        if !bars.is_empty() {
            groups.push(Group { scenario: &detail.scenario, bars });
        }
    }
    groups
}

/// Parts the groups into as few panels as hold them, of about the same width.
fn panels<'a, 'b>(groups: &'a [Group<'b>]) -> Vec<&'a [Group<'b>]> {
    let width: f64 = groups.iter().map(Group::width).sum();
    let count = (width / PANEL_BARS_MAX as f64).ceil().max(1.0) as usize;
    groups.chunks(groups.len().div_ceil(count)).collect()
}

fn draw_panel(
    input: &Input,
    area: &Area<'_>,
    groups: &[Group<'_>],
    unit: &str,
) -> Result<(), Trouble> {
    let mut ticks = Vec::new();
    let mut end = 0.0;
    for group in groups {
        ticks.push((end + group.width() / 2.0, group.scenario.to_owned()));
        end += group.width();
    }
    let x = Axis { from: 0.0, to: end, ticks: ticks.clone(), title: String::new() };
    let bars = || groups.iter().flat_map(|group| &group.bars);
    let most = bars().map(|bar| bar.high.max(bar.median)).fold(0.0, f64::max);
    let y = Axis::from_zero(most * 1.04, unit);
    let part = area.margin(10, 20, 0, 0);
    let mut chart = axes(&part, &x, &y)?;
    let label = font(23).color(&INK).pos(Pos::new(HPos::Center, VPos::Bottom));
    for (group, (middle, _)) in groups.iter().zip(&ticks) {
        let first = middle - group.bars.len() as f64 / 2.0;
        for (place, bar) in group.bars.iter().enumerate() {
            let left = first + place as f64;
            let fill = colour(input, bar.contender).filled();
            let corners = [(left + 0.06, 0.0), (left + 0.94, bar.median)];
            chart.draw_series([Rectangle::new(corners, fill)])?;
            chart.draw_series(
                whisker(left + 0.5, bar).map(|path| PathElement::new(path, INK.stroke_width(3))),
            )?;
            let top = bar.high.max(bar.median);
            let text = Text::new(written(bar.median), (0, -8), label.clone());
            chart.draw_series([EmptyElement::at((left + 0.5, top)) + text])?;
        }
    }
    Ok(())
}

/// The interval as a line with a cap at each end.
fn whisker(middle: f64, bar: &Bar<'_>) -> [Vec<(f64, f64)>; 3] {
    let cap = |at: f64| vec![(middle - 0.18, at), (middle + 0.18, at)];
    [vec![(middle, bar.low), (middle, bar.high)], cap(bar.low), cap(bar.high)]
}

/// A figure in at most four characters, which is what a bar's width has room for.
fn written(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}
