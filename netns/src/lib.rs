//! Linux networking for the node: namespaces, links, addresses, routes, neighbours, sysctls, nftables and conntrack.
//!
//! This is the only crate that speaks netlink. It knows nothing of pods or Services.
//!
//! - [`NetNs`] is a network namespace; every conversation starts by saying in which one it takes place.
//! - [`Netlink`] is an rtnetlink conversation (links, addresses, routes, neighbours).
//! - [`nft`] describes nftables transactions as data and commits them atomically.
//! - [`conntrack`] deletes connection tracking entries.

mod attributes;
pub mod conntrack;
mod error;
mod hash;
mod link;
mod namespace;
pub mod nft;
mod route;
mod socket;
pub mod sysctl;

pub use error::{Error, Result};
pub use hash::fnv1a;
pub use link::{Link, LinkKind, MacAddr, VethPair};
pub use namespace::NetNs;
pub use route::{Neighbour, Route, RouteSync};
pub use socket::Netlink;

/// The `rtm_protocol` number that marks a route as Keelson's own, as seen in `ip route show proto 107`.
pub const ROUTE_PROTOCOL: u8 = 107;
