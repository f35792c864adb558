//! `secret`: a file for each key, in memory (pkg/volume/secret).

use k8s_openapi::api::core::v1::Secret;

use super::{config_map::Ask, pick};
use crate::atomic::Payload;
use crate::{Error, ObjectError, Objects};

pub(crate) async fn payload(ask: Ask<'_>, objects: &impl Objects) -> Result<Payload, Error> {
    let object = match objects.secret(ask.namespace, ask.name).await {
        Ok(object) => object,
        Err(ObjectError::NotFound { .. }) if ask.optional => Secret::default(),
        Err(error) => return Err(error.into()),
    };
    let keys = object.data.into_iter().flatten().map(|(key, value)| (key, value.0));
    pick(keys, ask.items, ask.default_mode, ask.optional, Error::SecretKey)
}
