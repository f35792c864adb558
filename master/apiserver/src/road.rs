//! From an HTTP request to its answer: who asks, whether he may, and who answers.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::{Attributes, AuthenticationError, Credentials, Refusal, UserInfo};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, WARNING};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use schema::Kind;

use crate::body::{self, Body};
use crate::problem::{Problem, Result};
use crate::request::{Accept, Format, Offer, Query, ResourcePath, Target, socket_token};
use crate::server::Core;
use crate::{aggregation, discovery, flow_control, health, hooks, objects, openapi, subresources, warnings};

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
        /// Whether it speaks for others.
        is_front_proxy: bool,
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
    /// What admission, webhooks and the rules of its kind want the client to be told.
    pub told: Mutex<Vec<String>>,
}

impl Call {
    /// Has the client told this.
    pub(crate) fn tell(&self, warnings: Vec<String>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).extend(warnings);
    }
}

/// Answers any request; never fails and never panics.
pub(crate) async fn answer(core: Arc<Core>, request: Request<Body>, origin: Origin) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let format = format_of_refusals(request.headers());
    let answered = AssertUnwindSafe(go(core, request, origin, format)).catch_unwind().await;
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

/// Refusals come as the client reads answers, or as JSON where it reads nothing that there is.
fn format_of_refusals(headers: &HeaderMap) -> Format {
    Accept::of(headers, Offer::ALL).map_or(Format::Json, |accept| accept.format)
}

async fn go(core: Arc<Core>, request: Request<Body>, origin: Origin, format: Format) -> Result<Response<Body>> {
    let (mut head, body) = request.into_parts();
    let offered = socket_token::take(&mut head.headers);
    let sender = authenticate(&core, &head, &origin, offered.as_deref())?;
    let asked = Asked::of(&head);
    let user = acting_user(&core, &head, &asked, sender)?;
    // Our own parts are few and must not be starved by others.
    let counted = matches!(origin, Origin::Connection { .. }) && !asked.is_connection();
    let class = counted.then(|| core.flow_control.classify(&asked.attributes(&user, &head))).flatten();
    let is_long_running = asked.is_long_running();
    let width = class.as_ref().map_or(1, |_| asked.width(&core));
    let answer = answer_asked(Arc::clone(&core), asked, (head, body), user);
    let Some(class) = class else { return in_time(is_long_running, Box::pin(answer)).await };
    // A watch has its seat until it is there.
    let mut response = match core.flow_control.seat(&class, width).await {
        Some(_seat) => {
            in_time(is_long_running, Box::pin(answer)).await.unwrap_or_else(|error| body::problem(&error, format))
        }
        None => flow_control::too_many(),
    };
    class.mark(&mut response);
    Ok(response)
}

async fn answer_asked(
    core: Arc<Core>,
    asked: Asked,
    (head, body): (Parts, Body),
    user: Arc<UserInfo>,
) -> Result<Response<Body>> {
    permit(&core, &asked.attributes(&user, &head))?;
    let Some(path) = &asked.path else { return other_path(core, head, body, user).await };
    if let Some(backend) = core.aggregation.backend(&path.group, &path.version) {
        return Ok(aggregation::answer(&core, &backend, &user, head, body).await);
    }
    match resource_call(&core, head, asked, user)? {
        Some(call) => Ok(dispatch(core, call, body).await),
        None => Ok(body::no_such_path()),
    }
}

/// Everything that names no resource.
async fn other_path(core: Arc<Core>, head: Parts, body: Body, user: Arc<UserInfo>) -> Result<Response<Body>> {
    if head.uri.path() == crate::snapshot::PATH {
        permit_all(&core, &user)?;
        return crate::snapshot::answer(core, &head.method).await;
    }
    match aggregation::backend_of_path(&core, head.uri.path()) {
        Some(backend) => Ok(aggregation::answer(&core, &backend, &user, head, body).await),
        None => Ok(plain_path(&core, &head)),
    }
}

/// `offered` is a token that came otherwise than in the `Authorization` header, as if it had.
fn authenticate(core: &Core, head: &Parts, origin: &Origin, offered: Option<&str>) -> Result<Arc<UserInfo>> {
    let (certificate, is_front_proxy) = match origin {
        Origin::InProcess(user) => return Ok(Arc::clone(user)),
        Origin::Connection { certificate, is_front_proxy } => (certificate.as_deref(), *is_front_proxy),
    };
    if let Some(certificate) = certificate.filter(|_| is_front_proxy)
        && let Some(user) = auth::front_proxy::user(certificate, values(&head.headers))?
    {
        return Ok(Arc::new(user));
    }
    let credentials = Credentials {
        // A front proxy is nobody itself.
        client_certificate: certificate.filter(|_| !is_front_proxy),
        // One that is no text is there, and is no token.
        authorization: head.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default()).or(offered),
    };
    core.authenticator.authenticate(credentials, head.uri.path(), Timestamp::now()).map(Arc::new).map_err(|error| {
        if error != AuthenticationError::Missing {
            tracing::info!(reason = %error, "request not authenticated");
        }
        Refusal::from(error).into()
    })
}

/// Whom the request acts as: its sender, unless `Impersonate-*` headers ask for another and he may.
fn acting_user(core: &Core, head: &Parts, asked: &Asked, sender: Arc<UserInfo>) -> Result<Arc<UserInfo>> {
    let asked = asked.attributes(&sender, head);
    let other = auth::impersonate(&asked, values(&head.headers), core.authorizer.as_ref())?;
    Ok(other.map_or(sender, Arc::new))
}

fn values(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
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

/// Whether the user may do everything with everything (`cluster-admin`).
fn permit_all(core: &Core, user: &UserInfo) -> Result<()> {
    let attributes = Attributes { group: "*", version: "*", resource: "*", ..Attributes::of(user, "*") };
    permit(core, &attributes)
}

fn permit(core: &Core, attributes: &Attributes<'_>) -> Result<()> {
    let decision = core.authorizer.authorize(attributes);
    if decision.allowed() { Ok(()) } else { Err(attributes.forbidden(decision.reason()).into()) }
}

/// Whether who asked for a change may also create what is not there.
pub(crate) fn permit_create(core: &Core, call: &Call) -> Result<()> {
    let attributes = Attributes {
        group: &call.path.group,
        version: &call.path.version,
        resource: &call.path.resource,
        subresource: &call.path.subresource,
        namespace: &call.path.namespace,
        name: &call.path.name,
        ..Attributes::of(&call.user, "create")
    };
    permit(core, &attributes)
}

/// What a request asks for.
struct Asked {
    /// Of a resource; other paths have none.
    path: Option<ResourcePath>,
    /// The verb that authorization sees.
    verb: Cow<'static, str>,
    query: Query,
}

impl Asked {
    fn of(head: &Parts) -> Self {
        let query = Query::parse(head.uri.query());
        match Target::of(head.uri.path()) {
            Target::Resource(path) => {
                let verb = Cow::Borrowed(verb(&head.method, &path, &query));
                Asked { path: Some(path), verb, query }
            }
            Target::Other => Asked { path: None, verb: head.method.as_str().to_ascii_lowercase().into(), query },
        }
    }

    fn attributes<'a>(&'a self, user: &'a UserInfo, head: &'a Parts) -> Attributes<'a> {
        let nothing = Attributes::of(user, &self.verb);
        let Some(path) = &self.path else { return Attributes { path: Some(head.uri.path()), ..nothing } };
        let wanted = self.query.get("fieldSelector");
        let of_collection = matches!(&*self.verb, "list" | "watch" | "deletecollection");
        let name =
            if of_collection && path.name.is_empty() { named(&self.query).unwrap_or_default() } else { &path.name };
        Attributes {
            group: &path.group,
            version: &path.version,
            resource: &path.resource,
            subresource: &path.subresource,
            namespace: &path.namespace,
            name,
            field_selector: if of_collection { wanted } else { "" },
            label_selector: if of_collection { self.query.get("labelSelector") } else { "" },
            ..nothing
        }
    }

    /// How many seats it takes.
    fn width(&self, core: &Core) -> usize {
        let Some(path) = self.path.as_ref().filter(|_| matches!(&*self.verb, "list" | "watch")) else { return 1 };
        let kind = core.kinds.registry().kind(&path.group, &path.version, &path.resource);
        // What another server has costs this one little.
        let Some(kind) = kind else { return 1 };
        let is_one = !path.name.is_empty() || named(&self.query).is_some();
        flow_control::of_list(&self.verb, &self.query, is_one, core.store.size(&hooks::stored_resource(kind)))
    }

    /// Whether it is a stream between the client and a pod, which lasts as long as both wish.
    fn is_connection(&self) -> bool {
        let subresource = self.path.as_ref().map_or("", |path| &path.subresource);
        matches!(subresource, "exec" | "attach" | "portforward" | "proxy" | "log")
    }

    /// Whether the answer goes on as long as the client wishes.
    fn is_long_running(&self) -> bool {
        self.verb == "watch" || self.is_connection()
    }
}

/// The one object that a field selector asks for by name.
fn named(query: &Query) -> Option<&str> {
    let name = query.get("fieldSelector").split(',').find_map(|term| term.strip_prefix("metadata.name="))?;
    Some(name.trim_start_matches('='))
}

/// Takes a request for a resource of this server apart. `None` when there is no such path.
fn resource_call(core: &Core, head: Parts, asked: Asked, user: Arc<UserInfo>) -> Result<Option<Call>> {
    let Asked { path: Some(path), verb: Cow::Borrowed(verb), query } = asked else { return Ok(None) };
    let Some(kind) = core.kinds.registry().kind(&path.group, &path.version, &path.resource) else { return Ok(None) };
    let scoped = !path.namespace.is_empty() && path.resource != "namespaces";
    if (scoped && !kind.namespaced) || (!path.subresource.is_empty() && kind.subresource(&path.subresource).is_none()) {
        return Ok(None);
    }
    if kind.namespaced && !scoped && (!path.name.is_empty() || verb == "create") {
        return if path.name.is_empty() { Err(Problem::method_not_allowed()) } else { Ok(None) };
    }
    // What is made at a path is made under the name of its body, for which nobody was asked.
    if verb == "create" && !path.name.is_empty() && path.subresource.is_empty() {
        return Err(Problem::method_not_allowed());
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
    let warnings = kind.deprecation().map(str::to_owned).into_iter().collect();
    Ok(Some(Call { user, kind, path, verb, query, accept, head, warnings, told: Mutex::default() }))
}

/// The verb that authorization sees; empty for a method that no resource has. One object is watched by its path only, or as a
/// list of one.
fn verb(method: &Method, path: &ResourcePath, query: &Query) -> &'static str {
    let one = !path.name.is_empty();
    match (method.as_str(), one) {
        ("GET" | "HEAD", _) if path.watches => "watch",
        _ if path.watches => "",
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

/// Answers within the limit of time, where there is one.
async fn in_time(is_long_running: bool, answer: BoxFuture<'_, Result<Response<Body>>>) -> Result<Response<Body>> {
    if is_long_running {
        return answer.await;
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answered) => answered,
        Err(_) => Err(Problem::timeout("request did not complete within the allotted timeout")),
    }
}

async fn dispatch(core: Arc<Core>, mut call: Call, body: Body) -> Response<Body> {
    // Boxed: handlers differ much in size.
    let answered: BoxFuture<'_, Result<Response<Body>>> = if call.path.subresource.is_empty() {
        Box::pin(objects::answer(&core, &mut call, body))
    } else {
        Box::pin(subresources::answer(&core, &mut call, body))
    };
    // What the client is told, it is told of a refusal, too.
    let mut response =
        answered.await.unwrap_or_else(|problem| body::problem(&problem, format_of_refusals(&call.head.headers)));
    let told = call.told.into_inner().unwrap_or_else(PoisonError::into_inner);
    for header in warnings::headers(call.warnings.iter().chain(&told)) {
        response.headers_mut().append(WARNING, header);
    }
    response
}
