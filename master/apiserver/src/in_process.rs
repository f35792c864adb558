//! A client's transport without a connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use auth::UserInfo;
use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::Service;

use crate::body::{Body, BoxError};
use crate::road::Origin;
use crate::server::Core;

/// A service that `kube::Client::new` takes: requests are answered in this process, as one user, who is authorized and
/// admitted as anyone else.
#[derive(Clone)]
pub struct InProcess {
    core: Arc<Core>,
    user: Arc<UserInfo>,
    agent: HeaderValue,
}

impl InProcess {
    pub(crate) fn new(core: Arc<Core>, user: UserInfo, agent: &'static str) -> Self {
        InProcess { core, user: Arc::new(user), agent: HeaderValue::from_static(agent) }
    }
}

impl<B> Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.agent.clone());
        let (core, origin) = (Arc::clone(&self.core), Origin::InProcess(Arc::clone(&self.user)));
        Box::pin(async move { Ok(crate::road::answer(core, request, origin).await) })
    }
}
