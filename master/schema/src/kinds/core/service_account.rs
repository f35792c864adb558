//! `v1` ServiceAccount.

use serde_json::Value;

use crate::kind::{Hooks, Kind, Names, Part, Subresource};
use crate::value::Fields;
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.ServiceAccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &["create"],
    }],
    returns_deleted_object: true,
    hooks: Hooks { warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "ServiceAccount", list: "ServiceAccountList", plural: "serviceaccounts", singular: "serviceaccount" };

fn warnings(_part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    const ENFORCED: &str = "kubernetes.io/enforce-mountable-secrets";
    let has = |object: &Value| object.at("metadata").at("annotations").has(ENFORCED);
    if has(object) && !old.is_some_and(has) {
        warnings.say(format!(
            "metadata.annotations[{ENFORCED}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        ));
    }
}
