//! `serviceaccounts/NAME/token`: tokens on request (KEP-1205).

use std::sync::Arc;

use http::{Response, StatusCode};
use jiff::Timestamp;

use super::{admit, body_of};
use crate::body::{self, Body};
use crate::objects;
use crate::problem::Result;
use crate::road::Call;
use crate::server::Core;

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let dry_run = call.query.dry_run("CreateOptions")?;
    let mut request = body_of(call, "authentication.k8s.io/v1", "TokenRequest", body).await?;
    objects::find(core, call)?;
    let kind = ("authentication.k8s.io", "v1", "TokenRequest");
    admit(core, call, kind, &mut request, dry_run).await?;
    let (namespace, name) = (call.path.namespace.as_str(), call.path.name.as_str());
    let answered = core.authenticator.tokens().token_request(namespace, name, request, Timestamp::now())?;
    body::value(call.accept.format, StatusCode::CREATED, &answered)
}
