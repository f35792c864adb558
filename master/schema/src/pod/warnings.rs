//! What is said of pods that are valid, and of templates of them (upstream's `pkg/api/pod/warnings.go`). Humans seldom change
//! pods, and what does changes them often: only of a new pod anything is said.

mod containers;
mod virtual_paths;

use serde_json::Value;

use super::{node_labels, resources};
use crate::addresses::{warn_of_ip, warn_of_ips};
use crate::errors::{Path, quote};
use crate::kind::Part;
use crate::kinds::core::claim_rules;
use crate::names::dns_label;
use crate::value::Fields;
use crate::warnings::{COMPARED, Warnings};

const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const USE_SECCOMP_PROFILE: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

/// Each volume that nothing mounts any longer, with its name in upstream's paths.
const VOLUMES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Of a pod.
pub(crate) fn pod(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if part == Part::Status {
        return addresses(object.at("status"), warnings);
    }
    if old.is_none() {
        name(object, "the Pod's hostname", warnings);
        spec_and_metadata(object, None, warnings);
    }
}

/// Of a new pod as the client sent it.
pub(crate) fn unprepared(object: &Value, warnings: &mut Warnings) {
    containers::app_armor_profiles(object, warnings);
}

fn addresses(status: &Value, warnings: &mut Warnings) {
    let path = Path::root("status");
    for list in ["podIPs", "hostIPs"] {
        let path = path.child(list);
        for (index, address) in status.list(list).iter().enumerate() {
            warn_of_ip(address.text("ip"), &path.index(index).child("ip"), warnings);
        }
    }
}

/// Of what makes pods that are named after it, from a template.
pub(crate) fn named_maker(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if old.is_none() {
        maker_name(object, warnings);
    }
    maker(part, object, old, warnings);
}

/// Of what makes pods from a template.
pub(crate) fn maker(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if is_due(part, object, old) {
        template(object.at("spec").at("template"), &Path::root("spec").child("template"), warnings);
    }
}

/// Whether the template is looked at: of a new object, and where something but the status has changed.
pub(crate) fn is_due(part: Part, object: &Value, old: Option<&Value>) -> bool {
    let generation = |object: &Value| object.at("metadata").int("generation");
    part == Part::Main && old.is_none_or(|old| generation(old) != generation(object))
}

/// Of the name of what makes pods.
pub(crate) fn maker_name(object: &Value, warnings: &mut Warnings) {
    name(object, "Pod names and hostnames", warnings);
}

fn name(object: &Value, used_in: &str, warnings: &mut Warnings) {
    let wrong = dns_label(object.at("metadata").text("name"));
    if !wrong.is_empty() {
        let wrong = wrong.join(" ");
        warnings.say(format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{wrong}]"
        ));
    }
}

/// Of a template at `path`.
pub(crate) fn template(template: &Value, path: &Path, warnings: &mut Warnings) {
    spec_and_metadata(template, Some(path), warnings);
}

/// Of a pod, or of a template at `base`.
fn spec_and_metadata(object: &Value, base: Option<&Path>, warnings: &mut Warnings) {
    let at = |name| base.map_or(Path::root(name), |base| base.child(name));
    let (path, annotations_path) = (at("spec"), at("metadata"));
    let annotations_path = annotations_path.child("annotations");
    let (spec, annotations) = (object.at("spec"), object.at("metadata").at("annotations"));
    nodes(spec, &path, warnings);
    spread(spec, &path, warnings);
    for (key, text) in ANNOTATIONS.into_iter().filter(|(key, _)| annotations.has(key)) {
        warnings.of(&annotations_path.key(key), text);
    }
    volumes(spec, &path, warnings);
    virtual_paths::overlapping(spec.list("volumes"), warnings);
    repeated(spec, &path, warnings);
    for name in ["memory", "ephemeral-storage"] {
        resources::fractional(spec.at("overhead"), name, &path.child("overhead"), warnings);
    }
    if annotations.has(SECCOMP) && !spec.at("securityContext").has("seccompProfile") {
        warnings.of(&annotations_path.key(SECCOMP), USE_SECCOMP_PROFILE);
    }
    containers::each(object, base.is_some(), (&path, &annotations_path), warnings);
    containers::ports(spec, &path, warnings);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let text = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.of(&path.child("terminationGracePeriodSeconds"), text);
    }
    pod_affinity(spec.at("affinity"), &path.child("affinity"), warnings);
    let dns = path.child("dnsConfig");
    warn_of_ips(spec.at("dnsConfig").list("nameservers"), &dns.child("nameservers"), warnings);
    let aliases = path.child("hostAliases");
    for (index, alias) in spec.list("hostAliases").iter().enumerate() {
        warn_of_ip(alias.text("ip"), &aliases.index(index).child("ip"), warnings);
    }
}

/// Labels of nodes that are deprecated.
fn nodes(spec: &Value, path: &Path, warnings: &mut Warnings) {
    let at = path.child("nodeSelector");
    for (label, _) in spec.entries("nodeSelector") {
        if let Some(text) = node_labels::deprecated(label) {
            warnings.of(&at.key(label), text);
        }
    }
    let affinity = spec.at("affinity").at("nodeAffinity");
    let path = path.child("affinity.nodeAffinity");
    let (required, preferred) = (path.child(REQUIRED), path.child(PREFERRED));
    let terms = required.child("nodeSelectorTerms");
    for (index, term) in affinity.at(REQUIRED).list("nodeSelectorTerms").iter().enumerate() {
        node_labels::term(term, false, &terms.index(index), warnings);
    }
    for (index, term) in affinity.list(PREFERRED).iter().enumerate() {
        let path = preferred.index(index);
        node_labels::term(term.at("preference"), true, &path.child("preference"), warnings);
    }
}

fn spread(spec: &Value, path: &Path, warnings: &mut Warnings) {
    let at = path.child("topologySpreadConstraints");
    for (index, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let path = at.index(index);
        let key = constraint.text("topologyKey");
        if let Some(text) = node_labels::deprecated(key) {
            warnings.of(&path.child("topologyKey"), format_args!("{key} is {text}"));
        }
        if !constraint.has("labelSelector") {
            warnings.of(&path.child("labelSelector"), NO_SELECTOR);
        }
    }
}

fn volumes(spec: &Value, path: &Path, warnings: &mut Warnings) {
    let at = path.child("volumes");
    for (index, volume) in spec.list("volumes").iter().enumerate() {
        let path = at.index(index);
        for (_, shown, text) in VOLUMES.into_iter().filter(|(field, ..)| volume.has(field)) {
            warnings.of(&path.child(shown), text);
        }
        let claim = volume.at("ephemeral").at("volumeClaimTemplate");
        if !claim.is_null() {
            let path = path.child("ephemeral.volumeClaimTemplate.spec");
            claim_rules::warn_of_spec(claim.at("spec"), &path, warnings);
        }
    }
}

/// What should be there once, and pull secrets without a name.
fn repeated(spec: &Value, path: &Path, warnings: &mut Warnings) {
    for (list, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let at = path.child(list);
        for (index, text) in repeats(spec.list(list), field) {
            warnings.of(&at.index(index).child(field), format_args!("duplicate {field} {}", quote(text)));
        }
    }
    let at = path.child("imagePullSecrets");
    for (index, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            warnings.of(&at.index(index).child("name"), "invalid empty name \"\"");
        }
    }
}

/// The items whose text in a field an item before them has, too.
fn repeats<'a>(list: &'a [Value], field: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let texts = list.iter().take(COMPARED).map(|item| item.text(field)).enumerate();
    texts.filter(move |(index, text)| list.iter().take(*index).any(|before| before.text(field) == *text))
}

fn pod_affinity(affinity: &Value, path: &Path, warnings: &mut Warnings) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, path) = (affinity.at(kind), path.child(kind));
        let (required, preferred) = (path.child(REQUIRED), path.child(PREFERRED));
        for (index, term) in affinity.list(REQUIRED).iter().enumerate() {
            if !term.has("labelSelector") {
                warnings.of(&required.index(index).child("labelSelector"), NO_SELECTOR);
            }
        }
        for (index, term) in affinity.list(PREFERRED).iter().enumerate() {
            if !term.at("podAffinityTerm").has("labelSelector") {
                warnings.of(&preferred.index(index).child("podAffinityTerm.labelSelector"), NO_SELECTOR);
            }
        }
    }
}
