use std::sync::Arc;
use std::time::Duration;

use super::*;

#[test]
fn a_listing_reads_like_nft() {
    let services =
        Arc::new(Set::map("services4", vec![Type::Ipv4, Type::Protocol, Type::Port], vec![Type::Number, Type::Number]));
    let mut batch = Batch::replacing("t");
    batch.base_chain("prerouting", HookKind::Nat, Hook::Prerouting, -100);
    batch.ops.push(Op::AddSet(services.clone()));
    batch.rule(
        "prerouting",
        vec![
            Expr::Payload { field: Field::Daddr(Family::V4), to: Reg(0) },
            Expr::Lookup { set: "services4".into(), from: Reg(0), to: Some(Reg(3)), not: false },
            Expr::Learn { map: "a".into(), key: Reg(0), value: Reg(1), timeout: Duration::from_secs(3) },
            Expr::Verdict(Verdict::Goto("x".into())),
        ],
    );
    let mut bytes = Vec::new();
    key::address(&mut bytes, "10.0.0.1".parse().unwrap());
    key::protocol(&mut bytes, 6);
    key::port(&mut bytes, 80);
    let mut value = Vec::new();
    key::number(&mut value, 7);
    key::number(&mut value, 2);
    batch.ops.push(Op::AddElements(services, vec![Element::value(bytes, value)]));
    assert_eq!(
        batch.listing(),
        "add table inet t\n\
         delete table inet t\n\
         add table inet t\n\
         add chain prerouting { type nat hook prerouting priority -100 }\n\
         add map services4 ipv4_addr . inet_proto . inet_service : mark . mark\n\
         add rule prerouting r0=ip:daddr r3=services4[r0] update a[r0]=r1 timeout 3s goto x\n\
         add element services4 10.0.0.1 . tcp . 80 : 7 . 2\n"
    );
    assert_eq!(batch.count(), (1, 6));
}

#[test]
fn a_network_is_its_first_and_last_address() {
    let element = Element::net("10.1.0.0/16".parse().unwrap());
    assert_eq!(element.key, [10, 1, 0, 0]);
    assert_eq!(element.end, Some(vec![10, 1, 255, 255]));
}
