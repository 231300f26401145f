//! Ranges and ticks.

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// In proportion.
    Linear,
    /// By their logarithm.
    Log,
}

/// The values that an axis shows.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    scale: Scale,
    /// Ends, as the scale sees them (logarithms to the base ten on a logarithmic one).
    low: f64,
    high: f64,
}

/// About as many ticks as there are on an axis.
const TICKS: f64 = 6.0;
/// Values beyond this are left out: differences of larger ones overflow.
const LARGEST: f64 = 1e300;

impl Axis {
    /// An axis over all of `values` that can be shown, with some room beyond them if `loose`.
    pub fn over(values: impl Iterator<Item = f64>, scale: Scale, loose: bool) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        let axis = Self {
            scale,
            low: 0.0,
            high: 1.0,
        };
        for v in values.filter_map(|v| axis.transform(v)) {
            (low, high) = (low.min(v), high.max(v));
        }
        if low > high {
            return axis;
        }
        let span = high - low;
        let room = match () {
            () if span <= 1e-12 * low.abs().max(high.abs()) => 0.5 * low.abs().max(1.0),
            () if loose => 0.04 * span,
            () => 0.0,
        };
        // Room must not suggest negative values where there are none.
        let floor = scale == Scale::Linear && low >= 0.0;
        Self {
            scale,
            low: if floor {
                (low - room).max(0.0)
            } else {
                low - room
            },
            high: high + room,
        }
    }

    fn transform(&self, value: f64) -> Option<f64> {
        match self.scale {
            Scale::Linear => (value.abs() <= LARGEST).then_some(value),
            Scale::Log => (value > 0.0 && value <= LARGEST).then(|| value.log10()),
        }
    }

    /// Where a value is: 0 at the low end, 1 at the high one. `None` if it cannot be shown.
    pub fn place(&self, value: f64) -> Option<f64> {
        Some((self.transform(value)? - self.low) / (self.high - self.low))
    }

    /// Ticks inside the range: place and label.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let values = match self.scale {
            Scale::Linear => self.even(),
            Scale::Log => self.powers(),
        };
        let inside = |value: &f64| {
            let place = self.place(*value);
            place.filter(|p| (-1e-9..=1.0 + 1e-9).contains(p))
        };
        values
            .iter()
            .filter_map(|v| Some((inside(v)?, label(*v))))
            .collect()
    }

    /// Multiples of 1, 2 or 5 times a power of ten.
    fn even(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / TICKS;
        let power = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        let step = steps.into_iter().find(|s| *s >= rough).unwrap_or(power);
        let first = (self.low / step - 1e-9).ceil();
        let count = ((self.high - self.low) / step).floor().clamp(0.0, 20.0) as usize;
        (0..=count + 1)
            .map(|i| {
                let multiple = first + i as f64;
                // Not -0.
                if multiple == 0.0 {
                    0.0
                } else {
                    multiple * step
                }
            })
            .collect()
    }

    /// Powers of ten; over few decades also 2 and 5 times these, over many every few.
    fn powers(&self) -> Vec<f64> {
        let decades = self.high - self.low;
        if decades < 0.7 {
            // Within a decade ticks as on a linear axis are the readable ones.
            return Self {
                scale: Scale::Linear,
                low: 10f64.powf(self.low),
                high: 10f64.powf(self.high),
            }
            .even();
        }
        let every = (decades / 10.0).ceil().max(1.0) as i32;
        let factors: &[f64] = if decades < 2.5 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        (first..=last)
            .filter(|p| p.rem_euclid(every) == 0)
            .flat_map(|p| factors.iter().map(move |f| f * 10f64.powi(p)))
            .collect()
    }
}

/// A short text of a tick's value.
fn label(value: f64) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-3..1e5).contains(&size) {
        let text = format!("{value:.2e}");
        // 2.00e5 as 2e5, 2.50e5 as 2.5e5.
        return match text.split_once('e') {
            Some((number, power)) => format!("{}e{power}", shortened(number)),
            None => text,
        };
    }
    shortened(&format!("{value:.4}")).to_string()
}

/// Without zeros at the end of a fraction.
fn shortened(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, scale: Scale) -> Vec<String> {
        let axis = Axis::over([low, high].into_iter(), scale, false);
        axis.ticks().into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside() {
        assert_eq!(
            labels(0.0, 10.0, Scale::Linear),
            ["0", "2", "4", "6", "8", "10"]
        );
        assert_eq!(
            labels(-0.12, 0.31, Scale::Linear),
            ["-0.1", "0", "0.1", "0.2", "0.3"]
        );
        assert_eq!(
            labels(0.0, 300_000.0, Scale::Linear),
            ["0", "50000", "1e5", "1.5e5", "2e5", "2.5e5", "3e5"]
        );
        assert_eq!(labels(1.0, 1000.0, Scale::Log), ["1", "10", "100", "1000"]);
        assert_eq!(labels(3.0, 60.0, Scale::Log), ["5", "10", "20", "50"]);
        assert_eq!(
            labels(1e-6, 1e6, Scale::Log),
            ["1e-6", "1e-4", "0.01", "1", "100", "10000", "1e6"]
        );
    }

    #[test]
    fn ticks_are_in_order_and_in_range() {
        for (low, high) in [(1e-30, 1e30), (3.1, 3.2), (-5e200, 7e200), (999.0, 1001.0)] {
            for scale in [Scale::Linear, Scale::Log] {
                let axis = Axis::over([low, high].into_iter(), scale, true);
                let ticks = axis.ticks();
                assert!(ticks.len() < 25, "{low} {high}: {}", ticks.len());
                assert!(ticks.windows(2).all(|w| w[0].0 < w[1].0));
                assert!(ticks.iter().all(|t| (-1e-6..=1.0 + 1e-6).contains(&t.0)));
            }
        }
    }

    #[test]
    fn room_never_goes_below_zero_for_positive_values() {
        let axis = Axis::over([0.0, 5.0].into_iter(), Scale::Linear, true);
        assert_eq!(axis.place(0.0), Some(0.0));
        assert!(axis.place(5.0).is_some_and(|p| p < 1.0));
        assert_eq!(axis.place(f64::NAN), None);
    }
}
