//! IPAddresses: which Service has which cluster IP, as objects (KEP-1880; `pkg/registry/core/service/ipallocator`). A Service's
//! is written before the Service, which cannot get an address that another object has, and goes after it. What does not fit
//! together is repaired: clusters older than these objects, writes that came to nothing, deletions by hand.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use schema::Kind;
use serde_json::{Value, json};
use store::{Entry, Expect, Facets, Write};

use crate::allocate::Reservation;
use crate::hooks;
use crate::objects;
use crate::problem::{Problem, Result};
use crate::server::Core;
use crate::service_cidrs::GROUP;

pub(crate) const RESOURCE: &str = "ipaddresses";
/// `ipaddress.kubernetes.io/managed-by`, and who it is that is meant here.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// How long the write of a Service may take whose address is there already.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How often another address is chosen when another master was quicker.
const ATTEMPTS: usize = 8;

/// What counts of an IPAddress.
pub(crate) struct Address {
    /// `NAMESPACE/NAME` of the Service; empty where it belongs to something else.
    pub owner: String,
    /// Whether it was made here.
    pub is_ours: bool,
    /// Whether it says which family it is of.
    has_family: bool,
    since: Option<Timestamp>,
}

impl Address {
    pub(crate) fn of(object: &Value) -> Self {
        let parent = &object["spec"]["parentRef"];
        let text = |field: &str| parent[field].as_str().unwrap_or_default();
        let is_service = (text("group"), text("resource")) == ("", "services");
        let owner = if is_service { format!("{}/{}", text("namespace"), text("name")) } else { String::new() };
        let metadata = &object["metadata"];
        let labels = &metadata["labels"];
        let ip = metadata["name"].as_str().and_then(|name| name.parse().ok());
        Address {
            owner,
            is_ours: labels[MANAGED_BY.0] == MANAGED_BY.1,
            has_family: ip.is_some_and(|ip| labels[FAMILY] == family(ip)),
            since: metadata["creationTimestamp"].as_str().and_then(|text| text.parse().ok()),
        }
    }

    /// Whether it is as it should be for one of these Services.
    pub(crate) fn is_right_for(&self, owners: &BTreeSet<String>) -> bool {
        self.is_ours && self.has_family && owners.contains(&self.owner)
    }

    /// Whether no write that it was made for can be under way any longer.
    pub(crate) fn is_left_over(&self, now: Timestamp) -> bool {
        self.since.is_none_or(|since| now.duration_since(since) > GRACE)
    }
}

/// What is to be done.
#[derive(Default)]
pub(crate) struct Due {
    /// Addresses of Services that have no IPAddress, or that of another.
    pub missing: Vec<(IpAddr, String)>,
    /// Those whose IPAddress nobody needs.
    pub left_over: Vec<IpAddr>,
    /// Whether there are some that may be needed soon.
    pub is_early: bool,
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The IPAddress of a Service.
pub(crate) fn object(ip: IpAddr, owner: &str, now: Timestamp) -> Value {
    let (namespace, name) = owner.split_once('/').unwrap_or(("", owner));
    let mut object = json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": ip.to_string(), "uid": auth::random_uuid(), "creationTimestamp": format!("{now:.0}"),
        },
        "spec": { "parentRef": { "resource": "services", "namespace": namespace, "name": name } },
    });
    label(&mut object, ip);
    object
}

/// Says whose it is, and of which family.
fn label(object: &mut Value, ip: IpAddr) {
    let metadata = &mut object["metadata"];
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][FAMILY] = family(ip).into();
    metadata["labels"][MANAGED_BY.0] = MANAGED_BY.1.into();
}

/// Completes a Service before it is committed, and writes the IPAddresses of addresses that it did not have; leaves all other
/// kinds alone.
pub(crate) async fn allocate(
    core: &Core,
    kind: &Kind,
    (service, old): (&mut Value, Option<&Value>),
    dry_run: bool,
) -> Result<Reservation> {
    if !kind.group.is_empty() || kind.plural != "services" {
        return Ok(Reservation::default());
    }
    for _ in 0..ATTEMPTS {
        let mut chosen = service.clone();
        let reserved = core.allocators.allocate(kind, &mut chosen, old)?;
        if dry_run || claim(core, &reserved).await? {
            *service = chosen;
            return Ok(reserved);
        }
    }
    Err(Problem::internal("failed to allocate a serviceIP: provided IP is already allocated"))
}

/// Whether nobody else was quicker.
async fn claim(core: &Core, reserved: &Reservation) -> Result<bool> {
    for ip in reserved.ips() {
        if !put(core, ip, reserved.owner()).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the IPAddress of a Service; false where it is another's.
async fn put(core: &Core, ip: IpAddr, owner: &str) -> Result<bool> {
    let Some(kind) = core.kinds.registry().kind(GROUP, "v1", RESOURCE) else { return Ok(true) };
    let entry = core.store.get(&hooks::key(kind, "", &ip.to_string()));
    if let Some(entry) = &entry {
        let address = Address::of(&objects::parse_stored(kind, entry.json())?);
        if address.owner != owner && !core.allocators.is_freed(ip) {
            return Ok(false);
        }
    }
    replace(core, kind, entry.as_deref(), (ip, owner)).await
}

/// Writes the IPAddress of a Service in place of the one that is there, if any; false when somebody else was quicker.
///
/// It is another object, with a UID of its own: what was there is deleted first, and seen to be.
async fn replace(core: &Core, kind: &'static Kind, old: Option<&Entry>, (ip, owner): (IpAddr, &str)) -> Result<bool> {
    let key = hooks::key(kind, "", &ip.to_string());
    if let Some(old) = old {
        let gone = Write { key: key.clone(), expect: Expect::Revision(old.revision), value: None, needs: None };
        if objects::commit(core, gone, Facets::default()).await?.is_none() {
            return Ok(false);
        }
    }
    objects::write(core, kind, (key, Expect::Absent), &object(ip, owner, Timestamp::now())).await
}

/// Makes Services and IPAddresses agree; whether there is something to look at again soon.
pub(crate) async fn repair(core: &Core) -> bool {
    let due = core.allocators.addresses_due(Timestamp::now());
    let mut is_again = due.is_early;
    for (ip, owner) in &due.missing {
        if let Err(problem) = restore(core, *ip, owner).await {
            tracing::warn!(%ip, reason = problem.message, "an IPAddress was not written, will retry");
            is_again = true;
        }
    }
    for ip in &due.left_over {
        if let Err(problem) = remove(core, *ip).await {
            tracing::warn!(%ip, reason = problem.message, "an IPAddress was not removed, will retry");
            is_again = true;
        }
    }
    is_again
}

/// Gives a Service that has an address the IPAddress of it; one that is its own already only gets its labels back.
async fn restore(core: &Core, ip: IpAddr, owner: &str) -> Result<()> {
    let Some(kind) = core.kinds.registry().kind(GROUP, "v1", RESOURCE) else { return Ok(()) };
    let entry = core.store.get(&hooks::key(kind, "", &ip.to_string()));
    if let Some(entry) = &entry {
        let mut stored = objects::parse_stored(kind, entry.json())?;
        if Address::of(&stored).owner == owner {
            label(&mut stored, ip);
            return objects::replace(core, kind, entry, stored).await.map(drop);
        }
    }
    replace(core, kind, entry.as_deref(), (ip, owner)).await.map(drop)
}

async fn remove(core: &Core, ip: IpAddr) -> Result<()> {
    let Some(kind) = core.kinds.registry().kind(GROUP, "v1", RESOURCE) else { return Ok(()) };
    let key = hooks::key(kind, "", &ip.to_string());
    // Looked at again after the revision is known: what is used by then is of a later one.
    let Some(entry) = core.store.get(&key) else { return Ok(()) };
    if !core.allocators.is_unused(ip) {
        return Ok(());
    }
    let write = Write { key, expect: Expect::Revision(entry.revision), needs: None, value: None };
    objects::commit(core, write, Facets::default()).await.map(drop)
}
