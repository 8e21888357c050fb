//! Axes: where their ticks are, what these say, and drawing them.
//!
//! # Invariants
//! - The ticks are ours: what is drawn is never labelled by the plotting library's guess.
//! - An axis of bars begins at 0.

use plotters::{
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    prelude::*,
};

use super::{Area, FAINT, INK, TEXT, Trouble, font, text_width};

const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// An axis in the units that are drawn, with its ticks and their labels.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) title: String,
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Draws both axes with their grid into `area`.
pub(super) fn axes<'a, 'b>(
    area: &'a Area<'b>,
    x: &Axis,
    y: &Axis,
) -> Result<Chart<'a, 'b>, Trouble> {
    let widest = y.ticks.iter().map(|(_, label)| text_width(label)).max().unwrap_or(0);
    let mut chart = ChartBuilder::on(area)
        .x_label_area_size(if x.title.is_empty() { 64 } else { 100 })
        .y_label_area_size(widest + 90)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(GRID.stroke_width(2))
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT.stroke_width(3))
        .set_all_tick_mark_size(8)
        .label_style(font(TEXT).color(&INK))
        .axis_desc_style(font(TEXT).color(&INK))
        .y_desc(y.title.clone());
    if x.title.is_empty() {
        // Groups of bars: their gaps part them, a grid would only be one more bar.
        mesh.disable_x_mesh();
    } else {
        mesh.x_desc(x.title.clone());
    }
    mesh.draw()?;
    drop(mesh);
    Ok(chart)
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (value - self.from) / (self.to - self.from);
        first + (share * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let found = self.ticks.iter().find(|(at, _)| at == value);
        found.map_or(String::new(), |(_, label)| label.clone())
    }
}

impl Axis {
    /// From 0 to a little above `most`, at round figures.
    pub(super) fn from_zero(most: f64, title: &str) -> Self {
        let to = if most > 0.0 { most * 1.08 } else { 1.0 };
        let rough = to / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(power * 10.0);
        let whole = |digits: &usize| {
            let shifted = step * 10f64.powi(*digits as i32);
            (shifted - shifted.round()).abs() < 1e-6
        };
        let digits = (0..6).find(whole).unwrap_or(6);
        let ticks = (0..)
            .map(|count| f64::from(count) * step)
            .take_while(|at| *at <= to)
            .map(|at| (at, format!("{at:.digits$}")))
            .collect();
        Self { from: 0.0, to, ticks, title: title.to_owned() }
    }
}

/// How a vertical axis maps figures: from 0, or as logarithms where their range is wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// From this quotient of most and least, a vertical axis of lines has a log scale.
const LOG_FROM: f64 = 8.0;

impl Scale {
    pub(super) fn of(least: f64, most: f64) -> Self {
        if least > 0.0 && most / least > LOG_FROM { Self::Log } else { Self::Linear }
    }

    /// Where `value` is on the axis.
    pub(super) fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }

    /// The axis of figures from `least` to `most`; of logarithms with ticks at 1, 2 and 5 of each
    /// power of ten.
    pub(super) fn axis(self, least: f64, most: f64, title: &str) -> Axis {
        if self == Self::Linear {
            return Axis::from_zero(most, title);
        }
        let (from, to) = ((least * 0.85).log10(), (most * 1.2).log10());
        let ticks = (from.floor() as i32..=to.ceil() as i32)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power)))
            .filter(|value| (from..=to).contains(&value.log10()))
            .map(|value| (value.log10(), format!("{value}")))
            .collect();
        Axis { from, to, ticks, title: format!("{title} (log scale)") }
    }
}
