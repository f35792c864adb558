//! CertificateSigningRequests: approving those of nodes, signing what is approved, removing what is done with.

mod approve;
mod request;
mod sign;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use machinery::{Outcome, Retry, WorkQueue};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::context::{ApiServerNames, Authorities, Caches, Context};
use approve::{Approval, Refusal, Reserved};
use request::{Request, condition};
pub use sign::Error as SigningError;

const NAME: &str = "certificate-controller";
const WORKERS: usize = 2;
/// The conditions of a request that is decided.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];
/// How long requests are kept: without decision or certificate, and with them (`pkg/controller/certificates/cleaner`).
const PENDING: Duration = Duration::from_secs(24 * 3600);
const DECIDED: Duration = Duration::from_secs(3600);

struct Controller {
    client: Client,
    caches: Caches,
    authorities: watch::Receiver<Authorities>,
    duration: Duration,
    api_server: ApiServerNames,
    /// Of Services, from the start.
    service_cidr: Option<IpNet>,
}

pub(crate) fn start(context: &mut Context) -> Result<(), sign::Error> {
    let (authorities, duration) = (context.config.authorities.clone(), context.config.signing_duration);
    // A CA that cannot sign is an error of the start; later ones were made by us.
    sign::Signer::new(&authorities.borrow().signing, duration)?;
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.certificate_requests.on_change(move |change| {
        to.add(change.object().metadata.name.as_deref().unwrap_or_default());
    });
    // A serving certificate waits until the Node says that it has the addresses, and no other Node does.
    let (to, requests) = (queue.clone(), caches.certificate_requests.clone());
    caches.nodes.on_change(move |change| {
        let where_it_is =
            |node: &Node| node.status.as_ref().map(|status| (status.addresses.clone(), status.node_info.clone()));
        if change.old().is_some_and(|old| where_it_is(old) == where_it_is(change.object())) {
            return;
        }
        for request in requests.all().iter().filter(|one| one.spec.signer_name == approve::KUBELET_SERVING) {
            to.add(request.metadata.name.as_deref().unwrap_or_default());
        }
    });
    let controller = Controller {
        client: context.client(NAME),
        caches,
        authorities,
        duration,
        api_server: context.config.api_server.clone(),
        service_cidr: context.config.service_cidr,
    };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
    Ok(())
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(csr) = self.caches.certificate_requests.get(name) else { return Ok(Outcome::Done) };
        if !DECISIONS.iter().any(|kind| condition(&csr, kind).is_some()) {
            self.approve(name, &csr).await?;
        } else if wants_certificate(&csr) && sign::KNOWN_SIGNERS.contains(&csr.spec.signer_name.as_str()) {
            self.sign(name, &csr).await?;
        }
        match left(&csr, Timestamp::now()) {
            None => Ok(Outcome::Done),
            Some(left) if !left.is_zero() => Ok(Outcome::After(left)),
            Some(_) => {
                self.remove(name).await?;
                Ok(Outcome::Done)
            }
        }
    }

    async fn approve(&self, name: &str, csr: &CertificateSigningRequest) -> Result<(), kube::Error> {
        let Ok(request) = Request::parse(&csr.spec.request.0) else { return Ok(()) };
        let approval = match approve::recognise(csr, &request) {
            Approval::None => return Ok(()),
            Approval::Review { subresource, message } => {
                if !self.may(csr, subresource).await? {
                    return Ok(());
                }
                message
            }
            Approval::Serving { node } => {
                let Some(node) = self.caches.nodes.get(node) else { return Ok(()) };
                if let Err(error) = self.serving_names_match(&request, &node) {
                    tracing::info!(csr = name, %error, "serving certificate is not approved");
                    return Ok(());
                }
                "Auto approving kubelet serving certificate for the node's own name and addresses."
            }
        };
        let patch = with_condition(csr, "Approved", "AutoApproved", approval);
        machinery::unless_gone(
            self.requests().patch_approval(name, &PatchParams::default(), &Patch::Merge(patch)).await,
        )
    }

    fn serving_names_match(&self, request: &Request, node: &Node) -> Result<(), Refusal> {
        let ranges = self.caches.service_cidrs.all();
        let ranges = ranges.iter().flat_map(|range| range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()));
        let services: Vec<IpNet> = ranges.filter_map(|range| range.parse().ok()).chain(self.service_cidr).collect();
        let reserved = Reserved { api_server: &self.api_server, services: &services, nodes: &self.caches.nodes.all() };
        approve::serving_names_match(request, node, &reserved)
    }

    /// Asks the API server whether the requester may have this kind of certificate without anybody looking at it.
    async fn may(&self, csr: &CertificateSigningRequest, subresource: &str) -> Result<bool, kube::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: csr.spec.username.clone(),
                uid: csr.spec.uid.clone(),
                groups: csr.spec.groups.clone(),
                extra: csr.spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    verb: Some("create".into()),
                    version: Some("*".into()),
                    subresource: Some(subresource.into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn sign(&self, name: &str, csr: &CertificateSigningRequest) -> Result<(), kube::Error> {
        let signer = sign::Signer::new(&self.authorities.borrow().signing, self.duration);
        let patch = match signer.and_then(|signer| signer.sign(csr, Timestamp::now())) {
            Ok(pem) => json!({
                "metadata": {"resourceVersion": csr.metadata.resource_version},
                "status": {"certificate": ByteString(pem.into_bytes())},
            }),
            Err(error) => {
                tracing::info!(csr = name, %error, "certificate is not signed");
                with_condition(csr, "Failed", "SignerValidationFailure", &error.to_string())
            }
        };
        machinery::unless_gone(self.requests().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    async fn remove(&self, name: &str) -> Result<(), kube::Error> {
        machinery::unless_gone(self.requests().delete(name, &DeleteParams::default()).await)
    }

    fn requests(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.client.clone())
    }
}

fn wants_certificate(csr: &CertificateSigningRequest) -> bool {
    let has = csr.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some();
    condition(csr, "Approved").is_some()
        && condition(csr, "Denied").is_none()
        && condition(csr, "Failed").is_none()
        && !has
}

/// The request with one more condition, as a merge patch that only applies to this version.
fn with_condition(csr: &CertificateSigningRequest, kind: &str, reason: &str, message: &str) -> Value {
    let now = Time(Timestamp::now());
    let known = csr.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions = json!(known);
    if let Some(all) = conditions.as_array_mut() {
        all.push(json!({
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": now,
        }));
    }
    json!({"metadata": {"resourceVersion": csr.metadata.resource_version}, "status": {"conditions": conditions}})
}

/// How long the request is still kept; none when it stays for good.
fn left(csr: &CertificateSigningRequest, now: Timestamp) -> Option<Duration> {
    let certificate = csr.status.as_ref().and_then(|status| status.certificate.as_ref());
    let conditions = csr.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let created = csr.metadata.creation_timestamp.as_ref().filter(|_| conditions.is_empty());
    let decided = conditions.iter().filter_map(|one| {
        let keep = match one.type_.as_str() {
            "Approved" if certificate.is_none() => PENDING,
            "Approved" | "Denied" | "Failed" => DECIDED,
            _ => return None,
        };
        Some((one.last_update_time.as_ref()?, keep))
    });
    let dates = created.map(|created| (created, PENDING)).into_iter().chain(decided);
    let ends = dates.filter_map(|(since, keep)| since.0.checked_add(keep).ok());
    let end = ends.chain(certificate.and_then(expiry)).min()?;
    Some(Duration::try_from(end.duration_since(now)).unwrap_or_default())
}

/// When a certificate of a request ends.
fn expiry(pem: &ByteString) -> Option<Timestamp> {
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem.0).ok()?;
    Timestamp::from_second(block.parse_x509().ok()?.validity().not_after.timestamp()).ok()
}
