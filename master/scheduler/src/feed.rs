//! Watches, reduced to what the scheduler keeps, sent to the task that owns the state.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use machinery::Kind;
use reflector::{Collection, Reflector, Told};
use tokio::sync::mpsc;

use crate::node::NodeFacts;
use crate::pod::PodInfo;
use crate::volumes::{Change, key};

/// What the owner of the state is told. The channel is bounded: when it is full, the watches wait.
#[derive(Debug)]
pub enum Input {
    /// A pod that has not ended, and whether this scheduler is responsible for it.
    Pod(Arc<PodInfo>, bool),
    /// A pod is gone.
    PodGone(String),
    /// These are all pods; others are gone.
    PodsListed(HashSet<String>),
    /// A node as it is now.
    Node(Box<NodeFacts>),
    /// A node is gone.
    NodeGone(String),
    /// These are all nodes; others are gone.
    NodesListed(HashSet<String>),
    /// A namespace and its labels.
    Namespace(String, BTreeMap<String, String>),
    /// A namespace is gone.
    NamespaceGone(String),
    /// These are all namespaces; others are gone.
    NamespacesListed(HashSet<String>),
    /// A claim, a volume or a class changed.
    Volumes(Change),
    /// A PodDisruptionBudget by namespace and name.
    Budget(String, Box<PodDisruptionBudget>),
    /// A budget is gone.
    BudgetGone(String),
    /// These are all budgets; others are gone.
    BudgetsListed(HashSet<String>),
    /// The victims of a pod were told to leave, with the error if one was not.
    Preempted(Arc<PodInfo>, Option<String>),
    /// Binding a pod to a node ended, with the error if it failed.
    Bound(Arc<PodInfo>, Option<String>),
}

/// A kind that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Followed {
    Pods,
    Nodes,
    Namespaces,
    Claims,
    Volumes,
    Classes,
    Budgets,
}

impl Input {
    /// The kind of which this says that all are known.
    fn lists(&self) -> Option<Followed> {
        Some(match self {
            Self::PodsListed(_) => Followed::Pods,
            Self::NodesListed(_) => Followed::Nodes,
            Self::NamespacesListed(_) => Followed::Namespaces,
            Self::Volumes(Change::ClaimsListed(_)) => Followed::Claims,
            Self::Volumes(Change::VolumesListed(_)) => Followed::Volumes,
            Self::Volumes(Change::ClassesListed(_)) => Followed::Classes,
            Self::BudgetsListed(_) => Followed::Budgets,
            _ => return None,
        })
    }
}

/// What was not listed yet. Nothing is decided before all is: anti-affinity needs the labels of namespaces, a claim that is not
/// known does not exist, and a budget that is not known protects nothing.
#[derive(Debug)]
pub struct Unlisted(Vec<Followed>);

impl Default for Unlisted {
    fn default() -> Self {
        use Followed::{Budgets, Claims, Classes, Namespaces, Nodes, Pods, Volumes};
        Self(vec![Pods, Nodes, Namespaces, Claims, Volumes, Classes, Budgets])
    }
}

impl Unlisted {
    /// Notes what an input says.
    pub fn see(&mut self, input: &Input) {
        if let Some(listed) = input.lists() {
            self.0.retain(|one| *one != listed);
        }
    }

    /// Whether everything was listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Runs the watches for ever, or until the receiver is gone.
pub async fn run(client: Client, scheduler_name: &str, inputs: mpsc::Sender<Input>) {
    let live = "status.phase!=Succeeded,status.phase!=Failed";
    let name = scheduler_name.to_owned();
    let follow = Follow { client, inputs };
    let pods = follow.kind(Collection::of::<Pod>(None).fields(live), move |step| pod_input(step, &name));
    let nodes = follow.all(node_input);
    let spaces = follow.all(namespace_input);
    let claims = follow.all(claim_input);
    let volumes = follow.all(volume_input);
    let classes = follow.all(class_input);
    let budgets = follow.all(budget_input);
    futures::join!(pods, nodes, spaces, claims, volumes, classes, budgets);
}

/// One step of a watch.
enum Step<K> {
    Present(K),
    Gone(K),
    Listed(HashSet<String>),
}

struct Follow {
    client: Client,
    inputs: mpsc::Sender<Input>,
}

impl Follow {
    async fn all<K: Kind>(&self, convert: impl Fn(Step<K>) -> Option<Input>) {
        self.kind(Collection::of::<K>(None), convert).await;
    }

    async fn kind<K: Kind>(&self, collection: Collection, convert: impl Fn(Step<K>) -> Option<Input>) {
        let mut reflector = Reflector::new(self.client.clone(), collection);
        let mut listed = HashSet::new();
        loop {
            let steps = match reflector.next::<K>().await {
                Told::Page { items, is_first, is_last } => {
                    if is_first {
                        listed.clear();
                    }
                    listed.extend(items.iter().map(identity));
                    let end = is_last.then(|| Step::Listed(std::mem::take(&mut listed)));
                    items.into_iter().map(Step::Present).chain(end).collect()
                }
                Told::Applied(object) => vec![Step::Present(object)],
                Told::Deleted(object) => vec![Step::Gone(object)],
            };
            for input in steps.into_iter().filter_map(&convert) {
                if self.inputs.send(input).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Pods are known by uid, claims by namespace and name, all others by name.
fn identity<K: Kind>(object: &K) -> String {
    let meta = object.meta();
    match &*K::kind(&()) {
        "Pod" => meta.uid.clone().unwrap_or_default(),
        _ => key(object),
    }
}

fn pod_input(step: Step<Pod>, scheduler_name: &str) -> Option<Input> {
    Some(match step {
        Step::Present(pod) => {
            if api::pod::is_terminal(&pod) {
                return Some(Input::PodGone(identity(&pod)));
            }
            let named = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
            let ours = named.unwrap_or("default-scheduler") == scheduler_name;
            Input::Pod(PodInfo::new(&pod), ours)
        }
        Step::Gone(pod) => Input::PodGone(identity(&pod)),
        Step::Listed(uids) => Input::PodsListed(uids),
    })
}

fn node_input(step: Step<Node>) -> Option<Input> {
    Some(match step {
        Step::Present(node) => Input::Node(Box::new(NodeFacts::new(&node))),
        Step::Gone(node) => Input::NodeGone(identity(&node)),
        Step::Listed(names) => Input::NodesListed(names),
    })
}

fn namespace_input(step: Step<Namespace>) -> Option<Input> {
    match step {
        Step::Present(space) => Some(Input::Namespace(identity(&space), space.metadata.labels.unwrap_or_default())),
        Step::Gone(space) => Some(Input::NamespaceGone(identity(&space))),
        Step::Listed(all) => Some(Input::NamespacesListed(all)),
    }
}

fn claim_input(step: Step<PersistentVolumeClaim>) -> Option<Input> {
    Some(Input::Volumes(match step {
        Step::Present(mut claim) => {
            claim.metadata.managed_fields = None;
            Change::Claim(Box::new(claim))
        }
        Step::Gone(claim) => Change::ClaimGone(identity(&claim)),
        Step::Listed(all) => Change::ClaimsListed(all),
    }))
}

fn volume_input(step: Step<PersistentVolume>) -> Option<Input> {
    Some(Input::Volumes(match step {
        Step::Present(mut volume) => {
            volume.metadata.managed_fields = None;
            Change::Volume(Box::new(volume))
        }
        Step::Gone(volume) => Change::VolumeGone(identity(&volume)),
        Step::Listed(all) => Change::VolumesListed(all),
    }))
}

fn class_input(step: Step<StorageClass>) -> Option<Input> {
    Some(Input::Volumes(match step {
        Step::Present(class) => Change::Class(Box::new(class)),
        Step::Gone(class) => Change::ClassGone(identity(&class)),
        Step::Listed(all) => Change::ClassesListed(all),
    }))
}

fn budget_input(step: Step<PodDisruptionBudget>) -> Option<Input> {
    Some(match step {
        Step::Present(budget) => Input::Budget(identity(&budget), Box::new(budget)),
        Step::Gone(budget) => Input::BudgetGone(identity(&budget)),
        Step::Listed(all) => Input::BudgetsListed(all),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_listed_before_anything_is_decided() {
        let none = HashSet::new;
        let all = || {
            vec![
                Input::PodsListed(none()),
                Input::NodesListed(none()),
                namespace_input(Step::Listed(none())).unwrap(),
                claim_input(Step::Listed(none())).unwrap(),
                volume_input(Step::Listed(none())).unwrap(),
                class_input(Step::Listed(none())).unwrap(),
                budget_input(Step::Listed(none())).unwrap(),
            ]
        };
        for missing in 0..all().len() {
            let mut unlisted = Unlisted::default();
            let (last, first): (Vec<_>, Vec<_>) = all().into_iter().enumerate().partition(|(at, _)| *at == missing);
            first.iter().for_each(|(_, input)| unlisted.see(input));
            assert!(!unlisted.is_empty(), "{last:?}");
            unlisted.see(&Input::NodeGone("n".into()));
            last.iter().for_each(|(_, input)| unlisted.see(input));
            assert!(unlisted.is_empty());
        }
    }
}
