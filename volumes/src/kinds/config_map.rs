//! `configMap`: a file for each key (pkg/volume/configmap).

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath};

use super::pick;
use crate::atomic::Payload;
use crate::{Error, ObjectError, Objects};

/// What a reference to a `ConfigMap` asks for, from a volume or a projection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub items: Option<&'a [KeyToPath]>,
    pub default_mode: Option<i32>,
    pub optional: bool,
}

pub(crate) async fn payload(ask: Ask<'_>, objects: &impl Objects) -> Result<Payload, Error> {
    let object = match objects.config_map(ask.namespace, ask.name).await {
        Ok(object) => object,
        Err(ObjectError::NotFound { .. }) if ask.optional => ConfigMap::default(),
        Err(error) => return Err(error.into()),
    };
    let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    pick(text.chain(binary), ask.items, ask.default_mode, ask.optional, Error::ConfigKey)
}
