//! The nftables table of the plugins: forwarded ports and masqueraded containers, as elements of a few sets. A constant
//! number of rules. The table stays once it was made: what closes localhost is in it, and who opened it for the first port does not know which
//! is the last. It goes with the network.
//!
//! Every element says by its comment which attachment of which network it is for, so that DEL and GC need nothing else.
//! Containers come and go at the same time: a transaction is computed from what was read, and the kernel refuses it when
//! the ruleset has changed since; then it is computed anew.

use std::net::IpAddr;
use std::sync::Arc;

use netns::fnv1a;
use netns::nft::{
    Batch, CtKey, Element, Expr, Family, Field, Hook, HookKind, Kernel as _, MetaKey, Nft, Op, Reg, Set, Type, Verdict,
    key,
};

use crate::error::{Code, Error, Result};
use crate::request::Request;
use crate::types::{Attachment, IpConfig};

/// The table's name.
pub const TABLE: &str = "keelson-cni";

/// How often a transaction is computed before giving up. Others' changes are short and rare.
const ATTEMPTS: usize = 64;
/// The longest comment of an element, in bytes.
const MAX_COMMENT: usize = 127;
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
/// Before addresses are translated back: what answers the host's own localhost goes to the bridge's address here.
const BEFORE_NAT: i32 = -150;
/// linux/if_arp.h
const ARPHRD_LOOPBACK: u16 = 772;
const CT_STATUS_DNAT: u32 = 0x20;
const RTN_LOCAL: u32 = 2;

/// A port of the host that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// The host's address; any of them without.
    pub host_ip: Option<IpAddr>,
    /// The number of the protocol.
    pub protocol: u8,
    /// The host's port.
    pub host_port: u16,
    /// The container's address and port.
    pub target: (IpAddr, u16),
}

/// The sets of one family.
struct Sets {
    /// protocol . port : address . port
    ports: Arc<Set>,
    /// address . protocol . port : address . port
    bound_ports: Arc<Set>,
    /// address . address, of containers that may reach their own port.
    hairpin: Arc<Set>,
    /// Containers that localhost may reach.
    local: Arc<Set>,
    /// Containers that are masqueraded.
    masqueraded: Arc<Set>,
    /// container . its network: where it is not masqueraded.
    direct: Arc<Set>,
}

impl Sets {
    fn new(family: Family) -> Self {
        let address = family.address();
        let name = |name: &str| format!("{name}{}", family.digit());
        let target = vec![address, Type::Port];
        Self {
            ports: Set::map(name("ports"), vec![Type::Protocol, Type::Port], target.clone()).into(),
            bound_ports: Set::map(name("bound-ports"), vec![address, Type::Protocol, Type::Port], target).into(),
            hairpin: Set::new(name("hairpin"), vec![address, address]).into(),
            local: Set::new(name("local"), vec![address]).into(),
            masqueraded: Set::new(name("masqueraded"), vec![address]).into(),
            direct: Arc::new(Set::new(name("direct"), vec![address, address]).interval()),
        }
    }

    fn all(&self) -> [&Arc<Set>; 6] {
        [&self.ports, &self.bound_ports, &self.hairpin, &self.local, &self.masqueraded, &self.direct]
    }
}

/// The table of the host that this process runs in.
pub struct Rules {
    nft: Nft,
    sets: [Sets; 2],
}

/// What is in the table: each element with its set.
type Contents = Vec<(Arc<Set>, Element)>;

impl Rules {
    /// Opens a conversation with the kernel; nothing is changed yet.
    pub fn open() -> Result<Self> {
        Ok(Self { nft: Nft::open_current()?, sets: Family::BOTH.map(Sets::new) })
    }

    fn sets(&self, family: Family) -> &Sets {
        let [v4, v6] = &self.sets;
        if family == Family::V4 { v4 } else { v6 }
    }

    /// Forwards ports to the attachment's container. A port that another one has is an error.
    pub async fn map_ports(&self, request: &Request, mappings: &[PortMapping], snat: bool) -> Result<()> {
        let comment = comment(request, &request.attachment);
        let elements = self.port_elements(mappings, snat, &comment);
        let taken = |contents: &Contents| {
            contents
                .iter()
                .find(|(set, is)| {
                    elements
                        .iter()
                        .any(|(other, new)| set.name == other.name && is.key == new.key && is.comment != new.comment)
                })
                .map(|(set, is)| (set.name.clone(), is.comment.clone()))
        };
        self.change(|contents| {
            if let Some((set, owner)) = taken(contents) {
                let owner = owner.unwrap_or_default();
                let problem = format!("host port is in use ({set}: {owner})");
                return Err(Error::config("runtimeConfig.portMappings", problem));
            }
            Ok((Vec::new(), elements.clone()))
        })
        .await
    }

    /// Masquerades what the attachment's container sends out of its networks.
    pub async fn masquerade(&self, request: &Request, ips: &[IpConfig]) -> Result<()> {
        let comment = comment(request, &request.attachment);
        let mut elements = Vec::new();
        for ip in ips {
            let sets = self.sets(Family::of(&ip.address.addr()));
            let address = bytes(|b| key::address(b, ip.address.addr()));
            let first = bytes(|b| key::address(b, ip.address.network()));
            let last = bytes(|b| key::address(b, ip.address.broadcast()));
            let direct = Element {
                end: Some([address.clone(), last].concat()),
                ..Element::new([address.clone(), first].concat())
            };
            elements.push((sets.masqueraded.clone(), Element::new(address)));
            elements.push((sets.direct.clone(), direct));
        }
        for (_, element) in &mut elements {
            element.comment = Some(comment.clone());
        }
        self.change(|_| Ok((Vec::new(), elements.clone()))).await
    }

    /// Removes all that is there for the attachment.
    pub async fn remove(&self, request: &Request) -> Result<()> {
        let comment = comment(request, &request.attachment);
        self.remove_where(|other| other == comment).await
    }

    /// Removes all that is there for the network but not for its valid attachments.
    pub async fn retain(&self, request: &Request) -> Result<()> {
        let network = network_tag(request);
        let valid: Vec<_> = request.network.valid_attachments.iter().map(|a| comment(request, a)).collect();
        self.remove_where(|other| other.starts_with(&network) && !valid.iter().any(|valid| valid == other)).await
    }

    /// Verifies that the attachment's ports are forwarded.
    pub async fn check_ports(&self, request: &Request, mappings: &[PortMapping]) -> Result<()> {
        let comment = comment(request, &request.attachment);
        let wanted = self.port_elements(mappings, false, &comment);
        let contents = if self.nft.has_table(TABLE).await? { self.contents().await? } else { Contents::new() };
        let missing = wanted.iter().find(|(set, element)| {
            !contents
                .iter()
                .any(|(other, is)| other.name == set.name && is.key == element.key && is.data == element.data)
        });
        match missing {
            None => Ok(()),
            Some((set, _)) => {
                Err(Error::new(Code::CheckFailed, format!("host port is not forwarded (set {})", set.name)))
            }
        }
    }

    fn port_elements(&self, mappings: &[PortMapping], snat: bool, comment: &str) -> Contents {
        let mut elements = Contents::new();
        for mapping in mappings {
            let (ip, port) = mapping.target;
            let sets = self.sets(Family::of(&ip));
            let set = if mapping.host_ip.is_some() { &sets.bound_ports } else { &sets.ports };
            let key = bytes(|b| {
                mapping.host_ip.iter().for_each(|ip| key::address(b, *ip));
                key::protocol(b, mapping.protocol);
                key::port(b, mapping.host_port);
            });
            let target = bytes(|b| {
                key::address(b, ip);
                key::port(b, port);
            });
            elements.push((set.clone(), Element::value(key, target)));
            if snat {
                let address = bytes(|b| key::address(b, ip));
                elements.push((sets.hairpin.clone(), Element::new([address.clone(), address.clone()].concat())));
                elements.push((sets.local.clone(), Element::new(address)));
            }
        }
        elements.sort_by(|(a, x), (b, y)| (&a.name, x).cmp(&(&b.name, y)));
        elements.dedup();
        for (_, element) in &mut elements {
            element.comment = Some(comment.to_owned());
        }
        elements
    }

    async fn remove_where(&self, stale: impl Fn(&str) -> bool) -> Result<()> {
        self.change(|contents| {
            let stale = |element: &Element| element.comment.as_deref().is_some_and(&stale);
            Ok((contents.iter().filter(|(_, element)| stale(element)).cloned().collect(), Vec::new()))
        })
        .await
    }

    /// Removes and adds what `decide` says of the table's contents. Creates the table with its first element.
    async fn change(&self, decide: impl Fn(&Contents) -> Result<(Contents, Contents)>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let generation = self.nft.generation().await?;
            let exists = self.nft.has_table(TABLE).await?;
            let contents = if exists { self.contents().await } else { Ok(Contents::new()) };
            let contents = match contents {
                // The table went between two questions.
                Err(error) if error.is_not_found() => continue,
                contents => contents?,
            };
            let (gone, new) = decide(&contents)?;
            let batch = self.batch(exists, gone, new);
            match self.nft.commit_at(&batch, generation).await {
                Err(netns::Error::NftConflict) => {}
                done => return Ok(done?),
            }
        }
        Err(Error::new(Code::TryAgainLater, "the nftables ruleset keeps changing"))
    }

    fn batch(&self, exists: bool, gone: Contents, new: Contents) -> Batch {
        let mut batch = Batch::new(TABLE);
        if !exists && !new.is_empty() {
            batch.ops.push(Op::EnsureTable);
            self.skeleton(&mut batch);
        }
        if !new.is_empty() {
            // With each that is new: a table that is there may be of a version that had no such chain.
            guard_localhost(&mut batch);
        }
        batch.ops.extend(gone.into_iter().map(|(set, element)| Op::DeleteElements(set, vec![element])));
        batch.ops.extend(new.into_iter().map(|(set, element)| Op::AddElements(set, vec![element])));
        batch
    }

    async fn contents(&self) -> netns::Result<Contents> {
        let mut contents = Contents::new();
        for set in self.sets.iter().flat_map(Sets::all) {
            let elements = self.nft.elements(TABLE, &set.name).await?;
            contents.extend(elements.into_iter().map(|element| (set.clone(), element)));
        }
        Ok(contents)
    }

    fn skeleton(&self, batch: &mut Batch) {
        batch.base_chain("prerouting", HookKind::Nat, Hook::Prerouting, DSTNAT);
        batch.base_chain("output", HookKind::Nat, Hook::Output, DSTNAT);
        batch.base_chain("postrouting", HookKind::Nat, Hook::Postrouting, SRCNAT);
        for family in Family::BOTH {
            let sets = self.sets(family);
            batch.ops.extend(sets.all().map(|set| Op::AddSet(set.clone())));
            for chain in ["prerouting", "output"] {
                batch.rule(chain, forward_bound(family, sets));
                batch.rule(chain, forward(family, sets));
            }
            for rule in masquerading(family, sets) {
                batch.rule("postrouting", rule);
            }
        }
    }
}

fn bytes(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    fill(&mut bytes);
    bytes
}

fn network_tag(request: &Request) -> String {
    format!("{:016x} ", fnv1a(request.network.name.as_bytes()))
}

/// What elements of the attachment are marked with. Long container ids are hashed: a comment has an end.
fn comment(request: &Request, attachment: &Attachment) -> String {
    let text = format!("{}{} {}", network_tag(request), attachment.container, attachment.interface);
    if text.len() <= MAX_COMMENT {
        return text;
    }
    format!("{}{:016x} {}", network_tag(request), fnv1a(attachment.container.as_bytes()), attachment.interface)
}

fn is_family(family: Family) -> [Expr; 2] {
    let number = if family == Family::V4 { 2 } else { 10 };
    [Expr::Meta { key: MetaKey::NfProto, to: Reg(0) }, Expr::Cmp { from: Reg(0), not: false, data: vec![number] }]
}

fn load(field: Field, to: u8) -> Expr {
    Expr::Payload { field, to: Reg(to) }
}

fn lookup(set: &Set, to: Option<Reg>) -> Expr {
    Expr::Lookup { set: set.name.clone(), from: Reg(0), to, not: false }
}

/// To the container that has this port of this address.
fn forward_bound(family: Family, sets: &Sets) -> Vec<Expr> {
    let words = family.words();
    let mut rule = is_family(family).to_vec();
    rule.extend([
        load(Field::Daddr(family), 0),
        Expr::Meta { key: MetaKey::L4Proto, to: Reg(words) },
        load(Field::Dport, words + 1),
        lookup(&sets.bound_ports, Some(Reg(0))),
        Expr::Dnat { family, address: Reg(0), port: Reg(words) },
    ]);
    rule
}

/// To the container that has this port of every address of the host.
fn forward(family: Family, sets: &Sets) -> Vec<Expr> {
    let mut rule = is_family(family).to_vec();
    rule.extend([
        Expr::DestinationType { to: Reg(0) },
        Expr::Cmp { from: Reg(0), not: false, data: RTN_LOCAL.to_ne_bytes().to_vec() },
        Expr::Meta { key: MetaKey::L4Proto, to: Reg(0) },
        load(Field::Dport, 1),
        lookup(&sets.ports, Some(Reg(0))),
        Expr::Dnat { family, address: Reg(0), port: Reg(family.words()) },
    ]);
    rule
}

fn masquerading(family: Family, sets: &Sets) -> Vec<Vec<Expr>> {
    let words = family.words();
    let translated = [
        Expr::Ct { key: CtKey::Status, to: Reg(0) },
        Expr::Mask { reg: Reg(0), mask: CT_STATUS_DNAT.to_ne_bytes().to_vec() },
        Expr::Cmp { from: Reg(0), not: true, data: vec![0; 4] },
    ];
    let ways = [load(Field::Saddr(family), 0), load(Field::Daddr(family), words)];
    let with = |parts: &[&[Expr]]| [&is_family(family)[..], &parts.concat()].concat();
    let hairpin = with(&[&translated, &ways, &[lookup(&sets.hairpin, None), Expr::Masquerade]]);
    let localhost = with(&[
        &translated,
        &from_localhost(family),
        &[load(Field::Daddr(family), 0), lookup(&sets.local, None), Expr::Masquerade],
    ]);
    let multicast = match family {
        Family::V4 => [0xf0, 0xe0],
        Family::V6 => [0xff, 0xff],
    };
    let [mask, multicast] = multicast;
    let outward = with(&[
        &[load(Field::Saddr(family), 0), lookup(&sets.masqueraded, None)],
        &ways,
        &[
            Expr::Lookup { set: sets.direct.name.clone(), from: Reg(0), to: None, not: true },
            load(Field::Daddr(family), 0),
            Expr::Mask { reg: Reg(0), mask: vec![mask, 0, 0, 0] },
            Expr::Cmp { from: Reg(0), not: true, data: vec![multicast, 0, 0, 0] },
            Expr::Masquerade,
        ],
    ]);
    vec![hairpin, localhost, outward]
}

/// Localhost is reached from this host alone. Where localhost's own ports are forwarded, the kernel lets packets for 127.0.0.0/8, and from there,
/// in by the bridge (`route_localnet`), and a container would reach what listens there only. For IPv6 it never does. As the kubelet's
/// `KUBE-FIREWALL` (CVE-2020-8558).
fn guard_localhost(batch: &mut Batch) {
    batch.empty_base_chain("localhost", HookKind::Filter, Hook::Prerouting, BEFORE_NAT);
    for field in [Field::Daddr(Family::V4), Field::Saddr(Family::V4)] {
        let mut rule = is_family(Family::V4).to_vec();
        rule.extend([
            Expr::Meta { key: MetaKey::InputType, to: Reg(0) },
            Expr::Cmp { from: Reg(0), not: true, data: ARPHRD_LOOPBACK.to_ne_bytes().to_vec() },
        ]);
        rule.extend(is_localhost_v4(load(field, 0)));
        rule.push(Expr::Verdict(Verdict::Drop));
        batch.rule("localhost", rule);
    }
}

fn is_localhost_v4(address: Expr) -> [Expr; 3] {
    [
        address,
        Expr::Mask { reg: Reg(0), mask: vec![0xff, 0, 0, 0] },
        Expr::Cmp { from: Reg(0), not: false, data: vec![127, 0, 0, 0] },
    ]
}

/// 127.0.0.0/8 or ::1.
fn from_localhost(family: Family) -> Vec<Expr> {
    let saddr = load(Field::Saddr(family), 0);
    match family {
        Family::V4 => is_localhost_v4(saddr).to_vec(),
        Family::V6 => {
            let mut one = vec![0; 16];
            if let Some(last) = one.last_mut() {
                *last = 1;
            }
            vec![saddr, Expr::Cmp { from: Reg(0), not: false, data: one }]
        }
    }
}
