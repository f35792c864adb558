//! What is to become of a target (`reconcileAutoscaler`). Pure; everything that was asked of others is an argument.

use api::quantity::{Format, Quantity};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};

use super::normalize::{Bounds, Memory, normalize};
use super::replicas::{Proposal, Samples, Scaled, Target, Tolerances};

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

/// What the metrics APIs said of one metric.
#[derive(Debug, Clone)]
pub(super) enum Measured {
    Pods(Samples),
    /// One number, in thousandths.
    Value(i64),
}

/// What is known when it is decided.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) autoscaler: &'a HorizontalPodAutoscaler,
    /// `spec.replicas` and `status.replicas` of the Scale.
    pub(super) replicas: (i32, i32),
    pub(super) pods: &'a [Pod],
    /// For each metric what was measured, or why it was not; instead of them, why the pods are not known.
    pub(super) measured: Result<Vec<Result<Measured, String>>, Unselected>,
    pub(super) now: Timestamp,
}

/// Why it is not known which pods are scaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unselected {
    /// Reasons of the event and of the condition.
    pub(super) reasons: (&'static str, &'static str),
    /// Texts of the event and of the condition.
    pub(super) texts: (String, String),
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) desired: i32,
    /// Why the target is to be scaled, if it is.
    pub(super) rescale: Option<String>,
    /// Warnings to be told: reason and text.
    pub(super) events: Vec<(&'static str, String)>,
    pub(super) status: HorizontalPodAutoscalerStatus,
}

/// A metric that could not be judged.
struct Failed {
    reason: &'static str,
    /// Of the event and the condition.
    text: String,
    /// As the whole names it.
    error: String,
}

/// A judged metric: what it asks for, what it is called, and how it stands.
struct Judged {
    replicas: i32,
    name: String,
    status: MetricStatus,
}

/// What metrics together ask for.
struct Wanted {
    replicas: i32,
    metric: String,
}

/// Decides, and remembers what was recommended.
pub(super) fn decide(known: &Known<'_>, memory: &mut Memory) -> Decision {
    let (current, _) = known.replicas;
    let spec = &known.autoscaler.spec;
    let (min, max) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let status = known.autoscaler.status.clone().unwrap_or_default();
    let mut decision = Decision { desired: current, rescale: None, events: Vec::new(), status };
    decision.status.current_replicas = Some(current);
    decision.status.current_metrics = None;
    let got = "the HPA controller was able to get the target's current scale";
    decision.set(ABLE, ("True", "SucceededGetScale", got), known.now);
    memory.begin(current, known.now);
    if current == 0 {
        let off = "scaling is disabled since the replica count of the target is zero";
        decision.set(ACTIVE, ("False", "ScalingDisabled", off), known.now);
    } else if current > max {
        (decision.desired, decision.rescale) = (max, Some("Current number of replicas above Spec.MaxReplicas".into()));
    } else if current < min {
        (decision.desired, decision.rescale) = (min, Some("Current number of replicas below Spec.MinReplicas".into()));
    } else {
        let Some(wanted) = decision.wanted(known) else {
            // What it should be stays what it was said to be.
            return decision;
        };
        let normalized =
            normalize(memory, spec.behavior.as_ref(), Bounds { min, max, current }, wanted.replicas.max(0), known.now);
        decision.set(ABLE, ("True", normalized.able.0, normalized.able.1), known.now);
        let (limited, (reason, text)) = normalized.limited;
        decision.set(LIMITED, (if limited { "True" } else { "False" }, reason, text), known.now);
        decision.desired = normalized.replicas;
        let why = match wanted.replicas {
            more if more > current => format!("{} above target", wanted.metric),
            fewer if fewer < current => "All metrics below target".to_owned(),
            _ => String::new(),
        };
        decision.rescale = (decision.desired != current).then_some(why);
    }
    decision.status.desired_replicas = decision.desired;
    decision
}

impl Decision {
    /// Sets a condition; its time is when its status changed last.
    pub(super) fn set(&mut self, kind: &str, (status, reason, message): (&str, &str, &str), now: Timestamp) {
        let conditions = self.status.conditions.get_or_insert_default();
        let fresh = HorizontalPodAutoscalerCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(whole_seconds(now))),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) if known.status == status => {
                *known = HorizontalPodAutoscalerCondition {
                    last_transition_time: known.last_transition_time.take(),
                    ..fresh
                };
            }
            Some(known) => *known = fresh,
            None => conditions.push(fresh),
        }
    }

    /// Notes whether the target could be scaled.
    pub(super) fn scaled(&mut self, outcome: Result<(), &str>, now: Timestamp) {
        match outcome {
            Ok(()) => {
                let text = format!("the HPA controller was able to update the target scale to {}", self.desired);
                self.set(ABLE, ("True", "SucceededRescale", &text), now);
                self.status.last_scale_time = Some(Time(whole_seconds(now)));
            }
            Err(error) => {
                let text = format!("the HPA controller was unable to update the target scale: {error}");
                self.set(ABLE, ("False", "FailedUpdateScale", &text), now);
            }
        }
    }

    /// The most that a metric asks for. `None` if too little is known: the conditions say why.
    fn wanted(&mut self, known: &Known<'_>) -> Option<Wanted> {
        const FAILED: &str = "FailedComputeMetricsReplicas";
        let spec = &known.autoscaler.spec;
        let measured = match &known.measured {
            Ok(measured) => measured,
            Err(unselected) => {
                self.events.push((unselected.reasons.0, unselected.texts.0.clone()));
                self.set(ACTIVE, ("False", unselected.reasons.1, &unselected.texts.1), known.now);
                self.events.push((FAILED, unselected.texts.0.clone()));
                return None;
            }
        };
        let tolerances = Tolerances::of(spec.behavior.as_ref());
        let scaled = Scaled { pods: known.pods, current: known.replicas.0, tolerances, now: known.now };
        let (mut wanted, mut failures) = (None::<Wanted>, Vec::new());
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        let namespace = known.autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        for (metric, measured) in metrics.iter().zip(measured) {
            let status = match judge(metric, measured, &scaled, (namespace, known.replicas.1)) {
                Ok(judged) => {
                    if wanted.as_ref().is_none_or(|best| best.replicas == 0 || judged.replicas > best.replicas) {
                        wanted = Some(Wanted { replicas: judged.replicas, metric: judged.name });
                    }
                    judged.status
                }
                Err(failed) => {
                    self.events.push((failed.reason, failed.text.clone()));
                    failures.push(failed);
                    MetricStatus::default()
                }
            };
            self.status.current_metrics.get_or_insert_default().push(status);
        }
        let first = failures.first();
        let replicas = wanted.as_ref().map_or(0, |wanted| wanted.replicas);
        if let Some(first) = first.filter(|_| failures.len() >= metrics.len() || replicas < known.replicas.0) {
            let text = format!("the HPA was unable to compute the replica count: {}", first.text);
            self.set(ACTIVE, ("False", first.reason, &text), known.now);
            let (invalid, all) = (failures.len(), metrics.len());
            let text = format!("invalid metrics ({invalid} invalid out of {all}), first error is: {}", first.error);
            self.events.push((FAILED, text));
            return None;
        }
        let name = wanted.as_ref().map(|wanted| wanted.metric.as_str()).unwrap_or_default();
        let text = format!("the HPA was able to successfully calculate a replica count from {name}");
        self.set(ACTIVE, ("True", "ValidMetricFound", &text), known.now);
        wanted
    }
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn judge(
    metric: &MetricSpec,
    measured: &Result<Measured, String>,
    scaled: &Scaled<'_>,
    (namespace, status): (&str, i32),
) -> Result<Judged, Failed> {
    if let Some(source) = &metric.resource {
        let judged = resource((&source.name, ""), &source.target, measured, scaled);
        let failed = |text| {
            failed("FailedGetResourceMetric", text, |text| {
                format!("failed to get {} resource metric value: {text}", source.name)
            })
        };
        let (replicas, current, name) = judged.map_err(failed)?;
        let name = named(&source.name, "resource", name);
        let status = ResourceMetricStatus { name: source.name.clone(), current };
        return Ok(Judged { replicas, name, status: MetricStatus { resource: Some(status), ..of(metric) } });
    }
    if let Some(source) = &metric.container_resource {
        let judged = resource((&source.name, &source.container), &source.target, measured, scaled);
        let failed = |text| {
            failed("FailedGetContainerResourceMetric", text, |text| {
                format!("failed to get {} container metric value: {text}", source.container)
            })
        };
        let (replicas, current, name) = judged.map_err(failed)?;
        let name = named(&source.name, "container resource", name);
        let status =
            ContainerResourceMetricStatus { name: source.name.clone(), container: source.container.clone(), current };
        return Ok(Judged { replicas, name, status: MetricStatus { container_resource: Some(status), ..of(metric) } });
    }
    shared(metric, measured, scaled, (namespace, status))
}

/// Metrics that are not of the node.
fn shared(
    metric: &MetricSpec,
    measured: &Result<Measured, String>,
    scaled: &Scaled<'_>,
    (namespace, status): (&str, i32),
) -> Result<Judged, Failed> {
    if let Some(source) = &metric.pods {
        let name = &source.metric.name;
        let proposal = samples(measured).map_err(|why| format!("unable to get metric {name}: {why}"));
        let target = Target::Average(milli(source.target.average_value.as_ref()));
        let proposal = proposal.and_then(|samples| scaled.by_pods(samples, "", target));
        let proposal = proposal.map_err(|text| {
            failed("FailedGetPodsMetric", text, |text| format!("failed to get pods metric value: {text}"))
        })?;
        let status = PodsMetricStatus { metric: source.metric.clone(), current: average(proposal.usage) };
        let status = MetricStatus { pods: Some(status), ..of(metric) };
        return Ok(Judged { replicas: proposal.replicas, name: format!("pods metric {name}"), status });
    }
    if let Some(source) = &metric.object {
        let (name, about) = (&source.metric.name, &source.described_object);
        let unable =
            |why: String| format!("unable to get metric {name}: {} on {namespace} {}/{why}", about.kind, about.name);
        let (proposal, current) = numbers(&source.target, measured, unable, (scaled, status)).map_err(|text| {
            failed("FailedGetObjectMetric", text, |text| format!("failed to get object metric value: {text}"))
        })?;
        let called = match current.value {
            Some(_) => format!("{} metric {name}", about.kind),
            None => external_name(&source.metric),
        };
        let status = ObjectMetricStatus { described_object: about.clone(), metric: source.metric.clone(), current };
        let status = MetricStatus { object: Some(status), ..of(metric) };
        return Ok(Judged { replicas: proposal.replicas, name: called, status });
    }
    if let Some(source) = &metric.external {
        let name = &source.metric.name;
        let selector = shown(source.metric.selector.as_ref());
        let unable = |why: String| format!("unable to get external metric {namespace}/{name}/{selector}: {why}");
        let (proposal, current) = numbers(&source.target, measured, unable, (scaled, status)).map_err(|text| {
            failed("FailedGetExternalMetric", text, |text| {
                format!("failed to get {name} external metric value: {text}")
            })
        })?;
        let status = ExternalMetricStatus { metric: source.metric.clone(), current };
        let status = MetricStatus { external: Some(status), ..of(metric) };
        return Ok(Judged { replicas: proposal.replicas, name: external_name(&source.metric), status });
    }
    let text = format!("unknown metric source type {:?}", metric.type_);
    Err(failed("InvalidMetricSourceType", text, str::to_owned))
}

fn failed(reason: &'static str, text: String, error: impl Fn(&str) -> String) -> Failed {
    Failed { reason, error: error(&text), text }
}

fn of(metric: &MetricSpec) -> MetricStatus {
    MetricStatus { type_: metric.type_.clone(), ..MetricStatus::default() }
}

fn named(resource: &str, what: &str, by_utilization: bool) -> String {
    match by_utilization {
        true => format!("{resource} {what} utilization (percentage of request)"),
        false => format!("{resource} resource"),
    }
}

fn external_name(metric: &MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, shown(metric.selector.as_ref()))
}

/// As Go prints a selector.
fn shown(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let requirements: String = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|one| {
            let values = one.values.as_deref().unwrap_or_default().join(" ");
            format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", one.key, one.operator)
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

fn milli(text: Option<&Text>) -> i64 {
    text.and_then(|text| Quantity::read(text).ok()).map_or(0, |quantity| quantity.milli_value())
}

fn samples(measured: &Result<Measured, String>) -> Result<&Samples, String> {
    match measured {
        Ok(Measured::Pods(samples)) => Ok(samples),
        Ok(Measured::Value(_)) => Err("one value for all pods".to_owned()),
        Err(why) => Err(why.clone()),
    }
}

fn average(usage: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(Quantity::from_milli(usage).to_text()), ..MetricValueStatus::default() }
}

/// A resource of nodes: what it asks for, how it stands, and whether it was judged by what pods request.
fn resource(
    (name, container): (&str, &str),
    target: &MetricTarget,
    measured: &Result<Measured, String>,
    scaled: &Scaled<'_>,
) -> Result<(i32, MetricValueStatus, bool), String> {
    let (wanted, what) = match (&target.average_value, target.average_utilization) {
        (Some(value), _) => (Target::Average(milli(Some(value))), "usage"),
        (None, Some(percent)) => (Target::Utilization { percent, container }, "utilization"),
        (None, None) => {
            return Err(
                "invalid resource metric source: neither an average utilization target nor an average value (usage) \
                        target was set"
                    .to_owned(),
            );
        }
    };
    let found = samples(measured).map_err(|why| format!("unable to get metrics for resource {name}: {why}"));
    let proposal = found.and_then(|samples| scaled.by_pods(samples, name, wanted));
    let proposal = proposal.map_err(|why| format!("failed to get {name} {what}: {why}"))?;
    let quantity = match name {
        // As metrics-server writes it.
        "memory" if proposal.usage % 1000 == 0 => Quantity::new(proposal.usage / 1000, Format::BinarySi),
        _ => Quantity::from_milli(proposal.usage),
    };
    let current = MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(quantity.to_text()),
        value: None,
    };
    Ok((proposal.replicas, current, what == "utilization"))
}

/// One number for all pods: a target of its own, or one of each pod's share.
fn numbers(
    target: &MetricTarget,
    measured: &Result<Measured, String>,
    unable: impl Fn(String) -> String,
    (scaled, status): (&Scaled<'_>, i32),
) -> Result<(Proposal, MetricValueStatus), String> {
    let usage = match measured {
        Ok(Measured::Value(usage)) => *usage,
        Ok(Measured::Pods(_)) => return Err(unable("samples of pods".to_owned())),
        Err(why) => return Err(unable(why.clone())),
    };
    match (&target.average_value, &target.value) {
        (Some(share), _) if target.type_ != "Value" => {
            let proposal = scaled.by_share(usage, milli(Some(share)), status);
            Ok((proposal, average(proposal.usage)))
        }
        (_, Some(value)) => {
            let proposal = scaled.by_value(usage, milli(Some(value)))?;
            let current =
                MetricValueStatus { value: Some(Quantity::from_milli(proposal.usage).to_text()), ..Default::default() };
            Ok((proposal, current))
        }
        _ => Err("invalid metric source: neither a value target nor an average value target was set".to_owned()),
    }
}
