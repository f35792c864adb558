//! Cluster IPs and node ports of Services (`pkg/registry/core/service/{ipallocator,portallocator,storage}`).
//!
//! What is taken follows the committed Services, so that nothing leaks and a restart repairs itself; what a request that
//! is under way has chosen is held by its [`Reservation`] until its commit is visible.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use auth::Observer;
use ipnet::IpNet;
use rand::Rng as _;
use schema::{FieldError, Kind};
use serde_json::{Value, json};

use crate::problem::{Problem, Result};

/// How often an address is drawn at random before the range is searched.
const DRAWS: usize = 64;

/// Gives out addresses and ports.
pub(crate) struct Allocators {
    services: IpNet,
    ports: RangeInclusive<u16>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    ips: HashMap<IpAddr, String>,
    ports: HashMap<u16, String>,
    of: HashMap<String, Claims>,
    /// Chosen by requests under way.
    held: Claims,
}

/// What one Service has.
#[derive(Default, Clone)]
struct Claims {
    ips: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

/// Keeps others from choosing the same while a write is under way.
#[derive(Default)]
pub(crate) struct Reservation {
    taken: Option<Arc<Mutex<Taken>>>,
    claims: Claims,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            let mut taken = lock(taken);
            taken.held.ips.retain(|ip| !self.claims.ips.contains(ip));
            taken.held.ports.retain(|port| !self.claims.ports.contains(port));
        }
    }
}

impl Allocators {
    pub(crate) fn new(services: IpNet, ports: RangeInclusive<u16>) -> Self {
        Allocators { services, ports, taken: Arc::default() }
    }

    /// Completes a Service before it is committed; leaves all other kinds alone.
    pub(crate) fn allocate(&self, kind: &Kind, object: &mut Value, old: Option<&Value>) -> Result<Reservation> {
        if !kind.group.is_empty() || kind.plural != "services" {
            return Ok(Reservation::default());
        }
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
            return Ok(Reservation::default());
        };
        let old = old.and_then(|old| old.get("spec"));
        let mut work = Work {
            allocators: self,
            owner: format!("{namespace}/{name}"),
            reservation: Reservation { taken: Some(Arc::clone(&self.taken)), claims: Claims::default() },
        };
        work.cluster_ip(spec, old)
            .and_then(|()| work.node_ports(spec))
            .map_err(|error| Problem::invalid_field(kind.group, kind.kind, &name, error))?;
        Ok(work.reservation)
    }
}

/// One Service on its way in.
struct Work<'a> {
    allocators: &'a Allocators,
    owner: String,
    reservation: Reservation,
}

type Outcome<T> = std::result::Result<T, FieldError>;

fn text<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn needs_ports(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

impl Work<'_> {
    fn cluster_ip(&mut self, spec: &mut Value, old: Option<&Value>) -> Outcome<()> {
        if text(spec, "type") == "ExternalName" || text(spec, "clusterIP") == "None" {
            return Ok(());
        }
        let kept = old.map(|old| text(old, "clusterIP")).unwrap_or_default();
        let wanted = match text(spec, "clusterIP") {
            "" => {
                let ip = self.any_ip()?;
                spec["ipFamilies"] = json!([if ip.is_ipv4() { "IPv4" } else { "IPv6" }]);
                ip.to_string()
            }
            wanted if wanted == kept => return Ok(()),
            wanted => {
                let wanted = wanted.to_owned();
                self.this_ip(&wanted)?;
                wanted
            }
        };
        spec["clusterIPs"] = json!([wanted]);
        spec["clusterIP"] = wanted.into();
        Ok(())
    }

    fn this_ip(&mut self, wanted: &str) -> Outcome<()> {
        let refuse = |why: String| FieldError {
            reason: "FieldValueInvalid",
            field: "spec.clusterIPs".into(),
            message: format!("Invalid value: [{wanted:?}]: failed to allocate IP {wanted}: {why}"),
        };
        let range = self.allocators.services;
        let outside = || {
            format!("the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {}", range.trunc())
        };
        let ip: IpAddr = wanted.parse().map_err(|_| refuse(outside()))?;
        if !range.contains(&ip) || !is_usable(&range, ip) {
            return Err(refuse(outside()));
        }
        let mut taken = lock(&self.allocators.taken);
        if taken.is_ip_taken(ip, &self.owner) {
            return Err(refuse("provided IP is already allocated".into()));
        }
        taken.held.ips.insert(ip);
        self.reservation.claims.ips.insert(ip);
        Ok(())
    }

    fn any_ip(&mut self) -> Outcome<IpAddr> {
        let range = self.allocators.services;
        let mut taken = lock(&self.allocators.taken);
        let mut random = rand::rng();
        let free = |ip: &IpAddr| is_usable(&range, *ip) && !taken.is_ip_taken(*ip, "");
        let drawn = (0..DRAWS).map(|_| random_ip(&range, random.random())).find(|ip| free(ip));
        let Some(ip) = drawn.or_else(|| range.hosts().take(1 << 16).find(|ip| free(ip))) else {
            return Err(FieldError {
                reason: "InternalError",
                field: "spec.clusterIPs".into(),
                message: "Internal error: failed to allocate a serviceIP: range is full".into(),
            });
        };
        taken.held.ips.insert(ip);
        self.reservation.claims.ips.insert(ip);
        Ok(ip)
    }

    /// What an update left out was filled in from the old object before ([`Kind::prepare_update`]).
    fn node_ports(&mut self, spec: &mut Value) -> Outcome<()> {
        if !needs_ports(spec) {
            return Ok(());
        }
        let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
        // TCP and UDP of one Service may share a number.
        let mut own: HashSet<u16> = HashSet::new();
        for (index, port) in ports.iter_mut().enumerate() {
            let chosen = match port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) {
                0 => self.any_port()?,
                asked => self.this_port(index, asked, &own)?,
            };
            own.insert(chosen);
            port["nodePort"] = chosen.into();
        }
        Ok(())
    }

    fn this_port(&mut self, index: usize, asked: u64, own: &HashSet<u16>) -> Outcome<u16> {
        let refuse = |why: String| FieldError {
            reason: "FieldValueInvalid",
            field: format!("spec.ports[{index}].nodePort"),
            message: format!("Invalid value: {asked}: {why}"),
        };
        let range = &self.allocators.ports;
        let port = u16::try_from(asked).ok().filter(|port| range.contains(port)).ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            refuse(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"))
        })?;
        let mut taken = lock(&self.allocators.taken);
        if !own.contains(&port) && taken.is_port_taken(port, &self.owner) {
            return Err(refuse("provided port is already allocated".into()));
        }
        taken.held.ports.insert(port);
        self.reservation.claims.ports.insert(port);
        Ok(port)
    }

    fn any_port(&mut self) -> Outcome<u16> {
        let range = self.allocators.ports.clone();
        let mut taken = lock(&self.allocators.taken);
        let start = rand::rng().random_range(range.clone());
        let found = (start..=*range.end()).chain(*range.start()..start).find(|port| !taken.is_port_taken(*port, ""));
        let Some(port) = found else {
            return Err(FieldError {
                reason: "InternalError",
                field: "spec.ports".into(),
                message: "Internal error: failed to allocate a nodePort: range is full".into(),
            });
        };
        taken.held.ports.insert(port);
        self.reservation.claims.ports.insert(port);
        Ok(port)
    }
}

impl Taken {
    fn is_ip_taken(&self, ip: IpAddr, owner: &str) -> bool {
        self.held.ips.contains(&ip) || self.ips.get(&ip).is_some_and(|other| other != owner)
    }

    fn is_port_taken(&self, port: u16, owner: &str) -> bool {
        self.held.ports.contains(&port) || self.ports.get(&port).is_some_and(|other| other != owner)
    }
}

impl Observer for Allocators {
    fn interests(&self) -> &[(&'static str, &'static str)] {
        &[("", "services")]
    }

    fn observe(&self, _: &str, _: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let owner = format!("{namespace}/{name}");
        let claims = object.and_then(|object| object.get("spec")).map(claims).unwrap_or_default();
        let mut taken = lock(&self.taken);
        let before = taken.of.remove(&owner).unwrap_or_default();
        taken.ips.retain(|ip, by| !(before.ips.contains(ip) && *by == owner));
        taken.ports.retain(|port, by| !(before.ports.contains(port) && *by == owner));
        taken.ips.extend(claims.ips.iter().map(|ip| (*ip, owner.clone())));
        taken.ports.extend(claims.ports.iter().map(|port| (*port, owner.clone())));
        if object.is_some() {
            taken.of.insert(owner, claims);
        }
    }
}

fn claims(spec: &Value) -> Claims {
    let ips = spec.get("clusterIPs").and_then(Value::as_array).into_iter().flatten();
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    let health = spec.get("healthCheckNodePort").and_then(Value::as_u64);
    let numbers = ports.filter_map(|port| port.get("nodePort")?.as_u64()).chain(health);
    Claims {
        ips: ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
        ports: numbers.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port != 0).collect(),
    }
}

/// Neither the network's own address nor its broadcast.
fn is_usable(range: &IpNet, ip: IpAddr) -> bool {
    ip != range.network() && (ip != range.broadcast() || range.addr().is_ipv6())
}

fn random_ip(range: &IpNet, random: u128) -> IpAddr {
    match range {
        IpNet::V4(range) => {
            let bits = u32::from(range.network())
                | (u32::try_from(random & u128::from(u32::MAX)).unwrap_or(0) & u32::from(range.hostmask()));
            IpAddr::V4(Ipv4Addr::from(bits))
        }
        IpNet::V6(range) => {
            IpAddr::V6(Ipv6Addr::from(u128::from(range.network()) | (random & u128::from(range.hostmask()))))
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}
