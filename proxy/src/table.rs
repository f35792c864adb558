//! The model of the table: what is wanted, what the kernel has, and the transaction that leads from one to the other.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use netns::nft::{Batch, Datum, Element, Family, Name, Op, Set};

use crate::compile::{Compiled, Health, Target, compile};
use crate::networks;
use crate::numbers::Numbers;
use crate::ruleset;
use crate::sets::{self, Address, SetId, Sets};
use crate::types::{EndpointSlice, NodeFacts, ObjectName, Protocol, Service};

/// Clients that are remembered for less than this are not carried over into a new table.
const SHORTEST_MEMORY: Duration = Duration::from_secs(1);

/// Services, EndpointSlices and node facts, and what of them is in the kernel.
#[derive(Debug)]
pub struct Table {
    name: Name,
    sets: Sets,
    facts: NodeFacts,
    services: BTreeMap<ObjectName, Entry>,
    /// Which Service a slice is of.
    slices: HashMap<ObjectName, ObjectName>,
    /// Services that may not be in the kernel as they are wanted.
    dirty: BTreeSet<ObjectName>,
    claims: Claims,
    /// How many Services have a local endpoint.
    local_endpoints: HashMap<IpAddr, u32>,
    /// What load balancers are told, by the port that they ask.
    health: BTreeMap<u16, (ObjectName, Health)>,
    /// The affinity timeouts that the kernel has chains for.
    timeouts: BTreeSet<u32>,
    /// Those of the Services that are being flushed.
    wanted_timeouts: BTreeSet<u32>,
    service_count: usize,
    /// Counted once for each Service port.
    endpoints: usize,
    numbers: Numbers,
    /// Elements by the facts, as of the last flush.
    networks: BTreeSet<(SetId, Element)>,
    /// Whether the facts changed since then.
    facts_changed: bool,
    /// Whether the kernel has the table as this model says. Not so at the start and after a failed commit.
    adopted: bool,
}

#[derive(Debug, Default)]
struct Entry {
    service: Option<Service>,
    slices: BTreeMap<Arc<str>, EndpointSlice>,
    compiled: Compiled,
}

impl Entry {
    /// Whether the node's addresses matter to it.
    fn is_by_address(&self) -> bool {
        let by_address = |service: &Service| {
            service.ports.iter().any(|port| port.node_port.is_some()) || !service.source_ranges.is_empty()
        };
        self.service.as_ref().is_some_and(by_address)
    }

    /// Whether the node's zone matters to it.
    fn has_hints(&self) -> bool {
        self.slices.values().any(|slice| slice.endpoints.iter().any(|endpoint| endpoint.hints.is_some()))
    }
}

/// What a load balancer is told of a Service (`spec.healthCheckNodePort`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service.
    pub service: ObjectName,
    /// How many ready endpoints this node has.
    pub local_endpoints: usize,
}

/// Where load balancers ask, and for what.
pub type HealthChecks = BTreeMap<SocketAddr, HealthCheck>;

/// Which Service has an address, and which ones would like to have it: the first one wins, but a cluster IP is given by the API server, and
/// nobody's `externalIPs` can have it.
#[derive(Debug, Default)]
struct Claims {
    owners: HashMap<Address, Owner>,
    waiting: BTreeMap<Address, BTreeSet<ObjectName>>,
}

#[derive(Debug)]
struct Owner {
    name: ObjectName,
    /// Whether the address is a cluster IP of it.
    is_cluster_ip: bool,
}

/// A transaction and what is to be done after it.
#[derive(Debug)]
pub struct Flush {
    /// The transaction.
    pub batch: Batch,
    /// Whether it replaces the whole table.
    pub full: bool,
    /// UDP addresses that lost an endpoint or got their first one: connections to others than [`Table::udp_endpoints`] are stale.
    pub udp: BTreeSet<Target>,
}

/// What an element was before the flush and is after it.
#[derive(Debug, Default)]
struct Change {
    before: Option<Element>,
    after: Option<Element>,
    /// What this flush would have added, had another Service not taken its place.
    displaced: Option<Element>,
}

type Changes = BTreeMap<(SetId, Vec<u8>), Change>;

impl Table {
    /// An empty model of the table `name`.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            sets: Sets::default(),
            facts: NodeFacts::default(),
            services: BTreeMap::new(),
            slices: HashMap::new(),
            dirty: BTreeSet::new(),
            claims: Claims::default(),
            local_endpoints: HashMap::new(),
            health: BTreeMap::new(),
            timeouts: BTreeSet::new(),
            wanted_timeouts: BTreeSet::new(),
            service_count: 0,
            endpoints: 0,
            numbers: Numbers::default(),
            networks: BTreeSet::new(),
            facts_changed: true,
            adopted: false,
        }
    }

    /// Sets the facts of the node. With the next flush what depends on them changes, and nothing else.
    pub fn set_facts(&mut self, facts: NodeFacts) {
        if self.facts == facts {
            return;
        }
        let old = std::mem::replace(&mut self.facts, facts);
        let moved = old.node_port_addresses != self.facts.node_port_addresses;
        let rezoned = old.zone != self.facts.zone;
        let follows = |entry: &Entry| (moved && entry.is_by_address()) || (rezoned && entry.has_hints());
        let affected = self.services.iter().filter(|(_, entry)| follows(entry));
        self.dirty.extend(affected.map(|(name, _)| name.clone()));
        self.facts_changed = true;
    }

    /// Adds or changes a Service.
    pub fn upsert_service(&mut self, name: ObjectName, service: Service) {
        let entry = self.services.entry(name.clone()).or_default();
        if entry.service.as_ref() != Some(&service) {
            let before = entry.service.replace(service);
            self.service_count += usize::from(before.is_none());
            self.dirty.insert(name);
        }
    }

    /// Removes a Service; one that is not there is no error.
    pub fn remove_service(&mut self, name: &ObjectName) {
        if let Some(entry) = self.services.get_mut(name)
            && entry.service.take().is_some()
        {
            self.service_count -= 1;
            self.dirty.insert(name.clone());
        }
    }

    /// Adds or changes an EndpointSlice of `service`.
    pub fn upsert_slice(&mut self, name: ObjectName, service: ObjectName, slice: EndpointSlice) {
        if self.slices.get(&name).is_some_and(|owner| *owner != service) {
            self.remove_slice(&name);
        }
        let entry = self.services.entry(service.clone()).or_default();
        match entry.slices.entry(name.name.clone()) {
            MapEntry::Occupied(is) if *is.get() == slice => return,
            MapEntry::Occupied(mut is) => drop(is.insert(slice)),
            MapEntry::Vacant(place) => drop(place.insert(slice)),
        }
        self.slices.insert(name, service.clone());
        self.dirty.insert(service);
    }

    /// Removes an EndpointSlice; one that is not there is no error.
    pub fn remove_slice(&mut self, name: &ObjectName) {
        let Some(service) = self.slices.remove(name) else { return };
        if let Some(entry) = self.services.get_mut(&service) {
            entry.slices.remove(&name.name);
            self.dirty.insert(service);
        }
    }

    /// The names of all Services.
    pub fn service_names(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.iter().filter(|(_, entry)| entry.service.is_some()).map(|(name, _)| name)
    }

    /// The names of all EndpointSlices.
    pub fn slice_names(&self) -> impl Iterator<Item = &ObjectName> {
        self.slices.keys()
    }

    /// How many Services there are, and how many endpoints as of the last flush, counted once for each Service port.
    pub fn count(&self) -> (usize, usize) {
        (self.service_count, self.endpoints)
    }

    /// Whether a Service has an address of a family.
    pub fn has_family(&self, family: Family) -> bool {
        self.services.values().filter_map(|entry| entry.service.as_ref()).any(|service| service.has_family(family))
    }

    /// What is to be answered where load balancers ask which nodes have endpoints, as of the last flush: at the addresses of node ports of the
    /// Service's families, each for the endpoints of its own family.
    pub fn health_checks(&self) -> HealthChecks {
        let addresses = &self.facts.node_port_addresses;
        let asked = self.health.iter().flat_map(|(port, known)| addresses.iter().map(move |ip| (*ip, *port, known)));
        let answer = |(ip, port, (service, health)): (IpAddr, u16, &(ObjectName, Health))| {
            let family = Family::of(&ip);
            let local_endpoints = health.ready.iter().filter(|endpoint| Family::of(endpoint) == family).count();
            let check = HealthCheck { service: service.clone(), local_endpoints };
            health.families.contains(&family).then(|| (SocketAddr::new(ip, port), check))
        };
        asked.filter_map(answer).collect()
    }

    /// Whether the kernel has what is wanted, as far as is known.
    pub fn is_clean(&self) -> bool {
        self.adopted && self.dirty.is_empty() && !self.facts_changed
    }

    /// Says that the last flush could not be committed: the next one replaces the whole table.
    pub fn failed(&mut self) {
        self.adopted = false;
    }

    /// The transaction that makes the kernel have what is wanted. Call [`Self::failed`] if it is not committed.
    pub fn flush(&mut self) -> Flush {
        let full = !self.adopted;
        let mut udp = BTreeSet::new();
        let mut changes = Changes::new();
        if full {
            self.dirty.extend(self.services.keys().cloned());
        }
        if std::mem::take(&mut self.facts_changed) {
            let networks = networks::elements(&self.facts);
            note_difference(&mut changes, &self.networks, &networks);
            self.networks = networks;
        }
        while let Some(name) = self.dirty.pop_first() {
            self.recompile(&name, &mut changes, &mut udp);
        }
        let batch = if full { self.full_batch() } else { self.partial_batch(changes) };
        self.adopted = true;
        Flush { batch, full, udp }
    }

    /// The endpoints that serve now at UDP addresses; none at one that no Service has.
    pub fn udp_endpoints(&self, addresses: &BTreeSet<Target>) -> BTreeMap<Target, BTreeSet<Target>> {
        let at = |(ip, port): &Target| {
            let owner = self.claims.owners.get(&Address { ip: *ip, protocol: Protocol::Udp, port: *port });
            let compiled = owner.and_then(|owner| self.services.get(&owner.name)).map(|entry| &entry.compiled);
            compiled.and_then(|compiled| udp_endpoints(compiled).remove(&(*ip, *port))).unwrap_or_default()
        };
        addresses.iter().map(|address| (*address, at(address))).collect()
    }

    /// Compiles one Service anew and notes what changes.
    fn recompile(&mut self, name: &ObjectName, changes: &mut Changes, udp: &mut BTreeSet<Target>) {
        let Some(entry) = self.services.get_mut(name) else { return };
        let previous = std::mem::take(&mut entry.compiled);
        let mut compiled = match &entry.service {
            None => Compiled::default(),
            Some(service) => compile(name, service, entry.slices.values(), &self.facts, &previous, &mut self.numbers),
        };
        if !compiled.refused.is_subset(&previous.refused) {
            tracing::warn!(service = %name, addresses = ?compiled.refused, "several ports of a Service want the same address");
        }
        self.dirty.extend(self.claims.settle(name, &previous, &mut compiled));
        note_difference(
            changes,
            &previous.elements().into_iter().collect(),
            &compiled.elements().into_iter().collect(),
        );
        for group in previous.groups.iter().filter(|old| compiled.groups.iter().all(|group| group.id != old.id)) {
            self.numbers.release(group.id);
        }
        self.note_local(changes, &previous.local_endpoints, &compiled.local_endpoints);
        self.note_health(name, &previous, &compiled);
        note_udp(udp, &previous, &compiled);
        self.endpoints = self.endpoints + compiled.endpoint_count() - previous.endpoint_count();
        self.wanted_timeouts.extend(compiled.groups.iter().filter_map(|group| group.affinity));
        if let MapEntry::Occupied(mut entry) = self.services.entry(name.clone()) {
            entry.get_mut().compiled = compiled;
            if entry.get().service.is_none() && entry.get().slices.is_empty() {
                entry.remove();
            }
        }
    }

    /// Endpoints of this node may belong to several Services; their element goes with the last one.
    fn note_local(&mut self, changes: &mut Changes, before: &BTreeSet<IpAddr>, after: &BTreeSet<IpAddr>) {
        for ip in before.difference(after) {
            if let Some(users) = self.local_endpoints.get_mut(ip) {
                *users -= 1;
                if *users == 0 {
                    self.local_endpoints.remove(ip);
                    note(changes, SetId::Hairpin(Family::of(ip)), sets::hairpin(*ip), false);
                }
            }
        }
        for ip in after.difference(before) {
            let users = self.local_endpoints.entry(*ip).or_default();
            *users += 1;
            if *users == 1 {
                note(changes, SetId::Hairpin(Family::of(ip)), sets::hairpin(*ip), true);
            }
        }
    }

    fn note_health(&mut self, name: &ObjectName, previous: &Compiled, compiled: &Compiled) {
        if let Some((port, _)) = &previous.health
            && self.health.get(port).is_some_and(|(owner, _)| owner == name)
        {
            self.health.remove(port);
        }
        if let Some((port, health)) = &compiled.health {
            self.health.insert(*port, (name.clone(), health.clone()));
        }
    }

    fn full_batch(&mut self) -> Batch {
        let mut batch = Batch::replacing(self.name.clone());
        ruleset::skeleton(&mut batch, &self.sets);
        self.timeouts.clear();
        self.add_timeouts(&mut batch);
        // One key with two values would make the kernel refuse all of it.
        let mut by_set: BTreeMap<SetId, BTreeMap<Vec<u8>, Element>> = BTreeMap::new();
        let hairpins = self.local_endpoints.keys().map(|ip| (SetId::Hairpin(Family::of(ip)), sets::hairpin(*ip)));
        let networks = self.networks.iter().cloned();
        let services = self.services.values().flat_map(|entry| entry.compiled.elements());
        for (set, element) in networks.chain(services).chain(hairpins) {
            by_set.entry(set).or_default().entry(element.key.clone()).or_insert(element);
        }
        for (set, elements) in by_set {
            batch.ops.push(Op::AddElements(self.sets.get(set).clone(), elements.into_values().collect()));
        }
        batch
    }

    fn partial_batch(&mut self, changes: Changes) -> Batch {
        let mut batch = Batch::new(self.name.clone());
        self.add_timeouts(&mut batch);
        let (mut gone, mut new): (BTreeMap<_, Vec<_>>, BTreeMap<_, Vec<_>>) = Default::default();
        for ((set, _), change) in changes {
            if change.before == change.after {
                continue;
            }
            if let Some(before) = change.before {
                gone.entry(set).or_default().push(Element { data: None, ..before });
            }
            if let Some(after) = change.after {
                new.entry(set).or_default().push(after);
            }
        }
        // A changed element is deleted and added: the kernel shows no packet the state between.
        let set = |id: SetId| -> Arc<Set> { self.sets.get(id).clone() };
        batch.ops.extend(gone.into_iter().map(|(id, elements)| Op::DeleteElements(set(id), elements)));
        batch.ops.extend(new.into_iter().map(|(id, elements)| Op::AddElements(set(id), elements)));
        batch
    }

    /// The name of the map of clients with affinity.
    pub fn clients(&self, family: Family) -> &str {
        &self.sets.get(SetId::Clients(family)).name
    }

    /// Lets a batch that replaces the table keep which endpoints `clients` go to, where these still are of the group.
    pub fn keep_clients(&self, batch: &mut Batch, family: Family, clients: Vec<Element>) {
        let mut longest: HashMap<Vec<u8>, Duration> = HashMap::new();
        for group in self.services.values().flat_map(|entry| &entry.compiled.groups) {
            let Some(seconds) = group.affinity else { continue };
            let sticky = group.slots(family).iter().map(|(ip, port)| sets::sticky(group.id, *ip, *port).key);
            longest.extend(sticky.map(|key| (key, Duration::from_secs(seconds.into()))));
        }
        let kept = clients.into_iter().filter_map(|client| {
            let Some(Datum::Value(value)) = &client.data else { return None };
            // After the spare word it is what `stickyF` holds.
            let longest = longest.get(value.get(4..)?)?;
            let left = client.timeout.map_or(*longest, |left| left.min(*longest));
            // To the kernel a very short time is none, which is for ever.
            (left >= SHORTEST_MEMORY).then_some(Element { timeout: Some(left), ..client })
        });
        let kept: Vec<Element> = kept.collect();
        if !kept.is_empty() {
            batch.ops.push(Op::AddElements(self.sets.get(SetId::Clients(family)).clone(), kept));
        }
    }

    /// Adds the chains of timeouts that no Service had before. They stay until the table is replaced.
    fn add_timeouts(&mut self, batch: &mut Batch) {
        for seconds in std::mem::take(&mut self.wanted_timeouts) {
            if self.timeouts.insert(seconds) {
                ruleset::learn_chains(batch, seconds);
            }
        }
    }
}

impl Claims {
    /// Gives `name` the addresses of `compiled` that are free or due to it, takes the others out of it, and frees those of `previous`
    /// that it no longer wants. Returns the Services that wait for one of these, or have lost one.
    fn settle(&mut self, name: &ObjectName, previous: &Compiled, compiled: &mut Compiled) -> BTreeSet<ObjectName> {
        let mut changed = BTreeSet::new();
        let Compiled { frontends, cluster_ips, .. } = compiled;
        frontends.retain(|frontend| {
            let is_cluster_ip = cluster_ips.contains(&frontend.address.ip);
            let mine = || Owner { name: name.clone(), is_cluster_ip };
            let owner = self.owners.entry(frontend.address).or_insert_with(mine);
            if owner.name == *name {
                owner.is_cluster_ip = is_cluster_ip;
                return true;
            }
            let (winner, loser) = if is_cluster_ip && !owner.is_cluster_ip {
                let before = std::mem::replace(owner, mine());
                changed.insert(before.name.clone());
                (name, before.name)
            } else {
                (&owner.name, name.clone())
            };
            let is_won = winner == name;
            tracing::warn!(service = %loser, owner = %winner, address = ?frontend.address, "address belongs to another Service");
            self.waiting.entry(frontend.address).or_default().insert(loser);
            is_won
        });
        let kept: BTreeSet<Address> = compiled.frontends.iter().map(|frontend| frontend.address).collect();
        for address in previous.frontends.iter().map(|frontend| frontend.address) {
            if !kept.contains(&address) && self.owners.get(&address).is_some_and(|owner| owner.name == *name) {
                self.owners.remove(&address);
                changed.extend(self.waiting.remove(&address).unwrap_or_default());
            }
        }
        changed
    }
}

fn note(changes: &mut Changes, set: SetId, element: Element, added: bool) {
    let change = changes.entry((set, element.key.clone())).or_default();
    if added {
        change.displaced = change.after.replace(element);
    } else if change.after.as_ref() == Some(&element) {
        change.after = None;
    } else if change.displaced.as_ref() == Some(&element) {
        change.displaced = None;
    } else {
        // The first removal of what this flush did not add tells what the kernel has.
        change.before.get_or_insert(element);
    }
}

fn note_difference(changes: &mut Changes, before: &BTreeSet<(SetId, Element)>, after: &BTreeSet<(SetId, Element)>) {
    for (set, element) in before.difference(after) {
        note(changes, *set, element.clone(), false);
    }
    for (set, element) in after.difference(before) {
        note(changes, *set, element.clone(), true);
    }
}

/// The UDP addresses of one Service, with the endpoints of each whose connections go on: all that serve. As with TCP, a connection does not end
/// because new ones go elsewhere, be it that the endpoint began to terminate, or that a policy or hints leave it out
/// (`pkg/proxy/conntrack/cleanup.go`).
fn udp_endpoints(compiled: &Compiled) -> BTreeMap<Target, BTreeSet<Target>> {
    let mut addresses: BTreeMap<Target, BTreeSet<Target>> = BTreeMap::new();
    for frontend in compiled.frontends.iter().filter(|frontend| frontend.address.protocol == Protocol::Udp) {
        let Some(group) = compiled.groups.get(frontend.group) else { continue };
        let address = (frontend.address.ip, frontend.address.port);
        addresses.entry(address).or_default().extend(&group.serving);
    }
    addresses
}

/// Notes the UDP addresses that lost an endpoint or got their first one. Before that, packets went astray, and the kernel
/// remembers where to.
fn note_udp(udp: &mut BTreeSet<Target>, previous: &Compiled, compiled: &Compiled) {
    let before = udp_endpoints(previous);
    let after = udp_endpoints(compiled);
    for (address, endpoints) in &after {
        let had = before.get(address);
        let lost = had.is_some_and(|had| !had.is_subset(endpoints));
        let first = !endpoints.is_empty() && had.is_none_or(BTreeSet::is_empty);
        if lost || first {
            udp.insert(*address);
        }
    }
    udp.extend(before.keys().filter(|address| !after.contains_key(address)));
}
