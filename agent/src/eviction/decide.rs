//! Which shortages there are, how long they have lasted, and what the node says of itself. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::threshold::{Pressure, Signal, Threshold};

/// What there is and what of it is free: bytes, inodes or threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    pub available: u64,
    pub capacity: u64,
}

/// Of each signal that could be observed.
pub type Observations = BTreeMap<Signal, Observation>;

/// What is remembered from one look to the next. Thresholds are named by their place in the list.
#[derive(Debug, Default)]
pub struct State {
    /// Since when each shortage lasts.
    first: BTreeMap<usize, Instant>,
    /// Shortages whose grace has passed, and that are not over.
    met: BTreeSet<usize>,
    /// When each kind of pressure was seen last.
    pressed: BTreeMap<Pressure, Instant>,
}

/// What follows from a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What the node says of itself.
    pub pressures: BTreeSet<Pressure>,
    /// Shortages that something must be done about, the most urgent first.
    pub act: Vec<usize>,
}

impl State {
    /// Takes in a look. `transition` is how long a pressure is told of after it was seen last.
    pub fn look(
        &mut self,
        thresholds: &[Threshold],
        observations: &Observations,
        transition: Duration,
        now: Instant,
    ) -> Verdict {
        let mut short = shortages(thresholds, observations, false);
        let unresolved = shortages(thresholds, observations, true);
        short.extend(self.met.intersection(&unresolved));
        self.first.retain(|index, _| short.contains(index));
        for index in &short {
            self.first.entry(*index).or_insert(now);
            if let Some(threshold) = thresholds.get(*index) {
                self.pressed.insert(threshold.signal.pressure(), now);
            }
        }
        self.pressed.retain(|_, at| now.duration_since(*at) < transition || *at == now);
        let lasting = |index: &usize, since: &Instant| {
            thresholds.get(*index).is_some_and(|threshold| now.duration_since(*since) >= threshold.grace)
        };
        self.met = self.first.iter().filter(|(index, since)| lasting(index, since)).map(|(index, _)| *index).collect();
        let mut act: Vec<usize> = self.met.iter().copied().collect();
        act.sort_by_key(|index| thresholds.get(*index).map(|threshold| (threshold.signal, threshold.grace)));
        Verdict { pressures: self.pressed.keys().copied().collect(), act }
    }
}

/// The thresholds that are fallen short of; with `reclaim`, also those whose minimum was not reclaimed yet.
#[must_use]
pub fn shortages(thresholds: &[Threshold], observations: &Observations, reclaim: bool) -> BTreeSet<usize> {
    let short = |threshold: &Threshold| {
        let Some(observed) = observations.get(&threshold.signal) else { return false };
        let mut wanted = threshold.value.of(observed.capacity);
        if let Some(more) = threshold.min_reclaim.filter(|_| reclaim) {
            wanted = wanted.plus(&more.of(observed.capacity));
        }
        wanted > threshold.signal.quantity(observed.available)
    };
    thresholds.iter().enumerate().filter(|(_, threshold)| short(threshold)).map(|(index, _)| index).collect()
}

/// Whether less of a disk is free than has to be, and there is enough of all else. Soft thresholds can wait.
#[must_use]
pub fn only_disks_are_short(thresholds: &[Threshold], observations: &Observations) -> bool {
    let short = shortages(thresholds, observations, true);
    let hard = short.iter().filter_map(|index| thresholds.get(*index)).filter(|threshold| threshold.is_hard());
    let mut signals = hard.map(|threshold| threshold.signal).peekable();
    signals.peek().is_some() && signals.all(|signal| signal.pressure() == Pressure::Disk)
}

/// How soon to look again: often when something is nearly short, as memory can be gone within seconds.
#[must_use]
pub fn next_look(thresholds: &[Threshold], observations: &Observations, usual: Duration, near: Duration) -> Duration {
    let close = thresholds.iter().any(|threshold| {
        let Some(observed) = observations.get(&threshold.signal) else { return false };
        let wanted = u64::try_from(threshold.value.of(observed.capacity).value()).unwrap_or(0);
        let margin = wanted.saturating_add(observed.capacity / 20);
        threshold.signal.pressure() == Pressure::Memory && observed.available < margin
    });
    if close { near } else { usual }
}

#[cfg(test)]
mod tests {
    use super::super::threshold::Amount;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn threshold(signal: Signal, value: i64, grace: u64, reclaim: i64) -> Threshold {
        let amount =
            |value: i64| Amount::Quantity(api::quantity::Quantity::new(value, api::quantity::Format::BinarySi));
        Threshold {
            signal,
            value: amount(value),
            grace: Duration::from_secs(grace),
            min_reclaim: (reclaim > 0).then(|| amount(reclaim)),
        }
    }

    fn seen(pairs: &[(Signal, u64)]) -> Observations {
        pairs
            .iter()
            .map(|(signal, available)| (*signal, Observation { available: *available, capacity: 1000 }))
            .collect()
    }

    #[test]
    fn a_disk_is_short_until_its_minimum_was_reclaimed() {
        let thresholds = [threshold(Signal::Memory, 100, 0, 0), threshold(Signal::NodeFs, 100, 0, 50)];
        let short = |memory, disk| {
            only_disks_are_short(&thresholds, &seen(&[(Signal::Memory, memory), (Signal::NodeFs, disk)]))
        };
        assert_eq!([short(100, 150), short(100, 149), short(100, 99), short(99, 99)], [false, true, true, false]);
    }

    #[test]
    fn a_hard_threshold_acts_at_once_and_a_soft_one_after_its_grace() {
        let thresholds = [threshold(Signal::Memory, 100, 0, 0), threshold(Signal::Memory, 200, 10, 0)];
        let (mut state, start) = (State::default(), Instant::now());
        let mut look = |available, second| {
            let verdict =
                state.look(&thresholds, &seen(&[(Signal::Memory, available)]), SECOND, start + second * SECOND);
            (verdict.act, verdict.pressures.len())
        };
        assert_eq!(look(500, 0), (vec![], 0));
        assert_eq!(look(150, 10), (vec![], 1), "the node says so before anything is done");
        assert_eq!(look(150, 15), (vec![], 1));
        assert_eq!(look(150, 20), (vec![1], 1));
        assert_eq!(look(90, 21), (vec![0, 1], 1));
        assert_eq!(look(500, 30), (vec![], 0));
        assert_eq!(look(150, 31), (vec![], 1), "the grace begins anew");
    }

    #[test]
    fn a_shortage_is_over_when_the_minimum_is_reclaimed_and_the_pressure_after_its_transition() {
        let thresholds = [threshold(Signal::NodeFs, 100, 0, 50)];
        let (mut state, start) = (State::default(), Instant::now());
        let mut look = |available, second| {
            let verdict =
                state.look(&thresholds, &seen(&[(Signal::NodeFs, available)]), 300 * SECOND, start + second * SECOND);
            (verdict.act.len(), verdict.pressures.contains(&Pressure::Disk))
        };
        assert_eq!(look(120, 0), (0, false), "the minimum counts only once the threshold was met");
        assert_eq!(look(90, 1), (1, true));
        assert_eq!(look(120, 2), (1, true));
        assert_eq!(look(150, 3), (0, true));
        assert_eq!(look(150, 301), (0, true));
        assert_eq!(look(150, 302), (0, false));
    }

    #[test]
    fn memory_comes_first_and_what_was_not_observed_is_no_shortage() {
        let thresholds = [threshold(Signal::Pid, 100, 0, 0), threshold(Signal::Memory, 100, 0, 0)];
        let verdict =
            State::default().look(&thresholds, &seen(&[(Signal::Pid, 1), (Signal::Memory, 1)]), SECOND, Instant::now());
        assert_eq!(verdict.act, [1, 0]);
        assert_eq!(verdict.pressures, [Pressure::Memory, Pressure::Pid].into());
        assert!(shortages(&thresholds, &Observations::new(), false).is_empty());
    }

    #[test]
    fn memory_that_is_nearly_short_is_watched_closely() {
        let thresholds = [threshold(Signal::Memory, 100, 0, 0)];
        let pause = |available| next_look(&thresholds, &seen(&[(Signal::Memory, available)]), 10 * SECOND, SECOND);
        assert_eq!((pause(151), pause(149)), (10 * SECOND, SECOND));
    }
}
