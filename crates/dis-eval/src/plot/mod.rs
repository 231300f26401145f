//! Line plots as SVG: axes with ticks, a legend, logarithmic axes, bands of uncertainty.
//!
//! ```
//! use dis_eval::plot::Plot;
//!
//! let svg = Plot::new("Training", "step", "loss")
//!     .line("patch 2", &[(10.0, 0.9), (100.0, 0.4), (1000.0, 0.2)])
//!     .band(&[(10.0, 0.8, 1.0), (100.0, 0.35, 0.45), (1000.0, 0.18, 0.22)])
//!     .line("patch 4", &[(10.0, 0.95), (100.0, 0.6), (1000.0, 0.4)])
//!     .log_x()
//!     .to_svg();
//! assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
//! ```

mod axis;
mod svg;

use axis::{Axis, Scale};
pub use svg::escaped;

/// A plot in the making. The same calls give the same bytes.
#[derive(Clone, Debug)]
pub struct Plot {
    title: String,
    x_label: String,
    y_label: String,
    x_scale: Scale,
    y_scale: Scale,
    series: Vec<Series>,
}

/// What has one colour.
#[derive(Clone, Debug, Default)]
struct Series {
    name: String,
    line: Vec<(f64, f64)>,
    band: Vec<(f64, f64, f64)>,
    markers: bool,
}

impl Plot {
    /// An empty plot. Labels should say units.
    pub fn new(title: &str, x_label: &str, y_label: &str) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            series: Vec::new(),
        }
    }

    /// Adds a line through points (x, y). Points that are not finite, or not positive on a
    /// logarithmic axis, leave a gap. An empty name is not in the legend.
    #[must_use]
    pub fn line(mut self, name: &str, points: &[(f64, f64)]) -> Self {
        self.series.push(Series {
            name: name.into(),
            line: points.to_vec(),
            ..Series::default()
        });
        self
    }

    /// As [`Plot::line`], with a dot at every point.
    #[must_use]
    pub fn dotted_line(mut self, name: &str, points: &[(f64, f64)]) -> Self {
        self = self.line(name, points);
        if let Some(last) = self.series.last_mut() {
            last.markers = true;
        }
        self
    }

    /// Shades (x, low, high) in the colour of the line before it.
    #[must_use]
    pub fn band(mut self, band: &[(f64, f64, f64)]) -> Self {
        if self.series.is_empty() {
            self.series.push(Series::default());
        }
        if let Some(last) = self.series.last_mut() {
            last.band = band.to_vec();
        }
        self
    }

    /// Makes the horizontal axis logarithmic.
    #[must_use]
    pub fn log_x(mut self) -> Self {
        self.x_scale = Scale::Log;
        self
    }

    /// Makes the vertical axis logarithmic.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.y_scale = Scale::Log;
        self
    }

    /// The text of an SVG file.
    pub fn to_svg(&self) -> String {
        svg::render(self, &self.x_axis(), &self.y_axis())
    }

    fn x_axis(&self) -> Axis {
        let lines = self.series.iter().flat_map(|s| s.line.iter().map(|p| p.0));
        let bands = self.series.iter().flat_map(|s| s.band.iter().map(|p| p.0));
        Axis::over(lines.chain(bands), self.x_scale, false)
    }

    fn y_axis(&self) -> Axis {
        let lines = self.series.iter().flat_map(|s| s.line.iter().map(|p| p.1));
        let bands = self.series.iter().flat_map(|s| s.band.iter());
        Axis::over(
            lines.chain(bands.flat_map(|p| [p.1, p.2])),
            self.y_scale,
            true,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of an attribute of every element that has it.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let key = format!(" {attribute}=\"");
        svg.split(&key)
            .skip(1)
            .filter_map(|rest| rest.split('"').next()?.parse().ok())
            .collect()
    }

    #[test]
    fn marks_lie_where_the_axes_say() {
        let points: Vec<(f64, f64)> = (0..=10).map(|i| (f64::from(i), f64::from(i * i))).collect();
        let svg = Plot::new("t", "x", "y").dotted_line("a", &points).to_svg();
        let (x, y) = (numbers(&svg, "cx"), numbers(&svg, "cy"));
        assert_eq!((x.len(), y.len()), (11, 11));
        for i in 0..=10 {
            let share = i as f64 / 10.0;
            assert!((x[i] - x[0] - share * (x[10] - x[0])).abs() < 0.02);
            let share = share * share;
            assert!((y[i] - y[0] - share * (y[10] - y[0])).abs() < 0.02);
        }
        // Down is larger in SVG.
        assert!(y[10] < y[0]);
    }

    #[test]
    fn powers_are_evenly_spread_on_a_logarithmic_axis() {
        let points = [(1.0, 1e-3), (10.0, 1e-1), (100.0, 10.0)];
        let plot = Plot::new("t", "x", "y").dotted_line("", &points);
        let svg = plot.log_x().log_y().to_svg();
        let (x, y) = (numbers(&svg, "cx"), numbers(&svg, "cy"));
        assert!((2.0 * x[1] - x[0] - x[2]).abs() < 0.02, "{x:?}");
        assert!((2.0 * y[1] - y[0] - y[2]).abs() < 0.02, "{y:?}");
    }

    #[test]
    fn gaps_stay_gaps_and_nothing_is_not_finite() {
        let points = [
            (0.0, 1.0),
            (1.0, 2.0),
            (2.0, f64::NAN),
            (3.0, 3.0),
            (4.0, 5.0),
        ];
        let svg = Plot::new("t", "x", "y").line("a", &points).to_svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        let svg = Plot::new("t", "x", "y").line("a", &points).log_x().to_svg();
        assert_eq!(svg.matches("<polyline").count(), 1);
        let odd = [
            Plot::new("", "", "").to_svg(),
            Plot::new("", "", "").log_x().log_y().to_svg(),
            Plot::new("", "", "").line("a", &[]).band(&[]).to_svg(),
            Plot::new("", "", "").line("a", &[(5.0, 5.0)]).to_svg(),
            Plot::new("", "", "")
                .band(&[(0.0, 1.0, 2.0), (1.0, f64::INFINITY, 3.0)])
                .to_svg(),
            Plot::new("", "", "")
                .line("a", &[(-1e300, 1e300), (1e300, -1e300)])
                .to_svg(),
        ];
        for svg in odd {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn names_are_escaped_and_in_the_legend() {
        let svg = Plot::new("a < b & c", "\"x\"", "y")
            .line("p<2>", &[(0.0, 0.0), (1.0, 1.0)])
            .line("", &[(0.0, 1.0), (1.0, 0.0)])
            .to_svg();
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("p&lt;2&gt;"));
        assert!(svg.contains("&quot;x&quot;"));
        assert_eq!(svg.matches("class=\"key\"").count(), 1);
        assert_eq!(svg.matches("<polyline").count(), 2);
    }

    #[test]
    fn a_band_is_one_closed_shape() {
        let band = [(0.0, 1.0, 2.0), (1.0, 1.5, 3.0), (2.0, 2.0, 4.0)];
        let svg = Plot::new("t", "x", "y").line("a", &[]).band(&band).to_svg();
        let points = svg.split("<polygon points=\"").nth(1).unwrap();
        let points = points.split('"').next().unwrap();
        assert_eq!(points.split(' ').count(), 6);
    }
}
