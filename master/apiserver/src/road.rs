//! From an HTTP request to its answer: who asks, whether he may, and who answers.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::{Attributes, AuthenticationError, Credentials, Refusal, UserInfo};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, WARNING};
use http::request::Parts;
use http::{Method, Request, Response};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use schema::Kind;

use crate::body::{self, Body};
use crate::problem::{Problem, Result};
use crate::request::{Accept, Format, Offer, Query, ResourcePath, Target};
use crate::server::Core;
use crate::{aggregation, discovery, health, objects, openapi, subresources};

/// How long a request that is not long-running may take (`--request-timeout`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CACHE_CONTROL: HeaderName = http::header::CACHE_CONTROL;
const PRIVATE: HeaderValue = HeaderValue::from_static("no-cache, private");

/// Where a request comes from.
#[derive(Clone)]
pub(crate) enum Origin {
    /// A TLS connection, with the certificate that its client showed.
    Connection {
        certificate: Option<Arc<CertificateDer<'static>>>,
    },
    InProcess(Arc<UserInfo>),
}

/// A request for a resource, judged and taken apart.
pub(crate) struct Call {
    pub user: Arc<UserInfo>,
    pub kind: &'static Kind,
    /// The path; its namespace is empty for kinds of the whole cluster.
    pub path: ResourcePath,
    pub verb: &'static str,
    pub query: Query,
    pub accept: Accept,
    pub head: Parts,
    /// What the client must be told beside the answer (`Warning` headers).
    pub warnings: Vec<String>,
    /// What webhooks want the client to be told.
    pub told: Mutex<Vec<String>>,
}

impl Call {
    /// Has the client told this.
    pub(crate) fn tell(&self, warnings: Vec<String>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).extend(warnings);
    }
}

/// Whether the answer to a request goes on as long as the client wishes.
fn is_long_running(verb: &str, subresource: &str) -> bool {
    verb == "watch" || matches!(subresource, "exec" | "attach" | "portforward" | "proxy" | "log")
}

/// Answers any request; never fails and never panics.
pub(crate) async fn answer(core: Arc<Core>, request: Request<Body>, origin: Origin) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // Refusals come as the client reads answers, or as JSON where it reads nothing that there is.
    let format = Accept::of(request.headers(), Offer::ALL).map_or(Format::Json, |accept| accept.format);
    let answered = AssertUnwindSafe(go(core, request, origin)).catch_unwind().await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => body::problem(&problem, format),
        Err(_) => {
            tracing::error!(%method, path, "handler panicked");
            body::problem(&Problem::internal("the request could not be handled"), format)
        }
    };
    response.headers_mut().entry(CACHE_CONTROL).or_insert(PRIVATE);
    tracing::trace!(%method, path, status = response.status().as_u16(), "answered");
    response
}

async fn go(core: Arc<Core>, request: Request<Body>, origin: Origin) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let user = acting_user(&core, &head, authenticate(&core, &head, &origin)?)?;
    // Our own parts are few and must not be starved by others.
    let counted = matches!(origin, Origin::Connection { .. });
    let path = match Target::of(head.uri.path()) {
        Target::Resource(path) => path,
        Target::Other => return other_path(core, head, body, user).await,
    };
    let request = Judged::of(&core, &head, path, &user)?;
    if let Some(backend) = core.aggregation.backend(&request.path.group, &request.path.version) {
        let long = is_long_running(request.verb, &request.path.subresource);
        let passed_on = async { Ok(aggregation::answer(&core, &backend, &user, head, body).await) };
        return limited(&core, long, counted, Box::pin(passed_on)).await;
    }
    match resource_call(&core, head, request, user)? {
        Some(call) => {
            let long = is_long_running(call.verb, &call.path.subresource);
            limited(&core, long, counted, Box::pin(dispatch(Arc::clone(&core), call, body))).await
        }
        None => Ok(body::no_such_path()),
    }
}

/// Everything that names no resource.
async fn other_path(core: Arc<Core>, head: Parts, body: Body, user: Arc<UserInfo>) -> Result<Response<Body>> {
    authorize_path(&core, &head, &user)?;
    if head.uri.path() == crate::snapshot::PATH {
        permit_all(&core, &user)?;
        return crate::snapshot::answer(core, &head.method).await;
    }
    match aggregation::backend_of_path(&core, head.uri.path()) {
        Some(backend) => Ok(aggregation::answer(&core, &backend, &user, head, body).await),
        None => Ok(plain_path(&core, &head)),
    }
}

fn authenticate(core: &Core, head: &Parts, origin: &Origin) -> Result<Arc<UserInfo>> {
    let certificate = match origin {
        Origin::InProcess(user) => return Ok(Arc::clone(user)),
        Origin::Connection { certificate } => certificate,
    };
    let credentials = Credentials {
        client_certificate: certificate.as_deref(),
        authorization: head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()),
    };
    core.authenticator.authenticate(credentials, head.uri.path(), Timestamp::now()).map(Arc::new).map_err(|error| {
        if error != AuthenticationError::Missing {
            tracing::info!(reason = %error, "request not authenticated");
        }
        Refusal::from(error).into()
    })
}

/// Whom the request acts as: its sender, unless `Impersonate-*` headers ask for another and he may.
fn acting_user(core: &Core, head: &Parts, sender: Arc<UserInfo>) -> Result<Arc<UserInfo>> {
    let headers = head.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let other = auth::impersonate(&sender, headers, core.authorizer.as_ref())?;
    Ok(other.map_or(sender, Arc::new))
}

/// Discovery, OpenAPI, health: everything that names no resource.
fn plain_path(core: &Core, head: &Parts) -> Response<Body> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return body::problem(&Problem::method_not_allowed(), Format::Json);
    }
    discovery::answer(core, head)
        .or_else(|| openapi::answer(core, head))
        .or_else(|| health::answer(core, head))
        .unwrap_or_else(body::no_such_path)
}

fn authorize_path(core: &Core, head: &Parts, user: &UserInfo) -> Result<()> {
    let verb = head.method.as_str().to_ascii_lowercase();
    let attributes = Attributes {
        user,
        verb: &verb,
        group: "",
        version: "",
        resource: "",
        subresource: "",
        namespace: "",
        name: "",
        path: Some(head.uri.path()),
        field_selector: "",
        label_selector: "",
    };
    permit(core, &attributes)
}

/// Whether the user may do everything with everything (`cluster-admin`).
fn permit_all(core: &Core, user: &UserInfo) -> Result<()> {
    let attributes = Attributes {
        user,
        verb: "*",
        group: "*",
        version: "*",
        resource: "*",
        subresource: "",
        namespace: "",
        name: "",
        path: None,
        field_selector: "",
        label_selector: "",
    };
    permit(core, &attributes)
}

fn permit(core: &Core, attributes: &Attributes<'_>) -> Result<()> {
    let decision = core.authorizer.authorize(attributes);
    if decision.allowed() { Ok(()) } else { Err(attributes.forbidden(decision.reason()).into()) }
}

/// Whether who asked for a change may also create what is not there.
pub(crate) fn permit_create(core: &Core, call: &Call) -> Result<()> {
    let attributes = Attributes {
        user: &call.user,
        verb: "create",
        group: &call.path.group,
        version: &call.path.version,
        resource: &call.path.resource,
        subresource: &call.path.subresource,
        namespace: &call.path.namespace,
        name: &call.path.name,
        path: None,
        field_selector: "",
        label_selector: "",
    };
    permit(core, &attributes)
}

/// A request for a resource whose sender may make it.
struct Judged {
    path: ResourcePath,
    verb: &'static str,
    query: Query,
}

impl Judged {
    fn of(core: &Core, head: &Parts, path: ResourcePath, user: &UserInfo) -> Result<Self> {
        let query = Query::parse(head.uri.query());
        let verb = verb(&head.method, &path, &query);
        let wanted = query.get("fieldSelector");
        let named = wanted.split(',').find_map(|term| term.strip_prefix("metadata.name="));
        let of_collection = matches!(verb, "list" | "watch" | "deletecollection");
        let name = if of_collection && path.name.is_empty() { named.unwrap_or_default() } else { &path.name };
        let attributes = Attributes {
            user,
            verb,
            group: &path.group,
            version: &path.version,
            resource: &path.resource,
            subresource: &path.subresource,
            namespace: &path.namespace,
            name: name.trim_start_matches('='),
            path: None,
            field_selector: if of_collection { wanted } else { "" },
            label_selector: if of_collection { query.get("labelSelector") } else { "" },
        };
        permit(core, &attributes)?;
        Ok(Judged { path, verb, query })
    }
}

/// Takes a request for a resource of this server apart. `None` when there is no such path.
fn resource_call(core: &Core, head: Parts, request: Judged, user: Arc<UserInfo>) -> Result<Option<Call>> {
    let Judged { path, verb, query } = request;
    let Some(kind) = core.kinds.registry().kind(&path.group, &path.version, &path.resource) else { return Ok(None) };
    let scoped = !path.namespace.is_empty() && path.resource != "namespaces";
    if (scoped && !kind.namespaced) || (!path.subresource.is_empty() && kind.subresource(&path.subresource).is_none()) {
        return Ok(None);
    }
    if kind.namespaced && !scoped && (!path.name.is_empty() || verb == "create") {
        return if path.name.is_empty() { Err(Problem::method_not_allowed()) } else { Ok(None) };
    }
    let allowed = match kind.subresource(&path.subresource) {
        Some(subresource) => subresource.verbs,
        None => kind.verbs,
    };
    let connects = matches!(path.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    if verb == "create" && kind.custom.is_some_and(|custom| custom.is_terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Problem::new(405, "MethodNotAllowed", why));
    }
    // What a proxy passes on may have any method; one that is no verb is allowed to whom all verbs are.
    let may_have = path.subresource == "proxy" || (!verb.is_empty() && (connects || allowed.contains(&verb)));
    if !may_have {
        return Err(Problem::method_not_allowed());
    }
    let offer = Offer {
        protobuf: schema::protobuf::describes(&kind.api_version(), kind.kind),
        // Reviews are answers, and no objects that there are columns of.
        tables: kind.verbs.contains(&"get"),
    };
    let accept = if connects || path.subresource == "log" { Accept::JSON } else { Accept::of(&head.headers, offer)? };
    let warnings = kind.custom.and_then(|custom| custom.deprecation.clone()).into_iter().collect();
    Ok(Some(Call { user, kind, path, verb, query, accept, head, warnings, told: Mutex::default() }))
}

/// The verb that authorization sees; empty for a method that no resource has.
fn verb(method: &Method, path: &ResourcePath, query: &Query) -> &'static str {
    let one = !path.name.is_empty();
    match (method.as_str(), one) {
        ("GET" | "HEAD", true) if path.subresource.is_empty() && query.flag("watch") => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if query.flag("watch") => "watch",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "",
    }
}

/// Answers within the limits of time and of requests in flight.
async fn limited(
    core: &Core,
    long_running: bool,
    counted: bool,
    answer: BoxFuture<'_, Result<Response<Body>>>,
) -> Result<Response<Body>> {
    if long_running {
        return answer.await;
    }
    let place = counted.then(|| Arc::clone(&core.in_flight).try_acquire_owned()).transpose();
    let _place = place.map_err(|_| Problem::too_many_requests())?;
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answered) => answered,
        Err(_) => Err(Problem::timeout("request did not complete within the allotted timeout")),
    }
}

async fn dispatch(core: Arc<Core>, mut call: Call, body: Body) -> Result<Response<Body>> {
    // Boxed: handlers differ much in size.
    let answered: BoxFuture<'_, Result<Response<Body>>> = if call.path.subresource.is_empty() {
        Box::pin(objects::answer(&core, &mut call, body))
    } else {
        Box::pin(subresources::answer(&core, &mut call, body))
    };
    answered.await.map(|mut response| {
        let told = call.told.into_inner().unwrap_or_else(PoisonError::into_inner);
        for warning in call.warnings.iter().chain(&told) {
            // RFC 7234: code, agent, quoted text.
            let text = warning.replace(['\\', '"'], "'").replace(['\n', '\r'], " ");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
                response.headers_mut().append(WARNING, value);
            }
        }
        response
    })
}
