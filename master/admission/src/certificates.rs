//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may have which signer sign; and what is no request
//! at all, which upstream's validation refuses (`validateCertificateSigningRequest`).

use auth::{Attributes, FieldCause, UserInfo, pki};
use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, text};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const PRIVILEGED: &str = "system:masters";

pub struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        // The stored signer counts: the request could name another one.
        let Some(old) = request.old.filter(|_| is_update(request, "approval")) else { return Ok(()) };
        let signer = text(old, "/spec/signerName");
        if may_use_signer(context, request.user, "approve", signer) {
            return Ok(());
        }
        Err(request.forbidden(object, &format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

pub struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let (Some(old), Some(new)) = (request.old.filter(|_| is_update(request, "status")), object) else {
            return Ok(());
        };
        let unchanged = |field: &str| old["status"][field] == new["status"][field];
        let signer = text(old, "/spec/signerName");
        if unchanged("certificate") && unchanged("conditions") || may_use_signer(context, request.user, "sign", signer)
        {
            return Ok(());
        }
        Err(request.forbidden(object, &format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

pub struct CertificateRequestFormat;

impl Plugin for CertificateRequestFormat {
    fn validate(&self, _: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let is_create = request.is(GROUP, RESOURCE, "") && request.operation == Operation::Create;
        let Some(csr) = object.filter(|_| is_create) else { return Ok(()) };
        let said = text(csr, "/spec/request");
        let Err(error) = pki::check_csr(said) else { return Ok(()) };
        let message = format!("Invalid value: {said:?}: {error}");
        let cause = FieldCause { reason: "FieldValueInvalid", field: "spec.request", message: &message };
        Err(Refusal::invalid(GROUP, "CertificateSigningRequest", request.object_name(object), &[cause]))
    }
}

pub struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn validate(&self, _: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let is_create = request.is(GROUP, RESOURCE, "") && request.operation == Operation::Create;
        let Some(csr) = object.filter(|_| is_create) else { return Ok(()) };
        if text(csr, "/spec/signerName") != CLIENT_SIGNER {
            return Ok(());
        }
        let subject = pki::csr_subject(text(csr, "/spec/request"))
            .map_err(|error| request.forbidden(object, &format!("failed to parse CSR: {error}")))?;
        if subject.organizations.iter().any(|group| group == PRIVILEGED) {
            let why = format!("use of {CLIENT_SIGNER} signer with {PRIVILEGED} group is not allowed");
            return Err(request.forbidden(object, &why));
        }
        Ok(())
    }
}

fn is_update(request: &Request<'_>, subresource: &str) -> bool {
    request.is(GROUP, RESOURCE, subresource) && request.operation == Operation::Update
}

/// `approve` or `sign` on this signer, or on all of its domain.
fn may_use_signer(context: &Context, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let attributes =
            Attributes { group: GROUP, version: "*", resource: "signers", name, ..Attributes::of(user, verb) };
        context.authorizer.authorize(&attributes).allowed()
    })
}

#[cfg(test)]
mod tests;
