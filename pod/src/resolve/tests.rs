use super::*;
use crate::Event;
use serde_json::{Value, json};

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap()
}

#[test]
fn names() {
    let plain = hostname(&pod(json!({"containers": []})), "cluster.local").unwrap();
    assert_eq!((plain.kernel.as_str(), plain.domain.as_str()), ("web-0", ""));
    let spec = json!({"containers": [], "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true});
    let full = hostname(&pod(spec), "cluster.local").unwrap();
    assert_eq!(full.kernel, "h.s.ns.svc.cluster.local");
    let long = json!({"containers": [], "hostname": "h".repeat(63), "subdomain": "s", "setHostnameAsFQDN": true});
    let error = hostname(&pod(long), "cluster.local").unwrap_err().to_string();
    assert!(error.contains("is too long (64 characters is the max, 86 characters requested)"), "{error}");
    let aliases = serde_json::from_value::<Vec<_>>(json!([{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])).unwrap();
    let hosts = hosts_file(&full, &["10.0.0.5".parse().unwrap()], &aliases);
    assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost"));
    assert!(
        hosts.ends_with("10.0.0.5\th.s.ns.svc.cluster.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
    );
}

#[test]
fn resolvers() {
    let facts = DnsFacts {
        cluster_servers: vec!["10.96.0.10".into()],
        cluster_domain: "cluster.local".into(),
        node: Some(DnsConfig {
            servers: vec!["9.9.9.9".into()],
            searches: vec!["lan".into()],
            options: vec!["edns0".into()],
        }),
        node_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
    };
    let (first, said) = dns(
        &pod(
            json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}], "searches": ["lan", "x"]}}),
        ),
        &facts,
    );
    assert_eq!((first.servers, said), (vec!["10.96.0.10".to_owned()], Vec::new()));
    assert_eq!(first.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan", "x"]);
    assert_eq!(first.options, ["ndots:2"]);
    assert_eq!(Some(dns(&pod(json!({"containers": [], "hostNetwork": true})), &facts).0), facts.node);
    let (own, said) = dns(
        &pod(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1", "2", "3", "4"]}})),
        &facts,
    );
    assert_eq!(own.servers, ["1", "2", "3"]);
    let texts =
        |said: &[Event]| -> Vec<String> { said.iter().map(|e| format!("{} {}", e.reason, e.message)).collect() };
    assert_eq!(
        texts(&said),
        [
            "DNSConfigForming Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1 2 3"
        ]
    );
    let long =
        json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"searches": ["a".repeat(254), "b".repeat(253)]}});
    let (long, said) = dns(&pod(long), &facts);
    assert_eq!(long.searches, ["b".repeat(253)]);
    assert!(texts(&said)[0].starts_with(
        "DNSConfigForming Search Line limits were exceeded, some search paths have been omitted, the applied search line is: bbb"
    ));

    let without = DnsFacts { node: None, ..facts };
    let (default, _) = dns(&pod(json!({"containers": [], "dnsPolicy": "Default"})), &without);
    assert_eq!((default.servers, default.searches), (vec!["127.0.0.1".into(), "::1".into()], vec![".".into()]));
    let (first, _) = dns(&pod(json!({"containers": []})), &without);
    assert_eq!(first.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
}

#[test]
fn a_cluster_without_name_servers_is_missed_by_those_who_would_ask() {
    let facts = DnsFacts::default();
    let missed = |spec: Value| missing_cluster_dns(&pod(spec), &facts).is_some();
    assert!(missed(json!({"containers": []})));
    assert!(missed(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})));
    assert!(!missed(json!({"containers": [], "hostNetwork": true})));
    assert!(!missed(json!({"containers": [], "dnsPolicy": "Default"})));
    let served = DnsFacts { cluster_servers: vec!["10.96.0.10".into()], ..facts };
    assert_eq!(missing_cluster_dns(&pod(json!({"containers": []})), &served), None);
}

#[test]
fn a_search_line_that_pods_cannot_have_is_named() {
    let problem = |searches: Vec<String>, domain: &str| {
        let node = DnsConfig { searches, ..DnsConfig::default() };
        let facts = DnsFacts { cluster_domain: domain.into(), node: Some(node), ..DnsFacts::default() };
        facts.search_problem("/etc/resolv.conf").unwrap_or_default()
    };
    let domains = |number: usize, length: usize| vec!["d".repeat(length); number];
    assert_eq!(problem(domains(29, 9), "c.local"), "");
    assert!(problem(domains(30, 9), "c.local").ends_with("search line consisting of more than 29 domains!"));
    assert_eq!(problem(domains(32, 9), ""), "");
    assert!(problem(domains(1, 254), "").ends_with("a search path which length is more than allowed 253 chars!"));
    assert!(problem(domains(9, 250), "").ends_with("search line which length is more than allowed 2048 chars!"));
}

#[test]
fn security_of_a_container() {
    let pod =
        pod(json!({"securityContext": {"runAsUser": 5, "runAsNonRoot": true, "fsGroup": 7, "supplementalGroups": [8],
            "sysctls": [{"name": "net/ipv4/x", "value": "1"}]},
        "containers": [{"name": "c", "securityContext": {"runAsUser": 0, "allowPrivilegeEscalation": false},
            "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]}));
    let spec = pod.spec.as_ref().unwrap();
    let security = security(spec, &spec.containers[0]);
    assert_eq!((security.run_as_user, security.no_new_privileges), (Some(0), true));
    assert_eq!(security.supplemental_groups, [8, 7]);
    assert_eq!(
        verify_non_root(&security, None, "", &pod, "c").unwrap_err().to_string(),
        "container's runAsUser breaks non-root policy (pod: \"web-0_ns(u)\", container: c)"
    );
    assert_eq!(sysctls(&pod).get("net.ipv4.x").map(String::as_str), Some("1"));
    assert_eq!(
        port_mappings(spec),
        [PortMapping { protocol: "TCP".into(), host_port: 8080, container_port: 80, host_ip: String::new() }]
    );
}

#[test]
fn addresses_of_a_pod_are_in_the_order_of_the_nodes() {
    let ips = |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let of = |sandbox: &[&str], node: &[&str]| pod_ips(&ips(sandbox), &ips(node));
    let both = ["fd00::2", "10.1.0.2", "10.9.0.2"];
    assert_eq!(of(&both, &["10.0.0.1", "fd00::1"]), ips(&["10.1.0.2", "fd00::2"]));
    assert_eq!(of(&both, &["fd00::1"]), ips(&["fd00::2", "10.1.0.2"]));
    assert_eq!(of(&both, &[]), ips(&["10.1.0.2", "fd00::2"]));
    assert_eq!(of(&["fd00::2"], &["10.0.0.1"]), ips(&["fd00::2"]));
}

#[test]
fn containers_that_must_not_run_as_root() {
    let pod = Pod::default();
    for (own, uid, user, expected) in [
        (Some(0), Some(7), "", Some("container's runAsUser breaks non-root policy")),
        (Some(7), Some(0), "", None),
        (None, Some(7), "", None),
        (None, Some(0), "", Some("container has runAsNonRoot and image will run as root")),
        (None, None, "", Some("container has runAsNonRoot and image will run as root")),
        (None, None, "web", Some("container has runAsNonRoot and image has non-numeric user (web)")),
    ] {
        let security = Security { run_as_user: own, run_as_non_root: true, ..Security::default() };
        let found = verify_non_root(&security, uid, user, &pod, "c").err().map(|error| error.to_string());
        let as_expected = match (&found, expected) {
            (Some(found), Some(expected)) => found.starts_with(expected),
            (found, expected) => found.is_none() && expected.is_none(),
        };
        assert!(as_expected, "{own:?} {uid:?} {user:?}: {found:?}");
        assert!(verify_non_root(&Security::default(), uid, user, &pod, "c").is_ok());
    }
}
