//! LimitRanger: containers without requests and limits get those of the namespace's LimitRanges, and what is beyond them is
//! refused (`plugin/pkg/admission/limitranger`).

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, items, text};

const NOTE: &str = "kubernetes.io/limit-ranger";
const CONTAINERS: [(&str, &str); 2] = [("containers", "container"), ("initContainers", "init container")];

pub struct LimitRanger;

type Amounts = BTreeMap<String, Quantity>;
type Rule = fn(&Usage<'_>, &Quantity) -> Option<String>;

impl Plugin for LimitRanger {
    fn admit(&self, context: &Context, request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
        if is_new_pod(request) || is_resize(request) {
            for range in ranges(context, request) {
                default(&range, pod);
            }
        }
        Ok(())
    }

    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let Some(object) = object else { return Ok(()) };
        let check: fn(&Value, &Value) -> Vec<String> = match request.resource {
            // What runs is not judged again, unless it is to have other resources.
            "pods" if is_new_pod(request) || is_resize(request) => pod_errors,
            "persistentvolumeclaims" if request.is("", "persistentvolumeclaims", "") => claim_errors,
            _ => return Ok(()),
        };
        if object.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(());
        }
        for range in ranges(context, request) {
            let errors = check(&range, object);
            match errors.as_slice() {
                [] => {}
                [one] => return Err(request.forbidden(Some(object), one)),
                many => return Err(request.forbidden(Some(object), &format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

fn is_new_pod(request: &Request<'_>) -> bool {
    request.is("", "pods", "") && request.operation == Operation::Create
}

fn is_resize(request: &Request<'_>) -> bool {
    request.is("", "pods", "resize") && request.operation == Operation::Update
}

fn ranges(context: &Context, request: &Request<'_>) -> Vec<Value> {
    context.lookup.list("", "limitranges", request.namespace)
}

fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?))).collect()
}

/// Fills in the defaults, and says so in an annotation.
fn default(range: &Value, pod: &mut Value) {
    let wanted = |field: &str| {
        let of_containers = items(range, "/spec/limits").filter(|item| text(item, "/type") == "Container");
        of_containers.filter_map(|item| item[field].as_object()).flatten().collect::<Vec<_>>()
    };
    let (limits, requests) = (wanted("default"), wanted("defaultRequest"));
    let mut notes = Vec::new();
    for (list, shown) in CONTAINERS {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let set_limits = fill(container, "limits", &limits);
            let set_requests = fill(container, "requests", &requests);
            let name = text(container, "/name");
            for (set, what) in [(set_requests, "request"), (set_limits, "limit")] {
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {shown} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod["metadata"]["annotations"][NOTE] = json!(note);
    }
}

/// Sets what is not set; the names of that, sorted.
fn fill(container: &mut Value, field: &str, wanted: &[(&String, &Value)]) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in wanted {
        if container["resources"][field].get(name.as_str()).is_none() {
            container["resources"][field][name.as_str()] = (*amount).clone();
            set.push((*name).clone());
        }
    }
    set.sort();
    set
}

/// One resource of one thing that is judged.
struct Usage<'a> {
    resource: &'a str,
    kind: &'a str,
    request: Option<&'a Quantity>,
    limit: Option<&'a Quantity>,
}

impl Usage<'_> {
    fn at_least(&self, least: &Quantity) -> Option<String> {
        let said = format!("minimum {} usage per {} is {least}", self.resource, self.kind);
        match (self.request, self.limit) {
            (None, _) => Some(format!("{said}.  No request is specified")),
            (Some(request), _) if request < least => Some(format!("{said}, but request is {request}")),
            (_, Some(limit)) if limit < least => Some(format!("{said}, but limit is {limit}")),
            _ => None,
        }
    }

    fn at_most(&self, most: &Quantity) -> Option<String> {
        let said = format!("maximum {} usage per {} is {most}", self.resource, self.kind);
        match (self.request, self.limit) {
            (_, None) => Some(format!("{said}.  No limit is specified")),
            (_, Some(limit)) if limit > most => Some(format!("{said}, but limit is {limit}")),
            (Some(request), _) if request > most => Some(format!("{said}, but request is {request}")),
            _ => None,
        }
    }

    fn requested_at_most(&self, most: &Quantity) -> Option<String> {
        let said = format!("maximum {} usage per {} is {most}", self.resource, self.kind);
        match self.request {
            None => Some(format!("{said}.  No request is specified")),
            Some(request) if request > most => Some(format!("{said}, but request is {request}")),
            Some(_) => None,
        }
    }

    #[allow(clippy::cast_precision_loss)] // upstream divides floats, too
    fn ratio_at_most(&self, most: &Quantity) -> Option<String> {
        let said = format!("{} max limit to request ratio per {} is {most}", self.resource, self.kind);
        let known = |amount: Option<&Quantity>| amount.filter(|amount| !amount.is_zero()).map(Quantity::milli_value);
        let Some(request) = known(self.request) else {
            return Some(format!("{said}, but no request is specified or request is 0"));
        };
        let Some(limit) = known(self.limit) else {
            return Some(format!("{said}, but no limit is specified or limit is 0"));
        };
        let ratio = limit as f64 / request as f64;
        (ratio > most.milli_value() as f64 / 1_000.0).then(|| format!("{said}, but provided ratio is {ratio:.6}"))
    }
}

fn judge(item: &Value, kind: &str, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let rules: [(&str, Rule); 3] = [
        ("min", |usage, bound| usage.at_least(bound)),
        ("max", |usage, bound| usage.at_most(bound)),
        ("maxLimitRequestRatio", |usage, bound| usage.ratio_at_most(bound)),
    ];
    let mut errors = Vec::new();
    for (field, rule) in rules {
        for (resource, bound) in amounts(&item[field]) {
            let usage =
                Usage { resource: &resource, kind, request: requests.get(&resource), limit: limits.get(&resource) };
            errors.extend(rule(&usage, &bound));
        }
    }
    errors
}

fn pod_errors(range: &Value, pod: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for item in items(range, "/spec/limits") {
        match text(item, "/type") {
            "Container" => {
                for container in ["/spec/containers", "/spec/initContainers"].iter().flat_map(|list| items(pod, list)) {
                    let resources = &container["resources"];
                    errors.extend(judge(
                        item,
                        "Container",
                        &amounts(&resources["requests"]),
                        &amounts(&resources["limits"]),
                    ));
                }
            }
            "Pod" => {
                let spec: PodSpec = serde_json::from_value(pod["spec"].clone()).unwrap_or_default();
                errors.extend(judge(item, "Pod", &api::resources::requests(&spec), &api::resources::limits(&spec)));
            }
            _ => {}
        }
    }
    errors
}

fn claim_errors(range: &Value, claim: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = amounts(claim.pointer("/spec/resources/requests").unwrap_or(&Value::Null));
    let mut errors = Vec::new();
    for item in items(range, "/spec/limits").filter(|item| text(item, "/type") == KIND) {
        let rules: [(&str, Rule); 2] =
            [("min", |usage, bound| usage.at_least(bound)), ("max", |usage, bound| usage.requested_at_most(bound))];
        for (field, rule) in rules {
            for (resource, bound) in amounts(&item[field]) {
                let usage = Usage { resource: &resource, kind: KIND, request: requests.get(&resource), limit: None };
                errors.extend(rule(&usage, &bound));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Cluster;

    fn cluster(item: Value) -> Cluster {
        Cluster::with("limitranges", "default", "limits", json!({ "spec": { "limits": [item] } }))
    }

    fn pod(resources: Value) -> Value {
        let containers = json!([{ "name": "c", "image": "i", "resources": resources }]);
        json!({ "metadata": { "name": "p" }, "spec": { "containers": containers } })
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let item = json!({ "type": "Container", "default": { "cpu": "2", "memory": "1Gi" }, "defaultRequest": { "cpu": "1" } });
        let made = cluster(item).created("pods", pod(json!({ "limits": { "memory": "2Gi" } }))).unwrap();
        let resources = &made["spec"]["containers"][0]["resources"];
        assert_eq!(*resources, json!({ "limits": { "cpu": "2", "memory": "2Gi" }, "requests": { "cpu": "1" } }));
        let note = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(made["metadata"]["annotations"]["kubernetes.io/limit-ranger"], note);
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused() {
        let item = json!({
            "type": "Container", "min": { "cpu": "100m" }, "max": { "cpu": "1" }, "maxLimitRequestRatio": { "cpu": "2" },
        });
        let cluster = cluster(item);
        let refusal = |request: &str, limit: &str| {
            let resources = json!({ "requests": { "cpu": request }, "limits": { "cpu": limit } });
            cluster.created("pods", pod(resources)).err().map(|refusal| refusal.message)
        };
        assert_eq!(refusal("500m", "1"), None);
        let text = "pods \"p\" is forbidden: minimum cpu usage per Container is 100m, but request is 50m";
        assert_eq!(refusal("50m", "100m").as_deref(), Some(text));
        let text = "pods \"p\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
        assert_eq!(refusal("1", "2").as_deref(), Some(text));
        let text = "cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000";
        assert!(refusal("200m", "1").unwrap().ends_with(text));
        let both = cluster.created("pods", pod(json!({}))).unwrap_err().message;
        assert!(both.contains("[minimum cpu usage per Container is 100m.  No request is specified, maximum"), "{both}");
    }

    #[test]
    fn a_resize_is_judged_as_a_new_pod_is() {
        let cluster = cluster(json!({ "type": "Container", "max": { "cpu": "1" } }));
        let with = |cpu: &str| pod(json!({ "requests": { "cpu": cpu }, "limits": { "cpu": cpu } }));
        assert!(cluster.resized(&with("2"), &with("1")).is_ok());
        let refusal = cluster.resized(&with("1"), &with("2")).unwrap_err();
        let text = "pods \"p\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
        assert_eq!(refusal.message, text);
    }

    #[test]
    fn pods_and_claims_are_summed() {
        let sum = cluster(json!({ "type": "Pod", "max": { "memory": "1Gi" } }));
        let resources = json!({ "requests": { "memory": "1Gi" }, "limits": { "memory": "2Gi" } });
        let text = "maximum memory usage per Pod is 1Gi, but limit is 2Gi";
        assert!(sum.created("pods", pod(resources)).unwrap_err().message.ends_with(text));
        let claims = cluster(json!({ "type": "PersistentVolumeClaim", "min": { "storage": "2Gi" } }));
        let claim =
            json!({ "metadata": { "name": "c" }, "spec": { "resources": { "requests": { "storage": "1Gi" } } } });
        let text = "minimum storage usage per PersistentVolumeClaim is 2Gi, but request is 1Gi";
        assert!(claims.created("persistentvolumeclaims", claim).unwrap_err().message.ends_with(text));
    }
}
