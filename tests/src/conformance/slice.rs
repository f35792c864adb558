//! A part of what passes, for CI: chosen by turns, so that after a few runs everything has run.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::lists::Passing;

/// How much longer a test takes than when it was listed, beside others and on a busy machine.
const SLOWER: u64 = 2;
/// What has to run alone, or takes many minutes, by the tags in its name.
const ALONE: [&str; 3] = ["[Serial]", "[Disruptive]", "[Slow]"];

/// Whether a test has to run alone or takes many minutes.
#[must_use]
pub fn alone(name: &str) -> bool {
    ALONE.iter().any(|tag| name.contains(tag))
}

/// The names of the slice whose turn it is. `processes` tests run at a time; together they take about `budget`.
#[must_use]
pub fn choose(passing: &Passing, budget: Duration, processes: u8, turn: u64) -> Vec<String> {
    let mut names: Vec<(&String, u64)> =
        passing.0.iter().filter(|(name, _)| !alone(name)).map(|(n, s)| (n, *s)).collect();
    // Mixed, so that each slice has something of every SIG, and in the same order every time.
    names.sort_by_key(|(name, _)| {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hasher.finish()
    });
    let most = budget.as_secs().saturating_mul(u64::from(processes)) / SLOWER;
    let mut slices: Vec<Vec<String>> = Vec::new();
    let mut cost = u64::MAX;
    for (name, seconds) in names {
        // A second for what a test takes beside what it says.
        let seconds = seconds.saturating_add(1);
        if cost.saturating_add(seconds) > most {
            slices.push(Vec::new());
            cost = 0;
        }
        cost = cost.saturating_add(seconds);
        slices.last_mut().into_iter().for_each(|slice| slice.push(name.clone()));
    }
    let index = usize::try_from(turn).unwrap_or(0).checked_rem(slices.len()).unwrap_or(0);
    slices.into_iter().nth(index).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_few_turns_everything_has_run_once() {
        let mut passing = Passing((0..100).map(|n| (format!("test {n}"), n % 30)).collect());
        passing.0.insert("alone [Serial]".into(), 1);
        let mut seen = Vec::new();
        let mut turn = 0;
        while seen.len() < 100 {
            let slice = choose(&passing, Duration::from_secs(60), 4, turn);
            assert!(!slice.is_empty());
            let cost: u64 = slice.iter().map(|name| passing.0[name] + 1).sum();
            assert!(cost <= 120, "{cost}");
            seen.extend(slice);
            turn += 1;
        }
        assert!(turn > 5);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 100);
        // And then it begins again.
        assert_eq!(choose(&passing, Duration::from_secs(60), 4, turn), choose(&passing, Duration::from_secs(60), 4, 0));
        assert!(choose(&Passing::default(), Duration::from_secs(60), 4, 3).is_empty());
    }
}
