//! Where a Service leads for this server itself: to an endpoint that is ready, or to its external name
//! (`apiserver/pkg/util/proxy`: `ResolveEndpoint`, `ResolveCluster`). Webhooks and aggregated API servers are reached so.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::seq::SliceRandom as _;
use serde_json::Value;
use store::{Entry, Filter, ListRequest};

use crate::server::Core;

const RESOURCE: &str = "endpointslices.discovery.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where one port of a Service leads, as `HOST:PORT`; otherwise why it leads nowhere, in upstream's words.
pub(crate) fn resolve(core: &Core, service: &Value, port: u64) -> Result<String, String> {
    let spec = &service["spec"];
    match spec["type"].as_str() {
        // The port is that of the server: such Services need not have any.
        Some("ExternalName") => Ok(format!("{}:{port}", spec["externalName"].as_str().unwrap_or_default())),
        _ => of_endpoints(core, service, port).map(|address| address.to_string()),
    }
}

fn of_endpoints(core: &Core, service: &Value, port: u64) -> Result<SocketAddr, String> {
    let text = |field: &str| service["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name").to_owned());
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let chosen = ports.iter().find(|one| one["port"] == port);
    let chosen = chosen.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let own = name.clone();
    let is_its: Filter = Arc::new(move |entry: &Entry| entry.facets.label(SERVICE_NAME) == Some(own.as_str()));
    let request = ListRequest { resource: RESOURCE, namespace, after: None, limit: 0, at: None, filter: Some(&is_its) };
    // Of the present there is nothing that could be too old.
    let entries = core.store.list(&request).map(|page| page.entries).unwrap_or_default();
    let mut slices: Vec<Value> = entries.iter().filter_map(|entry| serde_json::from_slice(entry.json()).ok()).collect();
    slices.shuffle(&mut rand::rng());
    // Those of the first family come first.
    let family = &service["spec"]["ipFamilies"][0];
    slices.sort_by_key(|slice| slice["addressType"] != *family);
    let found = slices.iter().find_map(|slice| endpoint(slice, chosen["name"].as_str().unwrap_or_default()));
    found.ok_or_else(|| format!("no endpoints available for service {name:?}"))
}

/// Any endpoint of a slice that is ready, where the slice has the port.
fn endpoint(slice: &Value, port: &str) -> Option<SocketAddr> {
    let named = |one: &&Value| one["name"].as_str().unwrap_or_default() == port && one["port"].is_u64();
    let number = slice["ports"].as_array()?.iter().find(named)?["port"].as_u64()?;
    let is_ready = |one: &&Value| one["conditions"]["ready"].as_bool().unwrap_or(true);
    let mut ready: Vec<&Value> = slice["endpoints"].as_array()?.iter().filter(is_ready).collect();
    ready.shuffle(&mut rand::rng());
    let address: IpAddr = ready.first()?["addresses"][0].as_str()?.parse().ok()?;
    Some(SocketAddr::new(address, u16::try_from(number).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::endpoint;

    #[test]
    fn an_endpoint_is_ready_and_has_the_port() {
        let slice = json!({
            "ports": [{ "name": "http", "port": 80 }, { "name": "https", "port": 8443 }],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": false } },
                { "addresses": ["10.0.0.2"], "conditions": {} },
            ],
        });
        assert_eq!(endpoint(&slice, "https"), Some("10.0.0.2:8443".parse().unwrap()));
        assert_eq!(endpoint(&slice, "other"), None);
        let none = json!({ "ports": [{ "name": "", "port": 80 }], "endpoints": null });
        assert_eq!(endpoint(&none, ""), None);
    }
}
