//! The quality of service class of a pod.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::quantity::Quantity;

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QosClass {
    /// Requests and limits of cpu and memory are given and equal.
    Guaranteed,
    /// Some are given.
    Burstable,
    /// None is given.
    BestEffort,
}

impl QosClass {
    /// As in `status.qosClass`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// The class by the pod's resources (KEP-2837: those of the pod when given, else those of all containers).
#[must_use]
pub fn class(spec: &PodSpec) -> QosClass {
    let pod_level = spec.resources.as_ref().filter(|resources| names_compute(resources));
    let units: Vec<Option<&ResourceRequirements>> = match pod_level {
        Some(resources) => vec![Some(resources)],
        None => {
            let init = spec.init_containers.iter().flatten();
            init.chain(&spec.containers).map(|container| container.resources.as_ref()).collect()
        }
    };
    let mut sums = [BTreeMap::new(), BTreeMap::new()];
    let mut all_limited = true;
    for resources in units {
        for (sum, list) in sums.iter_mut().zip([
            resources.and_then(|resources| resources.requests.as_ref()),
            resources.and_then(|resources| resources.limits.as_ref()),
        ]) {
            add_compute(sum, list);
        }
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        all_limited &= COMPUTE.iter().all(|name| positive(limits, name).is_some());
    }
    let [requests, limits] = &sums;
    if requests.is_empty() && limits.is_empty() {
        QosClass::BestEffort
    } else if all_limited
        && COMPUTE.iter().all(|name| requests.get(name).is_none_or(|sum| limits.get(name) == Some(sum)))
    {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

fn names_compute(resources: &ResourceRequirements) -> bool {
    [&resources.requests, &resources.limits]
        .into_iter()
        .any(|list| COMPUTE.iter().any(|name| positive(list.as_ref(), name).is_some()))
}

fn positive(list: Option<&BTreeMap<String, Text>>, name: &str) -> Option<Quantity> {
    let quantity = Quantity::read(list?.get(name)?).ok()?;
    (quantity > Quantity::ZERO).then_some(quantity)
}

fn add_compute(sum: &mut BTreeMap<&'static str, Quantity>, list: Option<&BTreeMap<String, Text>>) {
    for name in COMPUTE {
        if let Some(quantity) = positive(list, name) {
            let total = sum.entry(name).or_insert(Quantity::ZERO);
            *total = total.plus(&quantity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resources: &[serde_json::Value]) -> QosClass {
        let containers: Vec<_> =
            resources.iter().map(|resources| serde_json::json!({"name": "c", "resources": resources})).collect();
        class(&serde_json::from_value(serde_json::json!({"containers": containers})).unwrap())
    }

    #[test]
    fn classes() {
        let full = serde_json::json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(of(&[serde_json::json!({})]), QosClass::BestEffort);
        assert_eq!(of(&[serde_json::json!({"requests": {"cpu": "0"}})]), QosClass::BestEffort);
        assert_eq!(of(&[serde_json::json!({"requests": full, "limits": full})]), QosClass::Guaranteed);
        let spelled = serde_json::json!({"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": full});
        assert_eq!(of(&[spelled]), QosClass::Guaranteed);
        assert_eq!(of(&[serde_json::json!({"requests": {"cpu": "1"}})]), QosClass::Burstable);
        assert_eq!(
            of(&[serde_json::json!({"limits": full, "requests": full}), serde_json::json!({})]),
            QosClass::Burstable
        );
        let lower = serde_json::json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": full});
        assert_eq!(of(&[lower]), QosClass::Burstable);
    }
}
