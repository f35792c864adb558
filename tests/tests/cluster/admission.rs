//! What is let in: quotas and policies. Webhooks are asked in `master/apiserver/tests/webhooks.rs`.

use anyhow::{Result, ensure};

use crate::Test;
use crate::context::Context;

pub const TESTS: &[Test] = &[
    ("admission::quotas_bound_a_namespace", quotas),
    ("admission::policies_judge_by_expressions", policies),
    ("admission::policies_change_what_is_written", mutating_policies),
    ("admission::expressions_that_do_not_fit_are_told", type_checking),
    ("admission::pods_keep_the_security_of_their_namespace", pod_security),
];

fn quotas(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create quota small --hard=count/configmaps=3,services=1,pods=1,requests.cpu=500m")?;
    ns.until("the quota is counted", || {
        // Each namespace has one ConfigMap, with the cluster's CA.
        let used = ns.say("get quota small -o jsonpath={.status.used.count/configmaps}/{.status.used.services}")?;
        ensure!(used == "1/0", "{used}");
        Ok(())
    })?;
    ns.say("create configmap a")?;
    ns.say("create configmap b")?;
    let refused = ns.refused(&["create", "configmap", "c"])?;
    let words = "configmaps \"c\" is forbidden: exceeded quota: small, requested: count/configmaps=1, used: \
                 count/configmaps=3, limited: count/configmaps=3";
    ensure!(refused.contains(words), "{refused}");
    ns.say("delete configmap a")?;
    ns.until("what was deleted is given back", || ns.say("create configmap c"))?;
    let silent = ns.refused(&["run", "p", "--image=x", "--restart=Never"])?;
    ensure!(silent.contains("failed quota: small: must specify requests.cpu for: p"), "{silent}");
    let pod = |name: &str, cpu: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  schedulerName: nobody\n  containers: [{{name: c, \
             image: x, resources: {{requests: {{cpu: {cpu}}}}}}}]\n"
        )
    };
    ns.apply(&pod("first", "400m"))?;
    let used = ns.say("get quota small -o jsonpath={.status.used.pods}/{.status.used.requests\\.cpu}")?;
    ensure!(used == "1/400m", "{used}");
    let second = ns.apply(&pod("second", "200m")).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(second.contains("exceeded quota: small, requested: pods=1,requests.cpu=200m"), "{second}");
    Ok(())
}

fn pod_security(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let label = |level: &str| {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        ns.run(&["label", "--overwrite", "namespace", &ns.name, &label])
    };
    label("baseline")?;
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  schedulerName: nobody\n  containers: [{{name: c, \
             image: x}}]\n{more}"
        )
    };
    let refused = ns.apply(&pod("host", "  hostNetwork: true\n")).unwrap_err();
    let words =
        "pods \"host\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    ensure!(format!("{refused:#}").contains(words), "{refused:#}");
    ns.apply(&pod("plain", ""))?;
    let wrong = label("strict").unwrap_err();
    ensure!(format!("{wrong:#}").contains("must be one of privileged, baseline, restricted"), "{wrong:#}");
    label("restricted")?;
    ensure!(ns.apply(&pod("late", "")).is_err(), "a plain pod was let into a restricted namespace");
    // What is made from a template is refused later: the maker is told at once.
    ns.say("create deployment d --image=x --replicas=1")?;
    ns.until("the replica set says why it has no pods", || {
        let said = ns.say("get events -o jsonpath={.items[*].message}")?;
        ensure!(said.contains("violates PodSecurity \"restricted:latest\""), "{said}");
        Ok(())
    })
}

fn policies(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let name = format!("few-replicas-{}", ns.name);
    ns.apply(&format!(
        r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    resourceRules:
    - {{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}}
  variables: [{{name: most, expression: "int(params.data.most)"}}]
  paramKind: {{apiVersion: v1, kind: ConfigMap}}
  validations:
  - expression: object.spec.replicas <= variables.most
    messageExpression: "'no more than ' + string(variables.most)"
    reason: Forbidden
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec:
  policyName: {name}
  validationActions: [Deny]
  paramRef: {{name: bounds, parameterNotFoundAction: Allow}}
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: bounds}}
data: {{most: "2"}}
"#,
        namespace = ns.name
    ))?;
    let judged = (|| {
        let refused = ns.refused(&["create", "deployment", "many", "--image=x", "--replicas=3"])?;
        let words = format!(
            "deployments.apps \"many\" is forbidden: ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: \
             no more than 2"
        );
        ensure!(refused.contains(&words), "{refused}");
        ns.say("create deployment few --image=x --replicas=1").map(drop)
    })();
    ns.say(&format!("delete validatingadmissionpolicybinding,validatingadmissionpolicy {name}"))?;
    judged
}

fn mutating_policies(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let name = format!("mark-{}", ns.name);
    ns.apply(&format!(
        r#"
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    resourceRules:
    - {{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}}
  reinvocationPolicy: IfNeeded
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: "Object{{spec: Object.spec{{replicas: object.spec.replicas + 1}}}}"
  - patchType: JSONPatch
    jsonPatch:
      expression: "[JSONPatch{{op: 'add', path: '/metadata/labels/mark', value: string(object.spec.replicas)}}]"
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec:
  policyName: {name}
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}}}
"#,
        namespace = ns.name
    ))?;
    let changed = (|| -> Result<()> {
        let listed = ns.say(&format!("get mutatingadmissionpolicy {name} --no-headers"))?;
        ensure!(listed.split_whitespace().nth(1) == Some("2"), "{listed}");
        ns.say("create deployment d --image=x --replicas=2")?;
        let made = ns.say("get deployment d -o jsonpath={.spec.replicas}/{.metadata.labels.mark}")?;
        ensure!(made == "3/3", "{made}");
        Ok(())
    })();
    ns.say(&format!("delete mutatingadmissionpolicybinding,mutatingadmissionpolicy {name}"))?;
    changed
}

fn type_checking(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let name = format!("confused-{}", ns.name);
    ns.apply(&format!(
        r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    resourceRules:
    - {{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}}
  validations:
  - expression: object.spec.replicas > '1'
"#
    ))?;
    let path =
        "{.status.typeChecking.expressionWarnings[0].fieldRef}: {.status.typeChecking.expressionWarnings[0].warning}";
    let told = ns.until("the policy was checked", || {
        let said = ns.run(&["get", "validatingadmissionpolicy", &name, "-o", &format!("jsonpath={path}")])?;
        let wanted = "spec.validations[0].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload \
                      for '_>_' applied to '(int, string)'";
        ensure!(said.starts_with(wanted), "{said}");
        Ok(())
    });
    ns.say(&format!("delete validatingadmissionpolicy {name}"))?;
    told
}
