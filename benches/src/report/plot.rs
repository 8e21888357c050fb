//! The plots: what they share, and the list of all of them.
//!
//! # Invariants
//! - Each is drawn once, as SVG; the PNG is that SVG, rendered with a font that is part of this
//!   program, so that no machine needs fonts for it.
//! - A contender has the same colour in every plot of a report.
//! - Text is only ever placed where it has room in DejaVu Sans, which is as wide as fonts get: an
//!   SVG shows in the reader's own font.

mod axis;
mod bars;
mod latency;
mod memory;

use plotters::{coord::Shift, prelude::*};
use resvg::{tiny_skia, usvg};

use super::input::{DIRECT, Input, OURS, contender_order, name};
use crate::error::Error;

/// Pixels of the canvas; a page shows it at about half of that.
const WIDTH: u32 = 1920;
/// Room for the title, the line under it and a legend of one row.
const HEAD: i32 = 210;
const LEGEND_ROW: i32 = 46;
const TEXT: i32 = 27;
/// Width of dashed lines, and of nothing else: the backend has no dashes, so they are put in by it.
const DASHED: u32 = 6;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x60, 0x60, 0x60);

/// Okabe and Ito's colours, which colour-blind readers tell apart; Ringway has the most striking.
const COLOURS: [(&str, RGBColor); 7] = [
    (OURS, RGBColor(0xd5, 0x5e, 0x00)),
    ("ringway-epoll", RGBColor(0xe6, 0x9f, 0x00)),
    ("haproxy", RGBColor(0x00, 0x72, 0xb2)),
    ("haproxy-tuned", RGBColor(0x56, 0xb4, 0xe9)),
    ("nginx", RGBColor(0x00, 0x9e, 0x73)),
    ("envoy", RGBColor(0xcc, 0x79, 0xa7)),
    (DIRECT, RGBColor(0x70, 0x70, 0x70)),
];
/// For contenders that have no colour of their own, by turns.
const OTHER_COLOURS: [RGBColor; 4] = [
    RGBColor(0x88, 0x22, 0x55),
    RGBColor(0x7a, 0x4b, 0x20),
    RGBColor(0x8a, 0x8f, 0x2a),
    RGBColor(0x4b, 0x2e, 0x83),
];

/// A finished plot.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) name: String,
    /// What it shows, for those who do not see it.
    about: String,
    pub(super) svg: String,
    pub(super) png: Vec<u8>,
}

impl Plot {
    /// The plot in a Markdown page, from `folder`: the picture, and behind it the SVG.
    pub(super) fn shown(&self, folder: &str) -> String {
        let Self { name, about, .. } = self;
        format!("[![{about}]({folder}/{name}.png)]({folder}/{name}.svg)")
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What the plotting library said.
type Trouble = Box<dyn std::error::Error>;

/// What stands above a plot.
struct Heading {
    name: String,
    title: String,
    /// Where and when, and how to read it.
    under: String,
    legend: Vec<Key>,
}

/// An entry of the legend.
struct Key {
    label: String,
    colour: RGBColor,
    line: Line,
}

/// How a contender is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Solid,
    /// Ringway's. It is drawn first: what lies over it leaves its edges visible.
    Broad,
    Dashed,
    Bar,
}

impl Line {
    fn of(contender: &str) -> Self {
        match contender {
            OURS => Self::Broad,
            DIRECT => Self::Dashed,
            _ => Self::Solid,
        }
    }

    /// In pixels; a bar has no line.
    fn width(self) -> u32 {
        match self {
            Self::Solid => 5,
            Self::Broad => 11,
            Self::Dashed => DASHED,
            Self::Bar => 0,
        }
    }
}

/// All plots that the input has figures for.
pub(super) fn all(input: &Input, date: &str) -> Result<Vec<Plot>, Error> {
    let mut plots = Vec::new();
    plots.extend(bars::plot(input, date, &bars::REQUESTS)?);
    plots.extend(bars::plot(input, date, &bars::BYTES)?);
    plots.extend(memory::plot(input, date)?);
    for detail in input.details.iter().filter(|detail| !detail.curves.is_empty()) {
        plots.push(latency::plot(input, detail)?);
    }
    Ok(plots)
}

/// Makes the lines of the width [`DASHED`] dashed.
fn dashed(svg: &str) -> String {
    let width = format!("stroke-width=\"{DASHED}\"");
    svg.replace(&width, &format!("{width} stroke-dasharray=\"18 12\""))
}

/// Draws the heading, and `body` below it; a legend of several rows adds to `height`.
fn draw<'a>(
    heading: &Heading,
    height: u32,
    body: impl FnOnce(&Area<'_>) -> Result<(), Trouble> + 'a,
) -> Result<Plot, Error> {
    let wrong = |detail: String| Error::Plot { name: heading.name.clone(), detail };
    let mut svg = String::new();
    let more_rows = places(&heading.legend).last().map_or(0, |(_, row)| row * LEGEND_ROW);
    {
        let height = height + more_rows as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = area
            .fill(&WHITE)
            .map_err(Trouble::from)
            .and_then(|()| head(&area, heading))
            .and_then(|()| body(&area.margin(HEAD + more_rows, 20, 20, 50)))
            .and_then(|()| area.present().map_err(Trouble::from));
        drawn.map_err(|trouble| wrong(trouble.to_string()))?;
    }
    let svg = dashed(&svg);
    let png = png(&svg).map_err(|trouble| wrong(trouble.to_string()))?;
    let about = format!("{}. {}", heading.title, heading.under);
    Ok(Plot { name: heading.name.clone(), about, svg, png })
}

fn head(area: &Area<'_>, heading: &Heading) -> Result<(), Trouble> {
    let title = font(40).style(FontStyle::Bold).color(&INK);
    area.draw(&Text::new(heading.title.clone(), (40, 34), title))?;
    area.draw(&Text::new(heading.under.clone(), (40, 92), font(TEXT).color(&FAINT)))?;
    for (key, (left, row)) in heading.legend.iter().zip(places(&heading.legend)) {
        let Key { label, colour, line } = key;
        let (middle, length) = (165 + row * LEGEND_ROW, key.length());
        if *line == Line::Bar {
            let corners = [(left, middle - 14), (left + length, middle + 14)];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
        } else {
            let ends = vec![(left, middle), (left + length, middle)];
            area.draw(&PathElement::new(ends, colour.stroke_width(line.width())))?;
        }
        let style = middle_left(&font(TEXT).color(&INK));
        area.draw(&Text::new(label.clone(), (left + length + 16, middle), style))?;
    }
    Ok(())
}

impl Key {
    /// Length of the line or box before the label.
    fn length(&self) -> i32 {
        if self.line == Line::Bar { 44 } else { 66 }
    }
}

/// Where each entry of a legend begins, and in which row, from 0.
fn places(legend: &[Key]) -> Vec<(i32, i32)> {
    let mut places = Vec::new();
    let (mut left, mut row) = (40, 0);
    for key in legend {
        let width = key.length() + 16 + text_width(&key.label);
        if left + width > WIDTH as i32 - 40 && left > 40 {
            (left, row) = (40, row + 1);
        }
        places.push((left, row));
        left += width + 44;
    }
    places
}

/// A contender's colour: its own, or one of the others by its place among those without.
fn colour(input: &Input, contender: &str) -> RGBColor {
    let own = |id: &str| COLOURS.iter().find(|(known, _)| *known == id).map(|(_, own)| *own);
    let without = input.contenders.iter().filter(|id| own(id).is_none());
    own(contender).unwrap_or_else(|| {
        let place = without.take_while(|id| *id != contender).count();
        OTHER_COLOURS[place % OTHER_COLOURS.len()]
    })
}

/// The legend of `contenders`, each once, in the order of the report.
fn legend(input: &Input, contenders: &[&str], line: impl Fn(&str) -> Line) -> Vec<Key> {
    let mut contenders = contenders.to_vec();
    contenders.sort_by_key(|contender| contender_order(contender));
    contenders.dedup();
    let key = |contender: &str| Key {
        label: name(contender).to_owned(),
        colour: colour(input, contender),
        line: line(contender),
    };
    contenders.into_iter().map(key).collect()
}

/// What stands under every title: how to read it, where and when it is from.
fn under(how: &str, date: &str, commits: &[&str]) -> String {
    match commits {
        [commit] => format!("{how} ({date}, commit {commit})"),
        several => format!("{how} ({date}, {} commits)", several.len()),
    }
}

fn font(pixels: i32) -> FontDesc<'static> {
    // The SVG backend divides the size by this, and we mean what we say.
    ("sans-serif", f64::from(pixels) * 1.24).into_font()
}

fn middle_left(style: &TextStyle<'static>) -> TextStyle<'static> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    style.pos(Pos::new(HPos::Left, VPos::Center))
}

/// About the width of `text` at the usual size.
fn text_width(text: &str) -> i32 {
    let ems = text.chars().map(|letter| match letter {
        'f' | 'i' | 'j' | 'l' | 'r' | 't' | '(' | ')' | ' ' | '.' | ',' => 0.4,
        'm' | 'w' | 'M' | 'W' => 0.95,
        _ => 0.65,
    });
    (ems.sum::<f64>() * f64::from(TEXT)) as i32
}

/// Renders `svg` as PNG.
fn png(svg: &str) -> Result<Vec<u8>, Trouble> {
    let mut options = usvg::Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.load_font_data(dejavu::sans::bold().to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    let tree = usvg::Tree::from_str(svg, &options)?;
    let size = tree.size().to_int_size();
    let mut pixels =
        tiny_skia::Pixmap::new(size.width(), size.height()).ok_or("an empty canvas")?;
    resvg::render(&tree, tiny_skia::Transform::identity(), &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}
