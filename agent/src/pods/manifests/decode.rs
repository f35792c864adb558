//! A manifest as a pod of this node (pkg/kubelet/config/common.go): what the API server would default or refuse must be
//! defaulted or refused here, for there may be none. Pure.

use std::collections::BTreeSet;

use base16ct::lower::encode_string;
use k8s_openapi::api::core::v1::{
    Container, Pod, PodSpec, PodStatus, ResourceRequirements, Toleration, Volume, VolumeProjection,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Where manifests come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A file's path.
    File(&'a str),
    /// A URL.
    Url(&'a str),
}

/// Why a manifest is no pod. The texts are upstream's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("couldn't parse as pod({0}), please check config file")]
    Syntax(String),
    #[error("invalid pod: {0}")]
    Invalid(String),
    #[error("static pods may not reference {0}")]
    Reference(&'static str),
}

/// One pod.
///
/// # Errors
/// What is wrong with it.
pub fn pod(text: &str, origin: &Origin<'_>, node_name: &str) -> Result<Pod, ManifestError> {
    finish(parse(text)?, origin, node_name)
}

/// One pod, or the pods of a `PodList`.
///
/// # Errors
/// What is wrong with the first that is wrong.
pub fn pods(text: &str, origin: &Origin<'_>, node_name: &str) -> Result<Vec<Pod>, ManifestError> {
    let mut value = parse(text)?;
    if text_of(&value, "kind") != "PodList" {
        return Ok(vec![finish(value, origin, node_name)?]);
    }
    let items = value.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let typed = |mut item: Value| {
        // Lists leave it out of their items.
        if let Value::Object(fields) = &mut item {
            fields.entry("apiVersion").or_insert_with(|| "v1".into());
            fields.entry("kind").or_insert_with(|| "Pod".into());
        }
        finish(item, origin, node_name)
    };
    items.into_iter().map(typed).collect()
}

fn parse(text: &str) -> Result<Value, ManifestError> {
    // JSON is YAML too.
    serde_saphyr::from_str(text).map_err(|error| ManifestError::Syntax(error.to_string()))
}

fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn finish(value: Value, origin: &Origin<'_>, node_name: &str) -> Result<Pod, ManifestError> {
    let (version, kind) = (text_of(&value, "apiVersion"), text_of(&value, "kind"));
    if (version, kind) != ("v1", "Pod") {
        return Err(ManifestError::Syntax(format!("no v1 Pod but {version:?} {kind:?}")));
    }
    let hash = hash(&value, origin, node_name);
    let mut pod: Pod = serde_json::from_str(&value.to_string()).map_err(|error| unread(&error))?;
    if pod.metadata.name.as_ref().is_none_or(String::is_empty) {
        return Err(ManifestError::Invalid("name is needed for the pod".to_owned()));
    }
    identify(&mut pod, hash, origin, node_name);
    let spec = pod.spec.get_or_insert_default();
    default_spec(spec);
    check(&pod).map_err(ManifestError::Invalid)?;
    match pod.spec.as_ref().and_then(api_reference) {
        Some(what) => Err(ManifestError::Reference(what)),
        None => Ok(pod),
    }
}

/// Pods are read from text, as everywhere: one reader is enough in a program. Where in that text nobody wants to know.
fn unread(error: &serde_json::Error) -> ManifestError {
    let error = error.to_string();
    ManifestError::Syntax(error.rsplit_once(" at line ").map_or(error.as_str(), |(what, _)| what).to_owned())
}

/// Of what the manifest says, not how: a manifest that says the same is the same pod.
fn hash(value: &Value, origin: &Origin<'_>, node_name: &str) -> String {
    let place = match origin {
        Origin::File(path) => format!("host:{node_name}file:{path}"),
        Origin::Url(url) => format!("url:{url}"),
    };
    // serde_json's objects are sorted.
    let digest = Sha256::new().chain_update(value.to_string()).chain_update(place).finalize();
    encode_string(&digest).chars().take(32).collect()
}

fn identify(pod: &mut Pod, hash: String, origin: &Origin<'_>, node_name: &str) {
    let meta = &mut pod.metadata;
    let uid = meta.uid.take().filter(|uid| !uid.is_empty()).unwrap_or(hash);
    meta.name = meta.name.take().map(|name| format!("{name}-{}", node_name.to_lowercase()));
    meta.namespace = meta.namespace.take().filter(|name| !name.is_empty()).or_else(|| Some("default".to_owned()));
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(api::pod::HASH_ANNOTATION.to_owned(), uid.clone());
    let source = if matches!(origin, Origin::File(_)) { "file" } else { "http" };
    annotations.insert(api::pod::SOURCE_ANNOTATION.to_owned(), source.to_owned());
    meta.uid = Some(uid);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    if source == "file" {
        let stays = Toleration {
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Toleration::default()
        };
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(&stays) {
            tolerations.push(stays);
        }
    }
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
}

/// The defaults of the API server that change what a node does. Where an absent field means its default anyway, it
/// stays absent.
fn default_spec(spec: &mut PodSpec) {
    let host_network = spec.host_network.unwrap_or(false);
    default_requests(spec.resources.as_mut());
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        default_requests(container.resources.as_mut());
        for port in container.ports.iter_mut().flatten().filter(|_| host_network) {
            port.host_port = port.host_port.filter(|port| *port > 0).or(Some(port.container_port));
        }
    }
}

/// What is limited and not requested is requested.
fn default_requests(resources: Option<&mut ResourceRequirements>) {
    let Some(resources) = resources else { return };
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// The rules without which a node cannot run the pod, or must not: names become paths.
fn check(pod: &Pod) -> Result<(), String> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some(problem) = api::names::subdomain_errors(name).first() {
        return Err(format!("metadata.name: Invalid value: {name:?}: {problem}"));
    }
    label("metadata.namespace", pod.metadata.namespace.as_deref().unwrap_or_default())?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if uid.contains('/') || uid.starts_with('.') {
        return Err(format!("metadata.uid: Invalid value: {uid:?}: may not contain '/' or begin with '.'"));
    }
    if spec.containers.is_empty() {
        return Err("spec.containers: Required value".to_owned());
    }
    let mut volumes = BTreeSet::new();
    for volume in spec.volumes.iter().flatten() {
        label("spec.volumes.name", &volume.name)?;
        if !volumes.insert(volume.name.as_str()) {
            return Err(format!("spec.volumes.name: Duplicate value: {:?}", volume.name));
        }
    }
    let mut names = BTreeSet::new();
    let lists =
        [("spec.initContainers", spec.init_containers.as_deref()), ("spec.containers", Some(&*spec.containers))];
    for (path, list) in lists {
        for container in list.unwrap_or_default() {
            check_container(path, container, &volumes)?;
            if !names.insert(container.name.as_str()) {
                return Err(format!("{path}.name: Duplicate value: {:?}", container.name));
            }
        }
    }
    match spec.restart_policy.as_deref() {
        None | Some("Always" | "OnFailure" | "Never") => Ok(()),
        Some(other) => Err(format!(
            "spec.restartPolicy: Unsupported value: {other:?}: supported values: \"Always\", \"OnFailure\", \"Never\""
        )),
    }
}

fn check_container(path: &str, container: &Container, volumes: &BTreeSet<&str>) -> Result<(), String> {
    label(&format!("{path}.name"), &container.name)?;
    if container.image.as_ref().is_none_or(String::is_empty) {
        return Err(format!("{path}.image: Required value"));
    }
    for mount in container.volume_mounts.iter().flatten() {
        if !volumes.contains(mount.name.as_str()) {
            return Err(format!("{path}.volumeMounts.name: Not found: {:?}", mount.name));
        }
        if mount.mount_path.is_empty() {
            return Err(format!("{path}.volumeMounts.mountPath: Required value"));
        }
        let sub_path = mount.sub_path.as_deref().unwrap_or_default();
        if sub_path.starts_with('/') {
            return Err(format!("{path}.volumeMounts.subPath: Invalid value: {sub_path:?}: must be a relative path"));
        }
    }
    for port in container.ports.iter().flatten() {
        if !(1..=65535).contains(&port.container_port) {
            let number = port.container_port;
            return Err(format!(
                "{path}.ports.containerPort: Invalid value: {number}: must be between 1 and 65535, inclusive"
            ));
        }
    }
    Ok(())
}

fn label(path: &str, name: &str) -> Result<(), String> {
    match api::names::label_errors(name).first() {
        Some(problem) => Err(format!("{path}: Invalid value: {name:?}: {problem}")),
        None => Ok(()),
    }
}

/// What of the API a pod refers to, in upstream's order and words (`PreventStaticPodAPIReferences`).
fn api_reference(spec: &PodSpec) -> Option<&'static str> {
    if spec.service_account_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let volumes = || spec.volumes.iter().flatten();
    let projections =
        || volumes().filter_map(|volume| volume.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    let variables = || containers().flat_map(|c| c.env.iter().flatten()).filter_map(|v| v.value_from.as_ref());
    let sources = || containers().flat_map(|c| c.env_from.iter().flatten());
    let secrets = spec.image_pull_secrets.as_ref().is_some_and(|list| !list.is_empty())
        || sources().any(|source| source.secret_ref.is_some())
        || variables().any(|source| source.secret_key_ref.is_some())
        || volumes().any(|volume| volume.secret.is_some())
        || projections().any(|source| source.secret.is_some());
    let config_maps = sources().any(|source| source.config_map_ref.is_some())
        || variables().any(|source| source.config_map_key_ref.is_some())
        || volumes().any(|volume| volume.config_map.is_some())
        || projections().any(|source| source.config_map.is_some());
    if secrets {
        return Some("secrets");
    }
    if config_maps {
        return Some("configmaps");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    volumes().find_map(volume_reference)
}

fn volume_reference(volume: &Volume) -> Option<&'static str> {
    let projection = |source: &VolumeProjection| {
        if source.service_account_token.is_some() {
            Some("serviceaccounts (via projected volumes)")
        } else if source.cluster_trust_bundle.is_some() {
            Some("clustertrustbundles")
        } else {
            source.pod_certificate.as_ref().map(|_| "podcertificates")
        }
    };
    if volume.csi.is_some() {
        return Some("csidrivers (via CSI volumes)");
    }
    if volume.glusterfs.is_some() {
        return Some("endpoints (via glusterFS volumes)");
    }
    if volume.persistent_volume_claim.is_some() {
        return Some("persistentvolumeclaims");
    }
    if volume.ephemeral.is_some() {
        return Some("persistentvolumeclaims (via ephemeral volumes)");
    }
    if volume.azure_file.is_some() {
        return Some("secrets (via azureFile volumes)");
    }
    volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()).find_map(projection)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  hostNetwork: true
  containers:
    - {name: c, image: shop/web, ports: [{containerPort: 80}], resources: {limits: {cpu: 1}, requests: {memory: 1Mi}}}
";

    fn web(change: &str) -> Result<Pod, String> {
        let text = WEB.replace("image: shop/web", &format!("image: shop/web{change}"));
        pod(&text, &Origin::File("/m/web.yaml"), "Node-1").map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_the_node() {
        let pod = web("").unwrap();
        let (meta, spec) = (&pod.metadata, pod.spec.as_ref().unwrap());
        assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web-node-1"), Some("default")));
        let uid = meta.uid.clone().unwrap();
        assert_eq!(uid.len(), 32);
        assert_eq!(api::pod::annotation(&pod, api::pod::HASH_ANNOTATION), Some(uid.as_str()));
        assert!(api::pod::is_static(&pod) && !api::pod::is_mirror(&pod));
        assert_eq!(spec.node_name.as_deref(), Some("Node-1"));
        assert_eq!(spec.tolerations.as_ref().unwrap().len(), 1);
        let container = &spec.containers[0];
        assert_eq!(container.ports.as_ref().unwrap()[0].host_port, Some(80));
        let requests = container.resources.as_ref().unwrap().requests.as_ref().unwrap();
        assert_eq!(requests.keys().collect::<Vec<_>>(), ["cpu", "memory"]);
    }

    #[test]
    fn what_it_says_is_what_it_is() {
        let uid = |text: &str, origin| pod(text, &origin, "n").unwrap().metadata.uid.unwrap();
        let json = serde_json::to_string(&serde_saphyr::from_str::<Value>(WEB).unwrap()).unwrap();
        assert_eq!(uid(WEB, Origin::File("/a")), uid(&json, Origin::File("/a")));
        let turned = WEB.replace("apiVersion: v1\nkind: Pod", "kind: Pod\napiVersion: v1");
        assert_eq!(uid(WEB, Origin::File("/a")), uid(&turned, Origin::File("/a")));
        assert_ne!(uid(WEB, Origin::File("/a")), uid(WEB, Origin::File("/b")));
        assert_ne!(uid(WEB, Origin::File("/a")), uid(WEB, Origin::Url("/a")));
        assert_ne!(uid(WEB, Origin::File("/a")), uid(&WEB.replace("80", "81"), Origin::File("/a")));
        assert_eq!(uid(&WEB.replace("{name: web}", "{name: web, uid: own}"), Origin::File("/a")), "own");
    }

    #[test]
    fn lists_of_pods() {
        let list = r#"{"kind": "PodList", "apiVersion": "v1", "items": [
            {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            {"metadata": {"name": "b"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}]}"#;
        let found = pods(list, &Origin::Url("http://x"), "n").unwrap();
        let names: Vec<_> = found.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["a-n", "b-n"]);
        assert_eq!(found[0].spec.as_ref().unwrap().tolerations, None);
        assert_eq!(pods(WEB, &Origin::Url("http://x"), "n").unwrap().len(), 1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let of = |text: &str| pod(text, &Origin::File("/m"), "n").unwrap_err().to_string();
        assert!(of("a: [").starts_with("couldn't parse as pod("));
        assert!(of("{apiVersion: v1, kind: Service}").contains("\"Service\""));
        assert_eq!(of("{apiVersion: v1, kind: Pod}"), "invalid pod: name is needed for the pod");
        assert_eq!(
            of("{apiVersion: v1, kind: Pod, metadata: {name: a}}"),
            "invalid pod: spec.containers: Required value"
        );
        let container = |fields: &str| {
            of(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{containers: [{{{fields}}}]}}}}"))
        };
        assert!(
            container("name: ../x, image: i")
                .starts_with("invalid pod: spec.containers.name: Invalid value: \"../x\": ")
        );
        assert_eq!(container("name: c"), "invalid pod: spec.containers.image: Required value");
        assert_eq!(
            container("name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]"),
            "invalid pod: spec.containers.volumeMounts.name: Not found: \"v\""
        );
        assert_eq!(web(", workingDir: 3").unwrap_err().split('(').next(), Some("couldn't parse as pod"));
    }

    #[test]
    fn the_api_must_not_be_needed() {
        let of = |spec: &str| {
            let text = format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{containers: [{{name: c, image: i}}], {spec}}}}}"
            );
            pod(&text, &Origin::File("/m"), "n").unwrap_err().to_string()
        };
        assert_eq!(of("serviceAccountName: x"), "static pods may not reference serviceaccounts");
        assert_eq!(of("volumes: [{name: v, secret: {secretName: x}}]"), "static pods may not reference secrets");
        assert_eq!(of("volumes: [{name: v, configMap: {name: x}}]"), "static pods may not reference configmaps");
        assert_eq!(
            of("volumes: [{name: v, persistentVolumeClaim: {claimName: x}}]"),
            "static pods may not reference persistentvolumeclaims"
        );
        assert_eq!(
            of("volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: x}}]}}]"),
            "static pods may not reference serviceaccounts (via projected volumes)"
        );
        let env = "initContainers: [{name: i, image: i, envFrom: [{secretRef: {name: x}}]}]";
        assert_eq!(of(env), "static pods may not reference secrets");
    }
}
