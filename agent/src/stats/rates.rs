//! CPU use of the moment: the difference of two looks. The earlier one is whatever was seen when somebody last asked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::sample::{Sample, Used};

/// Looks that are closer together tell nothing useful.
const SHORTEST: Duration = Duration::from_millis(100);
/// After this long it is no longer the moment.
const LONGEST: Duration = Duration::from_secs(120);

/// CPU times as they were, by cgroup.
#[derive(Debug, Default)]
pub struct Rates {
    before: Option<Look>,
    latest: Option<Look>,
}

#[derive(Debug)]
struct Look {
    at: Instant,
    usage: HashMap<String, u64>,
}

impl Rates {
    /// Whether the last look had nothing to be compared with.
    pub fn is_first(&self) -> bool {
        self.before.is_none()
    }

    /// Fills in the rates of a sample that was taken at `now`.
    pub fn apply(&mut self, sample: &mut Sample, now: Instant) {
        self.before = self.latest.take_if(|look| now.duration_since(look.at) >= SHORTEST).or(self.before.take());
        self.before.take_if(|look| now.duration_since(look.at) > LONGEST);
        let mut usage = HashMap::new();
        for used in everything(sample) {
            let then = self.before.as_ref().and_then(|look| Some((look.at, *look.usage.get(&used.cgroup)?)));
            used.nano_cores = then.map(|(at, before)| rate(before, used.stats.cpu.usage, now.duration_since(at)));
            usage.insert(used.cgroup.clone(), used.stats.cpu.usage);
        }
        if self.latest.is_none() {
            self.latest = Some(Look { at: now, usage });
        }
    }
}

/// Billionths of a core. CPU time goes backwards only when a cgroup was made anew.
fn rate(before: u64, after: u64, elapsed: Duration) -> u64 {
    let nanos = u128::from(after.saturating_sub(before)) * 1_000_000_000;
    u64::try_from(nanos / elapsed.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn everything(sample: &mut Sample) -> impl Iterator<Item = &mut Used> {
    let pods = sample.pods.iter_mut().flat_map(|pod| {
        std::iter::once(&mut pod.used).chain(pod.containers.iter_mut().map(|container| &mut container.used))
    });
    std::iter::once(&mut sample.node).chain(&mut sample.all_pods).chain(pods)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(usage: u64) -> Sample {
        let mut node = Used { cgroup: "/".into(), ..Used::default() };
        node.stats.cpu.usage = usage;
        Sample { at: jiff::Timestamp::UNIX_EPOCH, node, all_pods: None, interfaces: vec![], tasks: None, pods: vec![] }
    }

    #[test]
    fn rates_span_the_time_between_looks() {
        let (start, mut rates) = (Instant::now(), Rates::default());
        let mut look = |millis: u64, usage: u64| {
            let mut sample = sample(usage);
            rates.apply(&mut sample, start + Duration::from_millis(millis));
            (sample.node.nano_cores, rates.is_first())
        };
        assert_eq!(look(0, 1_000_000_000), (None, true));
        assert_eq!(look(2000, 2_000_000_000), (Some(500_000_000), false));
        // A look right after is compared with the same one as the look before it.
        assert_eq!(look(2050, 2_025_000_000).0, Some(500_000_000));
        assert_eq!(look(4000, 2_000_000_000).0, Some(0));
        assert_eq!(look(500_000, 9_000_000_000), (None, true));
    }
}
