//! Stand-ins for the kernel that refuse what the kernel refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use netns::conntrack::{Deleted, Flows, UdpFlow};
use netns::nft::{Batch, Datum, Element, Kernel, Op, Set};

use crate::ruleset;

type Content = BTreeMap<String, BTreeMap<Vec<u8>, Element>>;

/// A kernel that holds sets.
#[derive(Default)]
pub(super) struct FakeKernel {
    pub(super) sets: Mutex<Content>,
    pub(super) fail: Mutex<bool>,
}

impl Kernel for &FakeKernel {
    async fn commit(&self, batch: &Batch) -> netns::Result<()> {
        if *self.fail.lock().unwrap() {
            return Err(netns::Error::NftConflict);
        }
        let mut sets = self.sets.lock().unwrap();
        for op in &batch.ops {
            match op {
                Op::DeleteTable => sets.clear(),
                Op::AddSet(set) => assert!(sets.insert(set.name.to_string(), BTreeMap::new()).is_none()),
                Op::AddElements(set, elements) => {
                    let content = sets.get_mut(set.name.as_ref()).expect("set exists");
                    for element in elements {
                        assert!(!set.interval || !overlaps(content, element), "{} overlaps {element:?}", set.name);
                        assert_eq!(set.dynamic, element.timeout.is_some(), "{} {element:?}", set.name);
                        let old = content.insert(element.key.clone(), element.clone());
                        assert!(old.is_none(), "{} has {element:?}", set.name);
                    }
                }
                Op::DeleteElements(set, elements) => delete(&mut sets, set, elements),
                _ => {}
            }
        }
        Ok(())
    }

    async fn has_table(&self, _name: &str) -> netns::Result<bool> {
        Ok(!self.sets.lock().unwrap().is_empty())
    }

    async fn elements(&self, _table: &str, set: &str) -> netns::Result<Vec<Element>> {
        let sets = self.sets.lock().unwrap();
        sets.get(set).map(|set| set.values().cloned().collect()).ok_or_else(|| netns::Error::NoSuchLink(set.into()))
    }
}

fn delete(sets: &mut Content, set: &Set, elements: &[Element]) {
    let content = sets.get_mut(set.name.as_ref()).expect("set exists");
    for element in elements {
        let gone = content.remove(&element.key);
        assert!(gone.is_some_and(|gone| gone.end == element.end), "{} lacks {element:?}", set.name);
    }
}

/// Keys are in network order, so that they compare as bytes. In a concatenation all but the last field are the same in both ends.
fn overlaps(content: &BTreeMap<Vec<u8>, Element>, new: &Element) -> bool {
    let ends = |element: &Element| (element.key.clone(), element.end.clone().unwrap_or(element.key.clone()));
    let (first, last) = ends(new);
    content.values().map(ends).any(|(from, to)| from <= last && first <= to)
}

/// Address -> what happens, endpoints, affinity in seconds.
type Behaviour = BTreeMap<(String, Vec<u8>), (u32, BTreeSet<Vec<u8>>, Option<u32>)>;

impl FakeKernel {
    /// What connections experience, whatever numbers groups have: for each address of each map, what happens and which
    /// endpoints there are; and the sets that follow Services and have no group numbers.
    pub(super) fn behaviour(&self) -> Behaviour {
        let sets = self.sets.lock().unwrap();
        let mut behaviour = BTreeMap::new();
        for digit in ['4', '6'] {
            let endpoints = &sets[&format!("endpoints{digit}")];
            for map in ["services", "external"] {
                for (key, element) in &sets[&format!("{map}{digit}")] {
                    let (group, kind) = pair(element);
                    let of_group = endpoints.iter().filter(|(slot, _)| number(slot) == group);
                    let slots: Vec<u32> = of_group.clone().map(|(slot, _)| number(&slot[4..])).collect();
                    assert_eq!(slots.iter().copied().collect::<BTreeSet<_>>(), (0..slots.len() as u32).collect());
                    if kind >= 2 {
                        assert_eq!(kind, ruleset::kind_of(slots.len()));
                    }
                    let targets = of_group.map(|(_, target)| value_of(target)).collect();
                    let affinity = sets["affinity"].get(group.to_ne_bytes().as_slice());
                    let affinity = affinity.map(|seconds| number(&value_of(seconds)[4..]));
                    behaviour.insert((format!("{map}{digit}"), key.clone()), (kind, targets, affinity));
                }
            }
            for set in ["masqueraded", "hairpin", "cluster-ips", "guarded", "sources"] {
                let keys = Self::keys(&sets, &format!("{set}{digit}"));
                behaviour.extend(keys.map(|key| ((format!("{set}{digit}"), key), (0, BTreeSet::new(), None))));
            }
        }
        behaviour
    }

    /// What is known of the node's networks.
    pub(super) fn networks(&self) -> BTreeSet<(String, Vec<u8>)> {
        let sets = self.sets.lock().unwrap();
        let names =
            ["cluster", "inside", "pods", "direct"].into_iter().flat_map(|set| [format!("{set}4"), format!("{set}6")]);
        names.flat_map(|set| Self::keys(&sets, &set).map(|key| (set.clone(), key)).collect::<Vec<_>>()).collect()
    }

    fn keys<'a>(sets: &'a Content, set: &str) -> impl Iterator<Item = Vec<u8>> + use<'a> {
        let key = |element: &Element| [element.key.as_slice(), element.end.as_deref().unwrap_or_default()].concat();
        sets[set].values().map(key)
    }

    pub(super) fn sizes(&self) -> BTreeMap<String, usize> {
        let sets = self.sets.lock().unwrap();
        sets.iter()
            .filter(|(name, _)| !name.starts_with("affinity-"))
            .map(|(name, set)| (name.clone(), set.len()))
            .collect()
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(bytes[..4].try_into().unwrap())
}

fn value_of(element: &Element) -> Vec<u8> {
    match &element.data {
        Some(Datum::Value(value)) => value.clone(),
        other => panic!("{other:?}"),
    }
}

fn pair(element: &Element) -> (u32, u32) {
    let value = value_of(element);
    (number(&value[4..]), number(&value[8..]))
}

/// The kernel's UDP connections, of which it may refuse to delete some.
pub(super) struct FakeFlows {
    pub(super) flows: Mutex<Vec<UdpFlow>>,
    pub(super) undeletable: Mutex<Vec<UdpFlow>>,
}

impl FakeFlows {
    pub(super) const fn new() -> Self {
        Self { flows: Mutex::new(Vec::new()), undeletable: Mutex::new(Vec::new()) }
    }
}

impl Flows for &FakeFlows {
    async fn delete_udp(&self, stale: impl Fn(&UdpFlow) -> bool + Send) -> netns::Result<Deleted> {
        let undeletable = self.undeletable.lock().unwrap();
        let mut deleted = Deleted::default();
        self.flows.lock().unwrap().retain(|flow| {
            let is_stale = stale(flow);
            let is_kept = is_stale && undeletable.contains(flow);
            deleted.gone += usize::from(is_stale && !is_kept);
            deleted.kept.extend(is_kept.then_some(*flow));
            !is_stale || is_kept
        });
        deleted.error = (!deleted.kept.is_empty()).then_some(netns::Error::NftConflict);
        Ok(deleted)
    }
}
