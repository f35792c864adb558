//! The running control plane against the real kubectl. Each test has its own master on its own loopback port.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use common::{Master, join_line, said};

/// A kubeconfig with a bearer token.
fn with_token(master: &Master, token: &str) -> std::path::PathBuf {
    let path = master.path("token.conf");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority: {}}}}}]\n\
         users: [{{name: u, user: {{token: {token}}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
        master.port,
        master.path("pki/ca.crt").display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn refused(output: &std::process::Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[test]
fn a_fresh_cluster_has_what_it_needs() {
    let mut master = Master::started();
    let names = |what: &str, flags: &[&str]| {
        let mut words = vec!["get", what, "-o", "jsonpath={.items[*].metadata.name}"];
        words.extend(flags);
        master.say(&words)
    };
    assert_eq!(names("namespaces", &[]), "default kube-node-lease kube-public kube-system");
    assert_eq!(names("services", &["-A"]), "kubernetes");
    let roles = names("clusterroles", &[]);
    for role in ["admin", "cluster-admin", "edit", "system:controller:deployment-controller", "system:node", "view"] {
        assert!(roles.split(' ').any(|name| name == role), "{role}");
    }
    assert_eq!(
        master.say(&[
            "get",
            "endpoints",
            "kubernetes",
            "-o",
            "jsonpath={.subsets[0].addresses[0].ip}:{.subsets[0].ports[0].port}"
        ]),
        format!("{}:{}", common::ADVERTISED, master.port)
    );
    let info = master.say(&["get", "cm", "cluster-info", "-n", "kube-public", "-o", "jsonpath={.data.kubeconfig}"]);
    assert!(info.contains("certificate-authority-data") && !info.contains("client-key"), "{info}");
    master.wait(&["get", "cm", "kube-root-ca.crt", "-o", "jsonpath={.metadata.name}"], "kube-root-ca.crt");
    master.wait(&["get", "sa", "default", "-o", "jsonpath={.metadata.name}"], "default");
    assert!(master.stop(), "{}", master.log());
}

#[test]
fn tokens_sign_what_anyone_may_read() {
    let master = Master::started();
    let token = "apiVersion: v1\nkind: Secret\ntype: bootstrap.kubernetes.io/token\n\
                 metadata: {name: bootstrap-token-abcdef, namespace: kube-system}\n\
                 stringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-signing: 'true'}\n";
    said(&master.create(token, &[]));
    let wait = |template: &str, wanted: &str| {
        master.wait(&["get", "cm", "cluster-info", "-n", "kube-public", "-o", template], wanted);
    };
    // The signature begins with {"alg":"HS256","kid":"abcdef"}, and has no content.
    let begin = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..";
    wait("go-template={{slice (index .data \"jws-kubeconfig-abcdef\") 0 42}}", begin);

    // kubectl would ask for a user's name.
    let anyone = |path: &str| {
        let url = format!("https://127.0.0.1:{}/api/v1/namespaces/kube-public/configmaps{path}", master.port);
        said(&Command::new("curl").args(["-sk", &url]).output().unwrap())
    };
    assert!(anyone("/cluster-info").contains(begin));
    assert!(anyone("").contains("\"code\":401"));

    master.say(&["delete", "secret", "bootstrap-token-abcdef", "-n", "kube-system"]);
    wait("go-template={{with index .data \"jws-kubeconfig-abcdef\"}}signed{{else}}not{{end}}", "not");
}

/// A role of one rule, and its binding to a user.
fn role(name: &str, resources: &str, verbs: &str, api_group: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}}}\n\
         rules: [{{apiGroups: ['{api_group}'], resources: [{resources}], verbs: [{verbs}]}}]\n"
    )
}

fn binding(name: &str, role_kind: &str, role: &str, subject: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {name}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {role_kind}, name: '{role}'}}\nsubjects: [{subject}]\n"
    )
}

const USER: &str = "apiGroup: rbac.authorization.k8s.io, kind: User";

#[test]
fn rights_are_as_the_roles_say() {
    let master = Master::started();
    let can =
        |who: &str, resource: &str| {
            let review = format!(
                "apiVersion: authorization.k8s.io/v1\nkind: SelfSubjectAccessReview\n\
             spec: {{resourceAttributes: {{verb: get, namespace: default, {resource}}}}}\n"
            );
            said(&master.create(
                &review,
                &["--as", who, "--as-group", "system:authenticated", "-o", "jsonpath={.status.allowed}"],
            ))
        };
    assert_eq!(can("jane", "resource: pods"), "false");
    said(&master.create(&binding("jane", "ClusterRole", "view", &format!("{{{USER}, name: jane}}")), &[]));
    assert_eq!(can("jane", "resource: pods"), "true");
    assert_eq!(can("jane", "resource: pods, subresource: log"), "true");
    assert_eq!(can("jane", "resource: secrets"), "false");
    assert_eq!(can("joe", "resource: pods"), "false");
    let denied = master.kubectl(&["get", "secrets", "--as=jane"]);
    assert_eq!(
        refused(&denied),
        "Error from server (Forbidden): secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""
    );
}

#[test]
fn nobody_grants_what_he_does_not_have() {
    let master = Master::started();
    said(&master.create(&role("creator", "roles, rolebindings", "create", "rbac.authorization.k8s.io"), &[]));
    said(&master.create(&binding("creator", "Role", "creator", &format!("{{{USER}, name: joe}}")), &[]));
    let message = refused(&master.create(&role("more", "secrets", "get", ""), &["--as=joe"]));
    let wanted = "user \"joe\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}";
    assert!(message.contains(wanted), "{message}");
    let up = binding("up", "ClusterRole", "cluster-admin", &format!("{{{USER}, name: joe}}"));
    let message = refused(&master.create(&up, &["--as=joe"]));
    assert!(message.contains("is attempting to grant RBAC permissions not currently held"), "{message}");
}

#[test]
fn tokens_of_service_accounts_come_and_go_with_them() {
    let master = Master::started();
    said(&master.create("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: app}\n", &[]));
    let request = |seconds: u32| {
        let body = format!(
            "{{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"TokenRequest\",\"spec\":{{\"expirationSeconds\":{seconds}}}}}"
        );
        master.create_raw("/api/v1/namespaces/default/serviceaccounts/app/token", &body)
    };
    let answer = said(&request(600));
    let token = answer.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap();
    let config = with_token(&master, token);
    let denied = refused(&master.kubectl_with(&config, &["get", "pods"]));
    assert!(denied.contains("User \"system:serviceaccount:default:app\" cannot list resource \"pods\""), "{denied}");
    said(
        &master.create(
            &binding("app", "ClusterRole", "view", "{kind: ServiceAccount, name: app, namespace: default}"),
            &[],
        ),
    );
    said(&master.kubectl_with(&config, &["get", "pods"]));
    let short = refused(&request(60));
    assert!(short.contains("may not specify a duration less than 10 minutes"), "{short}");
    master.say(&["delete", "serviceaccount", "app"]);
    let gone = refused(&master.kubectl_with(&config, &["get", "pods"]));
    assert!(gone.contains("Unauthorized") || gone.contains("must be logged in"), "{gone}");
}

#[test]
fn the_printed_token_authenticates_until_it_is_deleted() {
    let mut master = Master::new();
    let text = said(&master.init(&[]));
    let token = join_line(&text).split_whitespace().nth(4).unwrap().to_owned();
    master.start();
    assert!(!master.path("pending-token.json").exists());
    let config = with_token(&master, &token);
    said(&master.kubectl_with(&config, &["get", "cm", "kubelet-config", "-n", "kube-system"]));
    let denied = refused(&master.kubectl_with(&config, &["get", "secrets", "-n", "kube-system"]));
    assert!(denied.contains(&format!("User \"system:bootstrap:{}\" cannot list", &token[..6])), "{denied}");

    assert!(said(&master.call(&["token", "list"])).contains(&token[..6]));
    assert!(!said(&master.call(&["token", "list"])).contains(&token[7..]));
    assert_eq!(join_line(&said(&master.init(&[]))), join_line(&text), "a good token is printed again");
    said(&master.call(&["token", "delete", &token]));
    refused(&master.kubectl_with(&config, &["get", "cm", "kubelet-config", "-n", "kube-system"]));
    let fresh = said(&master.call(&["token", "create", "--print-join-command"]));
    assert_ne!(join_line(&fresh), join_line(&text));
    assert!(!master.log().contains(&token[7..]), "the log shows a secret");
}

#[test]
fn nothing_is_open_to_strangers() {
    let master = Master::started();
    let url = format!("https://127.0.0.1:{}", master.port);
    let get = |path: &str| {
        let output = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
            .arg(master.path("pki/ca.crt"))
            .arg(format!("{url}{path}"))
            .output()
            .unwrap();
        said(&output)
    };
    for path in ["/livez", "/readyz", "/version"] {
        assert_eq!(get(path), "200", "{path}");
    }
    for path in ["/", "/api", "/api/v1/namespaces", "/metrics", "/openapi/v2", "/healthz/x"] {
        assert_eq!(get(path), "401", "{path}");
    }
    let plain = Command::new("curl").args(["-s", &format!("http://127.0.0.1:{}/livez", master.port)]).output().unwrap();
    assert!(!String::from_utf8_lossy(&plain.stdout).contains("ok"));
}

#[test]
fn the_chain_shows_the_ca() {
    let master = Master::started();
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{} -showcerts </dev/null 2>/dev/null | grep -c 'BEGIN CERT'",
        master.port
    );
    assert_eq!(said(&Command::new("sh").args(["-c", &script]).output().unwrap()).trim(), "2");
}

#[test]
fn a_crash_and_a_restart_lose_nothing() {
    let mut master = Master::started();
    said(&master.create("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n", &[]));
    master.kill();
    master.start();
    assert_eq!(master.say(&["get", "cm", "kept", "-o", "jsonpath={.data.a}"]), "b");
    let version =
        |master: &Master| master.say(&["get", "clusterrole", "view", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let before = version(&master);
    assert!(master.stop());
    master.start();
    assert_eq!(version(&master), before, "a restart rewrites nothing");
    let mode = std::fs::metadata(master.path("store.db")).unwrap().permissions().mode() & 0o077;
    let dir = std::fs::metadata(master.dir.path()).unwrap().permissions().mode() & 0o077;
    assert!(mode == 0 || dir == 0);
}

#[test]
fn a_second_master_in_the_same_place_is_refused() {
    let master = Master::started();
    let second = master.call(&["run"]);
    let message = refused(&second);
    assert!(message.contains("cannot listen on 127.0.0.1:"), "{message}");
    assert!(master.kubectl(&["get", "--raw", "/readyz"]).status.success());
}

#[test]
fn namespaces_that_are_needed_stay() {
    let master = Master::started();
    assert_eq!(
        refused(&master.kubectl(&["delete", "namespace", "kube-system"])),
        "Error from server (Forbidden): namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
    let lost = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: nowhere}\n";
    let message = refused(&master.create(lost, &[]));
    assert!(message.ends_with("namespaces \"nowhere\" not found"), "{message}");
}

/// KEP-5080: what pods may need to end is there until they have.
#[test]
fn pods_go_before_the_rest_of_their_namespace() {
    let master = Master::started();
    master.say(&["create", "namespace", "going"]);
    master.wait(&["-n", "going", "get", "serviceaccount", "default", "-o", "name"], "serviceaccount/default");
    let held = r#"{"apiVersion":"v1","kind":"Pod",
        "metadata":{"name":"held","namespace":"going","finalizers":["example.com/hold"]},
        "spec":{"containers":[{"name":"c","image":"hello"}]}}"#;
    said(&master.create(held, &[]));
    master.say(&["-n", "going", "create", "configmap", "needed"]);
    master.say(&["delete", "namespace", "going", "--wait=false"]);
    let left = "jsonpath={.status.conditions[?(@.type==\"NamespaceContentRemaining\")].message}";
    let told = "Some resources are remaining: pods. has 1 resource instances";
    master.wait(&["get", "namespace", "going", "-o", left], told);
    master.say(&["-n", "going", "get", "configmap", "needed"]);
    master.say(&["-n", "going", "patch", "pod", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    master.say(&["wait", "--for=delete", "namespace/going", "--timeout=60s"]);
}

/// These commands send protobuf.
#[test]
fn typed_commands_are_understood() {
    let master = Master::started();
    for words in [
        &["create", "namespace", "typed"][..],
        &["-n", "typed", "create", "deployment", "web", "--image=nginx", "--replicas=2", "--port=80"],
        &["-n", "typed", "create", "configmap", "settings", "--from-literal=a=b"],
        &["-n", "typed", "create", "secret", "generic", "secret", "--from-literal=p=q"],
        &["-n", "typed", "create", "serviceaccount", "app"],
        &["-n", "typed", "create", "role", "reader", "--verb=get,list", "--resource=pods"],
        &["-n", "typed", "create", "rolebinding", "app", "--role=reader", "--serviceaccount=typed:app"],
        &["-n", "typed", "create", "service", "clusterip", "web", "--tcp=80:http"],
        &["-n", "typed", "create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=50%"],
        &["create", "priorityclass", "high", "--value=5"],
    ] {
        master.say(words);
    }
    let read =
        |what: &str, path: &str| master.say(&["-n", "typed", "get", what, "-o", &format!("jsonpath={{{path}}}")]);
    assert_eq!(read("deployment/web", ".spec.replicas"), "2");
    assert_eq!(read("secret/secret", ".data.p"), "cQ==");
    assert_eq!(read("service/web", ".spec.ports[0].targetPort"), "http");
    assert_eq!(read("pdb/web", ".spec.minAvailable"), "50%");
    assert_eq!(read("priorityclass/high", ".value"), "5");
    let token = master.say(&["-n", "typed", "create", "token", "app"]);
    let config = with_token(&master, token.trim());
    let can = |words: &[&str]| {
        let output = master.kubectl_with(&config, &[&["-n", "typed", "auth", "can-i"], words].concat());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!((can(&["list", "pods"]), can(&["list", "secrets"])), ("yes".into(), "no".into()));
    let who = said(&master.kubectl_with(&config, &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]));
    assert_eq!(who, "system:serviceaccount:typed:app");
}

/// What client-side apply made is taken over by server-side apply; what others changed meanwhile is theirs.
#[test]
fn configurations_are_applied_by_client_and_by_server() {
    let master = Master::started();
    let config = |replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
             spec: {{containers: [{{name: main, image: nginx, ports: [{{containerPort: 80}}]}}]}}\n"
        )
    };
    let apply = |replicas: u32, more: &[&str]| {
        master.kubectl_reading(&config(replicas), &[&["apply", "-f", "-"], more].concat())
    };
    let done = |output: std::process::Output| said(&output).trim().to_owned();
    assert_eq!(done(apply(2, &[])), "deployment.apps/web created");
    assert_eq!(done(apply(3, &[])), "deployment.apps/web configured");
    assert_eq!(done(apply(3, &[])), "deployment.apps/web unchanged");
    assert_eq!(done(apply(4, &["--server-side"])), "deployment.apps/web serverside-applied");
    let managers = "jsonpath={.metadata.managedFields[?(@.operation==\"Apply\")].manager}";
    let names = master.say(&["get", "deployment", "web", "--show-managed-fields", "-o", managers]);
    assert_eq!(names, "kubectl-last-applied kubectl");
    master.say(&["scale", "deployment", "web", "--replicas=1"]);
    let message = refused(&apply(4, &["--server-side"]));
    let conflict = "error: Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert!(message.starts_with(conflict), "{message}");
    done(apply(4, &["--server-side", "--force-conflicts"]));
    assert_eq!(master.say(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]), "4");
    assert!(master.kubectl_reading(&config(4), &["diff", "--server-side", "-f", "-"]).status.success());
    assert_eq!(
        done(apply(4, &["--server-side", "--dry-run=server"])),
        "deployment.apps/web serverside-applied (server dry run)"
    );
}

/// What kubectl prints of `Warning` headers.
#[test]
fn warnings_are_printed_where_something_changes() {
    let master = Master::started();
    let config = |image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: old}}\nspec:\n  replicas: 0\n  selector: {{matchLabels: {{app: old}}}}\n  \
             template:\n    metadata: {{labels: {{app: old}}}}\n    \
             spec: {{nodeSelector: {{beta.kubernetes.io/os: linux}}, containers: [{{name: main, image: {image}}}]}}\n"
        )
    };
    let printed = |output: std::process::Output| {
        said(&output);
        String::from_utf8_lossy(&output.stderr).trim().to_owned()
    };
    let expected = "Warning: spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead";
    let asked = |image: &str, words: &[&str]| printed(master.kubectl_reading(&config(image), words));
    assert_eq!(asked("a", &["create", "--dry-run=server", "-f", "-"]), expected);
    assert_eq!(asked("a", &["apply", "-f", "-"]), expected);
    assert_eq!(asked("a", &["apply", "-f", "-"]), "");
    assert_eq!(asked("b", &["apply", "-f", "-"]), expected);
    assert_eq!(asked("b", &["replace", "-f", "-"]), "");
    assert_eq!(asked("c", &["replace", "-f", "-"]), expected);
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    assert_eq!(asked("c", &apply), "");
    assert_eq!(asked("d", &apply), expected);
    assert_eq!(printed(master.kubectl(&["label", "deployment", "old", "a=b"])), "");
    assert_eq!(
        printed(master.kubectl(&["get", "endpoints"])),
        "Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
    );
    let policy =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\nspec: {podSelector: {}}\n";
    assert_eq!(
        printed(master.kubectl_reading(policy, &["apply", "-f", "-"])),
        "Warning: Keelson's pod network does not enforce NetworkPolicies"
    );
}

/// Nothing runs the pods here: the test says how they end.
#[test]
fn jobs_count_their_pods_and_go_away() {
    let master = Master::started();
    let job = |name: &str, more: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {more}\n  template: {{spec: {{restartPolicy: Never, \
             automountServiceAccountToken: false, containers: [{{name: c, image: i}}]}}}}\n"
        )
    };
    let ends = |selector: &str, phase: &str| {
        let path = "jsonpath={.items[?(@.status.phase!=\"Succeeded\")].metadata.name}";
        let names = master.say(&["get", "pods", "-l", selector, "-o", path]);
        let patch = format!("{{\"status\":{{\"phase\":\"{phase}\"}}}}");
        for name in names.split_whitespace() {
            master.say(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", &patch]);
        }
    };
    let of = |name: &str, field: &str, wanted: &str| {
        master.wait(&["get", "job", name, "-o", &format!("jsonpath={{{field}}}")], wanted);
    };
    said(&master.create(&job("two", "completions: 2\n  parallelism: 2"), &[]));
    of("two", ".status.active", "2");
    ends("job-name=two", "Succeeded");
    of("two", ".status.conditions[?(@.type==\"Complete\")].status", "True");
    of("two", ".status.succeeded", "2");
    let held = "jsonpath={.items[*].metadata.finalizers}";
    assert_eq!(master.say(&["get", "pods", "-l", "job-name=two", "-o", held]), "");

    said(&master.create(&job("bad", "backoffLimit: 0\n  ttlSecondsAfterFinished: 1"), &[]));
    of("bad", ".status.active", "1");
    ends("job-name=bad", "Failed");
    master.wait(&["get", "job,pods", "-l", "job-name=bad", "-o", "name"], "");
    master.wait(
        &[
            "get",
            "events",
            "--field-selector=involvedObject.name=bad,reason=BackoffLimitExceeded",
            "-o",
            "jsonpath={.items[*].message}",
        ],
        "Job has reached the specified backoff limit",
    );

    let controller = "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: rc}\nspec:\n  replicas: 2\n  template:\n    \
                      metadata: {labels: {app: rc}}\n    spec: {automountServiceAccountToken: false, containers: [{name: c, image: i}]}\n";
    said(&master.create(controller, &[]));
    master.wait(&["get", "rc", "rc", "-o", "jsonpath={.status.replicas}"], "2");
    master.say(&["scale", "rc", "rc", "--replicas=1"]);
    master.wait(&["get", "rc", "rc", "-o", "jsonpath={.status.replicas} {.status.observedGeneration}"], "1 2");
}
