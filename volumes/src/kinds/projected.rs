//! `projected`: several sources in one folder (pkg/volume/projected).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ProjectedVolumeSource, ServiceAccountTokenProjection, VolumeProjection};

use super::config_map::Ask;
use super::{config_map, downward_api, mode, secret};
use crate::atomic::{File, Payload};
use crate::objects::{Downward, Objects, TokenAsk};
use crate::{Error, Plan};

/// `expirationSeconds` where the API server did not default it.
const TOKEN_SECONDS: i64 = 3600;

/// The files of all sources; of two with the same path the later wins. And when the first token is to be replaced.
pub(crate) async fn payload(
    source: &ProjectedVolumeSource,
    plan: &Plan,
    objects: &impl Objects,
    fields: &impl Downward,
) -> Result<(Payload, Option<Timestamp>), Error> {
    let mut payload = Payload::new();
    let mut renew_at: Option<Timestamp> = None;
    for projection in source.sources.iter().flatten() {
        if let Some(ask) = &projection.service_account_token {
            let (file, when) = token(ask, source.default_mode, plan, objects).await?;
            payload.insert(ask.path.clone(), file);
            renew_at = renew_at.into_iter().chain([when]).min();
        } else {
            payload.extend(objects_of(projection, source.default_mode, plan, objects, fields).await?);
        }
    }
    Ok((payload, renew_at))
}

async fn objects_of(
    projection: &VolumeProjection,
    default_mode: Option<i32>,
    plan: &Plan,
    objects: &impl Objects,
    fields: &impl Downward,
) -> Result<Payload, Error> {
    let namespace = &plan.namespace;
    if let Some(source) = &projection.config_map {
        let (name, items) = (&source.name, source.items.as_deref());
        let ask = Ask { namespace, name, items, default_mode, optional: source.optional.unwrap_or(false) };
        return config_map::payload(ask, objects).await;
    }
    if let Some(source) = &projection.secret {
        let (name, items) = (&source.name, source.items.as_deref());
        let ask = Ask { namespace, name, items, default_mode, optional: source.optional.unwrap_or(false) };
        return secret::payload(ask, objects).await;
    }
    if let Some(source) = &projection.downward_api {
        return downward_api::payload(source.items.as_deref().unwrap_or_default(), default_mode, fields);
    }
    Err(Error::Unsupported(if projection.cluster_trust_bundle.is_some() {
        "clusterTrustBundle"
    } else {
        "podCertificate"
    }))
}

async fn token(
    source: &ServiceAccountTokenProjection,
    default_mode: Option<i32>,
    plan: &Plan,
    objects: &impl Objects,
) -> Result<(File, Timestamp), Error> {
    let ask = TokenAsk {
        namespace: plan.namespace.clone(),
        service_account: plan.service_account.clone(),
        pod_name: plan.pod_name.clone(),
        pod_uid: plan.pod_uid.clone(),
        audience: source.audience.clone().unwrap_or_default(),
        expiration_seconds: source.expiration_seconds.unwrap_or(TOKEN_SECONDS),
    };
    let bound = objects.token(&ask).await?;
    let ownership = &plan.ownership;
    // A token is for the pod's own user or group only, once either is known.
    let narrow = ownership.user.is_some() || ownership.fs_group.is_some();
    let mode = if narrow { 0o600 } else { mode(None, default_mode) };
    Ok((File { data: bound.token.into_bytes(), mode, owner: ownership.user }, bound.renew_at))
}
