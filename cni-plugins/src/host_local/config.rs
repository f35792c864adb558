//! The `ipam` section of the configuration, and the addresses that it describes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::request::Request;
use crate::types::{Route, decode};

const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// What is configured.
#[derive(Debug)]
pub struct Config {
    /// One address is allocated of each set.
    pub ranges: Vec<RangeSet>,
    /// Passed on.
    pub routes: Vec<Route>,
    /// Addresses that the caller asks for.
    pub requested: Vec<IpAddr>,
    /// Where reservations are kept, in a folder of the network's name.
    pub data_dir: PathBuf,
    resolv_conf: Option<PathBuf>,
}

/// Ranges of one family, used one after the other.
#[derive(Debug)]
pub struct RangeSet(Vec<Range>);

#[derive(Debug)]
struct Range {
    subnet: IpNet,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IpamJson {
    ranges: Vec<Vec<RangeJson>>,
    #[serde(flatten)]
    range: RangeJson,
    routes: Vec<Route>,
    data_dir: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RangeJson {
    subnet: Option<IpNet>,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeJson {
    ip_ranges: Vec<Vec<RangeJson>>,
    ips: Vec<String>,
}

impl Config {
    /// Reads and checks the configuration.
    pub fn read(request: &Request) -> Result<Self> {
        let ipam = request.config.get("ipam").ok_or_else(|| Error::config("ipam", "missing"))?;
        let ipam: IpamJson = decode(ipam, "ipam.")?;
        let runtime: RuntimeJson = match request.config.get("runtimeConfig") {
            Some(runtime) => decode(runtime, "runtimeConfig.")?,
            None => RuntimeJson::default(),
        };
        let mut sets = runtime.ip_ranges;
        if ipam.range.subnet.is_some() {
            sets.insert(0, vec![ipam.range]);
        }
        sets.extend(ipam.ranges);
        if sets.is_empty() {
            return Err(Error::config("ipam.ranges", "no IP ranges specified"));
        }
        let ranges = sets.iter().enumerate().map(|(i, set)| RangeSet::read(i, set)).collect::<Result<Vec<_>>>()?;
        for (i, set) in ranges.iter().enumerate() {
            if let Some(j) = ranges.iter().skip(i + 1).position(|other| set.overlaps(other)) {
                let problem = format!("range set {i} overlaps with {}", i + 1 + j);
                return Err(Error::config("ipam.ranges", problem));
            }
        }
        Ok(Self {
            ranges,
            routes: ipam.routes,
            requested: requested(request, &runtime.ips)?,
            data_dir: ipam.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            resolv_conf: ipam.resolv_conf,
        })
    }

    /// The `dns` section of the result, read from the configured resolv.conf.
    pub fn dns(&self) -> Result<Option<Value>> {
        let Some(path) = &self.resolv_conf else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
        Ok(Some(parse_resolv_conf(&text)))
    }
}

fn parse_resolv_conf(text: &str) -> Value {
    let (mut nameservers, mut search, mut options, mut domain) = (vec![], vec![], vec![], None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => nameservers.extend(words.next()),
            Some("domain") => domain = words.next(),
            Some("search") => search.extend(words),
            Some("options") => options.extend(words),
            _ => {}
        }
    }
    let mut dns = json!({ "nameservers": nameservers, "search": search, "options": options });
    if let (Some(domain), Some(object)) = (domain, dns.as_object_mut()) {
        object.insert("domain".into(), domain.into());
    }
    dns
}

/// Addresses asked for by CNI_ARGS `IP`, by `args.cni.ips` and by the capability `ips`.
fn requested(request: &Request, capability: &[String]) -> Result<Vec<IpAddr>> {
    let parse = |field: &str, text: &str| {
        let address = text.split('/').next().unwrap_or_default().trim();
        address.parse::<IpAddr>().map_err(|_| Error::config(field, format!("{text:?} is not an IP address")))
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    if let Some(text) = request.argument("IP") {
        addresses.extend(text.split(',').map(|ip| parse("CNI_ARGS", ip)).collect::<Result<Vec<_>>>()?);
    }
    let args = request.config.pointer("/args/cni/ips").and_then(Value::as_array);
    let args = args.into_iter().flatten().filter_map(Value::as_str).map(|ip| parse("args.cni.ips", ip));
    addresses.extend(args.collect::<Result<Vec<_>>>()?);
    let capability = capability.iter().map(|ip| parse("runtimeConfig.ips", ip));
    addresses.extend(capability.collect::<Result<Vec<_>>>()?);
    Ok(addresses)
}

impl RangeSet {
    fn read(index: usize, ranges: &[RangeJson]) -> Result<Self> {
        let field = |i: usize| format!("ipam.ranges[{index}][{i}]");
        let ranges = ranges.iter().enumerate().map(|(i, range)| Range::read(&field(i), range));
        let ranges = ranges.collect::<Result<Vec<_>>>()?;
        let Some(first) = ranges.first() else {
            return Err(Error::config(&format!("ipam.ranges[{index}]"), "empty range set"));
        };
        for (i, range) in ranges.iter().enumerate() {
            if range.start.is_ipv4() != first.start.is_ipv4() {
                return Err(Error::config(&field(i), "mixed address families"));
            }
            if ranges.iter().skip(i + 1).any(|other| range.overlaps(other)) {
                return Err(Error::config(&field(i), "overlaps with another range of its set"));
            }
        }
        Ok(Self(ranges))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|other| range.overlaps(other)))
    }

    /// Whether `ip` is in one of the ranges.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(ip))
    }

    /// `ip` with its network's length, and the gateway.
    pub fn describe(&self, ip: IpAddr) -> Option<(IpNet, IpAddr)> {
        let range = self.0.iter().find(|range| range.contains(ip))?;
        Some((IpNet::new(ip, range.subnet.prefix_len()).ok()?, range.gateway))
    }

    /// All addresses but gateways, with their network's length and gateway: those after `last` first, then from the start.
    pub fn addresses_after(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, IpNet, IpAddr)> {
        let last = last.filter(|ip| self.contains(*ip));
        let holder = last.and_then(|ip| self.0.iter().position(|range| range.contains(ip))).unwrap_or(0);
        let (before, from) = self.0.split_at(holder);
        let current = from.first().into_iter().flat_map(move |range| range.iter(last.and_then(next), None));
        let later = from.iter().skip(1).chain(before).flat_map(|range| range.iter(None, None));
        let wrapped = from.first().into_iter().filter(move |_| last.is_some());
        current.chain(later).chain(wrapped.flat_map(move |range| range.iter(None, last)))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|range| format!("{}-{}", range.start, range.end)).collect();
        f.write_str(&texts.join(","))
    }
}

impl Range {
    fn read(field: &str, json: &RangeJson) -> Result<Self> {
        let fail = |name: &str, problem: String| Err(Error::config(&format!("{field}.{name}"), problem));
        let Some(subnet) = json.subnet else { return fail("subnet", "missing".into()) };
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return fail("subnet", format!("network {subnet} too small to allocate from"));
        }
        if subnet.trunc() != subnet {
            return fail(
                "subnet",
                format!("network has host bits set: for a network like {subnet} it is {}", subnet.trunc()),
            );
        }
        let first = next(subnet.network()).unwrap_or(subnet.network());
        let range = Self {
            subnet,
            start: json.range_start.unwrap_or(first),
            end: json.range_end.unwrap_or_else(|| last_of(subnet)),
            gateway: json.gateway.unwrap_or(first),
        };
        for (name, ip) in [("rangeStart", range.start), ("rangeEnd", range.end)] {
            if !subnet.contains(&ip) {
                return fail(name, format!("{ip} not in network {subnet}"));
            }
        }
        if range.start > range.end {
            return fail("rangeStart", format!("{} is after rangeEnd {}", range.start, range.end));
        }
        Ok(range)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.start.is_ipv4() == ip.is_ipv4() && (self.start..=self.end).contains(&ip)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }

    /// The range's addresses but its gateway, `from` one address `to` another, both included.
    fn iter(&self, from: Option<IpAddr>, to: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, IpNet, IpAddr)> {
        let (subnet, gateway, end) = (self.subnet, self.gateway, to.unwrap_or(self.end));
        std::iter::successors(Some(from.unwrap_or(self.start)), |ip| next(*ip))
            .take_while(move |ip| *ip <= end)
            .filter(move |ip| *ip != gateway)
            .filter_map(move |ip| Some((ip, IpNet::new(ip, subnet.prefix_len()).ok()?, gateway)))
    }
}

/// The last address to hand out: for IPv4 the one before the broadcast address.
fn last_of(subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.broadcast()).saturating_sub(1)).into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

fn next(ip: IpAddr) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).checked_add(1)?).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).checked_add(1)?).into(),
    })
}
