//! How many replicas a metric asks for (`pkg/controller/podautoscaler/replica_calculator.go`). Pure; the time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use k8s_openapi::api::core::v1::Pod;

use crate::pods::{condition, is_ready, phase};

/// `--horizontal-pod-autoscaler-tolerance`
const TOLERANCE: f64 = 0.1;
/// `--horizontal-pod-autoscaler-cpu-initialization-period`
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// `--horizontal-pod-autoscaler-initial-readiness-delay`
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What was measured of a pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    pub(super) window: SignedDuration,
    /// In thousandths.
    pub(super) milli: i64,
}

/// Samples by the names of pods.
pub(super) type Samples = BTreeMap<String, Sample>;

/// How much a metric may differ from its target before anything is done, as a ratio (KEP-4951).
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerances {
    down: f64,
    up: f64,
}

impl Tolerances {
    pub(super) fn of(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Self {
        let own = |rules: Option<&HPAScalingRules>| {
            let text = rules.and_then(|rules| rules.tolerance.as_ref())?;
            Quantity::read(text).ok().map(|quantity| quantity.milli_value() as f64 / 1000.0)
        };
        let down = own(behavior.and_then(|behavior| behavior.scale_down.as_ref()));
        let up = own(behavior.and_then(|behavior| behavior.scale_up.as_ref()));
        Tolerances { down: down.unwrap_or(TOLERANCE), up: up.unwrap_or(TOLERANCE) }
    }

    fn hold(&self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What a metric asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// What was measured: of a pod on average, in thousandths.
    pub(super) usage: i64,
    /// The same as a share of what pods request, in percent.
    pub(super) utilization: Option<i32>,
}

/// What pods should use on average.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// Thousandths.
    Average(i64),
    /// Percent of what they request, in one container or in all.
    Utilization { percent: i32, container: &'a str },
}

/// The pods that are scaled, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scaled<'a> {
    pub(super) pods: &'a [Pod],
    pub(super) current: i32,
    pub(super) tolerances: Tolerances,
    pub(super) now: Timestamp,
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";

/// Pods by what is known of them.
#[derive(Debug, Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

impl Scaled<'_> {
    /// From a metric that each pod has. `resource` is empty where it is none of the node's.
    pub(super) fn by_pods(&self, samples: &Samples, resource: &str, target: Target<'_>) -> Result<Proposal, String> {
        if self.pods.is_empty() {
            return Err(NO_PODS.to_owned());
        }
        let groups = self.groups(samples, resource);
        let mut values: BTreeMap<&str, i64> = samples.iter().map(|(name, one)| (name.as_str(), one.milli)).collect();
        values.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
        if values.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
        }
        let requests = match target {
            Target::Average(_) => BTreeMap::new(),
            Target::Utilization { container, .. } => requests(self.pods, container, resource)?,
        };
        let measured = measure(&values, &requests, target)?;
        let proposal = |replicas: i32| Proposal { replicas, ..measured.proposal };
        let ratio = measured.ratio;
        let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !grows_with_unready && groups.missing.is_empty() {
            let replicas =
                if self.tolerances.hold(ratio) { self.current } else { (ratio * groups.ready as f64).ceil() as i32 };
            return Ok(proposal(replicas));
        }
        // Of pods without a measurement the least harmful is assumed.
        for name in &groups.missing {
            if ratio < 1.0 {
                values.insert(name, assumed(name, &requests, target));
            } else if ratio > 1.0 {
                values.insert(name, 0);
            }
        }
        if grows_with_unready {
            values.extend(groups.unready.iter().map(|name| (*name, 0)));
        }
        let again = measure(&values, &requests, target)?.ratio;
        let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
        let replicas = (again * values.len() as f64).ceil() as i32;
        let wrong_way = (again < 1.0 && replicas > self.current) || (again > 1.0 && replicas < self.current);
        let stays = self.tolerances.hold(again) || turned || wrong_way;
        Ok(proposal(if stays { self.current } else { replicas }))
    }

    /// From one number for all pods, which grows with what is asked of them.
    pub(super) fn by_value(&self, usage: i64, target: i64) -> Result<Proposal, String> {
        let ratio = usage as f64 / target as f64;
        let replicas = if self.current == 0 {
            ratio.ceil() as i32
        } else if self.tolerances.hold(ratio) {
            self.current
        } else if self.pods.is_empty() {
            return Err(format!("unable to calculate ready pods: {NO_PODS}"));
        } else {
            let ready = self.pods.iter().filter(|pod| phase(pod) == "Running" && is_ready(pod)).count();
            (ratio * ready as f64).ceil() as i32
        };
        Ok(Proposal { replicas, usage, utilization: None })
    }

    /// From one number for all pods, of which each should have its share. `status`: how many pods there are.
    pub(super) fn by_share(&self, usage: i64, target: i64, status: i32) -> Proposal {
        let ratio = usage as f64 / (target as f64 * f64::from(status));
        let replicas = if self.tolerances.hold(ratio) { status } else { (usage as f64 / target as f64).ceil() as i32 };
        let share = (usage as f64 / f64::from(status)).ceil() as i64;
        Proposal { replicas, usage: share, utilization: None }
    }

    fn groups(&self, samples: &Samples, resource: &str) -> Groups<'_> {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
                groups.ignored.insert(name);
            } else if phase(pod) == "Pending" {
                groups.unready.insert(name);
            } else if let Some(sample) = samples.get(name) {
                if resource == "cpu" && is_starting(pod, sample, self.now) {
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        groups
    }
}

/// Whether a pod's use of processors says nothing yet.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(ready), Some(started)) = (condition(pod, "Ready"), started) else { return true };
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let after = |at: Timestamp, more: SignedDuration| at.checked_add(more).unwrap_or(Timestamp::MAX);
    if after(started, CPU_INITIALIZATION) > now {
        ready.status == "False" || sample.at < after(since, sample.window)
    } else {
        ready.status == "False" && after(started, INITIAL_READINESS) > since
    }
}

struct Measured {
    ratio: f64,
    /// Without replicas.
    proposal: Proposal,
}

fn measure(
    values: &BTreeMap<&str, i64>,
    requests: &BTreeMap<&str, i64>,
    target: Target<'_>,
) -> Result<Measured, String> {
    let narrow = |wide: i128| i64::try_from(wide).unwrap_or(i64::MAX);
    let total = |list: &mut dyn Iterator<Item = i64>| list.map(i128::from).sum::<i128>();
    match target {
        Target::Average(wanted) => {
            let usage = narrow(total(&mut values.values().copied()) / (values.len().max(1) as i128));
            let proposal = Proposal { replicas: 0, usage, utilization: None };
            Ok(Measured { ratio: usage as f64 / wanted as f64, proposal })
        }
        Target::Utilization { percent, .. } => {
            let known = || values.iter().filter_map(|(name, value)| Some((*value, *requests.get(name)?)));
            let used = total(&mut known().map(|(value, _)| value));
            let requested = total(&mut known().map(|(_, request)| request));
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            let usage = narrow(used / (known().count().max(1) as i128));
            let proposal = Proposal { replicas: 0, usage, utilization: Some(utilization) };
            Ok(Measured { ratio: f64::from(utilization) / f64::from(percent), proposal })
        }
    }
}

/// What a pod that was not measured is taken to use when replicas are to become fewer.
fn assumed(name: &str, requests: &BTreeMap<&str, i64>, target: Target<'_>) -> i64 {
    match target {
        Target::Average(wanted) => wanted,
        Target::Utilization { percent, .. } => {
            requests.get(name).copied().unwrap_or(0).saturating_mul(i64::from(percent.max(100))) / 100
        }
    }
}

/// What each pod requests of a resource, in thousandths (`calculateRequests`).
fn requests<'a>(pods: &'a [Pod], container: &str, resource: &str) -> Result<BTreeMap<&'a str, i64>, String> {
    pods.iter()
        .map(|pod| Ok((pod.metadata.name.as_deref().unwrap_or_default(), request(pod, container, resource)?)))
        .collect()
}

fn request(pod: &Pod, container: &str, resource: &str) -> Result<i64, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Ok(0) };
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if container.is_empty() && of_pod.is_some_and(|requests| !requests.is_empty()) {
        let all = api::resources::requests(spec);
        let found = all.get(resource).map(Quantity::milli_value);
        return found.ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"));
    }
    let restarted = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut sum: i64 = 0;
    for one in spec.containers.iter().chain(restarted).filter(|one| container.is_empty() || one.name == container) {
        let found = one.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
        let found = found.and_then(|text| Quantity::read(text).ok()).map(|quantity| quantity.milli_value());
        let missing = || format!("missing request for {resource} in container {} of Pod {name}", one.name);
        sum = sum.saturating_add(found.ok_or_else(missing)?);
        if one.name == container {
            return Ok(sum);
        }
    }
    if container.is_empty() { Ok(sum) } else { Err(format!("container {container} not found in Pod {name}")) }
}
