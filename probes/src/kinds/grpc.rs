//! grpc: the health protocol, grpc.health.v1 (pkg/probe/grpc).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::go_duration;
use crate::probe::Outcome;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const AGENT: &str = "kube-probe/1.36";

/// grpc.health.v1.HealthCheckRequest.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub service: String,
}

/// grpc.health.v1.HealthCheckResponse.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// grpc.health.v1.HealthCheckResponse.ServingStatus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

enum Failed {
    Connect(String),
    Call(Status),
}

pub(crate) async fn probe(host: IpAddr, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = SocketAddr::new(host, port);
    let within = go_duration(timeout);
    match tokio::time::timeout(timeout, check(address, service)).await {
        Ok(Ok(status)) => judge(status),
        Ok(Err(Failed::Call(status))) => Outcome::Failure(call_error(&status, &within)),
        Ok(Err(Failed::Connect(error))) => Outcome::Failure(format!(
            "timeout: failed to connect service {:?} within {within}: {error}",
            address.to_string()
        )),
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {within}")),
    }
}

fn judge(status: i32) -> Outcome {
    match ServingStatus::try_from(status) {
        Ok(ServingStatus::Serving) => Outcome::Success,
        Ok(other) => Outcome::Failure(format!("service unhealthy (responded with {:?})", other.name())),
        Err(_) => Outcome::Failure(format!("service unhealthy (responded with \"{status}\")")),
    }
}

fn call_error(status: &Status, within: &str) -> String {
    match status.code() {
        Code::Unimplemented => {
            format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            )
        }
        Code::DeadlineExceeded => format!("timeout: health rpc did not complete within {within}"),
        code => format!("error: health rpc probe failed: rpc error: code = {code:?} desc = {}", status.message()),
    }
}

async fn check(address: SocketAddr, service: &str) -> Result<i32, Failed> {
    let connect = |error: tonic::transport::Error| Failed::Connect(describe(&error));
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).and_then(|e| e.user_agent(AGENT)).map_err(connect)?;
    let channel = endpoint.connect().await.map_err(connect)?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(connect)?;
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let response = client.unary(request, PathAndQuery::from_static(CHECK), codec).await.map_err(Failed::Call)?;
    Ok(response.into_inner().status)
}

/// The innermost cause: tonic's own text is "transport error".
fn describe(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
