//! Cluster IPs and node ports of Services (`pkg/registry/core/service/{ipallocator,portallocator,storage}`).
//!
//! What is taken follows the committed Services and IPAddresses, so that nothing leaks and a restart repairs itself; what a
//! request that is under way has chosen is held by its [`Reservation`] until its commit is visible.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use auth::Observer;
use ipnet::IpNet;
use jiff::Timestamp;
use rand::Rng as _;
use schema::{FieldError, Kind};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::ip_addresses::{self, Address, Due};
use crate::problem::{Problem, Result};
use crate::service_cidrs;

/// How often an address is drawn at random before the range is searched.
const DRAWS: usize = 64;

/// Gives out addresses and ports.
pub(crate) struct Allocators {
    /// What the server was told: counts as long as there is no ServiceCIDR, and says which family Services have.
    services: IpNet,
    ports: RangeInclusive<u16>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    taken: Mutex<Taken>,
    /// Told when there may be something to do about ServiceCIDRs or IPAddresses.
    changed: Notify,
}

#[derive(Default)]
struct Taken {
    /// The ServiceCIDRs, by name.
    networks: BTreeMap<String, Networks>,
    /// The IPAddresses.
    addresses: HashMap<IpAddr, Address>,
    /// Addresses that a Service had, whose IPAddresses are to go.
    freed: HashSet<IpAddr>,
    /// Who has what: one Service, but where data is older than this rule.
    ips: HashMap<IpAddr, BTreeSet<String>>,
    ports: HashMap<u16, BTreeSet<String>>,
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
    shared: Option<Arc<Shared>>,
    /// `NAMESPACE/NAME` of the Service.
    owner: String,
    claims: Claims,
    /// A commit is under way, which goes on when nobody waits for it any more.
    committing: bool,
}

impl Reservation {
    /// Waits for the commit that the reservation is for.
    pub(crate) async fn during<T>(&mut self, commit: impl Future<Output = T>) -> T {
        self.committing = true;
        let done = commit.await;
        self.committing = false;
        done
    }

    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// The addresses that were chosen.
    pub(crate) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.ips.iter().copied()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        let mut taken = lock(&shared.taken);
        taken.held.ips.retain(|ip| !self.claims.ips.contains(ip));
        taken.held.ports.retain(|port| !self.claims.ports.contains(port));
        // What came to nothing is given back: at once, unless the commit of a request that was given up may still come.
        let gives_back = |ip: &IpAddr| match self.committing {
            true => taken.is_unneeded(*ip, &self.owner),
            false => taken.free(*ip, &self.owner),
        };
        if self.claims.ips.iter().any(gives_back) {
            shared.changed.notify_one();
        }
    }
}

impl Allocators {
    pub(crate) fn new(services: IpNet, ports: RangeInclusive<u16>) -> Self {
        Allocators { services, ports, shared: Arc::default() }
    }

    /// Waits until there may be something to do about ServiceCIDRs or IPAddresses.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        lock(&self.shared.taken)
    }

    /// What is to be done about IPAddresses.
    pub(crate) fn addresses_due(&self, now: Timestamp) -> Due {
        let taken = self.taken();
        let mut due = Due::default();
        let ranges: Vec<IpNet> = taken.known(self.services).collect();
        for (ip, owners) in taken.ips.iter().filter(|(ip, _)| ranges.iter().any(|range| range.contains(*ip))) {
            let address = taken.addresses.get(ip);
            if address.is_some_and(|address| address.is_right_for(owners)) {
                continue;
            }
            let named = address.and_then(|address| owners.get(&address.owner));
            due.missing.extend(named.or(owners.first()).map(|owner| (*ip, owner.clone())));
        }
        for (ip, address) in taken.addresses.iter().filter(|(ip, address)| address.is_ours && !taken.is_used(**ip)) {
            match taken.freed.contains(ip) || address.is_left_over(now) {
                true => due.left_over.push(*ip),
                false => due.is_early = true,
            }
        }
        due
    }

    /// Whether the IPAddress of an address may be given to another Service.
    pub(crate) fn is_freed(&self, ip: IpAddr) -> bool {
        self.taken().freed.contains(&ip)
    }

    /// Whether nobody has an address, nor is about to.
    pub(crate) fn is_unused(&self, ip: IpAddr) -> bool {
        !self.taken().is_used(ip)
    }

    /// Whether there is an address, of a Service or an IPAddress, that is in no other ServiceCIDR than this.
    pub(crate) fn is_needed(&self, name: &str) -> bool {
        let taken = self.taken();
        let Some(own) = taken.networks.get(name) else { return false };
        let others = || taken.networks.iter().filter(|(other, _)| *other != name).flat_map(|(_, other)| &other.cidrs);
        let is_covered = own.cidrs.iter().all(|cidr| others().any(|other| other.contains(cidr)));
        let only_here = |ip: &IpAddr| own.contains(ip) && !others().any(|other| other.contains(ip));
        !is_covered && taken.ips.keys().chain(&taken.held.ips).chain(taken.addresses.keys()).any(only_here)
    }

    /// Chooses what a Service needs before it is committed; for [`ip_addresses::allocate`].
    pub(crate) fn allocate(&self, kind: &Kind, object: &mut Value, old: Option<&Value>) -> Result<Reservation> {
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
            return Ok(Reservation::default());
        };
        let old = old.and_then(|old| old.get("spec"));
        let owner = format!("{namespace}/{name}");
        let shared = Some(Arc::clone(&self.shared));
        let reservation = Reservation { shared, owner, claims: Claims::default(), committing: false };
        let mut work = Work { allocators: self, reservation };
        work.cluster_ip(spec, old)
            .and_then(|()| work.node_ports(spec, old))
            .and_then(|()| work.health_check(spec, old))
            .map_err(|error| Problem::invalid_field(kind.group, kind.kind, &name, error))?;
        Ok(work.reservation)
    }
}

/// One Service on its way in.
struct Work<'a> {
    allocators: &'a Allocators,
    reservation: Reservation,
}

type Outcome<T> = std::result::Result<T, FieldError>;

fn text<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Whether its ports may have numbers on nodes.
fn has_node_ports(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

/// Whether ports that ask for no number get one.
fn draws_ports(spec: &Value) -> bool {
    text(spec, "type") == "NodePort" || spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
}

/// `apiservice.NeedsHealthCheck`
fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
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
        let mut taken = self.allocators.taken();
        let found: Option<IpAddr> = wanted.parse().ok().filter(|ip| {
            taken.usable(self.allocators.services).any(|range| range.contains(ip) && is_usable(&range, *ip))
        });
        let Some(ip) = found else {
            return Err(refuse("the provided network does not match the current range".into()));
        };
        if taken.is_ip_taken(ip, &self.reservation.owner) {
            return Err(refuse("provided IP is already allocated".into()));
        }
        taken.held.ips.insert(ip);
        self.reservation.claims.ips.insert(ip);
        Ok(())
    }

    fn any_ip(&mut self) -> Outcome<IpAddr> {
        let mut taken = self.allocators.taken();
        let own_family = |range: &IpNet| range.addr().is_ipv4() == self.allocators.services.addr().is_ipv4();
        let ranges = taken.usable(self.allocators.services).filter(own_family);
        let found = ranges.filter_map(|range| {
            let mut random = rand::rng();
            let free = |ip: &IpAddr| is_usable(&range, *ip) && !taken.is_ip_taken(*ip, "");
            let drawn = (0..DRAWS).map(|_| random_ip(&range, random.random())).find(|ip| free(ip));
            drawn.or_else(|| range.hosts().take(1 << 16).find(|ip| free(ip)))
        });
        let Some(ip) = { found }.next() else {
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

    /// What an update left out was filled in from the old object before ([`Kind::prepare_update`]). Numbers that the old object
    /// has are not asked for again: another request under way may write them, too.
    fn node_ports(&mut self, spec: &mut Value, old: Option<&Value>) -> Outcome<()> {
        if !has_node_ports(spec) {
            return Ok(());
        }
        let draws = draws_ports(spec);
        // TCP and UDP of one Service may share a number.
        let mut own: HashSet<u64> = old.into_iter().flat_map(numbers).collect();
        let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
        for (index, port) in ports.iter_mut().enumerate() {
            let chosen = match number(port, "nodePort") {
                0 if !draws => continue,
                0 => self.any_port()?,
                kept if own.contains(&kept) => continue,
                asked => self.this_port(&format!("spec.ports[{index}].nodePort"), asked)?,
            };
            own.insert(chosen.into());
            port["nodePort"] = chosen.into();
        }
        Ok(())
    }

    /// The port at which load balancers ask a node if it has endpoints.
    fn health_check(&mut self, spec: &mut Value, old: Option<&Value>) -> Outcome<()> {
        if !needs_health_check(spec) {
            return Ok(());
        }
        let field = "healthCheckNodePort";
        let kept = old.filter(|old| needs_health_check(old)).map(|old| number(old, field)).unwrap_or_default();
        let chosen = match number(spec, field) {
            0 => self.any_port()?,
            asked if asked == kept => return Ok(()),
            asked => self.this_port(&format!("spec.{field}"), asked)?,
        };
        spec[field] = chosen.into();
        Ok(())
    }

    fn this_port(&mut self, field: &str, asked: u64) -> Outcome<u16> {
        let refuse = |why: String| FieldError {
            reason: "FieldValueInvalid",
            field: field.to_owned(),
            message: format!("Invalid value: {asked}: {why}"),
        };
        let range = &self.allocators.ports;
        let port = u16::try_from(asked).ok().filter(|port| range.contains(port)).ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            refuse(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"))
        })?;
        let mut taken = self.allocators.taken();
        if taken.is_port_taken(port, &self.reservation.owner) {
            return Err(refuse("provided port is already allocated".into()));
        }
        taken.held.ports.insert(port);
        self.reservation.claims.ports.insert(port);
        Ok(port)
    }

    fn any_port(&mut self) -> Outcome<u16> {
        let range = self.allocators.ports.clone();
        let mut taken = self.allocators.taken();
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
        let is_another = |address: &Address| address.owner.is_empty() || address.owner != owner;
        let is_others = |address: &Address| is_another(address) && !self.freed.contains(&ip);
        self.held.ips.contains(&ip)
            || has_another(&self.ips, &ip, owner)
            || self.addresses.get(&ip).is_some_and(is_others)
    }

    /// Whether a Service has an address, or is about to.
    fn is_used(&self, ip: IpAddr) -> bool {
        self.held.ips.contains(&ip) || self.ips.contains_key(&ip)
    }

    /// Has the IPAddress go of an address that its Service has no longer; whether there is one.
    fn free(&mut self, ip: IpAddr, owner: &str) -> bool {
        self.is_unneeded(ip, owner) && self.freed.insert(ip)
    }

    /// Whether an IPAddress is there for a Service that does not have the address.
    fn is_unneeded(&self, ip: IpAddr, owner: &str) -> bool {
        let is_own = self.addresses.get(&ip).is_some_and(|address| address.is_ours && address.owner == owner);
        is_own && !self.is_used(ip)
    }

    fn is_port_taken(&self, port: u16, owner: &str) -> bool {
        self.held.ports.contains(&port) || has_another(&self.ports, &port, owner)
    }

    /// Where Services may have addresses that they have.
    fn known(&self, otherwise: IpNet) -> impl Iterator<Item = IpNet> {
        let all = self.networks.values().flat_map(|networks| &networks.cidrs);
        all.copied().chain(self.networks.is_empty().then_some(otherwise))
    }

    /// Where addresses come from now.
    fn usable(&self, otherwise: IpNet) -> impl Iterator<Item = IpNet> {
        let ready = self.networks.values().filter(|networks| networks.is_ready).flat_map(|networks| &networks.cidrs);
        ready.copied().chain(self.networks.is_empty().then_some(otherwise))
    }

    /// Whether there may be something to do about it.
    fn observe_service(&mut self, owner: String, object: Option<&Value>) -> bool {
        let claims = object.and_then(|object| object.get("spec")).map(claims).unwrap_or_default();
        let before = self.of.remove(&owner).unwrap_or_default();
        before.ips.iter().for_each(|ip| take_from(&mut self.ips, ip, &owner));
        before.ports.iter().for_each(|port| take_from(&mut self.ports, port, &owner));
        claims.ips.iter().for_each(|ip| give_to(&mut self.ips, *ip, &owner));
        claims.ports.iter().for_each(|port| give_to(&mut self.ports, *port, &owner));
        self.freed.retain(|ip| !claims.ips.contains(ip));
        if object.is_some() {
            self.of.insert(owner.clone(), claims.clone());
        }
        let freed = before.ips.iter().filter(|ip| self.free(**ip, &owner)).count();
        // What another Service has, too, is that one's now.
        freed > 0 || before.ips.union(&claims.ips).any(|ip| !self.agrees(ip))
    }

    /// Whether an address and its IPAddress belong to the same.
    fn agrees(&self, ip: &IpAddr) -> bool {
        match (self.ips.get(ip), self.addresses.get(ip)) {
            (Some(owners), Some(address)) => address.is_right_for(owners),
            (None, Some(address)) => !address.is_ours,
            (owners, None) => owners.is_none(),
        }
    }

    /// Whether there may be something to do about it.
    fn observe_address(&mut self, name: &str, object: Option<&Value>) -> bool {
        let Ok(ip) = name.parse::<IpAddr>() else { return false };
        let before = match object.map(Address::of) {
            Some(address) => self.addresses.insert(ip, address),
            None => self.addresses.remove(&ip),
        };
        let owner = |address: Option<&Address>| address.map(|address| address.owner.clone());
        if owner(before.as_ref()) != owner(self.addresses.get(&ip)) {
            self.freed.remove(&ip);
        }
        !self.agrees(&ip)
    }

    /// Whether a ServiceCIDR waits for its last address.
    fn is_any_going(&self) -> bool {
        self.networks.values().any(|networks| !networks.is_ready)
    }
}

/// What one ServiceCIDR has.
struct Networks {
    cidrs: Vec<IpNet>,
    /// Whether addresses may come from it.
    is_ready: bool,
}

impl Networks {
    fn of(object: &Value) -> Self {
        let cidrs = object["spec"]["cidrs"].as_array().into_iter().flatten();
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|one| one["type"] == "Ready" && one["status"] == "True");
        let is_deleted = object["metadata"].get("deletionTimestamp").is_some();
        Networks {
            cidrs: cidrs.filter_map(|cidr| cidr.as_str()?.parse().ok()).collect(),
            is_ready: !is_deleted && ready.next().is_some(),
        }
    }

    fn contains(&self, ip: &IpAddr) -> bool {
        self.cidrs.iter().any(|cidr| cidr.contains(ip))
    }
}

impl Observer for Allocators {
    fn interests(&self) -> &[(&'static str, &'static str)] {
        &[
            ("", "services"),
            (service_cidrs::GROUP, service_cidrs::RESOURCE),
            (service_cidrs::GROUP, ip_addresses::RESOURCE),
        ]
    }

    fn observe(&self, _: &str, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let mut taken = self.taken();
        let is_due = match (resource, object) {
            (service_cidrs::RESOURCE, Some(object)) => {
                taken.networks.insert(name.to_owned(), Networks::of(object));
                true
            }
            (service_cidrs::RESOURCE, None) => taken.networks.remove(name).is_some(),
            (ip_addresses::RESOURCE, _) => {
                taken.observe_address(name, object) || (object.is_none() && taken.is_any_going())
            }
            _ => {
                let is_due = taken.observe_service(format!("{namespace}/{name}"), object);
                is_due || (object.is_none() && taken.is_any_going())
            }
        };
        if is_due {
            self.shared.changed.notify_one();
        }
    }
}

fn claims(spec: &Value) -> Claims {
    let ips = spec.get("clusterIPs").and_then(Value::as_array).into_iter().flatten();
    let ports = numbers(spec).chain([number(spec, "healthCheckNodePort")]);
    Claims {
        ips: ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
        ports: ports.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port != 0).collect(),
    }
}

/// The numbers that ports have on nodes; 0 where they have none.
fn numbers(spec: &Value) -> impl Iterator<Item = u64> {
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    ports.map(|port| number(port, "nodePort"))
}

fn number(object: &Value, field: &str) -> u64 {
    object.get(field).and_then(Value::as_u64).unwrap_or_default()
}

fn has_another<K: Hash + Eq>(owners: &HashMap<K, BTreeSet<String>>, key: &K, owner: &str) -> bool {
    owners.get(key).is_some_and(|owners| owners.iter().any(|other| other != owner))
}

fn give_to<K: Hash + Eq>(owners: &mut HashMap<K, BTreeSet<String>>, key: K, owner: &str) {
    owners.entry(key).or_default().insert(owner.to_owned());
}

fn take_from<K: Hash + Eq>(owners: &mut HashMap<K, BTreeSet<String>>, key: &K, owner: &str) {
    let Some(all) = owners.get_mut(key) else { return };
    all.remove(owner);
    if all.is_empty() {
        owners.remove(key);
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

#[cfg(test)]
mod tests;
