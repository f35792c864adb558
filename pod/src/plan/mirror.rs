//! The image of a static pod at the API server: what a node's manifests ask for can only be seen there.

use k8s_openapi::api::core::v1::Pod;

use crate::plan::{Plan, Step, run};
use crate::view::View;
use crate::world::{Desired, Source, Stage};

/// A mirror is never changed: one that is deleted, or shows another manifest, is replaced.
pub(super) fn plan(view: &View<'_>, plan: &mut Plan) {
    let (Source::Static { mirror }, Desired::Present(pod)) = (&view.world.source, &view.world.desired) else { return };
    let step = match (mirror, &view.world.node.uid) {
        (Some(mirror), _) if is_of(mirror, pod) => return,
        (Some(mirror), _) => Step::DeleteMirror { uid: mirror.metadata.uid.clone().unwrap_or_default() },
        (None, Some(node_uid)) => Step::CreateMirror { node_uid: node_uid.clone() },
        // An owner is a must (KEP-1314), and there is none yet.
        (None, None) => return,
    };
    if run::may_try(view, &Stage::Mirror, plan) {
        plan.steps.push(step);
    }
}

fn is_of(mirror: &Pod, pod: &Pod) -> bool {
    let shown = api::pod::annotation(mirror, api::pod::MIRROR_ANNOTATION);
    let deleted = mirror.metadata.deletion_timestamp.is_some();
    !deleted && shown.is_some() && shown == api::pod::annotation(pod, api::pod::HASH_ANNOTATION)
}
