//! How far, and how soon, replicas may be changed: bounds, stabilization windows and policies (`normalizeDesiredReplicas`,
//! `normalizeDesiredReplicasWithBehaviors`). Pure; the time is an argument.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// `--horizontal-pod-autoscaler-downscale-stabilization`
const DOWNSCALE_STABILIZATION: i64 = 300;
/// The longest window that rules can have (`MaxStabilizationWindowSeconds`): what is older is forgotten.
const LONGEST: i64 = 3600;
const UP_FACTOR: f64 = 2.0;
const UP_MINIMUM: f64 = 4.0;

/// What was recommended and done of late.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    grown: Vec<(Timestamp, i32)>,
    shrunk: Vec<(Timestamp, i32)>,
}

fn ago(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
}

impl Memory {
    /// What there is counts as recommended when nothing was yet.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    fn recommend(&mut self, replicas: i32, now: Timestamp) {
        self.recommendations.push((now, replicas));
        for list in [&mut self.recommendations, &mut self.grown, &mut self.shrunk] {
            list.retain(|(at, _)| *at >= ago(now, LONGEST));
        }
    }

    /// Notes that the target was scaled.
    pub(super) fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        if to > from {
            self.grown.push((now, to.saturating_sub(from)));
        } else {
            self.shrunk.push((now, from.saturating_sub(to)));
        }
    }

    /// How many replicas there were at the beginning of a period that ends now.
    fn at_start(&self, current: i32, period: i32, now: Timestamp) -> i32 {
        let cutoff = ago(now, i64::from(period));
        let sum = |list: &[(Timestamp, i32)]| {
            list.iter().filter(|(at, _)| *at > cutoff).fold(0_i32, |sum, (_, change)| sum.saturating_add(*change))
        };
        current.saturating_sub(sum(&self.grown)).saturating_add(sum(&self.shrunk))
    }
}

/// Between what replicas may lie, and where they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) current: i32,
}

/// A reason and what it means, for a condition.
pub(super) type Reason = (&'static str, &'static str);

/// What became of a recommendation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) replicas: i32,
    /// Of the condition AbleToScale.
    pub(super) able: Reason,
    /// Of the condition ScalingLimited, and whether it is.
    pub(super) limited: (bool, Reason),
}

const READY: Reason = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: Reason = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: Reason = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: Reason = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FAST_UP: Reason =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: Reason =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Reason = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Reason = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

/// Brings a recommendation within all bounds, and remembers it.
pub(super) fn normalize(
    memory: &mut Memory,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    bounds: Bounds,
    desired: i32,
    now: Timestamp,
) -> Normalized {
    let (stable, reason) = match behavior {
        Some(behavior) => stabilized(memory, behavior, bounds.current, desired, now),
        None => {
            let recent = memory.recommendations.iter().filter(|(at, _)| *at >= ago(now, DOWNSCALE_STABILIZATION));
            (recent.map(|(_, replicas)| *replicas).fold(desired, i32::max), DOWN_STABILIZED)
        }
    };
    memory.recommend(desired, now);
    let (replicas, why) = match behavior {
        Some(behavior) => within_rates(memory, behavior, bounds, stable, now),
        None => within_bounds(bounds, stable),
    };
    let able = if stable == desired { READY } else { reason };
    Normalized { replicas, able, limited: (replicas != stable, why) }
}

fn within_bounds(bounds: Bounds, desired: i32) -> (i32, Reason) {
    // Saturates, as conversions of floats do.
    let limit = (UP_FACTOR * f64::from(bounds.current)).max(UP_MINIMUM) as i32;
    let (most, why) = if bounds.max > limit { (limit, TOO_FAST_UP) } else { (bounds.max, TOO_MANY) };
    match desired {
        few if few < bounds.min => (bounds.min, TOO_FEW),
        many if many > most => (most, why),
        fine => (fine, WITHIN),
    }
}

fn window(rules: Option<&HPAScalingRules>, otherwise: i64) -> i64 {
    rules.and_then(|rules| rules.stabilization_window_seconds).map_or(otherwise, i64::from)
}

/// The least of what was recommended in the window for growing, the most in the one for shrinking.
fn stabilized(
    memory: &Memory,
    behavior: &HorizontalPodAutoscalerBehavior,
    current: i32,
    desired: i32,
    now: Timestamp,
) -> (i32, Reason) {
    let up_cutoff = ago(now, window(behavior.scale_up.as_ref(), 0));
    let down_cutoff = ago(now, window(behavior.scale_down.as_ref(), DOWNSCALE_STABILIZATION));
    let since = |cutoff: Timestamp| memory.recommendations.iter().filter(move |(at, _)| *at > cutoff).map(|(_, r)| *r);
    let up = since(up_cutoff).fold(desired, i32::min);
    let down = since(down_cutoff).fold(desired, i32::max);
    (current.max(up).min(down), if desired >= current { UP_STABILIZED } else { DOWN_STABILIZED })
}

fn within_rates(
    memory: &Memory,
    behavior: &HorizontalPodAutoscalerBehavior,
    bounds: Bounds,
    desired: i32,
    now: Timestamp,
) -> (i32, Reason) {
    let current = bounds.current;
    if desired > current {
        let limit = up_limit(memory, behavior.scale_up.as_ref(), current, now).max(current);
        let (most, why) = if bounds.max > limit { (limit, TOO_FAST_UP) } else { (bounds.max, TOO_MANY) };
        if desired > most {
            return (most, why);
        }
    } else if desired < current {
        let limit = down_limit(memory, behavior.scale_down.as_ref(), current, now).min(current);
        let (least, why) = if bounds.min < limit { (limit, TOO_FAST_DOWN) } else { (bounds.min, TOO_FEW) };
        if desired < least {
            return (least, why);
        }
    }
    (desired, WITHIN)
}

fn up_limit(memory: &Memory, rules: Option<&HPAScalingRules>, current: i32, now: Timestamp) -> i32 {
    let Some(rules) = rules else { return i32::MAX };
    let proposals = rules.policies.iter().flatten().map(|policy| {
        let start = memory.at_start(current, policy.period_seconds, now);
        match policy.type_.as_str() {
            "Pods" => start.saturating_add(policy.value),
            // Rounded up: a change of less than one would never come.
            _ => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
        }
    });
    match rules.select_policy.as_deref() {
        Some("Disabled") => current,
        Some("Min") => proposals.min().unwrap_or(i32::MAX),
        _ => proposals.max().unwrap_or(i32::MIN),
    }
}

fn down_limit(memory: &Memory, rules: Option<&HPAScalingRules>, current: i32, now: Timestamp) -> i32 {
    let Some(rules) = rules else { return i32::MIN };
    let proposals = rules.policies.iter().flatten().map(|policy| {
        let start = memory.at_start(current, policy.period_seconds, now);
        match policy.type_.as_str() {
            "Pods" => start.saturating_sub(policy.value),
            _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
        }
    });
    match rules.select_policy.as_deref() {
        Some("Disabled") => current,
        // The policy that changes least.
        Some("Min") => proposals.max().unwrap_or(i32::MIN),
        _ => proposals.min().unwrap_or(i32::MAX),
    }
}
