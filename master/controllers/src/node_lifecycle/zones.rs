//! How fast nodes may be emptied, zone by zone. Pure: the time is an argument.
//!
//! A NoExecute taint empties a node, so that it is nodes being tainted what is limited. Where most of a zone is lost, or all
//! of a cluster, it is more likely that we cannot see than that so much broke at once. The figures are the defaults
//! of kube-controller-manager's `--node-eviction-rate`, `--secondary-node-eviction-rate`, `--large-cluster-size-threshold`
//! and `--unhealthy-zone-threshold`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use super::plan::ready_status;

/// Between two nodes of a zone: 0.1 a second.
const PAUSE: Duration = Duration::from_secs(10);
/// Likewise, where much of a large zone is lost: 0.01 a second.
const PAUSE_IN_DISRUPTION: Duration = Duration::from_secs(100);
/// Of smaller zones, or as small, nothing more is emptied when much of them is lost.
const LARGE: usize = 50;
/// This much of a zone, in percent, and at least [`FEW`] nodes are much of it.
const UNHEALTHY_PERCENT: usize = 55;
const FEW: usize = 3;
/// When to ask again whose turn is only behind that of another.
const BEHIND: Duration = Duration::from_millis(100);
/// Nodes with this label say nothing about their zone.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
const ZONE: [&str; 2] = ["failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"];
const REGION: [&str; 2] = ["failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"];

/// Region and zone of a node.
type ZoneKey = (String, String);

/// What a node says about its zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    zone: ZoneKey,
    ready: bool,
}

/// The zone of a node; of the two labels that there are, the older one wins.
pub(super) fn zone_of(node: &Node) -> ZoneKey {
    let label = |keys: [&str; 2]| {
        let labels = node.metadata.labels.as_ref();
        keys.iter().find_map(|key| labels.and_then(|labels| labels.get(*key))).cloned().unwrap_or_default()
    };
    (label(REGION), label(ZONE))
}

/// Where a node counts, and as what; none when it is excluded.
pub(super) fn place(node: &Node) -> Option<Place> {
    let is_excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    (!is_excluded).then(|| Place { zone: zone_of(node), ready: ready_status(node) == "True" })
}

/// How much of a zone is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Normal,
    PartialDisruption,
    FullDisruption,
}

impl State {
    fn of(ready: usize, lost: usize) -> Self {
        if ready == 0 && lost > 0 {
            Self::FullDisruption
        } else if lost >= FEW && lost * 100 >= (lost + ready) * UNHEALTHY_PERCENT {
            Self::PartialDisruption
        } else {
            Self::Normal
        }
    }

    /// The time between two nodes of a zone of this size; none when there is to be no further one.
    ///
    /// A zone that is lost as a whole, while others are not, is emptied as fast as one that is well.
    fn pause(self, size: usize) -> Option<Duration> {
        match self {
            Self::Normal | Self::FullDisruption => Some(PAUSE),
            Self::PartialDisruption => (size > LARGE).then_some(PAUSE_IN_DISRUPTION),
        }
    }
}

#[derive(Default)]
struct Zone {
    ready: usize,
    lost: usize,
    /// When the next node may be emptied; any time when it is not known.
    next: Option<Instant>,
    /// Nodes that are to be emptied, the longest known first.
    waiting: VecDeque<String>,
    /// Those whose turn it is, until they are tainted.
    chosen: BTreeSet<String>,
}

impl Zone {
    fn state(&self) -> State {
        State::of(self.ready, self.lost)
    }

    fn pause(&self) -> Option<Duration> {
        self.state().pause(self.ready + self.lost)
    }

    fn counter(&mut self, ready: bool) -> &mut usize {
        if ready { &mut self.ready } else { &mut self.lost }
    }

    fn knows(&self, node: &str) -> bool {
        self.chosen.contains(node) || self.waiting.iter().any(|waiting| waiting == node)
    }

    fn is_forgotten(&self) -> bool {
        self.ready + self.lost == 0 && self.waiting.is_empty() && self.chosen.is_empty()
    }
}

/// Whether a node may be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Ask again then.
    After(Duration),
    /// Not before something changes in its zone.
    Never,
}

/// What a change means for the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shift {
    Nothing,
    /// They may have to be emptied faster, slower or not at all.
    Rates,
    /// Some node is ready again, after a time when none was.
    BackInContact,
}

/// All zones of the cluster.
#[derive(Default)]
pub(super) struct Zones {
    places: HashMap<String, Place>,
    zones: BTreeMap<ZoneKey, Zone>,
}

impl Zones {
    /// Takes note of where a node counts; none when it counts nowhere or is gone.
    pub(super) fn put(&mut self, node: &str, place: Option<Place>, now: Instant) -> Shift {
        let old = match &place {
            Some(place) => self.places.insert(node.to_owned(), place.clone()),
            None => self.places.remove(node),
        };
        if old == place {
            return Shift::Nothing;
        }
        let was_cut_off = self.is_cut_off();
        let mut rates_changed = false;
        for (place, is_new) in old.iter().map(|place| (place, false)).chain(place.iter().map(|place| (place, true))) {
            let zone = self.zones.entry(place.zone.clone()).or_default();
            let before = (zone.state(), zone.pause());
            let count = zone.counter(place.ready);
            *count = if is_new { count.saturating_add(1) } else { count.saturating_sub(1) };
            if (zone.state(), zone.pause()) != before {
                rates_changed = true;
                // Who had to wait by the old rate waits by the new one.
                let waits = before.1.is_none() || zone.next.is_some_and(|next| next > now);
                zone.next = zone.pause().filter(|_| waits).map(|pause| now + pause).or(zone.next);
            }
        }
        self.zones.retain(|_, zone| !zone.is_forgotten());
        match (was_cut_off, self.is_cut_off()) {
            (true, false) => {
                // Others may be back in a moment, too.
                self.zones.values_mut().for_each(|zone| zone.next = Some(now + PAUSE));
                Shift::BackInContact
            }
            (false, true) => {
                // Whose turn it was asks anew, if we ever see again.
                for zone in self.zones.values_mut() {
                    zone.waiting.clear();
                    zone.chosen.clear();
                }
                Shift::Rates
            }
            _ if rates_changed => Shift::Rates,
            _ => Shift::Nothing,
        }
    }

    /// Whether no node of the whole cluster is ready.
    pub(super) fn is_cut_off(&self) -> bool {
        let mut counted = self.zones.values().filter(|zone| zone.ready + zone.lost > 0).peekable();
        counted.peek().is_some() && counted.all(|zone| zone.state() == State::FullDisruption)
    }

    /// Whether it is the turn of a node to be emptied. It stays its turn until it leaves.
    pub(super) fn turn(&mut self, node: &str, zone: ZoneKey, now: Instant) -> Turn {
        if self.is_cut_off() {
            return Turn::Never;
        }
        if !self.zones.get(&zone).is_some_and(|zone| zone.knows(node)) {
            self.leave(node);
        }
        let zone = self.zones.entry(zone).or_default();
        if zone.chosen.contains(node) {
            return Turn::Now;
        }
        if !zone.waiting.iter().any(|waiting| waiting == node) {
            zone.waiting.push_back(node.to_owned());
        }
        let Some(pause) = zone.pause() else { return Turn::Never };
        if let Some(next) = zone.next.filter(|next| *next > now) {
            return Turn::After(next - now);
        }
        if zone.waiting.front().is_some_and(|first| first != node) {
            return Turn::After(BEHIND);
        }
        zone.waiting.pop_front();
        zone.chosen.insert(node.to_owned());
        zone.next = Some(now + pause);
        Turn::Now
    }

    /// A node is not to be emptied, or its turn is over.
    pub(super) fn leave(&mut self, node: &str) {
        for zone in self.zones.values_mut() {
            zone.waiting.retain(|waiting| waiting != node);
            zone.chosen.remove(node);
        }
        self.zones.retain(|_, zone| !zone.is_forgotten());
    }
}
