//! Latency by percentile of one scenario.
//!
//! The horizontal axis is the share of requests that took longer, on a log scale, so that each
//! further nine of a percentile has the same room.

use plotters::prelude::*;

use super::{
    super::{
        input::{Input, contender_order},
        text::short,
    },
    Heading, Line, Plot,
    axis::{Axis, Scale, axes},
    colour, draw, legend, under,
};
use crate::{
    error::Error,
    limits::CURVE_POINTS_MAX,
    results::detail::{Curve, Detail},
};

const HEIGHT: u32 = 1080;
/// Percentiles with a tick.
const TICKS: [(f64, &str); 6] = [
    (50.0, "50 %"),
    (90.0, "90 %"),
    (99.0, "99 %"),
    (99.9, "99.9 %"),
    (99.99, "99.99 %"),
    (99.999, "99.999 %"),
];

/// The plot of `detail`, which has curves.
pub(super) fn plot(input: &Input, detail: &Detail) -> Result<Plot, Error> {
    let mut curves: Vec<(&str, Vec<(f64, f64)>)> =
        detail.curves.iter().map(|curve| (curve.peer.as_str(), drawn(curve))).collect();
    curves.sort_by_key(|(peer, _)| contender_order(peer));
    let points = || curves.iter().flat_map(|(_, points)| points);
    let right = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let least = points().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    let most = points().map(|(_, y)| *y).fold(0.0, f64::max);
    let scale = Scale::of(least, most);

    let x = Axis {
        from: 0.0,
        to: right * 1.01,
        ticks: TICKS
            .iter()
            .map(|(percentile, label)| (nines(*percentile), (*label).to_owned()))
            .filter(|(at, _)| *at <= right * 1.01)
            .collect(),
        title: "percentile (log scale of the share of requests that took longer)".to_owned(),
    };
    let y = scale.axis(least, most, "microseconds");
    let rate = detail.rate.map_or(String::new(), |rate| format!(" at {} requests/s", short(rate)));
    let contenders: Vec<&str> = curves.iter().map(|(peer, _)| *peer).collect();
    let how = "from the intended time of sending, lower is better";
    let heading = Heading {
        name: format!("latency-{}", detail.scenario),
        title: format!("Latency by percentile: {}{rate}", detail.scenario),
        under: under(how, &detail.date, &[&detail.run.commit]),
        legend: legend(input, &contenders, Line::of),
    };
    draw(&heading, HEIGHT, |area| {
        let mut chart = axes(area, &x, &y)?;
        for (peer, points) in &curves {
            let style = colour(input, peer).stroke_width(Line::of(peer).width());
            let points = points.iter().map(|(x, y)| (*x, scale.place(*y)));
            chart.draw_series(LineSeries::new(points, style))?;
        }
        Ok(())
    })
}

/// How many nines a percentile has: 1 for 90 %, 2 for 99 %.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// The points that a plot can show: short of 100 %, above 0, and not too many.
fn drawn(curve: &Curve) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = curve
        .points
        .iter()
        .filter(|(percentile, latency)| (0.0..100.0).contains(percentile) && *latency > 0.0)
        .map(|(percentile, latency)| (nines(*percentile), *latency))
        .collect();
    let step = points.len().div_ceil(CURVE_POINTS_MAX).max(1);
    let last = points.len().saturating_sub(1);
    let kept = |at: &usize| at.is_multiple_of(step) || *at == last;
    (0..points.len()).filter(kept).map(|at| points[at]).collect()
}
