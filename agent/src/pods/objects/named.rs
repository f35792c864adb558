//! The objects that a pod names (upstream's `VisitPodConfigmapNames` and `VisitPodSecretNames`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, PodSpec};
use volumes::Reference;

/// All of a pod: in the volumes that are mounted, in environments, and for pulls.
#[must_use]
pub fn by_pod(pod: &Pod) -> BTreeSet<Reference> {
    let mut all = volumes::plan(pod).references();
    let Some(spec) = &pod.spec else { return all };
    for (env, from) in environments(spec) {
        all.extend(by_environment(env.unwrap_or_default(), from.unwrap_or_default()));
    }
    let secrets = spec.image_pull_secrets.iter().flatten().filter(|secret| !secret.name.is_empty());
    all.extend(secrets.map(|secret| Reference::Secret(secret.name.clone())));
    all
}

type Environment<'a> = (Option<&'a [EnvVar]>, Option<&'a [EnvFromSource]>);

fn environments(spec: &PodSpec) -> impl Iterator<Item = Environment<'_>> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    containers
        .map(|container| (container.env.as_deref(), container.env_from.as_deref()))
        .chain(ephemeral.map(|container| (container.env.as_deref(), container.env_from.as_deref())))
}

/// Those of an environment.
#[must_use]
pub fn by_environment(env: &[EnvVar], from: &[EnvFromSource]) -> BTreeSet<Reference> {
    let mut all = BTreeSet::new();
    for source in from {
        all.extend(source.config_map_ref.as_ref().map(|source| Reference::ConfigMap(source.name.clone())));
        all.extend(source.secret_ref.as_ref().map(|source| Reference::Secret(source.name.clone())));
    }
    for source in env.iter().filter_map(|variable| variable.value_from.as_ref()) {
        all.extend(source.config_map_key_ref.as_ref().map(|source| Reference::ConfigMap(source.name.clone())));
        all.extend(source.secret_key_ref.as_ref().map(|source| Reference::Secret(source.name.clone())));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_pod_names_is_found() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
            "volumes": [{"name": "v", "configMap": {"name": "volume"}}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "init"}}]}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}], "envFrom": [{"secretRef": {"name": "all"}}], "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}}, {"name": "C", "value": "c"}]}],
            "ephemeralContainers": [{"name": "e", "envFrom": [{"configMapRef": {"name": "debug"}}]}]
        }}))
        .unwrap();
        let config_maps = ["volume", "init", "one", "debug"].map(|name| Reference::ConfigMap(name.to_owned()));
        let secrets = ["pull", "all", "one"].map(|name| Reference::Secret(name.to_owned()));
        assert_eq!(by_pod(&pod), config_maps.into_iter().chain(secrets).collect());
    }
}
