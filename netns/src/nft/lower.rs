//! From this module's values to nlink's.

use std::time::Duration;

use nlink::netlink::nftables as nl;

use super::model::{
    Batch, Chain, CtKey, Data, Datum, Element, Expr, Family, Field, Hook, HookKind, MetaKey, Name, Op, Reg, Reject,
    Rule, Set, Type, Verdict,
};

/// How many elements go into one message: an attribute holds at most 64 KiB, an element takes up to some 200 bytes.
const ELEMENTS_PER_MESSAGE: usize = 200;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFTA_MASQ_FLAGS: u16 = 1;
const NFT_NAT_DNAT: u32 = 1;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;

type Result<T> = std::result::Result<T, nlink::Error>;

/// Adds `batch` to `transaction`.
pub(super) fn batch(mut transaction: nl::Transaction, batch: &Batch) -> Result<nl::Transaction> {
    let table = &batch.table;
    for op in &batch.ops {
        transaction = match op {
            Op::EnsureTable => transaction.raw(
                nl::RawMessage::new(nl::NFT_MSG_NEWTABLE, nl::Family::Inet)
                    .flags(nix::libc::NLM_F_CREATE as u16)
                    .attrs(string_attribute(NFTA_TABLE_NAME, table)),
            ),
            Op::DeleteTable => transaction.del_table(table, nl::Family::Inet),
            Op::AddChain(new) => transaction.add_chain(chain(table, new)?),
            Op::EmptyChain(new) => {
                transaction.update_chain(chain(table, new)?).flush_chain(table, &new.name, nl::Family::Inet)
            }
            Op::AddSet(new) => transaction.add_set(set(table, new)),
            Op::AddRule(new) => transaction.add_rule(rule(table, new)?),
            Op::AddElements(target, elements) => {
                let target = set(table, target);
                let mut transaction = transaction;
                for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
                    let chunk: Vec<_> = chunk.iter().map(element).collect::<Result<_>>()?;
                    transaction = transaction.add_set_elements(&target, &chunk);
                }
                transaction
            }
            Op::DeleteElements(target, elements) => {
                let target = set(table, target);
                let mut transaction = transaction;
                for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
                    let chunk: Vec<_> = chunk.iter().map(element).collect::<Result<_>>()?;
                    transaction = transaction.del_set_elements(&target, &chunk);
                }
                transaction
            }
        };
    }
    Ok(transaction)
}

fn chain(table: &Name, chain: &Chain) -> Result<nl::Chain> {
    let lowered = nl::Chain::new(table.as_ref(), chain.name.as_ref())?.family(nl::Family::Inet);
    let Some((kind, hook, priority)) = chain.base else { return Ok(lowered) };
    let kind = match kind {
        HookKind::Filter => nl::ChainType::Filter,
        HookKind::Nat => nl::ChainType::Nat,
    };
    let hook = match hook {
        Hook::Prerouting => nl::Hook::Prerouting,
        Hook::Output => nl::Hook::Output,
        Hook::Postrouting => nl::Hook::Postrouting,
    };
    let base = nl::BaseChain::try_new(kind, hook, nl::Priority::Custom(priority), Vec::<String>::new())?;
    Ok(lowered.base(base.policy(nl::Policy::Accept)))
}

fn set(table: &Name, set: &Set) -> nl::Set {
    let mut lowered = nl::Set::new(table, &set.name).family(nl::Family::Inet).key_type(key_type(&set.key));
    lowered = match &set.data {
        None => lowered,
        Some(Data::Verdict) => lowered.vmap(),
        Some(Data::Value(types)) => lowered.map(nl::SetDataType::Value(key_type(types))),
    };
    if set.interval {
        lowered = lowered.interval();
    }
    if set.dynamic {
        lowered = lowered.dynamic().per_element_timeouts();
    }
    match set.size {
        Some(size) => lowered.size(size),
        None => lowered,
    }
}

fn key_type(types: &[Type]) -> nl::SetKeyType {
    let single = |t: &Type| match t {
        Type::Ipv4 => nl::SetKeyType::Ipv4Addr,
        Type::Ipv6 => nl::SetKeyType::Ipv6Addr,
        Type::Protocol => nl::SetKeyType::InetProto,
        Type::Port => nl::SetKeyType::InetService,
        Type::Number => nl::SetKeyType::Mark,
    };
    match types {
        [one] => single(one),
        several => nl::SetKeyType::Concat(several.iter().map(single).collect()),
    }
}

fn element(element: &Element) -> Result<nl::SetElement> {
    let mut lowered = match &element.end {
        None => nl::SetElement::new(element.key.clone()),
        Some(end) => nl::SetElement::range(element.key.clone(), end.clone()),
    };
    if let Some(data) = &element.data {
        lowered = match data {
            Datum::Value(value) => lowered.value(nl::SetElement::new(value.clone())),
            Datum::Verdict(what) => lowered.verdict(verdict(what)?),
        };
    }
    if let Some(timeout) = element.timeout {
        lowered = lowered.with_timeout(timeout);
    }
    Ok(match &element.comment {
        Some(comment) => lowered.with_comment(comment.clone()),
        None => lowered,
    })
}

/// The element as the kernel lists it. A timeout is what is left of it.
pub(super) fn raise(element: &nl::SetElement) -> Element {
    let data = element.data().and_then(|data| match data {
        nl::SetElementData::Value(value) => Some(Datum::Value(value.clone())),
        nl::SetElementData::Verdict(what) => raise_verdict(what).map(Datum::Verdict),
        _ => None,
    });
    Element {
        key: element.key().to_vec(),
        end: element.key_end().map(<[u8]>::to_vec),
        data,
        timeout: element.expiration().or(element.timeout()),
        comment: element.comment().map(str::to_owned),
    }
}

fn raise_verdict(verdict: &nl::Verdict) -> Option<Verdict> {
    Some(match verdict {
        nl::Verdict::Accept => Verdict::Accept,
        nl::Verdict::Drop => Verdict::Drop,
        nl::Verdict::Return => Verdict::Return,
        nl::Verdict::JumpTo(chain) => Verdict::Jump(chain.as_str().to_owned().into()),
        nl::Verdict::GotoTo(chain) => Verdict::Goto(chain.as_str().to_owned().into()),
        _ => return None,
    })
}

fn verdict(verdict: &Verdict) -> Result<nl::Verdict> {
    Ok(match verdict {
        Verdict::Accept => nl::Verdict::Accept,
        Verdict::Drop => nl::Verdict::Drop,
        Verdict::Return => nl::Verdict::Return,
        Verdict::Jump(chain) => nl::Verdict::JumpTo(nl::ChainName::new(chain.as_ref())?),
        Verdict::Goto(chain) => nl::Verdict::GotoTo(nl::ChainName::new(chain.as_ref())?),
    })
}

fn rule(table: &Name, rule: &Rule) -> Result<nl::Rule> {
    let exprs = rule.exprs.iter().map(expr).collect::<Result<Vec<_>>>()?;
    Ok(nl::Rule::new(table, &rule.chain).family(nl::Family::Inet).expressions(exprs))
}

fn register(reg: Reg) -> Result<nl::Register> {
    nl::Register::word(usize::from(reg.0))
        .ok_or_else(|| nlink::Error::from(std::io::Error::other(format!("no register {}", reg.0))))
}

fn expr(expr: &Expr) -> Result<nl::Expr> {
    Ok(match expr {
        Expr::Meta { key, to } => nl::Expr::Meta { dreg: register(*to)?, key: meta(*key) },
        Expr::Payload { field, to } => payload(*field, *to)?,
        Expr::Ct { key, to } => conntrack(*key, *to)?,
        Expr::SourceType { to } => fib(nl::FibFlags::SADDR, *to)?,
        Expr::DestinationType { to } => fib(nl::FibFlags::DADDR, *to)?,
        Expr::Cmp { from, not, data } => nl::Expr::Cmp {
            sreg: register(*from)?,
            op: if *not { nl::CmpOp::Neq } else { nl::CmpOp::Eq },
            data: data.clone(),
        },
        Expr::Mask { reg, mask } => nl::Expr::Bitwise {
            sreg: register(*reg)?,
            dreg: register(*reg)?,
            len: mask.len() as u32,
            mask: mask.clone(),
            xor: vec![0; mask.len()],
        },
        Expr::Lookup { set, from, to, not } => lookup(set, *from, *to, *not)?,
        Expr::VerdictMap { map, from } => {
            nl::LookupExpr::new(map.as_ref(), register(*from)?).dreg(nl::Register::Verdict).into()
        }
        Expr::Random { modulus, to } => {
            nl::Expr::Numgen { dreg: register(*to)?, kind: nl::NumgenKind::Random, modulus: *modulus, offset: 0 }
        }
        Expr::Learn { map, key, value, timeout } => learn(map, *key, *value, *timeout)?,
        Expr::Forget { map, key, value } => {
            let dynset = nl::DynsetExpr::new(nl::DynsetOp::Delete, map.as_ref(), register(*key)?);
            dynset.sreg_data(register(*value)?).into()
        }
        Expr::Dnat { family, address, port } => dnat(*family, *address, *port)?,
        Expr::Masquerade => {
            nl::RawExpr::new("masq", number_attribute(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY)).into()
        }
        Expr::Reject(how) => reject(*how),
        Expr::Verdict(what) => nl::Expr::Verdict(verdict(what)?),
    })
}

fn meta(key: MetaKey) -> nl::MetaKey {
    match key {
        MetaKey::NfProto => nl::MetaKey::NfProto,
        MetaKey::L4Proto => nl::MetaKey::L4Proto,
        MetaKey::InputType => nl::MetaKey::IifType,
    }
}

fn payload(field: Field, to: Reg) -> Result<nl::Expr> {
    let (base, offset, len) = match field {
        Field::Saddr(Family::V4) => (nl::PayloadBase::Network, 12, 4),
        Field::Daddr(Family::V4) => (nl::PayloadBase::Network, 16, 4),
        Field::Saddr(Family::V6) => (nl::PayloadBase::Network, 8, 16),
        Field::Daddr(Family::V6) => (nl::PayloadBase::Network, 24, 16),
        Field::Dport => (nl::PayloadBase::Transport, 2, 2),
    };
    Ok(nl::Expr::Payload { dreg: register(to)?, base, offset, len })
}

fn conntrack(key: CtKey, to: Reg) -> Result<nl::Expr> {
    let dreg = register(to)?;
    let direction = nl::CtDirection::Original;
    Ok(match key {
        CtKey::State => nl::Expr::Ct { dreg, key: nl::CtKey::State },
        CtKey::Status => nl::Expr::Ct { dreg, key: nl::CtKey::Status },
        CtKey::OriginalDaddr(Family::V4) => nl::Expr::CtDirectional { dreg, key: nl::CtKey::DstIp, direction },
        CtKey::OriginalDaddr(Family::V6) => nl::Expr::CtDirectional { dreg, key: nl::CtKey::DstIp6, direction },
        CtKey::OriginalDport => nl::Expr::CtDirectional { dreg, key: nl::CtKey::ProtoDst, direction },
    })
}

fn fib(flags: nl::FibFlags, to: Reg) -> Result<nl::Expr> {
    Ok(nl::Expr::Fib { dreg: register(to)?, result: nl::FibResult::AddrType, flags })
}

fn lookup(set: &Name, from: Reg, to: Option<Reg>, not: bool) -> Result<nl::Expr> {
    let mut lookup = nl::LookupExpr::new(set.as_ref(), register(from)?);
    if let Some(to) = to {
        lookup = lookup.dreg(register(to)?);
    }
    Ok(if not { lookup.invert() } else { lookup }.into())
}

fn learn(map: &Name, key: Reg, value: Reg, timeout: Duration) -> Result<nl::Expr> {
    let dynset = nl::DynsetExpr::new(nl::DynsetOp::Update, map.as_ref(), register(key)?);
    Ok(dynset.sreg_data(register(value)?).timeout(timeout).into())
}

/// nlink has no way to name the registers of a `nat` expression, so its attributes are written here.
fn dnat(family: Family, address: Reg, port: Reg) -> Result<nl::Expr> {
    let family = match family {
        Family::V4 => nix::libc::NFPROTO_IPV4,
        Family::V6 => nix::libc::NFPROTO_IPV6,
    };
    let mut data = number_attribute(NFTA_NAT_TYPE, NFT_NAT_DNAT);
    data.extend(number_attribute(NFTA_NAT_FAMILY, family as u32));
    data.extend(number_attribute(NFTA_NAT_REG_ADDR_MIN, register(address)?.wire()));
    data.extend(number_attribute(NFTA_NAT_REG_PROTO_MIN, register(port)?.wire()));
    Ok(nl::RawExpr::new("nat", data).into())
}

fn reject(how: Reject) -> nl::Expr {
    match how {
        Reject::TcpReset => nl::Expr::Reject { reject_type: NFT_REJECT_TCP_RST, icmp_code: 0 },
        Reject::PortUnreachable => {
            nl::Expr::Reject { reject_type: NFT_REJECT_ICMPX_UNREACH, icmp_code: NFT_REJECT_ICMPX_PORT_UNREACH }
        }
    }
}

/// A netlink attribute holding a big-endian number.
fn number_attribute(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A netlink attribute holding a string with its NUL.
fn string_attribute(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A netlink attribute: length, type, payload, padding to four bytes.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 8);
    bytes.extend((payload.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
