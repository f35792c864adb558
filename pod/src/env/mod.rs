//! The environment of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};

use crate::fields::{self, FieldError, FieldFacts};

mod expand;
pub mod file;
mod services;
#[cfg(test)]
mod tests;

pub use expand::{MissingValue, expand, expand_known};
pub use services::service_variables;

/// An object or file that an environment takes values from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A ConfigMap of the pod's namespace.
    ConfigMap(&'a str),
    /// A Secret of the pod's namespace.
    Secret(&'a str),
    /// A file of variables in a volume (KEP-3721).
    File {
        /// The volume's name.
        volume: &'a str,
        /// The path in it.
        path: &'a str,
        /// The only variable that is asked for.
        key: &'a str,
    },
}

/// The values of a source; `None` when there is no such source. An error ends the start of the container with its text.
pub type Lookup<'a> = dyn Fn(Source<'_>) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> + 'a;

/// Why a container has no environment: the message of `CreateContainerConfigError`. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A ConfigMap or Secret that is not optional is missing.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It lacks a key that is not optional.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The namespace of both.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A file of variables lacks a key that is not optional.
    #[error("environment variable key {key:?} not found in file {path:?}")]
    FileKey {
        /// The key.
        key: String,
        /// The file.
        path: String,
    },
    /// A field of the downward API.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A source could not be read.
    #[error("{0}")]
    Lookup(String),
}

/// What a container's environment is made from.
pub struct Inputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// One of its containers.
    pub container: &'a Container,
    /// For `fieldRef` and `resourceFieldRef`.
    pub facts: &'a FieldFacts,
    /// All Services of the pod's namespace, and `default/kubernetes`.
    pub services: &'a [Service],
    /// Where values of objects come from.
    pub lookup: &'a Lookup<'a>,
}

/// The variables of a container. `env` wins over `envFrom`, and both over those of Services.
///
/// # Errors
/// When something that is not optional is missing.
pub fn environment(inputs: &Inputs<'_>) -> Result<BTreeMap<String, String>, EnvError> {
    let pod = inputs.pod;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = service_variables(inputs.services, namespace, links);
    let mut variables = from_sources(inputs)?;
    for variable in inputs.container.env.iter().flatten() {
        let plain = variable.value.as_deref().unwrap_or_default();
        let value = match &variable.value_from {
            Some(source) if plain.is_empty() => from_source(inputs, source, namespace)?,
            _ => Some(expand(plain, |name| variables.get(name).or_else(|| services.get(name)).cloned())),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        variables.entry(name).or_insert(value);
    }
    Ok(variables)
}

fn from_sources(inputs: &Inputs<'_>) -> Result<BTreeMap<String, String>, EnvError> {
    let mut variables = BTreeMap::new();
    for from in inputs.container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (source, optional) = if let Some(map) = &from.config_map_ref {
            (Source::ConfigMap(&map.name), map.optional)
        } else if let Some(secret) = &from.secret_ref {
            (Source::Secret(&secret.name), secret.optional)
        } else {
            continue;
        };
        for (key, value) in values(inputs, source, optional)?.into_iter().flatten() {
            variables.insert(format!("{prefix}{key}"), text(&value));
        }
    }
    Ok(variables)
}

type Values = BTreeMap<String, Vec<u8>>;

/// The values of a source; `None` when it is missing and may be.
fn values(inputs: &Inputs<'_>, source: Source<'_>, optional: Option<bool>) -> Result<Option<Values>, EnvError> {
    let found = (inputs.lookup)(source).map_err(EnvError::Lookup)?;
    let (kind, name) = match source {
        _ if found.is_some() || optional == Some(true) => return Ok(found),
        Source::ConfigMap(name) => ("configmap", name),
        Source::Secret(name) => ("secret", name),
        Source::File { volume, .. } => {
            return Err(EnvError::Lookup(format!("cannot find the volume {volume:?} referenced by FileKeyRef")));
        }
    };
    Err(EnvError::NotFound { kind, name: name.to_owned() })
}

/// The value of `valueFrom`; `None` when it is optional and missing: then there is no such variable.
fn from_source(inputs: &Inputs<'_>, from: &EnvVarSource, namespace: &str) -> Result<Option<String>, EnvError> {
    if let Some(selector) = &from.field_ref {
        return Ok(Some(fields::field(inputs.pod, selector, inputs.facts)?));
    }
    if let Some(selector) = &from.resource_field_ref {
        return Ok(Some(fields::resource(inputs.pod, Some(inputs.container), selector, inputs.facts)?));
    }
    let missing = |kind, name: &str, key: &str| EnvError::Key {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    let (source, key, optional, error) = if let Some(map) = &from.config_map_key_ref {
        (Source::ConfigMap(&map.name), &map.key, map.optional, missing("ConfigMap", &map.name, &map.key))
    } else if let Some(secret) = &from.secret_key_ref {
        (Source::Secret(&secret.name), &secret.key, secret.optional, missing("Secret", &secret.name, &secret.key))
    } else if let Some(file) = &from.file_key_ref {
        let error = EnvError::FileKey { key: file.key.clone(), path: file.path.clone() };
        let source = Source::File { volume: &file.volume_name, path: &file.path, key: &file.key };
        (source, &file.key, file.optional, error)
    } else {
        return Ok(Some(String::new()));
    };
    let Some(values) = values(inputs, source, optional)? else { return Ok(None) };
    match values.get(key) {
        Some(value) => Ok(Some(text(value))),
        None if optional == Some(true) => Ok(None),
        None => Err(error),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
