//! What every cluster has from the start: its namespaces, and the `kubernetes` Service that leads to this server.

use std::net::IpAddr;

use auth::{UserInfo, names};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::server::ApiServer;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Also the name of the default ServiceCIDR.
const SERVICE: &str = "kubernetes";
const SERVICE_CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// Why the start-up objects could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("{method} {path} was answered with {code}: {message}")]
    Refused { method: &'static str, path: String, code: u16, message: String },
    #[error("the service network {0} has no usable address")]
    NoServiceAddress(String),
}

pub(crate) async fn run(server: &ApiServer) -> Result<(), BootstrapError> {
    for name in NAMESPACES {
        let namespace = json!({ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": name } });
        ensure(server, "/api/v1/namespaces", &namespace, Existing::Keep).await?;
    }
    for (path, object) in crate::flow_control::objects() {
        ensure(server, &path, &object, Existing::Keep).await?;
    }
    for registration in crate::aggregation::registrations() {
        ensure(server, API_SERVICES, &registration, Existing::Keep).await?;
    }
    service_cidr(server).await?;
    let advertise = server.core.network.advertise;
    let service_ip = server
        .core
        .own_service_ip()
        .ok_or_else(|| BootstrapError::NoServiceAddress(server.core.network.services.to_string()))?;
    let labels = json!({ "component": "apiserver", "provider": "kubernetes" });
    let service = json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": { "name": SERVICE, "namespace": "default", "labels": labels },
        "spec": {
            "clusterIP": service_ip.to_string(), "type": "ClusterIP", "sessionAffinity": "None",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": advertise.port() }],
        },
    });
    ensure(server, "/api/v1/namespaces/default/services", &service, Existing::Keep).await?;
    let endpoints = json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": {
            "name": SERVICE, "namespace": "default",
            // Its slice is made here, not mirrored.
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": [{ "ip": advertise.ip().to_string() }],
            "ports": [{ "name": "https", "port": advertise.port(), "protocol": "TCP" }],
        }],
    });
    ensure(server, "/api/v1/namespaces/default/endpoints", &endpoints, Existing::Replace).await?;
    let family = if matches!(advertise.ip(), IpAddr::V4(_)) { "IPv4" } else { "IPv6" };
    let slice = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": family,
        "metadata": {
            "name": SERVICE, "namespace": "default", "labels": { "kubernetes.io/service-name": SERVICE },
        },
        "endpoints": [{ "addresses": [advertise.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": advertise.port(), "protocol": "TCP" }],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    ensure(server, slices, &slice, Existing::Replace).await
}

/// The network that Services have their addresses from, as an object: ready from the start
/// (`pkg/controlplane/controller/defaultservicecidr`).
async fn service_cidr(server: &ApiServer) -> Result<(), BootstrapError> {
    let cidrs = json!([server.core.network.services.trunc()]);
    let wanted = json!({
        "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
        "metadata": { "name": SERVICE }, "spec": { "cidrs": cidrs },
    });
    ensure(server, SERVICE_CIDRS, &wanted, Existing::Keep).await?;
    let path = format!("{SERVICE_CIDRS}/{SERVICE}");
    let (code, mut found) = send(server, "GET", &path, &Value::Null).await;
    if !code.is_success() {
        return Err(refused("GET", &path, code, &found));
    }
    if found["spec"]["cidrs"] != cidrs {
        tracing::warn!(found = %found["spec"]["cidrs"], configured = %cidrs, "the default ServiceCIDR is another one");
        return Ok(());
    }
    if found["metadata"].get("deletionTimestamp").is_some() || is_judged(&found) {
        return Ok(());
    }
    found["status"] = json!({ "conditions": [{
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": Timestamp::now(),
    }]});
    let path = format!("{path}/status");
    match send(server, "PUT", &path, &found).await {
        (code, _) if code.is_success() => Ok(()),
        (code, answer) => Err(refused("PUT", &path, code, &answer)),
    }
}

/// Whether somebody said already if a ServiceCIDR is ready.
fn is_judged(cidr: &Value) -> bool {
    let conditions = cidr["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["type"] == "Ready").any(|condition| condition["status"] != "Unknown")
}

/// What is done with an object that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

async fn ensure(server: &ApiServer, path: &str, object: &Value, existing: Existing) -> Result<(), BootstrapError> {
    let own = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
    // What is there may be more than could be made now: a Service whose network is no longer ready.
    if existing == Existing::Keep && send(server, "GET", &own, &Value::Null).await.0.is_success() {
        return Ok(());
    }
    let (code, answer) = send(server, "POST", path, object).await;
    if code.is_success() {
        return Ok(());
    }
    if code != StatusCode::CONFLICT || answer["reason"] != "AlreadyExists" {
        return Err(refused("POST", path, code, &answer));
    }
    if existing == Existing::Keep {
        return Ok(());
    }
    let path = own;
    match send(server, "PUT", &path, object).await {
        (code, _) if code.is_success() => Ok(()),
        (code, answer) => Err(refused("PUT", &path, code, &answer)),
    }
}

fn refused(method: &'static str, path: &str, code: StatusCode, answer: &Value) -> BootstrapError {
    let message = answer["message"].as_str().unwrap_or_default().to_owned();
    BootstrapError::Refused { method, path: path.to_owned(), code: code.as_u16(), message }
}

/// Sends a request as the API server itself, on the road that all requests take.
async fn send(server: &ApiServer, method: &str, path: &str, object: &Value) -> (StatusCode, Value) {
    let client = server.in_process(UserInfo::new("system:apiserver", &[names::PRIVILEGED_GROUP]), "kube-apiserver");
    let mut request = Request::new(Full::new(Bytes::from(object.to_string())));
    *request.method_mut() = method.parse().unwrap_or_default();
    *request.uri_mut() = path.parse().unwrap_or_default();
    let Ok(response) = client.oneshot(request).await;
    let code = response.status();
    let bytes = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}
