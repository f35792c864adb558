//! The service proxy: Services and EndpointSlices become map elements of one nftables table.
//!
//! The table's rules are the same whatever Services there are (see [`ruleset`]), so that any change of a Service or an
//! endpoint is a change of map elements in one transaction, and costs the same beside ten Services or ten thousand.
//!
//! [`Table`] is the model: it takes Services, EndpointSlices and facts of the node, and gives transactions. [`Proxy`]
//! commits them, and forgets the UDP connections to endpoints that are gone. Traffic of pods that leaves the cluster is
//! masqueraded here too ([`types::NodeFacts::pod_cidrs`]).

pub mod compile;
pub mod convert;
pub mod endpoints;
pub mod networks;
pub mod numbers;
pub mod ruleset;
pub mod sets;
mod table;
pub mod types;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use netns::NetNs;
use netns::conntrack::{Conntrack, Flows, UdpFlow};
use netns::nft::{Batch, Family, Kernel, Name, Nft};

use compile::Target;
pub use table::{Flush, HealthCheck, HealthChecks, Table};
use types::{EndpointSlice, NodeFacts, ObjectName, Service};

/// The table's name where nothing else is said.
pub const TABLE: &str = "keelson";

/// Bridged packets pass through the table as well: a pod that answers to a neighbour on the same bridge does not pass
/// through routing, and the answer would arrive untranslated. They are there once `br_netfilter` is loaded.
pub const BRIDGE_SYSCTLS: [&str; 2] = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];

/// A failed flush or clean-up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace could not be entered.
    #[error("open proxy in {0}")]
    Open(String, #[source] netns::Error),
    /// The kernel could not be asked for the table.
    #[error("look for table {0:?}")]
    Look(Name, #[source] netns::Error),
    /// The kernel refused the transaction.
    #[error("commit table {0:?}")]
    Commit(Name, #[source] netns::Error),
    /// Stale UDP connections could not be deleted. The table is committed, and the next flush tries again.
    #[error("delete stale udp connections")]
    Conntrack(#[source] netns::Error),
}

impl Error {
    /// Whether the kernel has the table as it is wanted all the same.
    pub fn is_applied(&self) -> bool {
        matches!(self, Self::Conntrack(_))
    }
}

/// How a proxy is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The table's name.
    pub table: Name,
}

impl Default for Config {
    fn default() -> Self {
        Self { table: TABLE.into() }
    }
}

/// What a flush did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Services with an address.
    pub services: usize,
    /// Endpoints, counted once for each Service port.
    pub endpoints: usize,
    /// Whether the whole table was replaced.
    pub full: bool,
    /// Elements added and deleted.
    pub elements: usize,
    /// Other changes: tables, chains, sets, rules.
    pub structure: usize,
    /// UDP connections forgotten.
    pub stale_flows: usize,
}

/// The proxy of one network namespace.
#[derive(Debug)]
pub struct Proxy<K = Nft, F = Conntrack> {
    kernel: K,
    flows: F,
    table: Table,
    config: Config,
    /// UDP addresses whose connections to former endpoints are not all forgotten yet.
    stale: BTreeSet<Target>,
    /// Whether the kernel refused the last replacement of the table: the next one goes without the clients that were remembered.
    refused: bool,
}

impl Proxy {
    /// A proxy for `namespace`. Nothing is changed there before the first flush, except that bridged packets are made to
    /// pass through the table where the kernel can do so.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn open(namespace: &NetNs, config: Config) -> Result<Self, Error> {
        let fail = |e| Error::Open(namespace.path().display().to_string(), e);
        for key in BRIDGE_SYSCTLS {
            if let Err(error) = netns::sysctl::write(namespace, key, "1") {
                tracing::warn!(key, %error, "pods will not reach Services whose pod is on their own node (is br_netfilter loaded?)");
            }
        }
        let kernel = Nft::open(namespace).map_err(fail)?;
        let conntrack = Conntrack::open(namespace).map_err(fail)?;
        Ok(Self::new(kernel, conntrack, config))
    }
}

impl<K: Kernel, F: Flows> Proxy<K, F> {
    /// A proxy that commits to `kernel` and forgets connections of `flows`.
    pub fn new(kernel: K, flows: F, config: Config) -> Self {
        Self { kernel, flows, table: Table::new(config.table.clone()), config, stale: BTreeSet::new(), refused: false }
    }

    /// The model: change it, then [`Self::flush`].
    pub fn table(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Makes exactly these Services and EndpointSlices (each with its Service) wanted, and flushes.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn apply(
        &mut self,
        services: impl IntoIterator<Item = (ObjectName, Service)>,
        slices: impl IntoIterator<Item = (ObjectName, ObjectName, EndpointSlice)>,
        facts: NodeFacts,
    ) -> Result<Stats, Error> {
        self.table.set_facts(facts);
        let mut services_gone: BTreeSet<_> = self.table.service_names().cloned().collect();
        for (name, service) in services {
            services_gone.remove(&name);
            self.table.upsert_service(name, service);
        }
        let mut slices_gone: BTreeSet<_> = self.table.slice_names().cloned().collect();
        for (name, service, slice) in slices {
            slices_gone.remove(&name);
            self.table.upsert_slice(name, service, slice);
        }
        services_gone.iter().for_each(|name| self.table.remove_service(name));
        slices_gone.iter().for_each(|name| self.table.remove_slice(name));
        self.flush().await
    }

    /// Makes the kernel have what is wanted, in one transaction. The first one, and the one after a failure, replaces
    /// the table atomically, whatever was in it but the clients with affinity that it remembers. Then forgets the UDP
    /// connections that lead to endpoints that are gone.
    ///
    /// # Errors
    /// When the kernel refuses; nothing has changed then, and the next flush replaces the table. When the table is
    /// committed but stale UDP connections could not all be deleted ([`Error::is_applied`]).
    pub async fn flush(&mut self) -> Result<Stats, Error> {
        let stats = self.commit().await?;
        Ok(Stats { stale_flows: self.forget_stale().await?, ..stats })
    }

    /// Looks whether the table is still there, as it is not after an administrator's `nft flush ruleset`: then the next flush makes it anew.
    /// Answers whether it is needed.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn look(&mut self) -> Result<bool, Error> {
        let table = &self.config.table;
        let is_there = self.kernel.has_table(table).await.map_err(|e| Error::Look(table.clone(), e))?;
        if !is_there {
            self.table.failed();
        }
        Ok(!is_there)
    }

    async fn commit(&mut self) -> Result<Stats, Error> {
        if self.table.is_clean() {
            let (services, endpoints) = self.table.count();
            return Ok(Stats { services, endpoints, ..Stats::default() });
        }
        let mut flush = self.table.flush();
        self.stale.append(&mut flush.udp);
        if flush.full && !self.refused {
            self.keep_clients(&mut flush.batch).await;
        }
        if let Err(error) = self.kernel.commit(&flush.batch).await {
            self.table.failed();
            self.refused = flush.full;
            return Err(Error::Commit(self.config.table.clone(), error));
        }
        self.refused = false;
        let (services, endpoints) = self.table.count();
        let (elements, structure) = flush.batch.count();
        Ok(Stats { services, endpoints, full: flush.full, elements, structure, stale_flows: 0 })
    }

    /// The table that is replaced may remember clients, also when another life of the program made it.
    async fn keep_clients(&self, batch: &mut Batch) {
        for family in Family::BOTH {
            match self.kernel.elements(&self.config.table, self.table.clients(family)).await {
                Ok(clients) => self.table.keep_clients(batch, family, clients),
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::warn!(%error, "clients with affinity are balanced anew"),
            }
        }
    }

    async fn forget_stale(&mut self) -> Result<usize, Error> {
        if self.stale.is_empty() {
            return Ok(0);
        }
        let endpoints = self.table.udp_endpoints(&self.stale);
        let is_stale = |flow: &UdpFlow| {
            endpoints.get(&flow.original).is_some_and(|endpoints| !endpoints.contains(&flow.answering))
        };
        let deleted = self.flows.delete_udp(is_stale).await.map_err(Error::Conntrack)?;
        let kept: BTreeSet<Target> = deleted.kept.iter().map(|flow| flow.original).collect();
        self.stale.retain(|address| kept.contains(address));
        deleted.all().map_err(Error::Conntrack)
    }
}

/// Removes the table from `namespace`, and with it everything that the proxy did there. No table is no error.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses.
pub async fn cleanup(namespace: &NetNs, config: &Config) -> Result<(), Error> {
    let kernel = Nft::open(namespace).map_err(|e| Error::Open(namespace.path().display().to_string(), e))?;
    let batch = Batch::deleting(config.table.clone());
    kernel.commit(&batch).await.map_err(|e| Error::Commit(config.table.clone(), e))
}
