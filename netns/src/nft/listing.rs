//! A transaction as text, for golden tests and logs. It reads like nft's own syntax where nft has one.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::model::{
    Batch, Chain, CtKey, Data, Datum, Element, Expr, Family, Field, Hook, HookKind, MetaKey, Op, Reject, Set, Type,
    Verdict,
};

impl Batch {
    /// The transaction as text, one change a line.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        for op in &self.ops {
            // Writing to a String cannot fail.
            let _ = write_op(&mut text, &self.table, op);
        }
        text
    }
}

fn write_op(out: &mut String, table: &str, op: &Op) -> fmt::Result {
    match op {
        Op::EnsureTable => writeln!(out, "add table inet {table}"),
        Op::DeleteTable => writeln!(out, "delete table inet {table}"),
        Op::AddChain(chain) => writeln!(out, "add chain {}{}", chain.name, base(chain)),
        Op::EmptyChain(chain) => {
            writeln!(out, "add chain {}{}", chain.name, base(chain))?;
            writeln!(out, "flush chain {}", chain.name)
        }
        Op::AddSet(set) => writeln!(out, "{}", describe_set(set)),
        Op::AddRule(rule) => {
            write!(out, "add rule {}", rule.chain)?;
            for expr in &rule.exprs {
                write!(out, " {}", ExprText(expr))?;
            }
            writeln!(out)
        }
        Op::AddElements(set, elements) => write_elements(out, "add", set, elements),
        Op::DeleteElements(set, elements) => write_elements(out, "delete", set, elements),
    }
}

fn base(chain: &Chain) -> String {
    let Some((kind, hook, priority)) = chain.base else { return String::new() };
    let kind = match kind {
        HookKind::Filter => "filter",
        HookKind::Nat => "nat",
    };
    let hook = match hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    format!(" {{ type {kind} hook {hook} priority {priority} }}")
}

fn describe_set(set: &Set) -> String {
    let types = |types: &[Type]| types.iter().map(|t| type_name(*t)).collect::<Vec<_>>().join(" . ");
    let (what, to) = match &set.data {
        None => ("set", String::new()),
        Some(Data::Verdict) => ("map", " : verdict".to_owned()),
        Some(Data::Value(value)) => ("map", format!(" : {}", types(value))),
    };
    let mut flags = String::new();
    if set.interval {
        flags.push_str(" interval");
    }
    if set.dynamic {
        flags.push_str(" dynamic,timeout");
    }
    format!("add {what} {} {}{to}{flags}", set.name, types(&set.key))
}

fn type_name(t: Type) -> &'static str {
    match t {
        Type::Ipv4 => "ipv4_addr",
        Type::Ipv6 => "ipv6_addr",
        Type::Protocol => "inet_proto",
        Type::Port => "inet_service",
        Type::Number => "mark",
    }
}

fn write_elements(out: &mut String, verb: &str, set: &Set, elements: &[Element]) -> fmt::Result {
    for element in elements {
        write!(out, "{verb} element {} {}", set.name, fields(&set.key, &element.key))?;
        if let Some(end) = &element.end {
            write!(out, " - {}", fields(&set.key, end))?;
        }
        match (&element.data, &set.data) {
            (Some(Datum::Value(value)), Some(Data::Value(types))) => write!(out, " : {}", fields(types, value))?,
            (Some(Datum::Verdict(verdict)), _) => write!(out, " : {}", VerdictText(verdict))?,
            _ => {}
        }
        if let Some(timeout) = element.timeout {
            write!(out, " timeout {}s", timeout.as_secs())?;
        }
        if let Some(comment) = &element.comment {
            write!(out, " comment {comment:?}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn fields(types: &[Type], bytes: &[u8]) -> String {
    let mut rest = bytes;
    let mut parts = Vec::with_capacity(types.len());
    for t in types {
        let (field, after) = rest.split_at(t.size().next_multiple_of(4).min(rest.len()));
        parts.push(field_text(*t, field));
        rest = after;
    }
    parts.join(" . ")
}

fn field_text(t: Type, bytes: &[u8]) -> String {
    let text = match t {
        Type::Ipv4 => <[u8; 4]>::try_from(bytes).map(|b| Ipv4Addr::from(b).to_string()).ok(),
        Type::Ipv6 => <[u8; 16]>::try_from(bytes).map(|b| Ipv6Addr::from(b).to_string()).ok(),
        Type::Number => <[u8; 4]>::try_from(bytes).map(|b| u32::from_ne_bytes(b).to_string()).ok(),
        Type::Port => bytes.first_chunk::<2>().map(|b| u16::from_be_bytes(*b).to_string()),
        Type::Protocol => bytes.first().map(|protocol| match protocol {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            132 => "sctp".to_owned(),
            other => other.to_string(),
        }),
    };
    text.unwrap_or_else(|| format!("{bytes:02x?}"))
}

struct VerdictText<'a>(&'a Verdict);

impl fmt::Display for VerdictText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

struct ExprText<'a>(&'a Expr);

impl fmt::Display for ExprText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Meta { key: MetaKey::NfProto, to } => write!(f, "r{}=nfproto", to.0),
            Expr::Meta { key: MetaKey::L4Proto, to } => write!(f, "r{}=l4proto", to.0),
            Expr::Meta { key: MetaKey::InputType, to } => write!(f, "r{}=iiftype", to.0),
            Expr::Payload { field, to } => write!(f, "r{}={}", to.0, field_name(*field)),
            Expr::Ct { key, to } => write!(f, "r{}=ct:{}", to.0, ct_name(*key)),
            Expr::SourceType { to } => write!(f, "r{}=fib:saddr:type", to.0),
            Expr::DestinationType { to } => write!(f, "r{}=fib:daddr:type", to.0),
            Expr::Cmp { from, not, data } => {
                write!(f, "r{}{}0x{}", from.0, if *not { "!=" } else { "==" }, hex(data))
            }
            Expr::Mask { reg, mask } => write!(f, "r{}&=0x{}", reg.0, hex(mask)),
            Expr::Lookup { set, from, to, not } => {
                let not = if *not { "!" } else { "" };
                match to {
                    Some(to) => write!(f, "r{}={set}[r{}]", to.0, from.0),
                    None => write!(f, "r{} {not}@{set}", from.0),
                }
            }
            Expr::VerdictMap { map, from } => write!(f, "vmap {map}[r{}]", from.0),
            Expr::Random { modulus, to } => write!(f, "r{}=random:{modulus}", to.0),
            Expr::Learn { map, key, value, timeout } => {
                write!(f, "update {map}[r{}]=r{} timeout {}s", key.0, value.0, timeout.as_secs())
            }
            Expr::Forget { map, key, .. } => write!(f, "delete {map}[r{}]", key.0),
            Expr::Dnat { address, port, .. } => write!(f, "dnat to r{}:r{}", address.0, port.0),
            Expr::Masquerade => f.write_str("masquerade fully-random"),
            Expr::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Expr::Reject(Reject::PortUnreachable) => f.write_str("reject with icmpx port-unreachable"),
            Expr::Verdict(verdict) => VerdictText(verdict).fmt(f),
        }
    }
}

fn field_name(field: Field) -> &'static str {
    match field {
        Field::Saddr(Family::V4) => "ip:saddr",
        Field::Saddr(Family::V6) => "ip6:saddr",
        Field::Daddr(Family::V4) => "ip:daddr",
        Field::Daddr(Family::V6) => "ip6:daddr",
        Field::Dport => "th:dport",
    }
}

fn ct_name(key: CtKey) -> &'static str {
    match key {
        CtKey::State => "state",
        CtKey::Status => "status",
        CtKey::OriginalDaddr(Family::V4) => "original:ip:daddr",
        CtKey::OriginalDaddr(Family::V6) => "original:ip6:daddr",
        CtKey::OriginalDport => "original:proto-dst",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
