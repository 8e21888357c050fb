//! Resident memory against the number of idle connections.

use plotters::prelude::*;

use super::{
    super::{
        input::{Input, series},
        text::short,
    },
    Heading, INK, Key, Line, Plot, TEXT,
    axis::{Axis, Scale, axes},
    colour, draw, font, legend, middle_left, under,
};
use crate::{error::Error, sample};

const HEIGHT: u32 = 1000;
/// Least distance of two labels, as a share of the axis.
const LABEL_APART: f64 = 0.05;
const RESIDENT: &str = "rss_mib";
const PROPORTIONAL: &str = "pss_mib";

/// Connections and MiB of one contender.
struct Growth<'a> {
    contender: &'a str,
    line: Line,
    points: Vec<(f64, f64)>,
}

/// The plot, unless no scenario `idle-N` has figures.
pub(super) fn plot(input: &Input, date: &str) -> Result<Option<Plot>, Error> {
    let mut all = growths(input, RESIDENT, Line::of);
    let proportional = growths(input, PROPORTIONAL, |_| Line::Dashed);
    let mut keys: Vec<&str> = all.iter().map(|growth| growth.contender).collect();
    keys.dedup();
    let mut legend = legend(input, &keys, Line::of);
    if !proportional.is_empty() {
        let (label, colour) = ("dashed: PSS".to_owned(), super::FAINT);
        legend.push(Key { label, colour, line: Line::Dashed });
    }
    all.extend(proportional);
    if all.is_empty() {
        return Ok(None);
    }
    let points = || all.iter().flat_map(|growth| &growth.points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let (least, largest) =
        (points().map(|(_, y)| *y).fold(f64::INFINITY, f64::min), most(|(_, y)| *y));
    let scale = Scale::of(least, largest);
    let x = Axis::from_zero(most(|(connections, _)| *connections), "idle connections");
    let y = scale.axis(least, largest, "MiB");
    let how = "resident memory (RSS), median of the rounds, lower is better";
    let heading = Heading {
        name: "memory".to_owned(),
        title: "Memory against idle connections".to_owned(),
        under: under(how, date, &input.commits()),
        legend,
    };
    draw(&heading, HEIGHT, |area| {
        let mut chart = axes(area, &x, &y)?;
        for Growth { contender, line, points } in &all {
            let colour = colour(input, contender);
            let points = || points.iter().map(|(x, y)| (*x, scale.place(*y)));
            chart.draw_series(LineSeries::new(points(), colour.stroke_width(line.width())))?;
            if *line != Line::Dashed {
                chart.draw_series(points().map(|at| Circle::new(at, 9, colour.filled())))?;
            }
        }
        for (at, text) in end_labels(&all, scale, &y) {
            let style = middle_left(&font(TEXT).color(&INK));
            chart.draw_series([EmptyElement::at(at) + Text::new(text, (20, 0), style)])?;
        }
        Ok(())
    })
    .map(Some)
}

/// The figure at the end of each solid line, where none of an earlier line is too near.
fn end_labels(all: &[Growth<'_>], scale: Scale, y: &Axis) -> Vec<((f64, f64), String)> {
    let mut labels: Vec<((f64, f64), String)> = Vec::new();
    for growth in all.iter().filter(|growth| growth.line != Line::Dashed) {
        let Some((connections, mebibytes)) = growth.points.last() else {
            continue;
        };
        let place = scale.place(*mebibytes);
        let apart = |((_, earlier), _): &((f64, f64), String)| {
            (earlier - place).abs() / (y.to - y.from) > LABEL_APART
        };
        if labels.iter().all(apart) {
            labels.push(((*connections, place), short(*mebibytes)));
        }
    }
    labels
}

fn growths<'a>(input: &'a Input, metric: &str, line: fn(&str) -> Line) -> Vec<Growth<'a>> {
    let mut growths = Vec::new();
    for contender in &input.contenders {
        let mut points = Vec::new();
        for detail in &input.details {
            let connections = detail.scenario.strip_prefix("idle-");
            let Some(connections) = connections.and_then(|count| count.parse::<u32>().ok()) else {
                continue;
            };
            let samples = series(detail, metric, contender).map(|series| &series.samples);
            if let Some(samples) = samples.filter(|samples| !samples.is_empty()) {
                points.push((f64::from(connections), sample::median(samples)));
            }
        }
        points.sort_by(|left, right| left.0.total_cmp(&right.0));
        if !points.is_empty() {
            growths.push(Growth { contender, line: line(contender), points });
        }
    }
    growths
}
