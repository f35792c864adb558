//! How a pod is called and whom it asks: hostname, /etc/hosts, DNS. Pure.

mod dns;
mod names;

pub use dns::{Dns, NodeDns, dns};
pub use names::{HostnameError, Names, hosts_file, names};
