//! Pods and Services on the wire.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::HELLO;

use crate::Test;
use crate::context::{Context, Namespace};

pub const TESTS: &[Test] = &[
    ("network::pods_of_three_nodes_reach_each_other_without_nat", pod_to_pod),
    ("network::services_of_every_kind_answer", services),
    ("network::client_affinity_holds", affinity),
    ("network::a_service_without_endpoints_refuses", refuses),
    ("network::services_without_selector_follow_their_slice", selectorless),
    ("network::local_traffic_policy_keeps_the_client_and_the_node", local_policy),
    ("network::host_ports_reach_their_pod", host_ports),
];

/// A web server and a client on every node: `web-n1`, `ask-n1`, ….
fn pods_everywhere(ns: &Namespace<'_>) -> Result<()> {
    for node in ["n1", "n2", "n3"] {
        let at = format!(r#"{{"spec":{{"nodeName":"{node}"}}}}"#);
        ns.run(&[
            "run",
            &format!("web-{node}"),
            "--image",
            HELLO,
            "--labels=app=web",
            "--port=8080",
            "--overrides",
            &at,
        ])?;
        ns.run(&["run", &format!("ask-{node}"), "--image", HELLO, "--overrides", &at, "--", "sleep", "10000"])?;
    }
    ns.say("wait pod --all --for=condition=Ready --timeout=60s")?;
    Ok(())
}

fn ip(ns: &Namespace<'_>, pod: &str) -> Result<String> {
    ns.run(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

fn ask(ns: &Namespace<'_>, pod: &str, url: &str) -> Result<String> {
    ns.run(&["exec", pod, "--", "/hello", "get", url])
}

fn pod_to_pod(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    pods_everywhere(&ns)?;
    for from in ["n1", "n2", "n3"] {
        let own = ip(&ns, &format!("ask-{from}"))?;
        for to in ["n1", "n2", "n3"] {
            let answer = ask(&ns, &format!("ask-{from}"), &format!("http://{}:8080/", ip(&ns, &format!("web-{to}"))?))?;
            ensure!(answer.contains(&format!("hello from web-{to}")), "{answer}");
            ensure!(answer.contains(&own), "the server saw another client than {own}: {answer}");
        }
    }
    Ok(())
}

fn services(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    pods_everywhere(&ns)?;
    ns.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: many}, spec: {selector: {app: web}, \
         ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 81, targetPort: 8080}]}}",
    )?;
    ns.say("label pod web-n1 only=one")?;
    ns.say("expose pod web-n1 --name=nodeport --selector=only=one --port=80 --target-port=8080 --type=NodePort")?;
    ns.apply("{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}}")?;
    let cluster_ip = ns.say("get service many -o jsonpath={.spec.clusterIP}")?;
    for from in ["ask-n1", "ask-n2", "ask-n3"] {
        for port in [80, 81] {
            ns.until("the Service", || {
                ensure!(ask(&ns, from, &format!("http://{cluster_ip}:{port}/"))?.contains("hello from web-"));
                Ok(())
            })?;
        }
    }
    // Hairpin: the only endpoint asks itself through its Service.
    let own = ns.say("get service nodeport -o jsonpath={.spec.clusterIP}")?;
    ns.until("a pod to reach itself through its Service", || {
        let answer = ask(&ns, "web-n1", &format!("http://{own}/hostname"))?;
        ensure!(answer.trim() == "web-n1", "{answer}");
        Ok(())
    })?;
    let port = ns.say("get service nodeport -o jsonpath={.spec.ports[0].nodePort}")?;
    for node in [1, 2, 3] {
        let url = format!("http://{}:{port}/hostname", context.cluster().lan.worker(node));
        ensure!(context.on("m", &format!("curl -sS --max-time 3 {url}"))?.trim() == "web-n1", "{url}");
    }
    ns.until("the headless Service's endpoints", || {
        let slices = ns.json("get endpointslices -l kubernetes.io/service-name=headless")?;
        let endpoints = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
        ensure!(endpoints == 3, "{endpoints} endpoints");
        Ok(())
    })?;
    ensure!(ns.say("get endpoints many -o jsonpath={.subsets[0].addresses[*].ip}")?.split(' ').count() == 3);
    Ok(())
}

fn affinity(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    pods_everywhere(&ns)?;
    ns.apply("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}")?;
    let url = format!("http://{}/hostname", ns.say("get service s -o jsonpath={.spec.clusterIP}")?);
    ns.until("the Service", || ask(&ns, "ask-n1", &url).map(drop))?;
    let first = ask(&ns, "ask-n1", &url)?;
    for _ in 0..8 {
        ensure!(ask(&ns, "ask-n1", &url)? == first, "another pod answered");
    }
    Ok(())
}

fn refuses(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: none}, ports: [{port: 80}]}}",
    )?;
    let ip = ns.say("get service s -o jsonpath={.spec.clusterIP}")?;
    ns.until("a refusal", || {
        let error =
            context.on("n2", &format!("curl -sS --max-time 3 http://{ip}/")).err().context("it answered")?.to_string();
        ensure!(
            error.contains("refused") || error.contains("Failed to connect") || error.contains("Couldn't connect"),
            "{error}"
        );
        ensure!(!error.contains("timed out"), "{error}");
        Ok(())
    })
}

fn selectorless(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    pods_everywhere(&ns)?;
    let target = ip(&ns, "web-n2")?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{ports: [{{name: p, port: 80}}]}}}}\n---\n\
         {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s-1, labels: {{kubernetes.io/service-name: s}}}}, \
         addressType: IPv4, ports: [{{name: p, port: 8080, protocol: TCP}}], endpoints: [{{addresses: [{target}]}}]}}"
    ))?;
    let url = format!("http://{}/hostname", ns.say("get service s -o jsonpath={.spec.clusterIP}")?);
    ns.until("the slice's pod", || {
        ensure!(ask(&ns, "ask-n3", &url)?.trim() == "web-n2");
        Ok(())
    })
}

fn local_policy(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    pods_everywhere(&ns)?;
    ns.say("label pod web-n2 only=here")?;
    ns.apply("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: NodePort, externalTrafficPolicy: Local, selector: {only: here}, ports: [{port: 80, targetPort: 8080}]}}")?;
    let port = ns.say("get service s -o jsonpath={.spec.ports[0].nodePort}")?;
    let (lan, client) = {
        let c = context.cluster();
        (c.lan, c.lan.master().to_string())
    };
    ns.until("the node with the pod", || {
        let answer = context.on("m", &format!("curl -sS --max-time 3 http://{}:{port}/", lan.worker(2)))?;
        ensure!(answer.contains("web-n2") && answer.contains(&client), "the client's address was lost: {answer}");
        Ok(())
    })?;
    let other = context.on("m", &format!("curl -sS --max-time 2 http://{}:{port}/", lan.worker(1)));
    ensure!(other.is_err(), "a node without the pod answered");
    health_checks(context, &ns)
}

/// Load balancers find the node with the pod, as kube-proxy tells them.
fn health_checks(context: &Context, ns: &Namespace) -> Result<()> {
    ns.apply("{apiVersion: v1, kind: Service, metadata: {name: balanced}, spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {only: here}, ports: [{port: 80, targetPort: 8080}]}}")?;
    let port = ns.say("get service balanced -o jsonpath={.spec.healthCheckNodePort}")?;
    let lan = context.cluster().lan;
    let asks = |worker| {
        context.on("m", &format!("curl -sS -w %{{http_code}} --max-time 3 http://{}:{port}/", lan.worker(worker)))
    };
    ns.until("the node with the pod is told", || {
        let answer = asks(2)?;
        ensure!(answer.contains("\"localEndpoints\": 1") && answer.ends_with("200"), "{answer}");
        Ok(())
    })?;
    ns.until("the node without the pod is told", || {
        let answer = asks(1)?;
        ensure!(answer.contains("\"localEndpoints\": 0") && answer.ends_with("503"), "{answer}");
        Ok(())
    })?;
    // What load balancers of Services without a policy ask, at kube-proxy's port.
    for (path, eligible) in [("healthz", "\"nodeEligible\":true,"), ("livez", "")] {
        let ask = format!("curl -sS -w %{{http_code}} --max-time 3 http://{}:10256/{path}", lan.worker(1));
        let answer = context.on("m", &ask)?;
        ensure!(answer.contains(&format!("{eligible}\"healthy\":true")) && answer.ends_with("200"), "{answer}");
    }
    let metrics = context.on("n1", "curl -sS --max-time 3 http://127.0.0.1:10249/metrics")?;
    for line in ["sync_proxy_rules_duration_seconds_count", "sync_proxy_rules_last_timestamp_seconds"] {
        ensure!(metrics.contains(&format!("\nkubeproxy_{line}{{ip_family=\"IPv4\"}} ")), "no {line} in {metrics}");
    }
    Ok(())
}

fn host_ports(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{nodeName: n1, containers: [{{name: c, image: {HELLO}, ports: [{{containerPort: 8080, hostPort: 18080}}]}}]}}}}"
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    let url = format!("http://{}:18080/hostname", context.cluster().lan.worker(1));
    let answers = || {
        ensure!(context.on("m", &format!("curl -sS --max-time 3 {url}"))?.trim() == "p");
        Ok(())
    };
    answers()?;
    // As an administrator's `nft flush ruleset`, but for the Services of others.
    context.on("n1", "nft delete table inet keelson-cni")?;
    ensure!(answers().is_err(), "the port is forwarded without rules");
    ns.until("the port to be forwarded again", answers)?;
    ns.say("delete pod p --grace-period=1")?;
    ensure!(context.on("m", &format!("curl -sS --max-time 2 {url}")).is_err(), "the port outlived its pod");
    Ok(())
}
