//! `v1` DeleteOptions: the body of a delete, in any group.

use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, NameRule};
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    names: NameRule::Any,
    hooks: Hooks { validate, ..Hooks::PLAIN },
    ..Kind::body("", "v1", "DeleteOptions")
};

const POLICIES: [&str; 4] = ["Foreground", "Background", "Orphan", "nil"];

fn validate(options: &Value, errors: &mut Errors) {
    let path = Path::root("propagationPolicy");
    let policy = options.at("propagationPolicy");
    if options.has("orphanDependents") && !policy.is_null() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        errors.invalid(&path, policy.clone(), detail);
    }
    if policy.as_str().is_some_and(|p| !POLICIES.iter().take(3).any(|known| *known == p)) {
        errors.not_supported(&path, policy.clone(), &POLICIES);
    }
    for value in options.list("dryRun") {
        if value != "All" {
            errors.not_supported(&Path::root("dryRun"), options.at("dryRun").clone(), &["All"]);
        }
    }
}
