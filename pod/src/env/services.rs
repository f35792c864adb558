//! Service variables: `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, and the older form that Docker's links had.

use std::collections::BTreeMap;

/// What a Service says in variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    pub name: String,
    /// Empty or `None` for Services without one: they have no variables.
    pub cluster_ip: String,
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where it has none.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub port: i32,
}

/// The variables of these Services.
#[must_use]
pub fn variables(services: &[ServiceFacts]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for service in services.iter().filter(|s| !s.cluster_ip.is_empty() && s.cluster_ip != "None") {
        let Some(first) = service.ports.first() else { continue };
        let (name, ip) = (variable(&service.name), &service.cluster_ip);
        all.insert(format!("{name}_SERVICE_HOST"), ip.clone());
        all.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        all.insert(format!("{name}_PORT"), url(ip, first));
        for port in &service.ports {
            if !port.name.is_empty() {
                all.insert(format!("{name}_SERVICE_PORT_{}", variable(&port.name)), port.port.to_string());
            }
            let prefix = format!("{name}_PORT_{}_{}", port.port, port.protocol.to_uppercase());
            all.insert(format!("{prefix}_PROTO"), port.protocol.to_lowercase());
            all.insert(format!("{prefix}_PORT"), port.port.to_string());
            all.insert(format!("{prefix}_ADDR"), ip.clone());
            all.insert(prefix, url(ip, port));
        }
    }
    all
}

fn url(ip: &str, port: &ServicePort) -> String {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!("{}://{host}:{}", port.protocol.to_lowercase(), port.port)
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
