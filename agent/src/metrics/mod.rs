//! What is counted between two looks at `/metrics`, under a kubelet's names. What can be told from the state of the node is not counted
//! but read when somebody asks (`stats/kubelet.rs`).
//!
//! Counts are of the process, as `/metrics` is: so the families are statics ([`families`]), and whoever has something to count needs
//! nothing but their name. A series takes a few dozen bytes once it was counted in; nothing runs while nobody counts.

mod cgroups;
pub mod families;
pub mod proxy;
mod runtime;
mod start;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::exposition::{Text, Type, float};
pub use cgroups::TimedCgroups;
pub use runtime::RuntimeCalls;
pub use start::{PodStart, Pulls};

/// The values of a series' labels.
pub type Values<const N: usize> = [Cow<'static, str>; N];

/// The head of a family.
#[derive(Debug)]
struct Head<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
}

impl<const N: usize> Head<N> {
    fn pairs<'a>(&self, values: &'a Values<N>) -> Vec<(&'static str, &'a str)> {
        self.labels.iter().copied().zip(values.iter().map(AsRef::as_ref)).collect()
    }
}

/// Counts that only grow.
#[derive(Debug)]
pub struct Counter<const N: usize> {
    head: Head<N>,
    series: Mutex<BTreeMap<Values<N>, u64>>,
}

impl<const N: usize> Counter<N> {
    /// A family in which nothing was counted.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self { head: Head { name, help, labels }, series: Mutex::new(BTreeMap::new()) }
    }

    /// Counts one.
    pub fn count(&self, labels: Values<N>) {
        let mut series = lock(&self.series);
        let count = series.entry(labels).or_default();
        *count = count.saturating_add(1);
    }

    /// Forgets series of what is no more.
    pub fn forget(&self, gone: impl Fn(&Values<N>) -> bool) {
        lock(&self.series).retain(|labels, _| !gone(labels));
    }

    /// Writes the family.
    pub fn write(&self, text: &mut Text) {
        text.family(self.head.name, Type::Counter, self.head.help);
        let series = lock(&self.series);
        for (labels, count) in series.iter() {
            text.sample(&self.head.pairs(labels), float(*count));
        }
        // Without labels there is one series, which is there from the start.
        if N == 0 && series.is_empty() {
            text.sample(&[], 0.0);
        }
    }
}

/// What was seen last.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    help: &'static str,
    value: Mutex<Option<f64>>,
}

impl Gauge {
    /// Nothing was seen: infinite.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, value: Mutex::new(None) }
    }

    /// It is this now.
    pub fn set(&self, value: f64) {
        *lock(&self.value) = Some(value);
    }

    /// Writes it, unless nothing was seen: then there is no such family.
    pub fn write_if_seen(&self, text: &mut Text) {
        if let Some(value) = *lock(&self.value) {
            text.single(self.name, Type::Gauge, self.help, value);
        }
    }

    /// The same for each value of a label.
    pub fn write_for(&self, text: &mut Text, label: &str, values: &[&str]) {
        let Some(seen) = *lock(&self.value) else { return };
        text.family(self.name, Type::Gauge, self.help);
        for value in values {
            text.sample(&[(label, value)], seen);
        }
    }

    /// Writes what `figure` makes of it.
    pub fn write(&self, text: &mut Text, figure: impl FnOnce(f64) -> f64) {
        let value = lock(&self.value).map_or(f64::INFINITY, figure);
        text.single(self.name, Type::Gauge, self.help, value);
    }
}

/// How long things took.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    head: Head<N>,
    /// Upper bounds, ascending, in seconds where the name says nothing else; what is above all of them is in `+Inf`.
    bounds: &'static [f64],
    series: Mutex<BTreeMap<Values<N>, Series>>,
}

#[derive(Debug)]
struct Series {
    /// How many were at most as long as each bound, and longer than the one before; the last are above all.
    buckets: Box<[u64]>,
    sum: f64,
}

impl<const N: usize> Histogram<N> {
    /// A family in which nothing was observed.
    #[must_use]
    pub const fn new(
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64],
        labels: [&'static str; N],
    ) -> Self {
        Self { head: Head { name, help, labels }, bounds, series: Mutex::new(BTreeMap::new()) }
    }

    /// Something took that long.
    pub fn observe(&self, labels: Values<N>, took: Duration) {
        self.record(labels, took.as_secs_f64());
    }

    /// The same for other units.
    pub fn record(&self, labels: Values<N>, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let empty = || Series { buckets: vec![0; self.bounds.len() + 1].into(), sum: 0.0 };
        let mut series = lock(&self.series);
        let series = series.entry(labels).or_insert_with(empty);
        if let Some(count) = series.buckets.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        series.sum += value;
    }

    /// Forgets series of what is no more.
    pub fn forget(&self, gone: impl Fn(&Values<N>) -> bool) {
        lock(&self.series).retain(|labels, _| !gone(labels));
    }

    /// Writes the family.
    pub fn write(&self, text: &mut Text) {
        text.family(self.head.name, Type::Histogram, self.head.help);
        for (labels, series) in lock(&self.series).iter() {
            let pairs = self.head.pairs(labels);
            let mut below = 0_u64;
            let bounds = self.bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(&series.buckets) {
                below = below.saturating_add(*count);
                let with_bound: Vec<_> = pairs.iter().copied().chain([("le", bound.as_str())]).collect();
                text.part("_bucket", &with_bound, float(below));
            }
            text.part("_sum", &pairs, series.sum);
            text.part("_count", &pairs, float(below));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_written_as_prometheus_reads_them() {
        let counter = Counter::new("a_total", "All of a.", ["x"]);
        let mut text = Text::default();
        counter.write(&mut text);
        counter.count(["1".into()]);
        counter.count(["2".into()]);
        counter.count(["2".into()]);
        counter.write(&mut text);
        counter.forget(|[x]| x == "1");
        counter.write(&mut text);
        Counter::new("b_total", "B.", []).write(&mut text);
        let head = "# HELP a_total All of a.\n# TYPE a_total counter\n";
        let expected = format!(
            "{head}a_total{{x=\"1\"}} 1\na_total{{x=\"2\"}} 2\n{head}a_total{{x=\"2\"}} 2\n\
             # HELP b_total B.\n# TYPE b_total counter\nb_total 0\n"
        );
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn histograms_count_upwards() {
        let histogram = Histogram::new("h_seconds", "H.", &[0.5, 1.0], ["x"]);
        for millis in [500, 750, 3000] {
            histogram.observe(["y".into()], Duration::from_millis(millis));
        }
        let mut text = Text::default();
        histogram.write(&mut text);
        let expected = "# HELP h_seconds H.\n# TYPE h_seconds histogram\nh_seconds_bucket{x=\"y\",le=\"0.5\"} 1\n\
                        h_seconds_bucket{x=\"y\",le=\"1\"} 2\nh_seconds_bucket{x=\"y\",le=\"+Inf\"} 3\n\
                        h_seconds_sum{x=\"y\"} 4.25\nh_seconds_count{x=\"y\"} 3\n";
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn what_was_never_seen_is_infinitely_far() {
        let gauge = Gauge::new("g_seconds", "g.");
        let told = |gauge: &Gauge| {
            let mut text = Text::default();
            gauge.write(&mut text, |end| end - 100.0);
            text.into_string()
        };
        let mut text = Text::default();
        gauge.write_if_seen(&mut text);
        assert_eq!(text.into_string(), "");
        assert!(told(&gauge).ends_with("\ng_seconds +Inf\n"));
        gauge.set(130.0);
        assert!(told(&gauge).ends_with("\ng_seconds 30\n"));
    }
}
