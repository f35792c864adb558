//! Security contexts.

use serde_json::Value;

use super::volumes::descending;
use crate::errors::{Errors, Path};
use crate::names::account_id;
use crate::value::Fields;

const SYSCTL: &str = "^[a-z0-9]([-_a-z0-9]*[a-z0-9])?([\\./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*$";

/// The pod's context, and what hangs on it.
pub(crate) fn pod(spec: &Value, path: &Path, errors: &mut Errors) {
    let context = spec.at("securityContext");
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], path, errors);
    let groups = path.child("supplementalGroups");
    for (index, group) in context.list("supplementalGroups").iter().enumerate() {
        let id = group.as_i64().unwrap_or(0);
        if let Some(text) = account_id(id) {
            errors.invalid(&groups.index(index), id, &text);
        }
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, detail);
    }
    sysctls(context, &path.child("sysctls"), errors);
    word(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, errors);
    seccomp(context.at("seccompProfile"), &path.child("seccompProfile"), errors);
    app_armor(context.at("appArmorProfile"), &path.child("appArmorProfile"), errors);
    word(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errors);
    word(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], path, errors);
}

/// What does not go together with users of the pod's own (`validateHostUsers`; its two names in capitals are upstream's).
pub(crate) fn own_users(spec: &Value, path: &Path, errors: &mut Errors) {
    const DETAIL: &str = "when `hostUsers` is false";
    if spec.at("hostUsers").as_bool() != Some(false) {
        return;
    }
    for (field, name) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(field) {
            errors.forbidden(&path.child(name), DETAIL);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in spec.list(list).iter().enumerate() {
            if !container.list("volumeDevices").is_empty() {
                errors.forbidden(&path.child(list).index(index).child("volumeDevices"), DETAIL);
            }
        }
    }
}

/// A container's context.
pub(crate) fn container(context: &Value, spec: &Value, path: &Path, errors: &mut Errors) {
    if context.is_null() {
        return;
    }
    ids(context, &["runAsUser", "runAsGroup"], path, errors);
    word(context, "procMount", &["Default", "Unmasked"], path, errors);
    let host_users = spec.at("hostUsers").as_bool().unwrap_or(true);
    if host_users && context.text("procMount") == "Unmasked" {
        errors.invalid(&path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(context.at("seccompProfile"), &path.child("seccompProfile"), errors);
    if context.at("allowPrivilegeEscalation").as_bool() == Some(false) {
        if context.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context.clone(), detail);
        }
        if context.at("capabilities").list("add").iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context.clone(), detail);
        }
    }
    app_armor(context.at("appArmorProfile"), &path.child("appArmorProfile"), errors);
}

fn ids(context: &Value, fields: &[&str], path: &Path, errors: &mut Errors) {
    for field in fields {
        let id = context.int(field);
        if let Some((id, text)) = id.and_then(|id| account_id(id).map(|text| (id, text))) {
            errors.invalid(&path.child(field), id, &text);
        }
    }
}

fn word(context: &Value, field: &str, words: &[&str], path: &Path, errors: &mut Errors) {
    if context.has(field) && !words.contains(&context.text(field)) {
        errors.not_supported(&path.child(field), context.text(field), words);
    }
}

fn sysctls(context: &Value, path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, sysctl) in context.list("sysctls").iter().enumerate() {
        let path = path.index(index);
        let path = path.child("name");
        let name = sysctl.text("name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            errors.invalid(&path, name, &format!("must have at most 253 characters and match regex {SYSCTL}"));
        } else if seen.contains(&name) {
            errors.duplicate(&path, name);
        }
        seen.push(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let part = |part: &str| {
        edge(part.chars().next())
            && edge(part.chars().next_back())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

fn seccomp(profile: &Value, path: &Path, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
    let kind = profile.text("type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "type is required when seccompProfile is set");
    } else if !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, TYPES);
    }
    let at = path.child("localhostProfile");
    match (kind, profile.at("localhostProfile").as_str()) {
        ("Localhost", None) => errors.required(&at, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => descending(file, &at, errors),
        (_, Some(_)) => errors.invalid(&at, profile.clone(), "can only be set when seccomp type is Localhost"),
        (_, None) => {}
    }
}

pub(super) fn app_armor(profile: &Value, path: &Path, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let at = path.child("localhostProfile");
    let file = profile.at("localhostProfile").as_str();
    match (profile.text("type"), file) {
        ("Localhost", None | Some("")) => errors.required(&at, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(file)) if file.trim() != file => {
            errors.invalid(&at, file, "must not be padded with whitespace");
        }
        ("Localhost", Some(file)) if file.len() > 4_095 => errors.too_long(&at, 4_095),
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            errors.invalid(&at, file, "can only be set when AppArmor type is Localhost");
        }
        ("Localhost" | "RuntimeDefault" | "Unconfined", _) => {}
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => {
            errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}
