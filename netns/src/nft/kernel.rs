//! Committing transactions to the kernel and reading tables back.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use nlink::netlink::nftables as nl;
use nlink::netlink::{Connection, Nftables};

use super::lower;
use super::model::{Batch, Element};
use crate::{Error, NetNs, Result};

/// A transaction is one message to the kernel: room for some 200,000 elements.
const SEND_BUFFER: usize = 64 << 20;

/// The number of a ruleset's state: any change by anyone raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u32);

/// Where transactions are committed: the kernel, or a stand-in for tests.
pub trait Kernel {
    /// Commits `batch`, all of it or nothing.
    ///
    /// # Errors
    /// The kernel's refusal; nothing has changed then.
    fn commit(&self, batch: &Batch) -> impl Future<Output = Result<()>> + Send;

    /// The elements of the set or map `set`. An element with a timeout carries what is left of it.
    ///
    /// # Errors
    /// When there is no such set ([`Error::is_not_found`]) or the kernel cannot be asked.
    fn elements(&self, table: &str, set: &str) -> impl Future<Output = Result<Vec<Element>>> + Send;

    /// Whether the `inet` table `name` exists.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn has_table(&self, name: &str) -> impl Future<Output = Result<bool>> + Send;
}

/// A conversation with the kernel's nftables.
pub struct Nft {
    connection: Connection<Nftables>,
}

impl fmt::Debug for Nft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nft").finish_non_exhaustive()
    }
}

impl Nft {
    /// Opens a conversation inside `namespace`.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the socket not opened.
    pub fn open(namespace: &NetNs) -> Result<Self> {
        let connection = Connection::<Nftables>::new_in(namespace.as_fd());
        Self::prepare(connection.map_err(|e| Error::nft("open", "socket", e))?)
    }

    /// Opens a conversation in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open_current() -> Result<Self> {
        Self::prepare(Connection::<Nftables>::new().map_err(|e| Error::nft("open", "socket", e))?)
    }

    fn prepare(connection: Connection<Nftables>) -> Result<Self> {
        setsockopt(connection.socket(), sockopt::SndBufForce, &SEND_BUFFER).map_err(|e| Error::Socket(e.into()))?;
        Ok(Self { connection })
    }

    /// The ruleset's present generation.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn generation(&self) -> Result<Generation> {
        let generation = self.connection.generation().await;
        generation.map(Generation).map_err(|e| Error::nft("read", "generation", e))
    }

    /// Commits `batch` if the ruleset is still at `generation`.
    ///
    /// # Errors
    /// [`Error::NftConflict`] when someone changed the ruleset; otherwise as [`Kernel::commit`].
    pub async fn commit_at(&self, batch: &Batch, generation: Generation) -> Result<()> {
        let transaction = self.connection.transaction().expect_generation(generation.0);
        self.send(transaction, batch).await
    }

    async fn send(&self, transaction: nl::Transaction, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let fail = |e| Error::nft("commit to table", &batch.table, e);
        let transaction = lower::batch(transaction, batch).map_err(fail)?;
        transaction.commit(&self.connection).await.map_err(fail)
    }

    /// Filters that drop what arrives for others (or for this machine: `input`) unless they accept it, in all families of IP: `FAMILY TABLE CHAIN`.
    /// Not among them are those whose table has a rule about a link with `name` in its name.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn closed(&self, input: bool, name: &str) -> Result<Vec<String>> {
        const DROP: u32 = 0;
        // enum nf_inet_hooks.
        let hook = if input { 1 } else { 2 };
        let chains = self.connection.list_chains().await.map_err(|e| Error::nft("list", "chains", e))?;
        let mut found = Vec::new();
        for chain in chains.iter().filter(|chain| chain.hook == Some(hook) && chain.policy == Some(DROP)) {
            let family = match chain.family {
                nl::Family::Ip => "ip",
                nl::Family::Ip6 => "ip6",
                nl::Family::Inet => "inet",
                _ => continue,
            };
            let rules = self.connection.list_rules(&chain.table, chain.family).await;
            let rules = rules.map_err(|e| Error::nft("list rules of", &chain.table, e))?;
            let names_it = |bytes: &[u8]| bytes.windows(name.len()).any(|part| part == name.as_bytes());
            if !rules.iter().any(|rule| names_it(&rule.expression_bytes)) {
                found.push(format!("{family} {} {}", chain.table, chain.name));
            }
        }
        Ok(found)
    }

    /// How many chains and rules the `inet` table has.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn count_rules(&self, table: &str) -> Result<usize> {
        let rules = self.connection.list_rules(table, nl::Family::Inet).await;
        Ok(rules.map_err(|e| Error::nft("list rules of", table, e))?.len())
    }
}

impl Kernel for Nft {
    async fn commit(&self, batch: &Batch) -> Result<()> {
        self.send(self.connection.transaction(), batch).await
    }

    async fn elements(&self, table: &str, set: &str) -> Result<Vec<Element>> {
        let elements = self.connection.list_set_elements(table, set, nl::Family::Inet).await;
        let elements = elements.map_err(|e| Error::nft("list set", set, e))?;
        // A set that the kernel makes larger meanwhile is walked from its beginning again: some come twice.
        let once: BTreeSet<Element> = elements.iter().map(lower::raise).collect();
        Ok(once.into_iter().collect())
    }

    async fn has_table(&self, name: &str) -> Result<bool> {
        let tables = self.connection.list_tables_in(nl::Family::Inet).await;
        let tables = tables.map_err(|e| Error::nft("list", "tables", e))?;
        Ok(tables.iter().any(|table| table.name == name))
    }
}
