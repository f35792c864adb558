//! How much is measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts and times of one run of a section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Of each shape, one by one.
    pub pods: u32,
    /// Pods at once.
    pub burst: u32,
    /// Pods that come and go while memory is watched.
    pub flat: u32,
    /// For how long idle processes are watched.
    pub watch: Duration,
    /// Objects written and read by one client, and by many.
    pub objects: (u32, u32),
    pub clients: u32,
    /// Objects that a list has.
    pub listed: u32,
    /// Watchers of one object: few and many.
    pub watchers: (u32, u32),
    /// Objects that they are sent.
    pub events: (u32, u32),
    pub hollow_nodes: u32,
    pub scheduled: u32,
    /// Services beside the one that is changed: few and many.
    pub services: (u32, u32),
    /// Changes of it.
    pub changes: u32,
    /// Calls of each CNI plugin.
    pub calls: u32,
}

impl Sizes {
    /// What docs/benchmarks.md has: three rounds of it take about half an hour.
    #[must_use]
    pub fn full() -> Self {
        Self {
            pods: 6,
            burst: 110,
            flat: 1000,
            watch: Duration::from_secs(15),
            objects: (500, 3000),
            clients: 64,
            listed: 10_000,
            watchers: (100, 1000),
            events: (100, 30),
            hollow_nodes: 1000,
            scheduled: 3000,
            services: (1000, 10_000),
            changes: 4,
            calls: 20,
        }
    }

    /// For work on the benches themselves: shows that everything runs, and says nothing about speed.
    #[must_use]
    pub fn small() -> Self {
        Self {
            pods: 2,
            burst: 8,
            flat: 24,
            watch: Duration::from_secs(2),
            objects: (20, 100),
            clients: 8,
            listed: 200,
            watchers: (10, 30),
            events: (5, 5),
            hollow_nodes: 20,
            scheduled: 60,
            services: (30, 100),
            changes: 2,
            calls: 3,
        }
    }

    /// A row's words with these counts in the place of their names in braces.
    #[must_use]
    pub fn say(&self, words: &str) -> String {
        let counts = [
            ("{burst}", self.burst),
            ("{flat}", self.flat),
            ("{clients}", self.clients),
            ("{listed}", self.listed),
            ("{few watchers}", self.watchers.0),
            ("{many watchers}", self.watchers.1),
            ("{hollow nodes}", self.hollow_nodes),
            ("{scheduled}", self.scheduled),
            ("{few services}", self.services.0),
            ("{many services}", self.services.1),
        ];
        let start = words.to_owned();
        counts.iter().fold(start, |said, (name, count)| said.replace(name, &thousands(&count.to_string())))
    }
}

/// `10000` as `10,000`.
#[must_use]
pub fn thousands(digits: &str) -> String {
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_said_with_the_counts_of_the_run() {
        assert_eq!(Sizes::full().say("list of {listed} objects"), "list of 10,000 objects");
        assert_eq!(Sizes::small().say("{burst} pods"), "8 pods");
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(["1", "999", "1000", "1234567"].map(thousands), ["1", "999", "1,000", "1,234,567"]);
    }
}
