//! `downwardAPI`: a file for each field of the pod (pkg/volume/downwardapi).

use k8s_openapi::api::core::v1::DownwardAPIVolumeFile;

use super::mode;
use crate::atomic::{File, Payload};
use crate::{Downward, Error, ObjectError};

pub(crate) fn payload(
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    fields: &impl Downward,
) -> Result<Payload, Error> {
    let mut payload = Payload::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields.field(field),
            (None, Some(resource)) => fields.resource(resource),
            // Refused by the API's validation.
            (None, None) => continue,
        };
        let data = value.map_err(ObjectError::Other)?.into_bytes();
        payload.insert(item.path.clone(), File { data, mode: mode(item.mode, default_mode), owner: None });
    }
    Ok(payload)
}
