//! The values that a transaction is made of.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A chain's, set's or table's name.
pub type Name = Cow<'static, str>;

/// How many 32-bit registers there are.
pub const MAX_WORDS: u8 = 16;

/// A 32-bit register, 0 to 15. Values longer than a word take the registers that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(pub u8);

/// The network protocol of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Which of the two `address` is of.
    pub fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// How many registers an address takes.
    pub fn words(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }

    /// The set type of an address.
    pub fn address(self) -> Type {
        match self {
            Self::V4 => Type::Ipv4,
            Self::V6 => Type::Ipv6,
        }
    }

    /// `4` or `6`, as chain and set names end.
    pub fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// The type of a key field or of a map's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A layer 4 protocol number.
    Protocol,
    /// A port.
    Port,
    /// A 32-bit number in host order (`mark` to nft).
    Number,
}

impl Type {
    /// Its length in bytes where it stands alone; in a concatenation it is padded to words.
    pub fn size(self) -> usize {
        match self {
            Self::Ipv4 | Self::Number => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

/// What a map maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A verdict (`vmap`).
    Verdict,
    /// A value, or several after one another.
    Value(Vec<Type>),
}

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique in the table.
    pub name: Name,
    /// The key's fields; more than one make a concatenation.
    pub key: Vec<Type>,
    /// What keys map to; a plain set without.
    pub data: Option<Data>,
    /// Whether keys are ranges.
    pub interval: bool,
    /// Whether rules add elements, which then have a timeout.
    pub dynamic: bool,
    /// The most elements there may be, for a dynamic set.
    pub size: Option<u32>,
}

impl Set {
    /// A plain set.
    pub fn new(name: impl Into<Name>, key: Vec<Type>) -> Self {
        Self { name: name.into(), key, data: None, interval: false, dynamic: false, size: None }
    }

    /// A map to values.
    pub fn map(name: impl Into<Name>, key: Vec<Type>, value: Vec<Type>) -> Self {
        Self { data: Some(Data::Value(value)), ..Self::new(name, key) }
    }

    /// A verdict map.
    pub fn vmap(name: impl Into<Name>, key: Vec<Type>) -> Self {
        Self { data: Some(Data::Verdict), ..Self::new(name, key) }
    }

    /// The same, with ranges for keys.
    pub fn interval(self) -> Self {
        Self { interval: true, ..self }
    }

    /// The same, filled by rules with elements that time out, at most `size` of them.
    pub fn dynamic(self, size: u32) -> Self {
        Self { dynamic: true, size: Some(size), ..self }
    }
}

/// The bytes of a key or value, field after field, each padded to a word as registers hold them.
pub mod key {
    use std::net::IpAddr;

    /// Appends an address.
    pub fn address(bytes: &mut Vec<u8>, address: IpAddr) {
        match address {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }

    /// Appends a protocol number.
    pub fn protocol(bytes: &mut Vec<u8>, protocol: u8) {
        bytes.extend([protocol, 0, 0, 0]);
    }

    /// Appends a port.
    pub fn port(bytes: &mut Vec<u8>, port: u16) {
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 0]);
    }

    /// Appends a number.
    pub fn number(bytes: &mut Vec<u8>, number: u32) {
        bytes.extend(number.to_ne_bytes());
    }
}

/// What an element maps to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// A value's bytes.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// The key, or the start of the range of keys.
    pub key: Vec<u8>,
    /// The last key of the range.
    pub end: Option<Vec<u8>>,
    /// What it maps to.
    pub data: Option<Datum>,
    /// How long it lives, in a dynamic set.
    pub timeout: Option<Duration>,
    /// What `nft list` shows with it; at most 127 bytes.
    pub comment: Option<String>,
}

impl Element {
    /// An element of a plain set.
    pub fn new(key: Vec<u8>) -> Self {
        Self { key, end: None, data: None, timeout: None, comment: None }
    }

    /// An element of a map to values.
    pub fn value(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { data: Some(Datum::Value(value)), ..Self::new(key) }
    }

    /// An element of a verdict map.
    pub fn verdict(key: Vec<u8>, verdict: Verdict) -> Self {
        Self { data: Some(Datum::Verdict(verdict)), ..Self::new(key) }
    }

    /// An element of an interval set of single addresses: all of `net`.
    pub fn net(net: ipnet::IpNet) -> Self {
        let (mut first, mut last) = (Vec::new(), Vec::new());
        key::address(&mut first, net.network());
        key::address(&mut last, net.broadcast());
        Self { end: Some(last), ..Self::new(first) }
    }
}

/// What becomes of the packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It passes this hook.
    Accept,
    /// It is dropped silently.
    Drop,
    /// On with the calling chain.
    Return,
    /// Through another chain, and back here.
    Jump(Name),
    /// Through another chain, and back to where this one was called.
    Goto(Name),
}

/// Where the kernel calls a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Everything that arrives, before routing.
    Prerouting,
    /// What this host sends itself.
    Output,
    /// Everything that leaves, after routing.
    Postrouting,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// Sees each packet.
    Filter,
    /// Sees the first packet of each connection, and translates addresses.
    Nat,
}

/// A chain; a base chain when it has a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in the table.
    pub name: Name,
    /// Kind, hook and priority.
    pub base: Option<(HookKind, Hook, i32)>,
}

/// A rule, at the end of its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The chain.
    pub chain: Name,
    /// Run in order until one does not match.
    pub exprs: Vec<Expr>,
}

/// A packet's header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The source address.
    Saddr(Family),
    /// The destination address.
    Daddr(Family),
    /// The destination port of TCP, UDP and SCTP.
    Dport,
}

/// What is known of a packet beside its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// The network protocol, `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    NfProto,
    /// The layer 4 protocol number.
    L4Proto,
    /// The kind of the interface that the packet came in by, `ARPHRD_*` in two bytes of this machine's order.
    InputType,
}

/// What is known of the packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// The state as bits.
    State,
    /// `IPS_*` bits.
    Status,
    /// Where the client sent to.
    OriginalDaddr(Family),
    /// The port that the client sent to.
    OriginalDport,
}

/// How to say no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// A TCP reset.
    TcpReset,
    /// ICMP or ICMPv6 port unreachable.
    PortUnreachable,
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads what is known of the packet.
    Meta {
        /// What.
        key: MetaKey,
        /// Where to.
        to: Reg,
    },
    /// Loads a header field.
    Payload {
        /// Which.
        field: Field,
        /// Where to.
        to: Reg,
    },
    /// Loads what is known of the connection.
    Ct {
        /// What.
        key: CtKey,
        /// Where to.
        to: Reg,
    },
    /// Loads the type of the source address (`RTN_LOCAL` and others).
    SourceType {
        /// Where to.
        to: Reg,
    },
    /// Loads the type of the destination address.
    DestinationType {
        /// Where to.
        to: Reg,
    },
    /// Goes on when the register equals `data`, or when it does not.
    Cmp {
        /// What is compared.
        from: Reg,
        /// Goes on when they differ.
        not: bool,
        /// With what.
        data: Vec<u8>,
    },
    /// Keeps only the bits of `mask`.
    Mask {
        /// The register, changed in place.
        reg: Reg,
        /// The bits that stay.
        mask: Vec<u8>,
    },
    /// Goes on when the key is in the set; loads what a map says.
    Lookup {
        /// The set or map.
        set: Name,
        /// The key.
        from: Reg,
        /// Where a map's value goes.
        to: Option<Reg>,
        /// Goes on when the key is not in the set.
        not: bool,
    },
    /// Does what the verdict map says of the key; goes on when it says nothing.
    VerdictMap {
        /// The map.
        map: Name,
        /// The key.
        from: Reg,
    },
    /// Loads a random number from 0 to `modulus` - 1.
    Random {
        /// How many numbers there are.
        modulus: u32,
        /// Where to.
        to: Reg,
    },
    /// Adds an element to a dynamic map, or restarts its timeout.
    Learn {
        /// The map.
        map: Name,
        /// Its key.
        key: Reg,
        /// Its value.
        value: Reg,
        /// How long it lives.
        timeout: Duration,
    },
    /// Removes an element of a dynamic map, if it is there. A key that is learnt again keeps its old value otherwise.
    Forget {
        /// The map.
        map: Name,
        /// Its key.
        key: Reg,
        /// A register that holds a value; the kernel wants one, but does not compare it.
        value: Reg,
    },
    /// Translates the connection's destination.
    Dnat {
        /// The family of the address.
        family: Family,
        /// The new address.
        address: Reg,
        /// The new port.
        port: Reg,
    },
    /// Translates the connection's source to the address of the link that it leaves by, with a random port.
    Masquerade,
    /// Drops the packet and says so.
    Reject(Reject),
    /// Decides.
    Verdict(Verdict),
}

/// One change of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Creates the table unless it is there.
    EnsureTable,
    /// Deletes the table and all in it.
    DeleteTable,
    /// Creates a chain.
    AddChain(Chain),
    /// Creates a chain unless it is there, and removes the rules that it has.
    EmptyChain(Chain),
    /// Creates a set or map.
    AddSet(Arc<Set>),
    /// Appends a rule.
    AddRule(Rule),
    /// Adds elements.
    AddElements(Arc<Set>, Vec<Element>),
    /// Deletes elements, which must be there.
    DeleteElements(Arc<Set>, Vec<Element>),
}

/// Changes of one `inet` table, committed all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The table.
    pub table: Name,
    /// In order.
    pub ops: Vec<Op>,
}

impl Batch {
    /// No changes yet.
    pub fn new(table: impl Into<Name>) -> Self {
        Self { table: table.into(), ops: Vec::new() }
    }

    /// Starts with an empty table, whatever was there: with what follows in the batch, an atomic replacement.
    pub fn replacing(table: impl Into<Name>) -> Self {
        Self { table: table.into(), ops: vec![Op::EnsureTable, Op::DeleteTable, Op::EnsureTable] }
    }

    /// Deletes the table; one that is gone is no error.
    pub fn deleting(table: impl Into<Name>) -> Self {
        Self { table: table.into(), ops: vec![Op::EnsureTable, Op::DeleteTable] }
    }

    /// Adds a chain that others call.
    pub fn chain(&mut self, name: impl Into<Name>) {
        self.ops.push(Op::AddChain(Chain { name: name.into(), base: None }));
    }

    /// Adds a chain that the kernel calls.
    pub fn base_chain(&mut self, name: impl Into<Name>, kind: HookKind, hook: Hook, priority: i32) {
        self.ops.push(Op::AddChain(Chain { name: name.into(), base: Some((kind, hook, priority)) }));
    }

    /// A chain that the kernel calls and that has no rules yet, whether it was there or not.
    pub fn empty_base_chain(&mut self, name: impl Into<Name>, kind: HookKind, hook: Hook, priority: i32) {
        self.ops.push(Op::EmptyChain(Chain { name: name.into(), base: Some((kind, hook, priority)) }));
    }

    /// Appends a rule.
    pub fn rule(&mut self, chain: impl Into<Name>, exprs: Vec<Expr>) {
        self.ops.push(Op::AddRule(Rule { chain: chain.into(), exprs }));
    }

    /// How many elements are added and deleted, and how many other changes there are.
    pub fn count(&self) -> (usize, usize) {
        let mut counts = (0, 0);
        for op in &self.ops {
            match op {
                Op::AddElements(_, elements) | Op::DeleteElements(_, elements) => counts.0 += elements.len(),
                _ => counts.1 += 1,
            }
        }
        counts
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
