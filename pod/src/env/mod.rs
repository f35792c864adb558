//! The environment of a container. Pure: the objects that it names are looked up by the caller first ([`references`]).
//!
//! Order, as upstream has it: `envFrom`, then `env` over it with `$(VAR)` expanded from what stands before, then service variables
//! for names that are still free.

mod expand;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource};

use crate::downward::{self, Facts, FieldError};
pub use expand::expand;
pub use services::{ServiceFacts, ServicePort, variables as service_variables};

/// What kind of object a variable comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// As it stands in messages about keys.
    fn title(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// As it stands in messages about objects.
    fn singular(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// What became of looking an object up.
#[derive(Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Its keys and values.
    Found(BTreeMap<String, Vec<u8>>),
    NotFound,
    /// The API's own words.
    Failed(String),
}

/// Objects by kind and name, in the pod's namespace.
pub type Objects = BTreeMap<(Kind, String), Lookup>;

/// What an environment is made from.
pub struct Inputs<'a> {
    pub facts: Facts<'a>,
    pub objects: &'a Objects,
    /// Those of the pod's namespace (none where `enableServiceLinks` is false) and `default/kubernetes`.
    pub services: &'a [ServiceFacts],
}

/// An environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    pub variables: BTreeMap<String, String>,
    /// Texts of `InvalidEnvironmentVariableNames` warnings.
    pub warnings: Vec<String>,
}

/// Why a container has no environment: the message of `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("{} \"{name}\" not found", .kind.singular())]
    NoObject { kind: Kind, name: String },
    #[error("couldn't find key {key} in {} {namespace}/{name}", .kind.title())]
    NoKey { kind: Kind, namespace: String, name: String, key: String },
    #[error("{0}")]
    Lookup(String),
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// The objects that a container's environment names.
#[must_use]
pub fn references(container: &Container) -> BTreeSet<(Kind, String)> {
    let mut named = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        named.extend(from.config_map_ref.as_ref().map(|r| (Kind::ConfigMap, r.name.clone())));
        named.extend(from.secret_ref.as_ref().map(|r| (Kind::Secret, r.name.clone())));
    }
    for source in container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()) {
        named.extend(source.config_map_key_ref.as_ref().map(|r| (Kind::ConfigMap, r.name.clone())));
        named.extend(source.secret_key_ref.as_ref().map(|r| (Kind::Secret, r.name.clone())));
    }
    named
}

/// The environment of a container.
///
/// # Errors
/// When an object or key that is not optional is missing, or a field does not exist.
pub fn env(container: &Container, inputs: &Inputs<'_>) -> Result<Env, EnvError> {
    let mut env = Env::default();
    let services = service_variables(inputs.services);
    from_objects(container, inputs, &mut env)?;
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => from_source(container, source, inputs)?,
            None => Some(expanded(variable, &env.variables, &services)),
        };
        if let Some(value) = value {
            env.variables.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        env.variables.entry(name).or_insert(value);
    }
    Ok(env)
}

fn expanded(variable: &EnvVar, before: &BTreeMap<String, String>, services: &BTreeMap<String, String>) -> String {
    let text = variable.value.as_deref().unwrap_or_default();
    expand(text, |name| before.get(name).or_else(|| services.get(name)).cloned())
}

fn from_objects(container: &Container, inputs: &Inputs<'_>, env: &mut Env) -> Result<(), EnvError> {
    for from in container.env_from.iter().flatten() {
        let (kind, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(r), _) => (Kind::ConfigMap, &r.name, r.optional),
            (None, Some(r)) => (Kind::Secret, &r.name, r.optional),
            // Refused by the API's validation.
            (None, None) => continue,
        };
        let Some(data) = object(inputs, kind, name, optional)? else { continue };
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut invalid = Vec::new();
        for (key, value) in data {
            if is_variable_name(key) {
                env.variables.insert(format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
            } else {
                invalid.push(key.as_str());
            }
        }
        if !invalid.is_empty() {
            env.warnings.push(format!(
                "Keys [{}] from the EnvFrom {} {}/{name} were skipped since they are considered invalid environment variable names.",
                invalid.join(", "),
                if kind == Kind::ConfigMap { "configMap" } else { "secret" },
                namespace(inputs),
            ));
        }
    }
    Ok(())
}

/// `None` where something optional is missing.
fn from_source(container: &Container, source: &EnvVarSource, inputs: &Inputs<'_>) -> Result<Option<String>, EnvError> {
    if let Some(field) = &source.field_ref {
        return Ok(Some(downward::field(&inputs.facts, field)?));
    }
    if let Some(resource) = &source.resource_field_ref {
        return Ok(Some(downward::resource(&inputs.facts, Some(container), resource)?));
    }
    if let Some(r) = &source.config_map_key_ref {
        return key(inputs, Kind::ConfigMap, &r.name, &r.key, r.optional);
    }
    if let Some(r) = &source.secret_key_ref {
        return key(inputs, Kind::Secret, &r.name, &r.key, r.optional);
    }
    // `fileKeyRef` needs files that init containers wrote: the caller's, not ours.
    Ok(None)
}

fn key(inputs: &Inputs<'_>, kind: Kind, name: &str, key: &str, optional: Option<bool>) -> Result<Option<String>, EnvError> {
    let Some(data) = object(inputs, kind, name, optional)? else { return Ok(None) };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(EnvError::NoKey { kind, namespace: namespace(inputs).to_owned(), name: name.to_owned(), key: key.to_owned() }),
    }
}

fn object<'a>(
    inputs: &'a Inputs<'_>,
    kind: Kind,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a BTreeMap<String, Vec<u8>>>, EnvError> {
    match inputs.objects.get(&(kind, name.to_owned())) {
        Some(Lookup::Found(data)) => Ok(Some(data)),
        Some(Lookup::Failed(message)) => Err(EnvError::Lookup(message.clone())),
        Some(Lookup::NotFound) | None if optional == Some(true) => Ok(None),
        Some(Lookup::NotFound) | None => Err(EnvError::NoObject { kind, name: name.to_owned() }),
    }
}

fn namespace<'a>(inputs: &'a Inputs<'_>) -> &'a str {
    inputs.facts.pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// KEP-4369: every printable ASCII character but `=`.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}
