//! The text of a plot.

use std::fmt::Write;

use super::axis::Axis;
use super::{Plot, Series};

const HEIGHT: f64 = 400.0;
/// Of the part inside the axes.
const INNER_WIDTH: f64 = 480.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 52.0;
/// Of a character of the legend and the ticks, on average.
const CHARACTER: f64 = 6.8;
const LINE: f64 = 18.0;
/// Apart for people who do not see all colours alike (Okabe and Ito, 2008), darkest first.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000",
];

pub(super) fn render(plot: &Plot, x: &Axis, y: &Axis) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, plot, x, y);
    out
}

/// Where the inside of the axes lies.
struct Frame<'a> {
    left: f64,
    x: &'a Axis,
    y: &'a Axis,
}

impl Frame<'_> {
    fn bottom(&self) -> f64 {
        HEIGHT - BOTTOM
    }

    fn right(&self) -> f64 {
        self.left + INNER_WIDTH
    }

    fn column(&self, place: f64) -> f64 {
        self.left + place * INNER_WIDTH
    }

    fn row(&self, place: f64) -> f64 {
        self.bottom() - place * (self.bottom() - TOP)
    }

    fn point(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.column(self.x.place(x)?), self.row(self.y.place(y)?)))
    }
}

fn write(out: &mut String, plot: &Plot, x: &Axis, y: &Axis) -> std::fmt::Result {
    let (x_ticks, y_ticks) = (x.ticks(), y.ticks());
    let longest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0) as f64;
    let tick_width = longest(&mut y_ticks.iter().map(|t| t.1.chars().count())) * CHARACTER;
    let names = plot.series.iter().map(|s| s.name.chars().count());
    let name_width = longest(&mut names.clone()) * CHARACTER;
    let legend = if name_width > 0.0 {
        name_width + 44.0
    } else {
        16.0
    };
    let frame = Frame {
        left: 40.0 + tick_width,
        x,
        y,
    };
    let width = frame.right() + legend;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{HEIGHT:.0}\" \
         viewBox=\"0 0 {width:.0} {HEIGHT:.0}\" font-family=\"sans-serif\" font-size=\"12\">"
    )?;
    writeln!(
        out,
        "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
    )?;
    let middle = frame.column(0.5);
    text(out, middle, 21.0, "middle", "font-size=\"14\"", &plot.title)?;
    text(out, middle, HEIGHT - 12.0, "middle", "", &plot.x_label)?;
    let (across, down) = (14.0, frame.row(0.5));
    let turned = format!("transform=\"rotate(-90 {across:.2} {down:.2})\"");
    text(out, across, down, "middle", &turned, &plot.y_label)?;
    for (place, label) in &x_ticks {
        let at = frame.column(*place);
        line(out, (at, TOP), (at, frame.bottom()), "#e4e4e4")?;
        text(out, at, frame.bottom() + 17.0, "middle", "", label)?;
    }
    for (place, label) in &y_ticks {
        let at = frame.row(*place);
        line(out, (frame.left, at), (frame.right(), at), "#e4e4e4")?;
        text(out, frame.left - 6.0, at + 4.0, "end", "", label)?;
    }
    let corner = (frame.left, frame.bottom());
    line(out, (frame.left, TOP), corner, "#444444")?;
    line(out, corner, (frame.right(), frame.bottom()), "#444444")?;
    let mut key = TOP + 8.0;
    for (i, series) in plot.series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        // Colours are used again with another stroke.
        let dash = match i / COLOURS.len() {
            0 => "",
            1 => " stroke-dasharray=\"6 3\"",
            _ => " stroke-dasharray=\"2 3\"",
        };
        draw(out, &frame, series, colour, dash)?;
        if !series.name.is_empty() {
            let (from, to) = (frame.right() + 12.0, frame.right() + 32.0);
            writeln!(
                out,
                "<line class=\"key\" x1=\"{from:.2}\" y1=\"{key:.2}\" x2=\"{to:.2}\" \
                 y2=\"{key:.2}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
            )?;
            text(out, to + 6.0, key + 4.0, "start", "", &series.name)?;
            key += LINE;
        }
    }
    writeln!(out, "</svg>")
}

fn draw(
    out: &mut String,
    frame: &Frame<'_>,
    series: &Series,
    colour: &str,
    dash: &str,
) -> std::fmt::Result {
    let ends = series
        .band
        .iter()
        .filter_map(|&(x, low, high)| Some((frame.point(x, low)?, frame.point(x, high)?)));
    let (low, high): (Vec<_>, Vec<_>) = ends.unzip();
    if low.len() > 1 {
        let around = low.iter().chain(high.iter().rev());
        writeln!(
            out,
            "<polygon points=\"{}\" fill=\"{colour}\" fill-opacity=\"0.18\"/>",
            pairs(around)
        )?;
    }
    let places: Vec<_> = series.line.iter().map(|p| frame.point(p.0, p.1)).collect();
    for part in places.split(Option::is_none) {
        let part: Vec<(f64, f64)> = part.iter().flatten().copied().collect();
        if part.len() > 1 {
            writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" \
                 stroke-linejoin=\"round\"{dash}/>",
                pairs(part.iter())
            )?;
        }
        // A point between two gaps would not be seen otherwise.
        if series.markers || part.len() == 1 {
            for (x, y) in &part {
                writeln!(
                    out,
                    "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"2.8\" fill=\"{colour}\"/>"
                )?;
            }
        }
    }
    Ok(())
}

fn pairs<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> String {
    let texts: Vec<String> = points.map(|(x, y)| format!("{x:.2},{y:.2}")).collect();
    texts.join(" ")
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) -> std::fmt::Result {
    writeln!(
        out,
        "<line x1=\"{:.2}\" y1=\"{:.2}\" x2=\"{:.2}\" y2=\"{:.2}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    )
}

fn text(
    out: &mut String,
    x: f64,
    y: f64,
    anchor: &str,
    more: &str,
    content: &str,
) -> std::fmt::Result {
    let space = if more.is_empty() { "" } else { " " };
    writeln!(
        out,
        "<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\"{space}{more}>{}</text>",
        escaped(content)
    )
}

/// Text that is safe inside an element or attribute of SVG and HTML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // What XML has no place for.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
