//! What `master init` was told, kept in `master.yaml` for `master run`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::cli::InitOptions;
use crate::data_dir::{self, DataDir};

const DEFAULT_PORT: u16 = 6443;
/// Upstream's: longer than a client takes to give up a connection that is dead.
const DEFAULT_GRACE_SECONDS: u64 = 50;
/// Upstream's, a year.
const DEFAULT_SIGNING_SECONDS: u64 = 365 * 24 * 3600;
/// Where the cluster's DNS is expected within the service range, as kubeadm has it.
const DNS_INDEX: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    pub advertise_address: IpAddr,
    pub bind: SocketAddr,
    pub service_cidr: IpNet,
    pub cluster_cidr: IpNet,
    #[serde(default)]
    pub cert_sans: Vec<String>,
    pub node_monitor_grace_seconds: u64,
    #[serde(default = "default_signing_seconds")]
    pub cluster_signing_duration_seconds: u64,
}

fn default_signing_seconds() -> u64 {
    DEFAULT_SIGNING_SECONDS
}

impl Settings {
    /// Reads what an earlier `master init` wrote.
    pub fn load(dir: &DataDir) -> Result<Option<Self>> {
        Self::read(&dir.settings())
    }

    /// Says that a master begins to serve them.
    pub fn begin(&self, dir: &DataDir) -> Result<()> {
        data_dir::write_private(&dir.served_settings(), &serde_saphyr::to_string(self)?)
    }

    /// Whether a master that runs does so with others: also where the `master init` that changed them was cut short before it started the service
    /// again. `before`: what `master.yaml` had, for a master that did not write down what it began with.
    pub fn are_news(&self, dir: &DataDir, before: Option<&Self>) -> bool {
        match Self::read(&dir.served_settings()) {
            Ok(served) => served.as_ref().or(before).is_some_and(|served| served != self),
            // Another version wrote what this one does not know.
            Err(_) => true,
        }
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = data_dir::read(path)? else { return Ok(None) };
        Self::parse(&text).with_context(|| format!("cannot read {}", path.display())).map(Some)
    }

    pub fn parse(text: &str) -> Result<Self> {
        Ok(serde_saphyr::from_str(text)?)
    }

    pub fn save(&self, dir: &DataDir) -> Result<()> {
        data_dir::write_private(&dir.settings(), &serde_saphyr::to_string(self)?)
    }

    /// What `options` say over what was said before over the defaults.
    pub fn choose(options: &InitOptions, before: Option<Settings>) -> Result<Self> {
        let mut settings = match before {
            Some(settings) => settings,
            None => Self::defaults(options.advertise_address)?,
        };
        let Settings {
            advertise_address,
            bind,
            service_cidr,
            cluster_cidr,
            cert_sans,
            node_monitor_grace_seconds,
            cluster_signing_duration_seconds,
        } = &mut settings;
        overwrite(advertise_address, options.advertise_address);
        overwrite(bind, options.bind);
        overwrite(service_cidr, options.service_cidr.map(|net| net.trunc()));
        overwrite(cluster_cidr, options.cluster_cidr.map(|net| net.trunc()));
        overwrite(node_monitor_grace_seconds, options.node_monitor_grace_period.map(whole_seconds));
        overwrite(cluster_signing_duration_seconds, options.cluster_signing_duration.map(whole_seconds));
        for name in &options.cert_sans {
            if !cert_sans.contains(name) {
                cert_sans.push(name.clone());
            }
        }
        settings.check()?;
        Ok(settings)
    }

    fn defaults(advertise_address: Option<IpAddr>) -> Result<Self> {
        let net = |address| IpNet::new(IpAddr::V4(address), 16).context("a default range");
        Ok(Settings {
            advertise_address: advertise_address.map_or_else(default_address, Ok)?,
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT),
            service_cidr: net(Ipv4Addr::new(10, 96, 0, 0))?,
            cluster_cidr: net(Ipv4Addr::new(10, 244, 0, 0))?,
            cert_sans: Vec::new(),
            node_monitor_grace_seconds: DEFAULT_GRACE_SECONDS,
            cluster_signing_duration_seconds: DEFAULT_SIGNING_SECONDS,
        })
    }

    fn check(&self) -> Result<()> {
        let Settings { advertise_address, service_cidr, cluster_cidr, .. } = self;
        ensure!(
            !advertise_address.is_unspecified()
                && !advertise_address.is_multicast()
                && !advertise_address.is_loopback(),
            "--advertise-address {advertise_address}: nodes cannot reach this master by it"
        );
        ensure!(
            !service_cidr.contains(cluster_cidr) && !cluster_cidr.contains(service_cidr),
            "--service-cidr {service_cidr} and --cluster-cidr {cluster_cidr} overlap"
        );
        self.check_families()?;
        for (flag, net) in [("--service-cidr", service_cidr), ("--cluster-cidr", cluster_cidr)] {
            ensure!(
                !net.contains(advertise_address),
                "{flag} {net} contains the advertised address {advertise_address}"
            );
        }
        let host_bits = service_cidr.max_prefix_len() - service_cidr.prefix_len();
        ensure!(
            (4..=20).contains(&host_bits),
            "--service-cidr {service_cidr}: must leave between 4 and 20 bits for Services"
        );
        Ok(())
    }

    /// The Service `kubernetes` leads to the advertised address, and pods are behind Services: all are of one family, as upstream demands of
    /// `--advertise-address` and `--service-cluster-ip-range` (`pkg/controlplane/apiserver/options/validation.go`).
    fn check_families(&self) -> Result<()> {
        let Settings { advertise_address, bind, service_cidr, cluster_cidr, .. } = self;
        ensure!(
            bind.ip().is_unspecified() || bind.is_ipv4() == advertise_address.is_ipv4(),
            "--bind {bind}: nobody who asks for the advertised address {advertise_address} is answered there"
        );
        for (flag, net) in [("--service-cidr", service_cidr), ("--cluster-cidr", cluster_cidr)] {
            ensure!(
                net.addr().is_ipv4() == advertise_address.is_ipv4(),
                "{flag} {net} is not of the family of the advertised address {advertise_address}: give one that is"
            );
        }
        Ok(())
    }

    /// The first address of the service range: that of the Service `default/kubernetes`.
    pub fn kubernetes_service_ip(&self) -> Result<IpAddr> {
        self.service_cidr.hosts().next().with_context(|| format!("{} is empty", self.service_cidr))
    }

    /// Where pods look for the cluster's DNS.
    pub fn dns_service_ip(&self) -> Result<IpAddr> {
        let address = self.service_cidr.hosts().nth(DNS_INDEX - 1);
        address.with_context(|| format!("{} has no address for DNS", self.service_cidr))
    }

    /// `IP:PORT` on this machine, which answers wherever nodes are.
    pub fn local_endpoint(&self) -> SocketAddr {
        let loopback = match self.bind.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let address = if self.bind.ip().is_unspecified() { loopback } else { self.bind.ip() };
        SocketAddr::new(address, self.bind.port())
    }

    /// `IP:PORT` that nodes use.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.advertise_address, self.bind.port())
    }
}

fn overwrite<T>(value: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *value = given;
    }
}

fn whole_seconds(duration: SignedDuration) -> u64 {
    duration.as_secs().unsigned_abs().max(1)
}

/// The address that packets to the outside would carry. Connecting a UDP socket sends none.
fn default_address() -> Result<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849): nobody's.
    let nobody = [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    nobody.into_iter().find_map(source).context("this machine has no default route: give --advertise-address")
}

/// From where packets to `target` would come.
fn source(target: IpAddr) -> Option<IpAddr> {
    let any = match target {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((target, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    // An address of a link alone is of no use to who is not told the link.
    let is_of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (!address.is_unspecified() && !is_of_link).then_some(address)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(args: &str) -> InitOptions {
        let words = ["master", "init"].into_iter().chain(args.split_whitespace());
        let Command::Init(options) = Cli::parse_from(words).command else { panic!("not init") };
        options
    }

    fn choose(args: &str) -> Result<Settings> {
        Settings::choose(&options(args), None)
    }

    #[test]
    fn defaults_are_kubeadms() {
        let settings = choose("--advertise-address 172.30.1.2").unwrap();
        assert_eq!(settings.endpoint().to_string(), "172.30.1.2:6443");
        assert_eq!(settings.kubernetes_service_ip().unwrap().to_string(), "10.96.0.1");
        assert_eq!(settings.dns_service_ip().unwrap().to_string(), "10.96.0.10");
        assert_eq!(settings.cluster_cidr.to_string(), "10.244.0.0/16");
        assert_eq!(settings.node_monitor_grace_seconds, 50);
    }

    #[test]
    fn the_machine_itself_asks_where_the_server_listens() {
        let local = |args: &str| {
            choose(&format!("--advertise-address 172.30.1.2 {args}")).unwrap().local_endpoint().to_string()
        };
        assert_eq!(local(""), "127.0.0.1:6443");
        assert_eq!(local("--bind [::]:7443"), "[::1]:7443");
        assert_eq!(local("--bind 172.30.1.2:6443"), "172.30.1.2:6443");
    }

    #[test]
    fn the_address_of_this_machine_is_of_the_family_that_leads_there() {
        // Where no route leads anywhere, this machine still leads to itself.
        assert_eq!(source(Ipv4Addr::LOCALHOST.into()), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(source(Ipv6Addr::LOCALHOST.into()), Some(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_second_init_changes_only_what_it_says() {
        let first = choose("--advertise-address 172.30.1.2 --cert-san a --bind 0.0.0.0:7443").unwrap();
        let second =
            Settings::choose(&options("--cert-san b --node-monitor-grace-period 5s"), Some(first.clone())).unwrap();
        let wanted = Settings { cert_sans: vec!["a".into(), "b".into()], node_monitor_grace_seconds: 5, ..first };
        assert_eq!(second, wanted);
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::new(root.path());
        assert_eq!(Settings::load(&dir).unwrap(), None);
        let settings =
            choose("--advertise-address fd00::1 --service-cidr fd01::/112 --cluster-cidr fd02::/56").unwrap();
        settings.save(&dir).unwrap();
        assert_eq!(Settings::load(&dir).unwrap(), Some(settings));
    }

    #[test]
    fn a_change_is_news_until_a_master_serves_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::new(root.path());
        let [old, new] = ["1", "2"].map(|last| choose(&format!("--advertise-address 172.30.1.{last}")).unwrap());
        assert!(!old.are_news(&dir, None), "nothing runs yet");
        assert!(new.are_news(&dir, Some(&old)), "of a master of before");
        old.begin(&dir).unwrap();
        new.save(&dir).unwrap();
        // Cut short here: the next time `master.yaml` is as it is to be.
        assert!(new.are_news(&dir, Some(&new)));
        new.begin(&dir).unwrap();
        assert!(!new.are_news(&dir, Some(&new)));
    }

    #[test]
    fn ranges_that_cannot_work_are_refused() {
        for (args, why) in [
            ("--advertise-address 0.0.0.0", "--advertise-address 0.0.0.0: nodes cannot reach this master by it"),
            ("--advertise-address 127.0.0.1", "--advertise-address 127.0.0.1: nodes cannot reach this master by it"),
            (
                "--advertise-address 172.30.1.2 --service-cidr 10.244.0.0/20",
                "--service-cidr 10.244.0.0/20 and --cluster-cidr 10.244.0.0/16 overlap",
            ),
            (
                "--advertise-address 10.244.9.9",
                "--cluster-cidr 10.244.0.0/16 contains the advertised address 10.244.9.9",
            ),
            (
                "--advertise-address 172.30.1.2 --service-cidr 10.96.0.0/30",
                "--service-cidr 10.96.0.0/30: must leave between 4 and 20 bits for Services",
            ),
            (
                "--advertise-address fd00::1",
                "--service-cidr 10.96.0.0/16 is not of the family of the advertised address fd00::1: give one that is",
            ),
            (
                "--advertise-address fd00::1 --service-cidr fd01::/112",
                "--cluster-cidr 10.244.0.0/16 is not of the family of the advertised address fd00::1: give one that is",
            ),
            (
                "--advertise-address 172.30.1.2 --bind [fd00::1]:6443",
                "--bind [fd00::1]:6443: nobody who asks for the advertised address 172.30.1.2 is answered there",
            ),
        ] {
            assert_eq!(choose(args).unwrap_err().to_string(), why);
        }
    }
}
