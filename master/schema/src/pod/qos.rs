//! The QoS class of a pod: upstream's `pkg/apis/core/v1/helper/qos`.

use api::quantity::Quantity;
use serde_json::Value;

use crate::value::Fields;

const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn class(spec: &Value) -> &'static str {
    let levels: Vec<&Value> = if spec.has("resources") {
        vec![spec.at("resources")]
    } else {
        let containers = spec.list("containers").iter().chain(spec.list("initContainers"));
        containers.map(|c| c.at("resources")).collect()
    };
    let any = levels
        .iter()
        .any(|r| RESOURCES.iter().any(|name| set(r, "requests", name).is_some() || set(r, "limits", name).is_some()));
    if !any {
        return "BestEffort";
    }
    let guaranteed = levels.iter().all(|resources| {
        RESOURCES.iter().all(|name| match (set(resources, "limits", name), set(resources, "requests", name)) {
            (Some(limit), Some(request)) => limit == request,
            (Some(_), None) => true,
            (None, _) => false,
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// A resource, where it is more than nothing.
fn set(resources: &Value, list: &str, name: &str) -> Option<Quantity> {
    let text = resources.at(list).at(name).as_str()?;
    text.parse::<Quantity>().ok().filter(|quantity| !quantity.is_zero())
}
