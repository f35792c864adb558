//! The table's chains and rules. Their number does not depend on Services.
//!
//! A packet's way:
//!
//! - `prerouting`, `output` (nat): the address and port it is sent to are looked up in `servicesF` (or `externalF`), which
//!   gives a group of endpoints and a kind. A client that the group remembers (`clientsF`) is sent to the same endpoint
//!   again. Otherwise the kind says what happens: reject, drop, or pick one of 2^k slots at random.
//! - Before that, who asks at a load balancer's address (`guardedF`) and is not of its `loadBalancerSourceRanges`
//!   (`sourcesF`) is dropped.
//! - A pick draws a slot and looks it up in `endpointsF`. A group fills more than half of its 2^k slots, the first ones: a
//!   draw beyond them finds nothing and the next rule draws again; the last rule draws from the first half, which is full.
//!   After [`DRAWS`] draws at most 3 % of connections get that far, so that endpoints are picked evenly to within that.
//! - `learn-*` (filter): remembers the endpoint of a new connection to a group with affinity.
//! - `postrouting` (nat): masquerades by where the connection was first sent to, so no mark of the packet is needed.
//!
//! Registers cannot be carried from one rule to the next, so each rule looks up what it needs; it happens once for each
//! connection. For a family of `A`-word addresses registers are at first: 0 address, `A` protocol, `A+1` port; after the
//! lookup: `A-1` a spare word, `A` group, `A+1` kind, and from `A+1` on what is found next.
//!
//! Tools that read all tables (nft, firewalld) must be able to list this one. nft cannot where a lookup is by what another
//! lookup found (1.0.6 aborts): it gives the first register of a map's value no length, and takes the others to be what
//! was loaded there before. So such values begin with a spare word, and the registers of the rest were loaded before.

use std::sync::Arc;
use std::time::Duration;

use netns::nft::{
    Batch, CtKey, Element, Expr, Family, Field, Hook, HookKind, MetaKey, Op, Reg, Reject, Set, Type, Verdict,
};

use crate::sets::Sets;

/// The kind of a group without endpoints.
pub const KIND_REJECT: u32 = 0;
/// The kind of a group that has endpoints, but none on this node, where only those may be used.
pub const KIND_DROP: u32 = 1;
const KIND_PICK: u32 = 2;
/// Groups have up to 2^13 slots; endpoints beyond 8,192 get no connections.
const MAX_CLASS: u32 = 13;
/// The most endpoints of a group.
pub const MAX_ENDPOINTS: usize = 1 << MAX_CLASS;
/// How often a rule draws before the last one that always hits.
const DRAWS: usize = 5;

const NFPROTO: [(Family, u8); 2] = [(Family::V4, 2), (Family::V6, 10)];
const TCP: u8 = 6;
const CT_STATE_NEW: u32 = 8;
const CT_STATUS_DNAT: u32 = 0x20;
const RTN_LOCAL: u32 = 2;
/// Just after `dstnat`, so that the destination is the endpoint already.
const AFTER_DSTNAT: i32 = -99;
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;

/// The kind of a group with `endpoints` endpoints, more than none.
pub fn kind_of(endpoints: usize) -> u32 {
    let slots = endpoints.clamp(1, MAX_ENDPOINTS).next_power_of_two();
    KIND_PICK + slots.trailing_zeros()
}

/// Adds all sets, chains and rules to a batch that starts with an empty table.
pub fn skeleton(batch: &mut Batch, sets: &Sets) {
    batch.ops.extend(sets.all().map(|set| Op::AddSet(set.clone())));
    reject_chain(batch);
    for family in Family::BOTH {
        let rules = Rules::new(family);
        for map in [rules.services.clone(), rules.external.clone()] {
            rules.pick_chains(batch, &map);
        }
        rules.guard_chain(batch);
        rules.lookup_chains(batch);
        rules.masquerade_chains(batch);
        rules.learn_chain(batch);
    }
    base_chains(batch);
}

/// Adds what remembers clients for `seconds`: a chain for each family, with a fixed number of rules.
pub fn learn_chains(batch: &mut Batch, seconds: u32) {
    for family in Family::BOTH {
        Rules::new(family).learn_for(batch, seconds);
    }
}

fn reject_chain(batch: &mut Batch) {
    batch.chain("reject");
    batch.rule(
        "reject",
        vec![
            Expr::Meta { key: MetaKey::L4Proto, to: Reg(0) },
            Expr::Cmp { from: Reg(0), not: false, data: vec![TCP] },
            Expr::Reject(Reject::TcpReset),
        ],
    );
    batch.rule("reject", vec![Expr::Reject(Reject::PortUnreachable)]);
}

fn base_chains(batch: &mut Batch) {
    let chains = [
        ("prerouting", HookKind::Nat, Hook::Prerouting, DSTNAT, &["guard", "outside"][..], vec![]),
        ("output", HookKind::Nat, Hook::Output, DSTNAT, &["guard", "services"], vec![]),
        ("postrouting", HookKind::Nat, Hook::Postrouting, SRCNAT, &["masquerade"], vec![]),
        ("learn-prerouting", HookKind::Filter, Hook::Prerouting, AFTER_DSTNAT, &["learn"], new_and_translated()),
        ("learn-output", HookKind::Filter, Hook::Output, AFTER_DSTNAT, &["learn"], new_and_translated()),
    ];
    for (name, kind, hook, priority, targets, conditions) in chains {
        batch.base_chain(name, kind, hook, priority);
        let each = NFPROTO.into_iter().flat_map(|of| targets.iter().map(move |target| (of, target)));
        for ((family, nfproto), target) in each {
            let mut exprs = conditions.clone();
            exprs.push(Expr::Meta { key: MetaKey::NfProto, to: Reg(0) });
            exprs.push(Expr::Cmp { from: Reg(0), not: false, data: vec![nfproto] });
            exprs.push(Expr::Verdict(Verdict::Jump(format!("{target}{}", family.digit()).into())));
            batch.rule(name, exprs);
        }
    }
}

fn new_and_translated() -> Vec<Expr> {
    let mut exprs = has_bit(CtKey::State, CT_STATE_NEW);
    exprs.extend(has_bit(CtKey::Status, CT_STATUS_DNAT));
    exprs
}

fn has_bit(key: CtKey, bit: u32) -> Vec<Expr> {
    vec![
        Expr::Ct { key, to: Reg(0) },
        Expr::Mask { reg: Reg(0), mask: bit.to_ne_bytes().to_vec() },
        Expr::Cmp { from: Reg(0), not: true, data: vec![0; 4] },
    ]
}

/// Builds the rules of one family.
struct Rules {
    family: Family,
    services: String,
    external: String,
}

impl Rules {
    fn new(family: Family) -> Self {
        let name = |name: &str| format!("{name}{}", family.digit());
        Self { family, services: name("services"), external: name("external") }
    }

    fn name(&self, name: &str) -> String {
        format!("{name}{}", self.family.digit())
    }

    fn words(&self) -> u8 {
        self.family.words()
    }

    /// Where values with a spare word begin, after a lookup.
    fn found(&self) -> Reg {
        Reg(self.words() - 1)
    }

    /// Where a group's number is, after a lookup.
    fn group(&self) -> Reg {
        Reg(self.words())
    }

    /// The register after the group's number: its kind, after a lookup.
    fn next(&self) -> Reg {
        Reg(self.words() + 1)
    }

    /// `addresses` addresses after [`Self::next`].
    fn after_next(&self, addresses: u8) -> Reg {
        Reg(self.next().0 + addresses * self.words())
    }

    fn saddr(&self, to: Reg) -> Expr {
        Expr::Payload { field: Field::Saddr(self.family), to }
    }

    fn daddr(&self, to: Reg) -> Expr {
        Expr::Payload { field: Field::Daddr(self.family), to }
    }

    /// Loads what the packet is sent to.
    fn destination(&self) -> Vec<Expr> {
        vec![
            self.daddr(Reg(0)),
            Expr::Meta { key: MetaKey::L4Proto, to: Reg(self.words()) },
            Expr::Payload { field: Field::Dport, to: Reg(self.words() + 1) },
        ]
    }

    /// Finds the group that the packet is sent to.
    fn find(&self, map: &str) -> Vec<Expr> {
        let mut exprs = self.destination();
        exprs.push(lookup(map, Reg(0), Some(self.found())));
        exprs
    }

    /// Loads what the packet's connection was first sent to.
    fn original(&self) -> Vec<Expr> {
        vec![
            Expr::Ct { key: CtKey::OriginalDaddr(self.family), to: Reg(0) },
            Expr::Meta { key: MetaKey::L4Proto, to: Reg(self.words()) },
            Expr::Ct { key: CtKey::OriginalDport, to: Reg(self.words() + 1) },
        ]
    }

    /// Finds the group that the packet's connection was first sent to.
    fn find_original(&self, map: &str) -> Vec<Expr> {
        let mut exprs = self.original();
        exprs.push(lookup(map, Reg(0), Some(self.found())));
        exprs
    }

    /// Goes on when the packet is from outside of the cluster's pod network.
    fn outside_only(&self) -> Vec<Expr> {
        vec![self.saddr(Reg(0)), not_in(self.name("cluster"), Reg(0))]
    }

    /// The chains that pick an endpoint of the group found in `map`, and the map from kind to chain.
    fn pick_chains(&self, batch: &mut Batch, map: &str) {
        let kinds = Arc::new(Set::vmap(format!("kinds-{map}"), vec![Type::Number]));
        let mut elements =
            vec![kind_element(KIND_REJECT, Verdict::Goto("reject".into())), kind_element(KIND_DROP, Verdict::Drop)];
        for class in 0..=MAX_CLASS {
            let slots = 1u32 << class;
            let chain = format!("pick-{map}-{slots}");
            batch.chain(chain.clone());
            // One or two endpoints fill their slots, so that every draw hits.
            let (draws, last) = if class < 2 { (0, slots) } else { (DRAWS, slots / 2) };
            // The table may change between two rules of one packet: the first slot is the last to go, and a packet that
            // finds not even that is dropped and sent again. Let through untranslated, it would take its connection along.
            for modulus in std::iter::repeat_n(slots, draws).chain([last]).chain((class > 0).then_some(1)) {
                batch.rule(chain.clone(), self.pick(map, modulus));
            }
            batch.rule(chain.clone(), vec![Expr::Verdict(Verdict::Drop)]);
            elements.push(kind_element(KIND_PICK + class, Verdict::Goto(chain.into())));
        }
        batch.ops.push(Op::AddSet(kinds.clone()));
        batch.ops.push(Op::AddElements(kinds, elements));
    }

    fn pick(&self, map: &str, modulus: u32) -> Vec<Expr> {
        let mut exprs = self.find(map);
        exprs.push(Expr::Random { modulus, to: self.next() });
        exprs.push(lookup(&self.name("endpoints"), self.group(), Some(self.next())));
        exprs.push(self.dnat());
        exprs
    }

    /// To the endpoint that was found after the group.
    fn dnat(&self) -> Expr {
        Expr::Dnat { family: self.family, address: self.next(), port: self.after_next(1) }
    }

    /// Sees the first packet of a connection alone, as what comes after it does.
    fn guard_chain(&self, batch: &mut Batch) {
        let chain = self.name("guard");
        batch.chain(chain.clone());
        let mut exprs = self.destination();
        exprs.push(lookup(&self.name("guarded"), Reg(0), None));
        exprs.push(self.saddr(Reg(self.words() + 2)));
        exprs.push(not_in(self.name("sources"), Reg(0)));
        exprs.push(Expr::Verdict(Verdict::Drop));
        batch.rule(chain, exprs);
    }

    fn lookup_chains(&self, batch: &mut Batch) {
        let services = self.services.clone();
        batch.chain(services.clone());
        batch.rule(services.clone(), self.remembered(&self.services));
        batch.rule(services.clone(), self.dispatch(&self.services));
        // Any other port of a cluster IP: say no, or the packet would leave by the default route.
        batch.rule(
            services.clone(),
            vec![
                self.daddr(Reg(0)),
                lookup(&self.name("cluster-ips"), Reg(0), None),
                Expr::Verdict(Verdict::Goto("reject".into())),
            ],
        );
        // A cluster IP that no Service has, any more or yet: neither does it leave. A Service that comes is found by the next attempt.
        batch.rule(
            services.clone(),
            vec![
                self.daddr(Reg(0)),
                lookup(&self.name("service-networks"), Reg(0), None),
                Expr::Verdict(Verdict::Drop),
            ],
        );
        let outside = self.name("outside");
        batch.chain(outside.clone());
        let goto_services = Expr::Verdict(Verdict::Goto(services.into()));
        batch.rule(
            outside.clone(),
            vec![self.saddr(Reg(0)), lookup(&self.name("cluster"), Reg(0), None), goto_services.clone()],
        );
        batch.rule(outside.clone(), self.remembered(&self.external));
        batch.rule(outside.clone(), self.dispatch(&self.external));
        batch.rule(outside, vec![goto_services]);
    }

    /// To the endpoint that the client had before, if the group still has it.
    fn remembered(&self, map: &str) -> Vec<Expr> {
        let mut exprs = self.find(map);
        exprs.push(self.saddr(self.next()));
        // For nft: it takes what is found for this port.
        exprs.push(Expr::Payload { field: Field::Dport, to: self.after_next(1) });
        exprs.push(lookup(&self.name("clients"), self.group(), Some(self.found())));
        exprs.push(lookup(&self.name("sticky"), self.group(), None));
        exprs.push(self.dnat());
        exprs
    }

    fn dispatch(&self, map: &str) -> Vec<Expr> {
        let mut exprs = self.find(map);
        exprs.push(Expr::VerdictMap { map: format!("kinds-{map}").into(), from: self.next() });
        exprs
    }

    fn masquerade_chains(&self, batch: &mut Batch) {
        let of_service = self.name("masquerade-service");
        batch.chain(of_service.clone());
        // A pod that reaches itself: the answer must come back through here.
        batch.rule(
            of_service.clone(),
            vec![
                self.saddr(Reg(0)),
                self.daddr(Reg(self.words())),
                lookup(&self.name("hairpin"), Reg(0), None),
                Expr::Masquerade,
            ],
        );
        // externalTrafficPolicy Local keeps the client's address.
        let mut keep = self.outside_only();
        keep.push(Expr::SourceType { to: Reg(0) });
        keep.push(Expr::Cmp { from: Reg(0), not: true, data: RTN_LOCAL.to_ne_bytes().to_vec() });
        keep.extend(self.find_original(&self.external));
        keep.push(Expr::Verdict(Verdict::Return));
        batch.rule(of_service.clone(), keep);
        // And so do pods of this node, whose answers come back through here.
        let mut own = vec![self.saddr(Reg(0)), lookup(&self.name("pods"), Reg(0), None)];
        own.extend(self.find_original(&self.external));
        own.push(Expr::Verdict(Verdict::Return));
        batch.rule(of_service.clone(), own);
        let mut always = self.original();
        always.push(lookup(&self.name("masqueraded"), Reg(0), None));
        always.push(Expr::Masquerade);
        batch.rule(of_service.clone(), always);
        let mut foreign = self.find_original(&self.services);
        foreign.extend([self.saddr(Reg(0)), not_in(self.name("inside"), Reg(0)), Expr::Masquerade]);
        batch.rule(of_service.clone(), foreign);
        let masquerade = self.name("masquerade");
        batch.chain(masquerade.clone());
        let mut translated = has_bit(CtKey::Status, CT_STATUS_DNAT);
        translated.push(Expr::Verdict(Verdict::Jump(of_service.into())));
        batch.rule(masquerade.clone(), translated);
        batch.rule(
            masquerade,
            vec![
                self.saddr(Reg(0)),
                lookup(&self.name("pods"), Reg(0), None),
                self.daddr(Reg(0)),
                not_in(self.name("direct"), Reg(0)),
                Expr::Masquerade,
            ],
        );
    }

    /// Finds how long a new connection's client is to be remembered, and goes there.
    fn learn_chain(&self, batch: &mut Batch) {
        let timeouts = self.name("affinity-timeouts");
        batch.ops.push(Op::AddSet(self.timeouts()));
        let chain = self.name("learn");
        batch.chain(chain.clone());
        let remember = [
            lookup("affinity", self.group(), Some(self.group())),
            Expr::VerdictMap { map: timeouts.into(), from: self.next() },
        ];
        let mut external = self.outside_only();
        external.extend(self.find_original(&self.external));
        external.extend(remember.clone());
        batch.rule(chain.clone(), external);
        let mut services = self.find_original(&self.services);
        services.extend(remember);
        batch.rule(chain, services);
    }

    fn timeouts(&self) -> Arc<Set> {
        Arc::new(Set::vmap(self.name("affinity-timeouts"), vec![Type::Number]))
    }

    fn learn_for(&self, batch: &mut Batch, seconds: u32) {
        let chain = format!("{}-{seconds}", self.name("learn"));
        batch.chain(chain.clone());
        let clients = self.name("clients");
        // Which of the two maps sent the packet here need not be known: what is learnt for the other one's group is
        // never looked up, since a client is always inside or always outside.
        for map in [&self.services, &self.external] {
            // The value is a spare word, the group, the address and the port; the group is looked up a second time for it.
            let (key, value) = (self.group(), self.after_next(1));
            let part = |word: u8| Reg(value.0 + word);
            let protocol = |to: Reg| Expr::Meta { key: MetaKey::L4Proto, to };
            let mut load = self.original();
            load.extend([
                protocol(part(1)),
                lookup(map, Reg(0), Some(value)),
                lookup(map, Reg(0), Some(self.found())),
                self.saddr(self.next()),
                protocol(value),
                self.daddr(part(2)),
                Expr::Payload { field: Field::Dport, to: part(2 + self.words()) },
            ]);
            let mut forget = load.clone();
            forget.push(Expr::Forget { map: clients.clone().into(), key, value });
            batch.rule(chain.clone(), forget);
            load.push(Expr::Learn {
                map: clients.clone().into(),
                key,
                value,
                timeout: Duration::from_secs(u64::from(seconds)),
            });
            batch.rule(chain.clone(), load);
        }
        batch.ops.push(Op::AddElements(self.timeouts(), vec![kind_element(seconds, Verdict::Goto(chain.into()))]));
    }
}

fn kind_element(kind: u32, verdict: Verdict) -> Element {
    Element::verdict(kind.to_ne_bytes().to_vec(), verdict)
}

fn lookup(set: &str, from: Reg, to: Option<Reg>) -> Expr {
    Expr::Lookup { set: set.to_owned().into(), from, to, not: false }
}

fn not_in(set: String, from: Reg) -> Expr {
    Expr::Lookup { set: set.into(), from, to: None, not: true }
}
