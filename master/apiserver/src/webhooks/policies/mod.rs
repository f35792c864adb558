//! Policies: expressions that judge writes, or change them, where a binding puts them into force (KEP-3488, KEP-3962;
//! `apiserver/pkg/admission/plugin/policy/generic`).

mod mutating;
mod params;
mod validating;

use std::sync::Arc;

use admission::Lookup as _;
use expressions::{CelError, Variables};
use schema::Kind;
use serde_json::{Value, json};

use super::configured::Configuration;
use super::{Attributes, GROUP, authorizer, in_version, review, selected, version};
use crate::hooks::CacheLookup;
use crate::server::Core;

pub(super) use mutating::mutate;
pub(super) use params::are_readable;
pub(super) use validating::validate;

pub(super) const MUTATING: Sort = mutating::SORT;
pub(super) const VALIDATING: Sort = validating::SORT;

/// The resources of policies of one sort, and of their bindings.
pub(super) struct Sort {
    pub policies: &'static str,
    pub bindings: &'static str,
}

/// A policy that is about the write, with a binding that is, and one of its parameters.
struct Invocation {
    policy: Arc<Configuration>,
    binding: Arc<Configuration>,
    /// The version of the object that the policy is about.
    version: &'static Kind,
    param: Option<Value>,
}

/// A policy, or a binding of it, that cannot be used as it is configured.
struct Unusable {
    policy: Arc<Configuration>,
    binding: Option<Arc<Configuration>>,
    why: String,
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether what goes wrong with a policy does not count.
fn is_lenient(policy: &Configuration) -> bool {
    policy.spec()["failurePolicy"] == "Ignore"
}

/// A write, and what is asked about it.
struct Gathering<'a> {
    core: &'a Core,
    lookup: &'a CacheLookup,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
}

/// All policies of a sort that are about the write, by their names and those of their bindings.
fn gathered(
    core: &Core,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    sort: &Sort,
) -> (Vec<Invocation>, Vec<Unusable>) {
    let (mut due, mut unusable) = (Vec::new(), Vec::new());
    let lookup = CacheLookup(Arc::clone(&core.store));
    let bindings = if attributes.kind.group == GROUP { Vec::new() } else { core.configured.all(sort.bindings) };
    if bindings.is_empty() {
        return (due, unusable);
    }
    let gathering = Gathering { core, lookup: &lookup, attributes, object };
    for policy in core.configured.all(sort.policies) {
        let mut own = bindings.iter().filter(|one| text(one.spec(), "policyName") == policy.name()).peekable();
        if own.peek().is_none() {
            continue;
        }
        let Some(version) = gathering.matched(&policy.spec()["matchConstraints"]) else { continue };
        for binding in own {
            let narrowed = &binding.spec()["matchResources"];
            if !narrowed.is_null() && gathering.matched(narrowed).is_none() {
                continue;
            }
            match gathering.params(policy.spec(), binding.spec()) {
                Ok(params) => due.extend(params.into_iter().map(|param| Invocation {
                    policy: Arc::clone(&policy),
                    binding: Arc::clone(binding),
                    version,
                    param,
                })),
                Err(Misconfigured::Policy(why)) => {
                    unusable.push(Unusable { policy: Arc::clone(&policy), binding: None, why });
                    break;
                }
                Err(Misconfigured::Binding(why)) => {
                    let binding = Some(Arc::clone(binding));
                    unusable.push(Unusable { policy: Arc::clone(&policy), binding, why });
                }
            }
        }
    }
    (due, unusable)
}

/// Which of the two is to blame.
enum Misconfigured {
    Policy(String),
    Binding(String),
}

impl Gathering<'_> {
    /// The version of the object that rules and selectors are about; without rules, any (`matching.Matcher.Matches`).
    fn matched(&self, matches: &Value) -> Option<&'static Kind> {
        let (core, attributes) = (self.core, self.attributes);
        if !selected(core, attributes, matches, self.object)
            || version(core, attributes, matches, "excludeResourceRules").is_some()
        {
            return None;
        }
        if list(matches, "resourceRules").is_empty() {
            return Some(attributes.kind);
        }
        version(core, attributes, matches, "resourceRules")
    }

    /// The parameters that a policy is evaluated with, one after the other (`generic.CollectParams`).
    fn params(&self, policy: &Value, binding: &Value) -> Result<Vec<Option<Value>>, Misconfigured> {
        let (wanted, reference) = (&policy["paramKind"], &binding["paramRef"]);
        if wanted.is_null() {
            return Ok(vec![None]);
        }
        let registry = self.core.kinds.registry();
        let Some(kind) = registry.by_kind(text(wanted, "apiVersion"), text(wanted, "kind")) else {
            let version = text(wanted, "apiVersion");
            let slash = if version.contains('/') { "" } else { "/" };
            let kind = format!("{slash}{version}, Kind={}", text(wanted, "kind"));
            let why = format!("failed to find resource referenced by paramKind: '{kind}'");
            return Err(Misconfigured::Policy(why));
        };
        if reference.is_null() {
            return Ok(vec![None]);
        }
        let namespace = self.params_namespace(kind, text(reference, "namespace")).map_err(Misconfigured::Binding)?;
        let (storage, wanted) = (&kind.storage, text(reference, "name"));
        let found: Vec<Value> = if wanted.is_empty() {
            let all = self.lookup.list(storage.group, storage.plural, namespace);
            all.into_iter().filter(|o| schema::selects(&reference["selector"], &o["metadata"]["labels"])).collect()
        } else {
            self.lookup.get(storage.group, storage.plural, namespace, wanted).into_iter().collect()
        };
        if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
            let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
            return Err(Misconfigured::Binding(why.to_owned()));
        }
        Ok(found.into_iter().map(|object| Some(kind.from_storage(object))).collect())
    }

    fn params_namespace<'a>(&'a self, kind: &Kind, said: &'a str) -> Result<&'a str, String> {
        match (kind.namespaced, said, self.attributes.namespace) {
            (false, "", _) => Ok(""),
            (false, ..) => Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
            (true, "", "") => {
                Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned())
            }
            (true, "", own) => Ok(own),
            (true, said, _) => Ok(said),
        }
    }
}

impl Invocation {
    fn spec(&self) -> &Value {
        self.policy.spec()
    }

    /// What expressions know, but for the policy's own variables.
    fn variables(&self, core: &Core, attributes: &Attributes<'_>, object: Option<&Value>) -> Variables {
        let mut request = review::request(attributes, self.version, (None, None));
        if let Some(request) = request.as_object_mut() {
            ["object", "oldObject", "uid"].iter().for_each(|field| {
                request.remove(*field);
            });
        }
        let old = attributes.old.map(|old| in_version(attributes.kind, self.version, old));
        let mut variables = Variables::with(Arc::clone(&self.policy.programs));
        variables.set("object", object.unwrap_or(&Value::Null));
        variables.set("oldObject", old.as_ref().unwrap_or(&Value::Null));
        variables.set("request", &request);
        variables.set("namespaceObject", &namespace_object(core, attributes));
        if !self.spec()["paramKind"].is_null() {
            variables.set("params", self.param.as_ref().unwrap_or(&Value::Null));
        }
        authorizer::lend(core, attributes, &mut variables);
        variables
    }

    /// Whether the conditions hold; from then on expressions know the policy's variables.
    fn applies(&self, variables: &mut Variables) -> Result<bool, CelError> {
        if !review::hold(&self.spec()["matchConditions"], variables)? {
            return Ok(false);
        }
        let named = list(self.spec(), "variables").iter();
        variables.compose(named.map(|variable| (text(variable, "name"), text(variable, "expression"))));
        Ok(true)
    }
}

/// The namespace of the object, without what expressions do not see (`cel.CreateNamespaceObject`).
fn namespace_object(core: &Core, attributes: &Attributes<'_>) -> Value {
    if attributes.namespace.is_empty() || (attributes.kind.group, attributes.kind.plural) == ("", "namespaces") {
        return Value::Null;
    }
    let lookup = CacheLookup(Arc::clone(&core.store));
    let Some(namespace) = lookup.get("", "namespaces", "", attributes.namespace) else { return Value::Null };
    let mut metadata = namespace["metadata"].clone();
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("managedFields");
        metadata.remove("ownerReferences");
    }
    json!({ "metadata": metadata, "spec": namespace["spec"], "status": namespace["status"] })
}
