//! The API as clients see it beyond kubectl's verbs: who may ask, what is refused, and in which words.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::shell::{output, wait_for};

use crate::Test;
use crate::context::Context;

pub const TESTS: &[Test] = &[
    ("api::only_health_and_version_are_anonymous", anonymous),
    ("api::bad_input_is_named", bad_input),
    ("api::unknown_fields_are_named", unknown_fields),
    ("api::patches_of_all_kinds", patches),
    ("api::finalizers_and_owners_decide_about_deletion", deletion),
    ("api::cluster_scoped_objects_outlive_namespaced_owners", scopes_of_owners),
    ("api::watch_sees_changes_and_resumes", watch),
    ("api::namespaces_take_their_content_with_them", namespaces),
    ("api::service_account_tokens_work_and_end_with_their_pod", tokens),
    ("api::tokens_in_secrets_end_with_secret_and_account", secret_tokens),
];

/// An HTTP request without credentials: status code and body.
fn plain(context: &Context, path: &str, header: &str) -> Result<(u16, String)> {
    let url = format!("https://{}:6443{path}", context.cluster().lan.master());
    let mut curl = Command::new("curl");
    curl.args(["-sk", "--noproxy", "*", "--max-time", "5", "-w", "\n%{http_code}", "-H", header, &url]);
    let said = output(&mut curl)?;
    let (body, code) = said.rsplit_once('\n').context("curl printed no code")?;
    Ok((code.parse()?, body.to_owned()))
}

fn anonymous(context: &Context) -> Result<()> {
    for path in ["/livez", "/readyz", "/version"] {
        ensure!(plain(context, path, "A: b")?.0 == 200, "{path}");
    }
    for path in ["/api", "/api/v1/namespaces", "/apis", "/openapi/v3", "/metrics", "/api/v1/nodes/n1/proxy/healthz"] {
        let (code, body) = plain(context, path, "A: b")?;
        ensure!(code == 401 && body.contains("\"Unauthorized\""), "{path}: {code} {body}");
    }
    let (code, _) = plain(context, "/api", "Authorization: Bearer abcdef.0123456789abcdef")?;
    ensure!(code == 401, "a wrong token got {code}");
    Ok(())
}

fn bad_input(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let refused = |manifest: &str| -> Result<String> {
        let file = std::env::temp_dir().join(format!("keelson-bad-{}.yaml", std::process::id()));
        std::fs::write(&file, manifest)?;
        let said = ns.refused(&["create", "--validate=false", "-f", &file.to_string_lossy()]);
        std::fs::remove_file(&file)?;
        said
    };
    let pod = |name: &str, container: &str| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{container}]}}}}")
    };
    for (manifest, words) in [
        (
            pod("A_b", "{name: c, image: x}"),
            "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (pod("p", "{name: c}"), "spec.containers[0].image: Required value"),
        (pod("p", "{name: c, image: x}, {name: c, image: x}"), "spec.containers[1].name: Duplicate value: \"c\""),
        (
            pod("p", "{name: c, image: x, imagePullPolicy: Sometimes}"),
            "supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            pod("p", "{name: c, image: x, resources: {limits: {cpu: 1q}}}"),
            "quantities must match the regular expression",
        ),
        (
            pod("p", "{name: c, image: x, resources: {limits: {cpu: 1}, requests: {cpu: 2}}}"),
            "must be less than or equal to cpu limit",
        ),
        (pod("p", "{name: c, image: x, ports: [{containerPort: 70000}]}"), "must be between 1 and 65535, inclusive"),
        (
            pod("p", "{name: c, image: x, volumeMounts: [{name: v, mountPath: /v}]}"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: []}}".into(),
            "spec.ports: Required value",
        ),
        (
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}}, \
             template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: x}]}}}}"
                .into(),
            "`selector` does not match template `labels`",
        ),
    ] {
        let said = refused(&manifest)?;
        ensure!(said.contains(words), "{manifest}\nwanted {words:?}, got {said}");
    }
    ensure!(ns.refused(&["get", "pods", "-l", "a=b=c"])?.contains("found '=', expected: ',' or 'end of string'"));
    ensure!(
        ns.refused(&["get", "pods", "--field-selector", "spec.foo=x"])?.contains("field label not supported: spec.foo")
    );
    ensure!(ns.refused(&["logs", "nobody"])?.contains("pods \"nobody\" not found"));
    Ok(())
}

fn unknown_fields(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, dada: {a: b}}";
    let refused = ns.fed(&["create", "-f", "-"], manifest).unwrap_err().to_string();
    ensure!(refused.contains("unknown field \"dada\""), "{refused}");
    ns.fed(&["create", "--validate=warn", "-f", "-"], manifest)?;
    // A kind that is in no document of v3 is looked for in v2, in protobuf.
    let unknown = "{apiVersion: example.org/v1, kind: Unheard, metadata: {name: u}}";
    let refused = ns.fed(&["apply", "-f", "-"], unknown).unwrap_err().to_string();
    ensure!(refused.contains("no matches for kind \"Unheard\" in version \"example.org/v1\""), "{refused}");
    Ok(())
}

fn patches(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["create", "deployment", "d", "--image=example.org/x:1", "--replicas=0"])?;
    // Strategic: containers are merged by name.
    ns.run(&[
        "patch",
        "deployment",
        "d",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"y","image":"example.org/y:1"}]}}}}"#,
    ])?;
    ensure!(ns.run(&["get", "deployment", "d", "-o", "jsonpath={.spec.template.spec.containers[*].name}"])? == "y x");
    // Merge: lists are replaced.
    ns.run(&[
        "patch",
        "deployment",
        "d",
        "--type=merge",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"z","image":"example.org/z:1"}]}}}}"#,
    ])?;
    ensure!(ns.run(&["get", "deployment", "d", "-o", "jsonpath={.spec.template.spec.containers[*].name}"])? == "z");
    ns.run(&[
        "patch",
        "deployment",
        "d",
        "--type=json",
        "-p",
        r#"[{"op":"test","path":"/spec/replicas","value":0},{"op":"replace","path":"/spec/paused","value":true}]"#,
    ])
    .map(drop)
    .or_else(|_| {
        ns.run(&[
            "patch",
            "deployment",
            "d",
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/spec/paused","value":true}]"#,
        ])
        .map(drop)
    })?;
    ensure!(ns.run(&["get", "deployment", "d", "-o", "jsonpath={.spec.paused}"])? == "true");
    let refused =
        ns.refused(&["patch", "deployment", "d", "-p", r#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#])?;
    ensure!(refused.contains("field is immutable"), "{refused}");
    Ok(())
}

fn deletion(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: held, finalizers: [example.org/hold]}}")?;
    ns.say("delete configmap held --wait=false")?;
    ensure!(!ns.run(&["get", "configmap", "held", "-o", "jsonpath={.metadata.deletionTimestamp}"])?.is_empty());
    ns.run(&["patch", "configmap", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#])?;
    ensure!(ns.refused(&["get", "configmap", "held"])?.contains("not found"));

    ns.run(&["create", "deployment", "d", "--image=example.org/x:1", "--replicas=0"])?;
    ns.until("the ReplicaSet", || {
        ensure!(!ns.say("get replicasets -o name")?.is_empty());
        Ok(())
    })?;
    ns.say("delete deployment d --cascade=orphan")?;
    ensure!(ns.say("get replicasets -o name")?.lines().count() == 1, "orphaning kept no ReplicaSet");
    ns.run(&["create", "deployment", "d", "--image=example.org/x:1", "--replicas=0"])?;
    ns.until("its adoption", || {
        let owner = ns.run(&["get", "replicasets", "-o", "jsonpath={.items[*].metadata.ownerReferences[*].name}"])?;
        ensure!(owner == "d", "owners are {owner:?}");
        Ok(())
    })?;
    ns.say("delete deployment d --cascade=foreground --timeout=30s")?;
    ensure!(ns.say("get replicasets -o name")?.is_empty());
    Ok(())
}

/// A cluster-scoped object cannot be owned by a namespaced one, and does not go with it.
fn scopes_of_owners(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create configmap owner")?;
    let uid = ns.run(&["get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}"])?;
    let meta = format!(
        "metadata: {{name: {}, ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]}}",
        ns.name
    );
    ns.apply(&format!("{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, {meta}, rules: []}}"))?;
    ns.apply(&format!("{{apiVersion: v1, kind: ConfigMap, {meta}}}"))?;
    ns.say("delete configmap owner")?;
    ns.say(&format!("wait configmap/{} --for=delete --timeout=60s", ns.name))?;
    ns.say(&format!("delete clusterrole {}", ns.name)).map(drop)
}

fn watch(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let raw = |query: &str| ns.run(&["get", "--raw", &format!("/api/v1/namespaces/{}/configmaps?{query}", ns.name)]);
    let list: serde_json::Value = serde_json::from_str(&raw("limit=1")?)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("resourceVersion")?.to_owned();
    ns.say("create configmap w --from-literal=a=1")?;
    ns.say("label configmap w x=y")?;
    ns.say("delete configmap w")?;
    let events = raw(&format!("watch=true&resourceVersion={version}&timeoutSeconds=1"))?;
    let types: Vec<String> = events
        .lines()
        .map(|l| Ok(serde_json::from_str::<serde_json::Value>(l)?))
        .map(|e: Result<serde_json::Value>| {
            e.map(|e| {
                format!(
                    "{} {}",
                    e["type"].as_str().unwrap_or(""),
                    e["object"]["metadata"]["name"].as_str().unwrap_or("")
                )
            })
        })
        .collect::<Result<_>>()?;
    let ours: Vec<&str> = types.iter().filter_map(|t| t.strip_suffix(" w")).collect();
    ensure!(ours == ["ADDED", "MODIFIED", "DELETED"], "{types:?}");
    // A selector turns a change of labels into appearing and disappearing.
    let selected = raw(&format!("watch=true&resourceVersion={version}&timeoutSeconds=1&labelSelector=x%3Dy"))?;
    ensure!(selected.matches("\"ADDED\"").count() == 1 && selected.matches("\"DELETED\"").count() == 1, "{selected}");
    let future = raw("watch=true&resourceVersion=1&timeoutSeconds=1");
    let text = future.unwrap_or_else(|e| e.to_string());
    ensure!(text.contains("too old resource version") || text.contains("ADDED"), "watching from 1: {text}");
    Ok(())
}

fn namespaces(context: &Context) -> Result<()> {
    let kubectl = context.kubectl();
    kubectl.say("create namespace doomed")?;
    kubectl.say("create configmap c -n doomed")?;
    kubectl.say("create deployment d --image=example.org/x:1 --replicas=1 -n doomed")?;
    kubectl.say("delete namespace doomed --timeout=60s")?;
    ensure!(kubectl.say("get namespaces -o name")?.lines().all(|l| l != "namespace/doomed"));
    kubectl.say("create namespace doomed")?;
    let left = kubectl.say("get deployments,replicasets,pods -n doomed -o name")?;
    kubectl.say("delete namespace doomed --wait=false")?;
    ensure!(left.is_empty(), "its successor has {left}");
    let refused = kubectl.say("delete namespace kube-system").unwrap_err().to_string();
    ensure!(refused.contains("this namespace may not be deleted"), "{refused}");

    // Who has a finalizer of its own on a namespace has the last word, also when it is empty.
    kubectl.apply("{apiVersion: v1, kind: Namespace, metadata: {name: held, finalizers: [example.org/hold]}}")?;
    kubectl.say("delete namespace held --wait=false")?;
    wait_for("the end of its content", Duration::from_secs(60), || {
        let left = kubectl.run(&["get", "namespace", "held", "-o", "jsonpath={.spec.finalizers}"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    let left = kubectl.run(&["get", "namespace", "held", "-o", "jsonpath={.metadata.finalizers[*]}"])?;
    kubectl.run(&["patch", "namespace", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#])?;
    ensure!(left == "example.org/hold", "its finalizers are {left:?}");
    kubectl.say("wait namespace/held --for=delete --timeout=60s")?;
    Ok(())
}

fn tokens(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["run", "p", "--image=docker.io/library/busybox:1", "--", "sleep", "1000"])?;
    ns.wait("pod/p", "condition=Ready")?;
    let token = ns.run(&["exec", "p", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"])?;
    let ask = |token: &str| {
        plain(context, &format!("/api/v1/namespaces/{}/pods", ns.name), &format!("Authorization: Bearer {token}"))
    };
    let (code, body) = ask(&token)?;
    ensure!(code == 403 && body.contains(&format!("system:serviceaccount:{}:default", ns.name)), "{code} {body}");
    ensure!(plain(context, "/api", &format!("Authorization: Bearer {token}"))?.0 == 200);
    ns.say("delete pod p --grace-period=1")?;
    ensure!(ask(&token)?.0 == 401, "the token outlived its pod");
    Ok(())
}

/// A token that is kept in a Secret lives as long as the Secret does, and the Secret as long as its ServiceAccount.
fn secret_tokens(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create serviceaccount robot")?;
    for name in ["first", "second"] {
        let annotations = "annotations: {kubernetes.io/service-account.name: robot}";
        ns.apply(&format!(
            "{{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {{name: {name}, {annotations}}}}}"
        ))?;
    }
    let token = ns.until("the token is there", || {
        let data = ns.json("get secret second")?["data"].clone();
        ensure!(data["token"].is_string() && data["ca.crt"].is_string(), "{data}");
        ns.run(&["get", "secret", "first", "--template={{.data.token | base64decode}}"])
    })?;
    let ask =
        || plain(context, &format!("/api/v1/namespaces/{}/pods", ns.name), &format!("Authorization: Bearer {token}"));
    let (code, body) = ask()?;
    ensure!(code == 403 && body.contains(&format!("system:serviceaccount:{}:robot", ns.name)), "{code} {body}");
    ns.say("delete secret first")?;
    ensure!(ask()?.0 == 401, "the token outlived its secret");
    ns.say("delete serviceaccount robot")?;
    ns.until("the secret goes with its account", || {
        let left = ns.say("get secrets -o name")?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}
