//! A part of what passes, for CI: chosen by turns, so that after a few runs everything has run, and half of it from the SIGs that a
//! change touches.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::lists::{Passing, Reasons};
use super::report::sig;
use super::suite::{Stage, Suite};
use crate::harness::images::checkout;
use crate::harness::shell::output;

/// How much longer a test takes than when it was listed, beside others and on a busy machine.
const SLOWER: u64 = 2;
/// Which SIGs' tests say something about a room. A change of anything else touches none.
const ROOMS: [(&str, &[&str]); 19] = [
    ("agent/", &["sig-node"]),
    ("pod/", &["sig-node"]),
    ("cri/", &["sig-node"]),
    ("probes/", &["sig-node"]),
    ("cgroups/", &["sig-node"]),
    ("streams/", &["sig-node", "sig-cli"]),
    ("volumes/", &["sig-storage"]),
    ("netns/", &["sig-network"]),
    ("proxy/", &["sig-network"]),
    ("cni-plugins/", &["sig-network"]),
    ("api/", &["sig-node", "sig-api-machinery"]),
    ("master/apiserver/", &["sig-api-machinery", "sig-cli", "sig-instrumentation"]),
    ("master/machinery/", &["sig-api-machinery", "sig-cli"]),
    ("master/admission/", &["sig-api-machinery"]),
    ("master/schema/", &["sig-api-machinery"]),
    ("master/store/", &["sig-api-machinery"]),
    ("master/auth/", &["sig-auth"]),
    ("master/controllers/", &["sig-apps", "sig-network"]),
    ("master/scheduler/", &["sig-scheduling"]),
];

/// How much is chosen, and which part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// How long all of it may take.
    pub budget: Duration,
    /// Tests at a time.
    pub processes: u8,
    /// Each turn brings the next part.
    pub turn: u64,
    /// Half of it is of these SIGs.
    pub sigs: BTreeSet<&'static str>,
}

impl Wish {
    /// What this checkout is to run: each commit brings the next part, and its change names the SIGs.
    ///
    /// # Errors
    /// When git does not answer.
    pub fn of_checkout(budget: Duration, processes: u8) -> Result<Self> {
        let said = git(&["rev-list", "--count", "HEAD"])?;
        let turn = said.trim().parse().with_context(|| format!("git rev-list --count says {said:?}"))?;
        Ok(Self { budget, processes, turn, sigs: sigs(&changed()) })
    }
}

/// The names of the slice that is wished for.
#[must_use]
pub fn choose(passing: &Passing, unsteady: &Reasons, wish: &Wish) -> Vec<String> {
    let steady: BTreeMap<&str, u64> = passing
        .0
        .iter()
        .filter(|(name, _)| Stage::of(Suite::Conformance, name) == Stage::Parallel && !unsteady.0.contains_key(*name))
        .map(|(name, seconds)| (name.as_str(), *seconds))
        .collect();
    let most = wish.budget.as_secs().saturating_mul(u64::from(wish.processes)) / SLOWER;
    let touched: BTreeMap<&str, u64> =
        steady.iter().filter(|(name, _)| wish.sigs.contains(sig(name))).map(|(n, s)| (*n, *s)).collect();
    if touched.is_empty() {
        return part(&steady, most, wish.turn).into_iter().map(str::to_owned).collect();
    }
    let mut names: BTreeSet<&str> = part(&touched, most / 2, wish.turn).into_iter().collect();
    names.extend(part(&steady, most / 2, wish.turn));
    names.into_iter().map(str::to_owned).collect()
}

/// The part whose turn it is, when all is cut into parts of at most so many seconds.
fn part<'a>(tests: &BTreeMap<&'a str, u64>, most: u64, turn: u64) -> Vec<&'a str> {
    let mut mixed: Vec<(&str, u64)> = tests.iter().map(|(name, seconds)| (*name, *seconds)).collect();
    // Mixed, so that each part has something of every SIG, and in the same order every time.
    mixed.sort_by_key(|(name, _)| {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hasher.finish()
    });
    let mut parts: Vec<Vec<&str>> = Vec::new();
    let mut cost = u64::MAX;
    for (name, seconds) in mixed {
        // A second for what a test takes beside what it says.
        let seconds = seconds.saturating_add(1);
        if cost.saturating_add(seconds) > most {
            parts.push(Vec::new());
            cost = 0;
        }
        cost = cost.saturating_add(seconds);
        parts.last_mut().into_iter().for_each(|part| part.push(name));
    }
    let index = usize::try_from(turn).unwrap_or(0).checked_rem(parts.len()).unwrap_or(0);
    parts.into_iter().nth(index).unwrap_or_default()
}

/// The SIGs of the rooms that these files are in.
fn sigs(files: &[String]) -> BTreeSet<&'static str> {
    let rooms = ROOMS.iter().filter(|(room, _)| files.iter().any(|file| file.starts_with(room)));
    rooms.flat_map(|(_, sigs)| sigs.iter().copied()).collect()
}

/// The files that differ from what this change goes into; where that is not known, from the commit before. None where there is no such
/// commit, as in a shallow clone.
fn changed() -> Vec<String> {
    let head = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    let base = git(&["merge-base", "HEAD", "origin/main"]).ok().filter(|base| *base != head);
    let base = base.as_deref().map_or("HEAD~1", str::trim);
    let said = git(&["diff", "--name-only", base, "HEAD"]).unwrap_or_default();
    said.lines().map(str::to_owned).collect()
}

fn git(arguments: &[&str]) -> Result<String> {
    output(Command::new("git").current_dir(checkout()).args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(turn: u64, sigs: &[&'static str]) -> Wish {
        Wish { budget: Duration::from_secs(60), processes: 4, turn, sigs: sigs.iter().copied().collect() }
    }

    #[test]
    fn after_a_few_turns_everything_steady_has_run_once() {
        let mut passing = Passing((0..100).map(|n| (format!("test {n}"), n % 30)).collect());
        passing.0.insert("alone [Serial]".into(), 1);
        passing.0.insert("now and then".into(), 1);
        let unsteady = Reasons([("now and then".to_owned(), "waits for others".to_owned())].into());
        let mut seen = Vec::new();
        let mut turn = 0;
        while seen.len() < 100 {
            let slice = choose(&passing, &unsteady, &wish(turn, &["sig-node"]));
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
        let choose = |turn| choose(&passing, &unsteady, &wish(turn, &[]));
        assert_eq!(choose(turn), choose(0));
        assert!(super::choose(&Passing::default(), &unsteady, &wish(3, &[])).is_empty());
    }

    #[test]
    fn half_is_of_the_sigs_that_a_change_touches() {
        let name = |n: u64| format!("[sig-{}] test {n}", if n < 10 { "network" } else { "node" });
        let passing = Passing((0..200).map(|n| (name(n), 2)).collect());
        for turn in 0..3 {
            let slice = choose(&passing, &Reasons::default(), &wish(turn, &["sig-network"]));
            assert_eq!(slice.iter().filter(|name| sig(name) == "sig-network").count(), 10, "turn {turn}");
            assert!(slice.len() > 20 && slice.len() <= 40, "{}", slice.len());
        }
    }

    #[test]
    fn files_name_their_sigs() {
        let sigs = |files: &[&str]| sigs(&files.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
        assert_eq!(sigs(&["proxy/src/lib.rs", "agent/src/main.rs", "README.md"]), ["sig-network", "sig-node"].into());
        assert!(sigs(&["docs/adr/1.md"]).is_empty());
        for (room, _) in ROOMS {
            assert!(checkout().join(room).is_dir(), "{room}");
        }
    }
}
