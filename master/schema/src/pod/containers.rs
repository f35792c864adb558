//! Containers of all three kinds.

use serde_json::Value;

use super::{environment, handlers, resources, security, volumes};
use crate::errors::{Errors, Path};
use crate::names::{dns_label, port_name, port_number};
use crate::value::Fields;

/// What the containers of one pod share.
pub(crate) struct Scope<'a> {
    pub spec: &'a Value,
    /// Names of the valid volumes.
    pub volumes: Vec<&'a str>,
    /// Not a template.
    pub is_pod: bool,
}

impl Scope<'_> {
    fn grace(&self) -> Option<i64> {
        self.spec.int("terminationGracePeriodSeconds")
    }
}

const ONLY_SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";

pub(crate) fn all(scope: &Scope, path: &Path, errors: &mut Errors) {
    regular(scope, &path.child("containers"), errors);
    init(scope, &path.child("initContainers"), errors);
    ephemeral(scope, &path.child("ephemeralContainers"), errors);
    if scope.spec.flag("hostNetwork") {
        host_network(scope, &path.child("containers"), errors);
    }
}

fn regular(scope: &Scope, path: &Path, errors: &mut Errors) {
    let containers = scope.spec.list("containers");
    if containers.is_empty() {
        return errors.required(path, "");
    }
    let mut names = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(container, scope, &path, errors);
        unique(container.text("name"), &mut names, &path, errors);
        hooks_and_probes(container, scope, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_ports(containers, path, errors);
}

fn init(scope: &Scope, path: &Path, errors: &mut Errors) {
    let mut names: Vec<&str> = scope.spec.list("containers").iter().map(|c| c.text("name")).collect();
    for (index, container) in scope.spec.list("initContainers").iter().enumerate() {
        let at = path.index(index);
        common(container, scope, &at, errors);
        restart_policy(container, &at, errors);
        unique(container.text("name"), &mut names, &at, errors);
        host_ports(std::slice::from_ref(container), path, errors);
        if container.text("restartPolicy") == "Always" {
            hooks_and_probes(container, scope, &at, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.has(field) {
                errors.forbidden(&at.child(field), ONLY_SIDECARS);
            }
        }
    }
}

fn ephemeral(scope: &Scope, path: &Path, errors: &mut Errors) {
    let others = || ["containers", "initContainers"].into_iter().flat_map(|list| scope.spec.list(list));
    let mut names: Vec<&str> = others().map(|c| c.text("name")).collect();
    for (index, container) in scope.spec.list("ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        common(container, scope, &path, errors);
        unique(container.text("name"), &mut names, &path, errors);
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others().any(|c| c.text("name") == target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        let never =
            ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"].iter().filter(|f| container.has(f));
        let never = never.chain(["ports"].iter().filter(|f| !container.list(f).is_empty()));
        for field in never {
            errors.forbidden(&path.child(field), "cannot be set for an Ephemeral Container");
        }
        if container.at("resources").as_object().is_some_and(|r| !r.is_empty()) {
            errors.forbidden(&path.child("resources"), "cannot be set for an Ephemeral Container");
        }
        let mounts = path.child("volumeMounts");
        for (index, mount) in container.list("volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"].iter().filter(|f| !mount.text(f).is_empty()) {
                errors.forbidden(&mounts.index(index).child(field), "cannot be set for an Ephemeral Container");
            }
        }
    }
}

fn unique<'a>(name: &'a str, names: &mut Vec<&'a str>, path: &Path, errors: &mut Errors) {
    if names.contains(&name) {
        errors.duplicate(&path.child("name"), name);
    } else if !name.is_empty() {
        names.push(name);
    }
}

/// What every container is checked for.
fn common(container: &Value, scope: &Scope, path: &Path, errors: &mut Errors) {
    let name = container.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        dns_label(name).iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
    }
    if container.text("image").is_empty() {
        errors.required(&path.child("image"), "");
    }
    word(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], path, errors);
    ports(container.list("ports"), &path.child("ports"), errors);
    environment::all(container, path, errors);
    volumes::mounts(container, &scope.volumes, path, errors);
    word(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    resources::container(container.at("resources"), &path.child("resources"), errors);
    resize_policy(container, scope, &path.child("resizePolicy"), errors);
    security::container(container.at("securityContext"), scope.spec, &path.child("securityContext"), errors);
}

/// A field that must hold one of a few words.
fn word(container: &Value, field: &str, words: &[&str], path: &Path, errors: &mut Errors) {
    let value = container.text(field);
    if value.is_empty() {
        errors.required(&path.child(field), "");
    } else if !words.contains(&value) {
        errors.not_supported(&path.child(field), value, words);
    }
}

fn ports(ports: &[Value], path: &Path, errors: &mut Errors) {
    let mut names = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            let wrong = port_name(name);
            wrong.iter().for_each(|text| errors.invalid(&path.child("name"), name, text));
            if names.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            }
            names.push(name);
        }
        match port.int("containerPort").unwrap_or(0) {
            0 => errors.required(&path.child("containerPort"), ""),
            number => number_of(number, &path.child("containerPort"), errors),
        }
        let host = port.int("hostPort").unwrap_or(0);
        if host != 0 {
            number_of(host, &path.child("hostPort"), errors);
        }
        word(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
    }
}

fn number_of(port: i64, path: &Path, errors: &mut Errors) {
    if let Some(text) = port_number(port) {
        errors.invalid(path, port, &text);
    }
}

fn host_ports(containers: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("ports");
        for (index, port) in container.list("ports").iter().enumerate() {
            let Some(number) = port.int("hostPort").filter(|number| *number != 0) else { continue };
            let name = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
            if seen.contains(&name) {
                errors.duplicate(&path.index(index).child("hostPort"), name);
            } else {
                seen.push(name);
            }
        }
    }
}

/// On the host's network, a container's ports are the host's.
fn host_network(scope: &Scope, path: &Path, errors: &mut Errors) {
    for (index, container) in scope.spec.list("containers").iter().enumerate() {
        let path = path.index(index);
        let path = path.child("ports");
        for (index, port) in container.list("ports").iter().enumerate() {
            let host = port.int("hostPort").unwrap_or(0);
            if (scope.is_pod || host != 0) && Some(host) != port.int("containerPort") {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.index(index).child("hostPort"), host, detail);
            }
        }
    }
}

fn hooks_and_probes(container: &Value, scope: &Scope, path: &Path, errors: &mut Errors) {
    let grace = scope.grace();
    handlers::lifecycle(container.at("lifecycle"), grace, &path.child("lifecycle"), errors);
    for (field, once) in [("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)] {
        handlers::probe(container.at(field), once, grace, &path.child(field), errors);
    }
}

/// A container's own restart policy and rules (KEP-5307).
fn restart_policy(container: &Value, path: &Path, errors: &mut Errors) {
    let rules = container.list("restartPolicyRules");
    let at = path.child("restartPolicy");
    if !container.has("restartPolicy") {
        if !rules.is_empty() {
            errors.required(&at, "must specify restartPolicy when restart rules are used");
        }
    } else if !matches!(container.text("restartPolicy"), "Always" | "Never" | "OnFailure") {
        errors.not_supported(&at, container.text("restartPolicy"), &["Always", "Never", "OnFailure"]);
    }
    let at = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.too_many(&at, rules.len(), 20);
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = at.index(index);
        if !matches!(rule.text("action"), "Restart" | "RestartAllContainers") {
            errors.not_supported(&at.child("action"), rule.text("action"), &["Restart", "RestartAllContainers"]);
        }
        let codes = rule.at("exitCodes");
        let at = at.child("exitCodes");
        if codes.is_null() {
            errors.required(&at, "must be specified");
        } else if !matches!(codes.text("operator"), "In" | "NotIn") {
            errors.not_supported(&at.child("operator"), codes.text("operator"), &["In", "NotIn"]);
        }
        if codes.list("values").len() > 255 {
            errors.too_many(&at.child("values"), codes.list("values").len(), 255);
        }
    }
}

fn resize_policy(container: &Value, scope: &Scope, path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, policy) in container.list("resizePolicy").iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if seen.contains(&resource) {
            errors.duplicate(&path.index(index), resource);
        }
        seen.push(resource);
        let allowed: [(&str, &[&str]); 2] =
            [(resource, &["cpu", "memory"]), (restart, &["NotRequired", "RestartContainer"])];
        for (value, words) in allowed {
            if value.is_empty() {
                errors.required(path, "");
            } else if !words.contains(&value) {
                errors.not_supported(path, value, words);
            }
        }
        if scope.spec.text("restartPolicy") == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}
