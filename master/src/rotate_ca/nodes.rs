//! Asks each node's port 10250, as the API server does: who can be talked to believes what it has to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use auth::pki::CertifiedKey;
use futures::future::join_all;
use kube::Client;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::text;
use crate::{api, tls, trust};

const PATIENCE: Duration = Duration::from_secs(10);
const KUBELET_PORT: u64 = 10_250;

/// What is wrong with each node that does not present a certificate of `bundle_pem`, or does not believe the one of `ours`.
pub async fn ask_all(client: &Client, bundle_pem: &str, ours: Option<&CertifiedKey>) -> Result<Vec<String>> {
    let config = Arc::new(config(bundle_pem, ours)?);
    let list = api::get(client, "/api/v1/nodes").await?.unwrap_or_default();
    let nodes: Vec<&Value> = list.get("items").and_then(Value::as_array).into_iter().flatten().collect();
    let asked = nodes.into_iter().map(|node| async {
        let name = text(node, "/metadata/name");
        let answer = tokio::time::timeout(PATIENCE, ask(node, Arc::clone(&config), ours.is_some())).await;
        match answer.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs())) {
            Ok(()) => None,
            Err(error) => Some(format!("node {name}: {error:#}")),
        }
    });
    Ok(join_all(asked).await.into_iter().flatten().collect())
}

fn config(bundle_pem: &str, ours: Option<&CertifiedKey>) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trust::roots(bundle_pem)?);
    Ok(match ours {
        Some(pair) => {
            let certified = tls::read(&pair.certificate_pem, pair)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    })
}

/// Connects, and where we have a certificate looks whether it is taken: a server that does not believe it ends the connection, or says 401.
async fn ask(node: &Value, config: Arc<ClientConfig>, is_known: bool) -> Result<()> {
    let (address, port) = place(node)?;
    let stream = TcpStream::connect((address, port)).await.with_context(|| format!("{address}:{port}"))?;
    let connected = TlsConnector::from(config).connect(ServerName::from(address), stream).await;
    let mut stream = connected.context("its certificate is not of the new CA yet")?;
    if !is_known {
        return Ok(());
    }
    let request = "GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(request.as_bytes()).await?;
        // How it closes is of no interest once it has answered.
        match stream.read_to_end(&mut answer).await {
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(()),
        }
    };
    talk.await.context("it does not believe the new CA yet")?;
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned();
    ensure!(["200", "403"].contains(&status.as_str()), "it does not believe the new CA yet (status {status:?})");
    Ok(())
}

/// Where the node's server listens.
fn place(node: &Value) -> Result<(IpAddr, u16)> {
    let mut addresses = node.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    let internal = addresses.find(|address| text(address, "/type") == "InternalIP").context("it has no InternalIP")?;
    let address = text(internal, "/address").parse().context("its InternalIP")?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    Ok((address, u16::try_from(port.unwrap_or(KUBELET_PORT)).context("its port")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_asked_at_its_internal_address() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10_350}},
        }});
        assert_eq!(place(&node).unwrap(), (IpAddr::from([10, 0, 0, 1]), 10_350));
        place(&json!({})).unwrap_err();
    }
}
