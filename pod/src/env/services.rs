//! The variables that tell a container about Services.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// `{NAME}_SERVICE_HOST`, `{NAME}_SERVICE_PORT` and the Docker-style `{NAME}_PORT…` of the Services with a cluster IP:
/// those of the pod's namespace when `links` is set, and always `default/kubernetes`.
#[must_use]
pub fn service_variables(services: &[Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let in_namespace = |service: &Service, wanted: &str| service.metadata.namespace.as_deref() == Some(wanted);
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if name == "kubernetes" && in_namespace(service, "default") {
            chosen.entry(name).or_insert(service);
        }
        if links && in_namespace(service, namespace) {
            chosen.insert(name, service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        add(&mut variables, name, service);
    }
    variables
}

fn add(variables: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let ip = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
    let (Some(ip), Some(ports)) = (ip, spec.ports.as_deref().filter(|ports| !ports.is_empty())) else { return };
    let prefix = shouted(name);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    for (index, port) in ports.iter().enumerate() {
        let number = port.port;
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{number}", protocol.to_lowercase());
        if index == 0 {
            variables.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.insert(format!("{prefix}_SERVICE_PORT_{}", shouted(port_name)), number.to_string());
        }
        let link = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        variables.insert(format!("{link}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{link}_PORT"), number.to_string());
        variables.insert(format!("{link}_ADDR"), ip.to_owned());
        variables.insert(link, url);
    }
}

fn shouted(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
