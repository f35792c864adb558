//! The server behind a Service, and connections to it.

use std::sync::Arc;
use std::time::Duration;

use admission::Lookup as _;
use auth::{UserInfo, names};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::header;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::proxy::identify;
use crate::body::{self, Body};
use crate::endpoints;
use crate::hooks::CacheLookup;
use crate::https::{Identity, LazyConnections, Trust, connections, root};
use crate::server::Core;

/// How long it may take to answer what this server asks it on its own behalf.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many times at once a server is asked whether it is there: one answer is enough.
const ATTEMPTS: usize = 5;
/// How much of a document is read.
const MOST: usize = 64 * 1024 * 1024;

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    /// Its Service has no address.
    #[error("{0}")]
    Unresolved(String),
    #[error("{0}")]
    Trust(String),
    #[error("{0}")]
    Http(#[from] http::Error),
    #[error("dial tcp {address}: {reason}")]
    Dial { address: Authority, reason: String },
    #[error("{0}")]
    Exchange(String),
}

/// `spec.service` of an APIService, with what is needed to ask it.
pub(crate) struct Backend {
    namespace: String,
    name: String,
    port: u64,
    /// The condition `Available`.
    pub available: bool,
    /// What decides about the connections; they outlive changes of everything else.
    trust: Trust,
    identity: Identity,
    client: LazyConnections,
}

impl Backend {
    /// `None` where this server has it itself.
    pub(super) fn of(object: &Value, before: Option<&Backend>, identity: &Identity) -> Option<Self> {
        let spec = &object["spec"];
        let service = spec["service"].as_object()?;
        let text = |field: &str| service.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let available =
            conditions.filter(|one| one["type"] == "Available").any(|condition| condition["status"] == "True");
        let bundle = spec["caBundle"].as_str().unwrap_or_default().to_owned();
        let insecure = spec["insecureSkipTLSVerify"].as_bool().unwrap_or_default();
        let trust = Trust { name: format!("{name}.{namespace}.svc"), bundle, insecure };
        let kept = before.filter(|old| (&old.namespace, &old.name, &old.trust) == (&namespace, &name, &trust));
        let client = kept.map(|old| Arc::clone(&old.client)).unwrap_or_default();
        Some(Backend { namespace, name, port, available, trust, identity: identity.clone(), client })
    }

    /// Where the Service leads now: `HOST:PORT`.
    pub(super) fn resolve(&self, core: &Core) -> Result<Authority, BackendError> {
        let lookup = CacheLookup(Arc::clone(&core.store));
        let service = lookup.get("", "services", &self.namespace, &self.name);
        let service =
            service.ok_or_else(|| BackendError::Unresolved(format!("service \"{}\" not found", self.name)))?;
        let address = endpoints::resolve(core, &service, self.port).map_err(BackendError::Unresolved)?;
        Ok(address.parse().map_err(http::Error::from)?)
    }

    /// Sends a request whose URI is a path.
    pub(super) async fn send(
        &self,
        address: Authority,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, BackendError> {
        let make = || connections(&self.trust, &self.identity);
        let client = self.client.get_or_init(make).as_ref().map_err(|error| BackendError::Trust(error.clone()))?;
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(Scheme::HTTPS).authority(address.clone()).path_and_query(path).build()?;
        *request.uri_mut() = uri;
        client.request(request).await.map_err(|error| {
            let reason = root(&error);
            if error.is_connect() { BackendError::Dial { address, reason } } else { BackendError::Exchange(reason) }
        })
    }

    /// A document that this server wants itself, as upstream's aggregator asks for it.
    pub(super) async fn get(&self, core: &Core, path: &str, accept: &'static str) -> Result<Response<Bytes>, String> {
        let exchange = async {
            let address = self.resolve(core)?;
            let mut request = Request::builder().uri(path).header(header::ACCEPT, accept).body(body::full(""))?;
            let user = UserInfo::new("system:kube-aggregator", &[names::PRIVILEGED_GROUP]);
            identify(request.headers_mut(), &user);
            let (head, body) = self.send(address, request).await?.into_parts();
            let body = Limited::new(body, MOST).collect().await;
            let bytes = body.map_err(|error| BackendError::Exchange(error.to_string()))?.to_bytes();
            Ok(Response::from_parts(head, bytes))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answered) => answered.map_err(|error: BackendError| error.to_string()),
            Err(_) => Err("context deadline exceeded".to_owned()),
        }
    }

    /// Whether the server answers for the version that it is said to have; otherwise why not, in upstream's words.
    pub(super) async fn check(&self, core: &Core, path: &str) -> Result<(), String> {
        let mut attempts: FuturesUnordered<_> = (0..ATTEMPTS).map(|_| self.check_once(core, path)).collect();
        let mut last = Ok(());
        while let Some(answered) = attempts.next().await {
            last = answered;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn check_once(&self, core: &Core, path: &str) -> Result<(), String> {
        let address = self.resolve(core).map_err(|error| error.to_string())?;
        let url = format!("https://{address}{path}");
        match self.get(core, path, "*/*").await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let code = response.status().as_u16();
                Err(format!("failing or missing response from {url}: bad status from {url}: {code}"))
            }
            Err(error) => Err(format!("failing or missing response from {url}: Get \"{url}\": {error}")),
        }
    }
}
