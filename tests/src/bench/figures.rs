//! What a run measured, and the spread of values over rounds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Measured values by name, e.g. `plain.ready_ms`; a name ends with its unit. Nothing is averaged before it is compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    /// Notes a single value.
    pub fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), vec![value]);
    }

    /// Notes one more value.
    pub fn add(&mut self, name: &str, value: f64) {
        self.0.entry(name.to_owned()).or_default().push(value);
    }

    /// Takes over what a part of the run measured, as `part.name`.
    pub fn take(&mut self, part: &str, other: Self) {
        self.0.extend(other.0.into_iter().map(|(name, values)| (format!("{part}.{name}"), values)));
    }

    /// The value that a share of all (0 to 1) does not exceed; `None` where nothing was measured.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // an index of a list in memory
    pub fn quantile(&self, name: &str, share: f64) -> Option<f64> {
        let mut sorted = self.0.get(name)?.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        sorted.get((last as f64 * share).round() as usize).copied()
    }

    #[must_use]
    pub fn median(&self, name: &str) -> Option<f64> {
        let values = self.0.get(name)?;
        Some(Spread::of(values)?.median)
    }
}

/// The middle of some values, and between what they lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// `None` of nothing.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.get(sorted.len().checked_sub(1)? / 2)?;
        let other = sorted.get(sorted.len() / 2)?;
        Some(Self { median: f64::midpoint(*middle, *other), low: *sorted.first()?, high: *sorted.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(name: &str, values: impl IntoIterator<Item = i32>) -> Figures {
        Figures([(name.to_owned(), values.into_iter().map(f64::from).collect())].into())
    }

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let figures = figures("x_ms", (1..=101).rev());
        assert_eq!(figures.quantile("x_ms", 0.5), Some(51.0));
        assert_eq!(figures.quantile("x_ms", 0.99), Some(100.0));
        assert_eq!(figures.quantile("y_ms", 0.5), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(figures("x", [4, 1, 3, 2]).median("x"), Some(2.5));
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn parts_keep_their_figures_apart() {
        let mut all = Figures::default();
        all.take("plain", figures("ready_ms", [1]));
        all.take("probed", figures("ready_ms", [2]));
        assert_eq!((all.median("plain.ready_ms"), all.median("probed.ready_ms")), (Some(1.0), Some(2.0)));
    }

    #[test]
    fn they_are_read_as_kbench_prints_them() {
        let figures: Figures = serde_json::from_str(r#"{"ready_ms":[1.5,2]}"#).unwrap();
        assert_eq!(figures.median("ready_ms"), Some(1.75));
    }
}
