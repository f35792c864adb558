//! Requests that are passed on: logs, exec, attach, port-forward and the proxies. Bytes go through unchanged, but for WebSocket
//! sessions, which [`websocket`] turns into SPDY.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admission::{Operation, Request as Admission};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::target::Destination;
use super::{pages, websocket};
use crate::body::{self, Body};
use crate::problem::{Problem, Result};
use crate::relay;
use crate::road::{Call, permit_create};
use crate::server::Core;
use crate::webhooks::{self, Attributes, Wishes};

/// How long a node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How much of a refusal is read.
const MOST_WORDS: usize = 50_000;

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How agents are reached, and pods and Services.
pub(crate) struct Kubelets {
    agents: Option<TlsConnector>,
    /// Whoever asks for `https:` of a pod has no CA that its certificate would be of; and it is not shown who asks.
    others: TlsConnector,
}

impl Kubelets {
    pub(crate) fn new(agents: Option<Arc<ClientConfig>>) -> Self {
        let config = ClientConfig::builder();
        let provider = Arc::clone(config.crypto_provider());
        let config = config.dangerous().with_custom_certificate_verifier(verifiers::any_server(provider));
        let others = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        Kubelets { agents: agents.map(TlsConnector::from), others }
    }

    pub(super) async fn connect(&self, destination: &Destination) -> Result<Box<dyn Io>> {
        let Destination { host, port, .. } = destination;
        let failed = |why: String| Problem::internal(&format!("error dialing backend: dial tcp {host}:{port}: {why}"));
        let dial = async {
            let found = lookup_host((host.as_str(), *port)).await.map_err(|error| failed(error.to_string()))?;
            let addresses: Vec<SocketAddr> = found.collect();
            if !addresses.iter().all(|address| destination.may_be_at(address.ip())) {
                return Err(Problem::bad_request("address not allowed"));
            }
            let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(|error| failed(error.to_string()))?;
            let _ = tcp.set_nodelay(true);
            if !destination.tls {
                return Ok(Box::new(tcp) as Box<dyn Io>);
            }
            let tls = if destination.agent { self.agents.as_ref() } else { Some(&self.others) };
            let Some(tls) = tls else {
                return Err(failed("this server has no client certificate for agents".into()));
            };
            let name = ServerName::try_from(host.clone()).map_err(|error| failed(error.to_string()))?;
            let tls = tls.connect(name, tcp).await.map_err(|error| failed(error.to_string()))?;
            Ok(Box::new(tls) as Box<dyn Io>)
        };
        tokio::time::timeout(CONNECT, dial).await.unwrap_or_else(|_| Err(failed("i/o timeout".into())))
    }
}

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    admit(core, call).await?;
    let Some(destination) = Destination::of(core, call)? else {
        let mut nothing = Response::new(body::full(Bytes::new()));
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    };
    if let Some(session) = websocket::Session::asked(call)
        && let Some(client) = relay::asked(&mut call.head)
    {
        return websocket::answer(core, call, &destination, session, client).await;
    }
    if !call.head.headers.contains_key(header::UPGRADE)
        && let Some(redirect) = pages::with_slash(call)
    {
        return Ok(redirect);
    }
    let stream = core.kubelets.connect(&destination).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Problem::internal(&format!("error dialing backend: {error}")))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    let client = relay::asked(&mut call.head);
    let in_messages = websocket::wants_log(call);
    let request = forwarded(call, &destination, body, client.is_some() && !in_messages)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| Problem::internal(&format!("error dialing backend: {error}")))?;
    if call.path.subresource == "log" && !response.status().is_success() {
        return Err(refused(response).await);
    }
    Ok(match client {
        Some(client) if in_messages => websocket::log(call, client, response.into_body())?,
        Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => relay::join(client, response),
        _ if call.path.subresource == "proxy" => {
            pages::passed_back(call, &destination, relay::unhopped(response)).await?
        }
        _ => relay::passed_back(response),
    })
}

/// Rights and rules beyond the ordinary: a GET that opens a stream writes, too (`AuthorizePodWebsocketUpgradeCreatePermission`).
async fn admit(core: &Core, call: &Call) -> Result<()> {
    let path = &call.path;
    if call.verb == "get" && matches!(path.subresource.as_str(), "exec" | "attach" | "portforward") {
        permit_create(core, call)?;
    }
    if path.subresource == "log" {
        return Ok(());
    }
    let request = Admission {
        user: &call.user,
        operation: Operation::Connect,
        group: &path.group,
        resource: &path.resource,
        subresource: &path.subresource,
        namespace: &path.namespace,
        name: &path.name,
        old: None,
    };
    let kind = options_kind(&path.resource, &path.subresource);
    let mut object = serde_json::json!({
        "kind": kind, "apiVersion": "v1", "container": call.query.get("container"), "stdin": call.query.flag("stdin"),
        "stdout": call.query.flag("stdout"), "stderr": call.query.flag("stderr"), "tty": call.query.flag("tty"),
        "command": call.query.pairs().filter(|(name, _)| *name == "command").map(|(_, word)| word).collect::<Vec<_>>(),
    });
    let asked = Attributes {
        user: &call.user,
        operation: Operation::Connect,
        kind: call.kind,
        subresource: &path.subresource,
        body: Some(("", "v1", kind)),
        namespace: &path.namespace,
        name: &path.name,
        old: None,
        wishes: Wishes::Connect,
        dry_run: false,
    };
    call.tell(webhooks::mutate(core, &request, &asked, &mut object).await?);
    core.admission.validate(&request, None)?;
    call.tell(webhooks::validate(core, &asked, Some(&object)).await?);
    Ok(())
}

/// What the parameters of a connection are, as an object.
fn options_kind(resource: &str, subresource: &str) -> &'static str {
    match (resource, subresource) {
        ("nodes", _) => "NodeProxyOptions",
        ("services", _) => "ServiceProxyOptions",
        (_, "exec") => "PodExecOptions",
        (_, "attach") => "PodAttachOptions",
        (_, "portforward") => "PodPortForwardOptions",
        _ => "PodProxyOptions",
    }
}

fn forwarded(call: &Call, destination: &Destination, body: Body, upgrading: bool) -> Result<Request<Body>> {
    let invalid = |error: http::Error| Problem::bad_request(format!("the request cannot be passed on: {error}"));
    let uri = Uri::builder().path_and_query(destination.path.as_str()).build().map_err(invalid)?;
    let mut request = Request::new(body);
    *request.method_mut() = call.head.method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    *headers = relay::end_to_end(&call.head.headers);
    if let Ok(host) = HeaderValue::from_str(&destination.authority()) {
        headers.insert(header::HOST, host);
    }
    if upgrading {
        relay::ask_for_upgrade(&call.head.headers, headers);
    }
    Ok(request)
}

/// An agent refuses in plain words, clients print a Status (`GenericHttpResponseChecker`).
async fn refused(response: Response<hyper::body::Incoming>) -> Problem {
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST_WORDS).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned()).unwrap_or_default();
    match status {
        StatusCode::BAD_REQUEST => Problem::bad_request(text),
        StatusCode::NOT_FOUND => Problem::new(404, "NotFound", text),
        StatusCode::INTERNAL_SERVER_ERROR => Problem::internal(&text),
        other => Problem::new(other.as_u16(), "Unknown", text),
    }
}
