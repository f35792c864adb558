//! What expressions learn when they ask who may do what (`apiserver/pkg/admission/plugin/authorizer`).

use std::sync::Arc;

use auth::UserInfo;
use expressions::{Asked, Decision, Variables};

use super::Attributes;
use crate::server::Core;

/// Judges for whoever makes the request.
struct OnBehalf {
    authorizer: Arc<dyn auth::Authorizer>,
    user: UserInfo,
}

impl expressions::Authorizer for OnBehalf {
    fn check(&self, asked: &Asked) -> Decision {
        let account = asked.service_account.as_ref();
        let account = account.map(|(namespace, name)| UserInfo::service_account(namespace, name, ""));
        let is_path = asked.path.is_some();
        let decision = self.authorizer.authorize(&auth::Attributes {
            user: account.as_ref().unwrap_or(&self.user),
            verb: &asked.verb,
            group: &asked.group,
            // What is asked about is a resource, whatever its versions are.
            version: if is_path { "" } else { "*" },
            resource: &asked.resource,
            subresource: &asked.subresource,
            namespace: &asked.namespace,
            name: &asked.name,
            path: asked.path.as_deref(),
            field_selector: &asked.field_selector,
            label_selector: &asked.label_selector,
        });
        Decision { allowed: decision.allowed(), reason: decision.reason().to_owned() }
    }
}

/// Lets expressions ask.
pub(super) fn lend(core: &Core, attributes: &Attributes<'_>, variables: &mut Variables) {
    let request = Asked {
        group: attributes.kind.group.to_owned(),
        resource: attributes.kind.plural.to_owned(),
        subresource: attributes.subresource.to_owned(),
        namespace: attributes.namespace.to_owned(),
        name: attributes.name.to_owned(),
        ..Asked::default()
    };
    let on_behalf = OnBehalf { authorizer: Arc::clone(&core.authorizer), user: attributes.user.clone() };
    variables.authorize(Arc::new(on_behalf), request);
}
