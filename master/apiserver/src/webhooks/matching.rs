//! Which requests the rules of a webhook are about (`apiserver/pkg/admission/plugin/webhook/predicates/rules`). Pure.

use serde_json::Value;

/// What a request is about.
pub(super) struct Place<'a> {
    pub operation: &'static str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: String,
    pub namespaced: bool,
    /// Empty while a name is still to be generated.
    pub name: String,
}

/// Whether any rule of a list is about the request.
pub(super) fn any(holder: &Value, list: &str, place: &Place<'_>) -> bool {
    holder[list].as_array().into_iter().flatten().any(|rule| rule_matches(rule, place))
}

fn rule_matches(rule: &Value, place: &Place<'_>) -> bool {
    let lists = |field: &str, wanted: &str| {
        rule[field].as_array().into_iter().flatten().any(|text| text == "*" || text == wanted)
    };
    let in_scope = match rule["scope"].as_str() {
        Some("Namespaced") => place.namespaced,
        Some("Cluster") => !place.namespaced,
        _ => true,
    };
    // Rules of policies may be about some objects only.
    let names_it = |names: &Vec<Value>| names.is_empty() || names.iter().any(|name| *name == place.name.as_str());
    in_scope
        && rule["resourceNames"].as_array().is_none_or(names_it)
        && lists("operations", place.operation)
        && lists("apiGroups", place.group)
        && lists("apiVersions", place.version)
        && rule["resources"].as_array().into_iter().flatten().filter_map(Value::as_str).any(|text| names(text, place))
}

/// `pods`, `pods/status`, `pods/*`, `*`, `*/scale`, `*/*`
fn names(text: &str, place: &Place<'_>) -> bool {
    let (resource, subresource) = text.split_once('/').unwrap_or((text, ""));
    (resource == "*" || resource == place.resource) && (subresource == "*" || subresource == place.subresource)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Place, any};

    #[test]
    fn rules_name_resources_and_subresources() {
        let hook = |resources: &[&str], scope: &str| {
            json!({ "rules": [{ "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": resources, "scope": scope }] })
        };
        let place = |resource: &'static str, subresource: &str| Place {
            operation: "CREATE",
            group: "",
            version: "v1",
            resource,
            subresource: subresource.to_owned(),
            namespaced: true,
            name: "a".to_owned(),
        };
        let matches = |hook: &serde_json::Value, place: &Place<'_>| any(hook, "rules", place);
        assert!(matches(&hook(&["pods"], "*"), &place("pods", "")));
        assert!(!matches(&hook(&["pods"], "*"), &place("pods", "status")));
        assert!(matches(&hook(&["pods/*"], "*"), &place("pods", "")));
        assert!(matches(&hook(&["*/scale"], "*"), &place("replicationcontrollers", "scale")));
        assert!(!matches(&hook(&["*"], "*"), &place("pods", "status")));
        assert!(matches(&hook(&["*/*"], "Namespaced"), &place("pods", "status")));
        assert!(!matches(&hook(&["*/*"], "Cluster"), &place("pods", "")));
        assert!(!matches(&hook(&["pods"], "*"), &Place { operation: "DELETE", ..place("pods", "") }));
        assert!(!matches(&hook(&["pods"], "*"), &Place { group: "apps", ..place("pods", "") }));
        let named = |name: &str| {
            let mut hook = hook(&["pods"], "*");
            hook["rules"][0]["resourceNames"] = json!([name]);
            hook
        };
        assert!(matches(&named("a"), &place("pods", "")));
        assert!(!matches(&named("b"), &place("pods", "")));
    }
}
