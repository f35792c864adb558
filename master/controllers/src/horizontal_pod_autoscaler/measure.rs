//! What the metrics APIs say (`pkg/controller/podautoscaler/metrics/client.go`). They are served by whoever was installed for it,
//! through the API server's aggregation.

use api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier, MetricSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, LabelSelector};
use kube::Client;
use kube::core::Selector;
use serde_json::Value;

use super::plan::Measured;
use super::replicas::{Sample, Samples};

/// The window of a metric that says none (`metricServerDefaultMetricWindow`).
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
const CUSTOM: &str = "custom.metrics.k8s.io";

/// Asks for one metric of an autoscaler. `plural`: the resource of the object that an object metric is about.
pub(super) async fn measure(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &MetricSpec,
    plural: Option<&str>,
) -> Result<Measured, String> {
    if let Some(source) = &metric.resource {
        return resource(client, namespace, selector, (&source.name, "")).await;
    }
    if let Some(source) = &metric.container_resource {
        return resource(client, namespace, selector, (&source.name, &source.container)).await;
    }
    if let Some(source) = &metric.pods {
        return pods(client, namespace, selector, &source.metric).await;
    }
    if let Some(source) = &metric.object {
        return object(client, namespace, (&source.described_object, plural), &source.metric).await;
    }
    match &metric.external {
        Some(source) => external(client, namespace, &source.metric).await,
        None => Err(format!("unknown metric source type {:?}", metric.type_)),
    }
}

async fn resource(
    client: &Client,
    namespace: &str,
    selector: &str,
    (name, container): (&str, &str),
) -> Result<Measured, String> {
    let path =
        format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?{}", query(&[("labelSelector", selector)]));
    let unable = |why| format!("unable to fetch metrics from resource metrics API: {why}");
    let list = get(client, &path, "get pods.metrics.k8s.io").await.map_err(unable)?;
    let items = items(&list);
    if items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    Ok(Measured::Pods(items.iter().filter_map(|item| of_pod(item, name, container)).collect()))
}

/// What a pod uses in one container or in all; `None` unless all of it is known.
pub(super) fn of_pod(item: &Value, resource: &str, container: &str) -> Option<(String, Sample)> {
    let containers = item.get("containers")?.as_array()?;
    let wanted = containers.iter().filter(|one| container.is_empty() || text(one, "name") == container);
    let used: Option<Vec<i64>> = wanted.map(|one| milli(one.get("usage")?.get(resource)?)).collect();
    let used = used.filter(|all| !all.is_empty())?;
    let name = text(item.get("metadata")?, "name").to_owned();
    let window = item.get("window").and_then(Value::as_str).and_then(|window| window.parse().ok());
    let milli = used.into_iter().fold(0_i64, i64::saturating_add);
    Some((name, Sample { at: time(item), window: window.unwrap_or(WINDOW), milli }))
}

async fn pods(client: &Client, namespace: &str, selector: &str, metric: &MetricIdentifier) -> Result<Measured, String> {
    let version = custom_version(client).await;
    let of_metric = selected(metric.selector.as_ref())?;
    let query = query(&[("labelSelector", selector), ("metricLabelSelector", &of_metric)]);
    let path = format!("/apis/{CUSTOM}/{version}/namespaces/{namespace}/pods/*/{}?{query}", metric.name);
    let what = format!("get pods.{CUSTOM} *");
    let list = get(client, &path, &what).await.map_err(custom_failed)?;
    let sample = |item: &Value| {
        let window = item.get("windowSeconds").or_else(|| item.get("window")).and_then(Value::as_i64);
        let window = window.map_or(WINDOW, SignedDuration::from_secs);
        let name = text(item.get("describedObject")?, "name").to_owned();
        Some((name, Sample { at: time(item), window, milli: milli(item.get("value")?)? }))
    };
    let items = items(&list);
    if items.is_empty() {
        return Err("no metrics returned from custom metrics API".to_owned());
    }
    Ok(Measured::Pods(items.iter().filter_map(sample).collect::<Samples>()))
}

async fn object(
    client: &Client,
    namespace: &str,
    (about, plural): (&CrossVersionObjectReference, Option<&str>),
    metric: &MetricIdentifier,
) -> Result<Measured, String> {
    let version = custom_version(client).await;
    let of_metric = selected(metric.selector.as_ref())?;
    let query = query(&[("metricLabelSelector", &of_metric)]);
    let (group, _) = about.api_version.as_deref().and_then(|version| version.split_once('/')).unwrap_or_default();
    let place = if about.kind == "Namespace" && group.is_empty() {
        // Of namespaces only the own one may be asked about.
        format!("namespaces/{namespace}/metrics")
    } else {
        let plural = plural.ok_or_else(|| custom_failed(no_match(&about.kind, group)))?;
        let dot = if group.is_empty() { "" } else { "." };
        format!("namespaces/{namespace}/{plural}{dot}{group}/{}", about.name)
    };
    let path = format!("/apis/{CUSTOM}/{version}/{place}/{}?{query}", metric.name);
    let list = get(client, &path, &format!("get {CUSTOM}")).await.map_err(custom_failed)?;
    let found = items(&list).first().and_then(|item| milli(item.get("value")?));
    found.map(Measured::Value).ok_or_else(|| custom_failed("no metrics returned".to_owned()))
}

async fn external(client: &Client, namespace: &str, metric: &MetricIdentifier) -> Result<Measured, String> {
    let query = query(&[("labelSelector", &selected(metric.selector.as_ref())?)]);
    let name = &metric.name;
    let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}?{query}");
    let unable = |why| format!("unable to fetch metrics from external metrics API: {why}");
    let list = get(client, &path, &format!("get {name}.external.metrics.k8s.io")).await.map_err(unable)?;
    let items = items(&list);
    if items.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    let values = items.iter().filter_map(|item| milli(item.get("value")?));
    Ok(Measured::Value(values.fold(0, i64::saturating_add)))
}

fn custom_failed(why: String) -> String {
    format!("unable to fetch metrics from custom metrics API: {why}")
}

pub(super) fn no_match(kind: &str, group: &str) -> String {
    format!("no matches for kind {kind:?} in group {group:?}")
}

/// The version of custom metrics that their server likes best.
async fn custom_version(client: &Client) -> String {
    let group: Result<APIGroup, String> = ask(client, &format!("/apis/{CUSTOM}"), "get").await;
    let preferred = group.ok().and_then(|group| group.preferred_version).map(|preferred| preferred.version);
    preferred.unwrap_or_else(|| "v1beta2".to_owned())
}

async fn get(client: &Client, path: &str, what: &str) -> Result<Value, String> {
    ask(client, path, what).await
}

async fn ask<T: serde::de::DeserializeOwned>(client: &Client, path: &str, what: &str) -> Result<T, String> {
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    client.request(request).await.map_err(|error| match error {
        // There is nobody who serves it.
        kube::Error::Api(status) if status.code == 404 && status.details.is_none() => {
            format!("the server could not find the requested resource ({what})")
        }
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    })
}

fn selected(selector: Option<&LabelSelector>) -> Result<String, String> {
    let Some(selector) = selector else { return Ok(String::new()) };
    Selector::try_from(selector.clone()).map(|selector| selector.to_string()).map_err(|error| error.to_string())
}

fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter(|(_, value)| !value.is_empty()));
    query.finish()
}

fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn time(item: &Value) -> Timestamp {
    text(item, "timestamp").parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

fn milli(quantity: &Value) -> Option<i64> {
    Some(quantity.as_str()?.parse::<Quantity>().ok()?.milli_value())
}
