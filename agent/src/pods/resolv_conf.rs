//! The DNS of the node, read for each sandbox: DHCP or a VPN may have changed it meanwhile (pkg/kubelet/network/dns).

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;

use pod::resolve::{DnsConfig, DnsFacts};

use crate::client::watch::describe;
use crate::config::KubeletConfiguration;

/// As upstream's `maxResolvConfLength`, in bytes.
const LONGEST: u64 = 10 << 20;

/// Where systemd-resolved answers, on the machine itself alone.
const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];
/// Its file with the servers that it asks: what kubeadm gives a kubelet where it runs (cmd/kubeadm/app/componentconfigs/kubelet_unix.go).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// Where nobody has chosen a file.
const DEFAULT: &str = "/etc/resolv.conf";

/// What the node's configuration says of DNS.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `clusterDNS`.
    pub cluster_servers: Vec<String>,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// `resolvConf`; empty for none.
    pub resolv_conf: String,
    /// The file that counts instead where that one names systemd-resolved only.
    pub resolved: Option<String>,
}

impl From<&KubeletConfiguration> for Settings {
    fn from(kubelet: &KubeletConfiguration) -> Self {
        Self {
            cluster_servers: kubelet.cluster_dns.clone(),
            cluster_domain: kubelet.cluster_domain.clone(),
            resolv_conf: kubelet.resolv_conf.clone(),
            resolved: (kubelet.resolv_conf == DEFAULT).then(|| RESOLVED.to_owned()),
        }
    }
}

/// Why there is no telling what the node's DNS is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {0}")]
    Read(String, #[source] io::Error),
    #[error("{0} is longer than {LONGEST} bytes")]
    TooLong(String),
    /// The text is upstream's.
    #[error("Encountered error while parsing resolv conf file. Error: nameserver list is empty ")]
    NoServer,
}

impl Settings {
    /// What is known of DNS now, on a node with these addresses. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read, as upstream for pods of any policy.
    pub fn facts(&self, node_ips: &[IpAddr]) -> Result<DnsFacts, Error> {
        Ok(DnsFacts {
            cluster_servers: self.cluster_servers.clone(),
            cluster_domain: self.cluster_domain.clone(),
            node: self.node()?,
            node_ips: node_ips.to_vec(),
        })
    }

    /// What is wrong with the node's file, were pods made by it. Blocks.
    pub fn problem(&self) -> Option<String> {
        match self.facts(&[]) {
            Ok(facts) => facts.search_problem(&self.resolv_conf),
            Err(error) => Some(describe(&error)),
        }
    }

    /// The machine's own.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn node(&self) -> Result<Option<DnsConfig>, Error> {
        if self.resolv_conf.is_empty() {
            return Ok(None);
        }
        let own = read(&self.resolv_conf)?;
        match &self.resolved {
            Some(path) if is_stub(&own) && Path::new(path).exists() => read(path).map(Some),
            _ => Ok(Some(own)),
        }
    }
}

/// Whether it leads to systemd-resolved alone, which pods do not reach.
fn is_stub(config: &DnsConfig) -> bool {
    !config.servers.is_empty() && config.servers.iter().all(|server| STUBS.contains(&server.as_str()))
}

fn read(path: &str) -> Result<DnsConfig, Error> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST.saturating_add(1)).read_to_end(&mut text));
    let length = read.map_err(|error| Error::Read(path.to_owned(), error))?;
    if u64::try_from(length).is_ok_and(|length| length > LONGEST) {
        return Err(Error::TooLong(path.to_owned()));
    }
    parse(&String::from_utf8_lossy(&text))
}

/// Of repeated `search` lines the last counts, and of repeated options.
fn parse(text: &str) -> Result<DnsConfig, Error> {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.push(words.next().ok_or(Error::NoServer)?.to_owned()),
            // With and without the dot at its end a domain is the same, and would only count twice.
            Some("search") => {
                let domains = words.filter(|domain| *domain != ".");
                config.searches = domains.map(|domain| domain.strip_suffix('.').unwrap_or(domain).to_owned()).collect();
            }
            Some("options") => words.for_each(|option| {
                let name = option.split(':').next();
                config.options.retain(|old| old.split(':').next() != name);
                config.options.push(option.to_owned());
            }),
            _ => {}
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let settings = Settings { resolv_conf: path.display().to_string(), ..Settings::default() };
        let text = settings.facts(&[]).unwrap_err().to_string();
        assert_eq!(text, format!("read {}", path.display()), "a pod is not given an empty one");
        for server in ["192.0.2.1", "192.0.2.2"] {
            std::fs::write(&path, format!("nameserver {server}\n")).unwrap();
            assert_eq!(settings.facts(&[]).unwrap().node.unwrap().servers, [server]);
        }
        assert_eq!(settings.problem(), None);
        std::fs::write(&path, format!("search {}\n", "lan".repeat(100))).unwrap();
        assert!(settings.problem().unwrap().contains("more than allowed 253 chars!"));
        assert_eq!(Settings::default().facts(&[]).unwrap().node, None);
    }

    #[test]
    fn pods_ask_whom_systemd_resolved_asks() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut settings = Settings { resolv_conf: at("own"), resolved: Some(at("resolved")), ..Settings::default() };
        let servers = |settings: &Settings| settings.node().unwrap().unwrap().servers;
        std::fs::write(at("own"), "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n").unwrap();
        assert_eq!(servers(&settings), ["127.0.0.53"], "it does not run here");
        std::fs::write(at("resolved"), "nameserver 192.0.2.1\nsearch lan\n").unwrap();
        assert_eq!(servers(&settings), ["192.0.2.1"]);
        std::fs::write(at("own"), "nameserver 127.0.0.53\nnameserver 192.0.2.9\n").unwrap();
        assert_eq!(servers(&settings), ["127.0.0.53", "192.0.2.9"]);
        // What an administrator has chosen is obeyed.
        std::fs::write(at("own"), "nameserver 127.0.0.53\n").unwrap();
        settings.resolved = None;
        assert_eq!(servers(&settings), ["127.0.0.53"]);
        let of = |file: &str| Settings::from(&KubeletConfiguration { resolv_conf: file.into(), ..Default::default() });
        assert_eq!((of("/x").resolved, of(DEFAULT).resolved.as_deref()), (None, Some(RESOLVED)));
    }

    #[test]
    fn lines_are_understood_as_upstream_does() {
        let text = "# nameserver 1.1.1.1\nnameserver 9.9.9.9\n nameserver 8.8.8.8 x\nsearch old\nsearch lan. . example.com\n\
                    options ndots:1 edns0\noptions ndots:3 rotate\n";
        let config = parse(text).unwrap();
        assert_eq!(config.servers, ["9.9.9.9", "8.8.8.8"]);
        assert_eq!(config.searches, ["lan", "example.com"]);
        assert_eq!(config.options, ["edns0", "ndots:3", "rotate"]);
        assert!(parse("nameserver\n").is_err());
    }
}
