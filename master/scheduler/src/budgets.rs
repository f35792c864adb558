//! PodDisruptionBudgets: of which pods no more should be taken away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::pod::{PodInfo, matches};

#[derive(Debug)]
struct Budget {
    namespace: String,
    selector: LabelSelector,
    allowed: i32,
    /// Names of pods whose disruption is counted already.
    disrupted: HashSet<String>,
}

/// All budgets, by namespace and name.
#[derive(Debug, Default)]
pub struct Budgets(BTreeMap<String, Budget>);

impl Budgets {
    /// Takes a budget over. One that selects nothing protects nothing.
    pub fn set(&mut self, key: String, budget: &PodDisruptionBudget) {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        if selector == LabelSelector::default() {
            self.0.remove(&key);
            return;
        }
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
        let budget = Budget {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector,
            allowed: status.and_then(|status| status.disruptions_allowed).unwrap_or(0),
            disrupted: disrupted.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        };
        self.0.insert(key, budget);
    }

    /// Forgets a budget.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Forgets all but these.
    pub fn keep(&mut self, present: &HashSet<String>) {
        self.0.retain(|key, _| present.contains(key));
    }

    /// Splits pods, in their order, into those that are one too many for a budget and the others.
    #[must_use]
    pub fn split(&self, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut spent: HashMap<&str, i32> = HashMap::new();
        pods.into_iter().partition(|pod| {
            let mut too_many = false;
            for (key, budget) in &self.0 {
                if budget.covers(pod) {
                    let spent = spent.entry(key).or_default();
                    *spent += 1;
                    too_many |= *spent > budget.allowed;
                }
            }
            too_many
        })
    }
}

impl Budget {
    fn covers(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.namespace
            && !pod.labels.is_empty()
            && !self.disrupted.contains(&pod.name)
            && matches(&self.selector, &pod.labels)
    }
}
