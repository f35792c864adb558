//! Custom kinds as clients see them: they go down the same road as built-in ones.

use anyhow::{Result, ensure};
use keelson_tests::harness::images::HELLO;

use crate::Test;
use crate::context::{Context, Namespace};

pub const TESTS: &[Test] = &[
    ("custom::a_kind_is_served_while_its_definition_stands", life),
    ("custom::schemas_and_rules_are_enforced", schemas),
    ("custom::owners_and_namespaces_take_custom_resources_with_them", deletion),
    ("custom::a_budget_asks_the_owner_of_pods_how_many_it_wants", budget),
];

/// A definition of its own for each test: `<plural>.custom.keelson.test`.
fn definition(plural: &str, kind: &str) -> String {
    let singular = kind.to_lowercase();
    format!(
        r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.custom.keelson.test}}
spec:
  group: custom.keelson.test
  scope: Namespaced
  names: {{plural: {plural}, singular: {singular}, kind: {kind}, shortNames: [x{singular}], categories: [everything]}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {{}}
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {{name: Size, type: integer, jsonPath: .spec.replicas}}
    selectableFields:
    - jsonPath: .spec.color
    schema:
      openAPIV3Schema:
        type: object
        description: A thing of tests.
        properties:
          spec:
            type: object
            properties:
              replicas: {{type: integer, minimum: 0, default: 1, description: How many there shall be.}}
              color: {{type: string, enum: [red, blue]}}
              ports:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {{type: object, required: [name], properties: {{name: {{type: string}}, port: {{type: integer}}}}}}
            x-kubernetes-validations:
            - {{rule: "!has(self.color) || self.color != 'red' || self.replicas < 3", message: few are red}}
          status: {{type: object, x-kubernetes-preserve-unknown-fields: true}}
  - name: v1alpha1
    served: true
    storage: false
    deprecated: true
    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"#
    )
}

fn established<'a>(context: &'a Context, plural: &str, kind: &str) -> Result<Namespace<'a>> {
    let ns = context.namespace()?;
    ns.apply(&definition(plural, kind))?;
    ns.wait(&format!("crd/{plural}.custom.keelson.test"), "condition=established")?;
    Ok(ns)
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: custom.keelson.test/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn life(context: &Context) -> Result<()> {
    let ns = established(context, "lives", "Life")?;
    ns.until("kubectl finds the kind", || ns.say("get lives"))?;
    // Not by `apply`: kubectl would then hand its fields over to the manager that applies below.
    ns.fed(&["create", "-f", "-"], &object("Life", "a", "{color: blue, ports: [{name: x, port: 1}]}"))?;
    ensure!(ns.say("get xlife a -o jsonpath={.spec.replicas}/{.metadata.generation}")? == "1/1");
    let table = ns.say("get everything")?;
    ensure!(table.contains("NAME") && table.contains("SIZE"), "{table}");
    ns.say("scale lives/a --replicas=3")?;
    ns.run(&["patch", "life", "a", "--type=merge", "-p", r#"{"metadata":{"labels":{"l":"m"}}}"#])?;
    let seen = ns.say("get lives -l l=m --field-selector=spec.color=blue -o jsonpath={.items[*].spec.replicas}")?;
    ensure!(seen == "3", "{seen}");
    ensure!(ns.say("get lives --field-selector=spec.color=red -o name")?.is_empty());
    let side = object("Life", "a", "{ports: [{name: z, port: 2}]}");
    ns.fed(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &side)?;
    let names = ns.say("get life a -o jsonpath={.spec.ports[*].name}")?;
    ensure!(names == "x z", "{names:?}");
    ns.run(&["patch", "life", "a", "--subresource=status", "--type=merge", "-p", r#"{"status":{"phase":"up"}}"#])?;
    ensure!(ns.say("get life a -o jsonpath={.status.phase}/{.metadata.generation}")? == "up/3");
    let explained = ns.say("explain life.spec.replicas")?;
    ensure!(explained.contains("How many there shall be."), "{explained}");
    let other = ns.say("get lives.v1alpha1.custom.keelson.test a -o jsonpath={.apiVersion}")?;
    ensure!(other == "custom.keelson.test/v1alpha1", "{other}");
    ns.say("delete crd lives.custom.keelson.test --timeout=60s")?;
    ns.until("the kind is gone", || match ns.say("get --raw /apis/custom.keelson.test/v1/lives") {
        Ok(_) => anyhow::bail!("it is still served"),
        Err(_) => Ok(()),
    })
}

fn schemas(context: &Context) -> Result<()> {
    let ns = established(context, "strictnesses", "Strictness")?;
    ns.until("kubectl finds the kind", || ns.say("get strictnesses"))?;
    let refused = |spec: &str| -> Result<String> {
        match ns.fed(&["create", "-f", "-"], &object("Strictness", "bad", spec)) {
            Ok(said) => anyhow::bail!("{spec} was taken: {said}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    };
    for (spec, words) in [
        ("{color: green}", "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\""),
        ("{replicas: -1}", "spec.replicas in body should be greater than or equal to 0"),
        ("{replicas: many}", "must be of type integer: \"string\""),
        ("{ports: [{port: 1}]}", "spec.ports[0].name: Required value"),
        ("{ports: [{name: a}, {name: a}]}", "spec.ports[1]: Duplicate value"),
        ("{color: red, replicas: 3}", "few are red"),
        ("{colour: red}", "unknown field \"spec.colour\""),
    ] {
        let said = refused(spec)?;
        ensure!(said.contains(words), "{spec}: {said}");
    }
    let lax = object("Strictness", "lax", "{colour: red}");
    ns.fed(&["create", "--validate=false", "-f", "-"], &lax)?;
    ensure!(ns.say("get strictness lax -o jsonpath={.spec}")? == r#"{"replicas":1}"#);
    ns.say("delete crd strictnesses.custom.keelson.test --timeout=60s")?;
    Ok(())
}

fn deletion(context: &Context) -> Result<()> {
    let ns = established(context, "dependents", "Dependent")?;
    ns.until("kubectl finds the kind", || ns.say("get dependents"))?;
    ns.say("create configmap owner")?;
    let uid = ns.say("get cm owner -o jsonpath={.metadata.uid}")?;
    ns.apply(&format!(
        "apiVersion: custom.keelson.test/v1\nkind: Dependent\nspec: {{}}\nmetadata: {{name: owned, ownerReferences: \
         [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]}}\n"
    ))?;
    ns.apply(&object("Dependent", "free", "{}"))?;
    ns.say("delete cm owner")?;
    ns.until("what is owned goes", || match ns.say("get dependents -o name")?.trim() {
        "dependent.custom.keelson.test/free" => Ok(()),
        left => anyhow::bail!("there are {left}"),
    })?;
    let other = context.namespace()?;
    other.apply(&object("Dependent", "inside", "{}"))?;
    ns.say(&format!("delete namespace {} --timeout=60s", other.name))?;
    ensure!(ns.say("get dependents -A -o name")?.trim() == "dependent.custom.keelson.test/free");
    ns.say("delete crd dependents.custom.keelson.test --timeout=60s")?;
    Ok(())
}

fn budget(context: &Context) -> Result<()> {
    let ns = established(context, "owners", "Owner")?;
    ns.until("kubectl finds the kind", || ns.say("get owners"))?;
    ns.fed(&["create", "-f", "-"], &object("Owner", "a", "{replicas: 4}"))?;
    ns.say("create configmap a")?;
    let owned = |name: &str, (api_version, kind): (&str, &str)| {
        let uid = ns.say(&format!("get {kind} a -o jsonpath={{.metadata.uid}}"))?;
        let owner = format!("{{apiVersion: {api_version}, kind: {kind}, name: a, uid: {uid}, controller: true}}");
        ns.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}, ownerReferences: [{owner}]}}\n\
             spec: {{containers: [{{name: c, image: {HELLO}}}]}}\n---\n\
             apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: {name}}}\n\
             spec: {{maxUnavailable: 1, selector: {{matchLabels: {{app: {name}}}}}}}\n"
        ))
    };
    owned("scaled", ("custom.keelson.test/v1", "Owner"))?;
    ns.until("the owner's replicas to be expected", || {
        let seen = ns.say("get pdb scaled -o jsonpath={.status.expectedPods}/{.status.desiredHealthy}")?;
        ensure!(seen == "4/3", "{seen}");
        Ok(())
    })?;
    // What cannot be scaled says nothing of how many there should be.
    owned("misled", ("v1", "ConfigMap"))?;
    ns.until("the budget to say so", || {
        let condition =
            ns.say("get pdb misled -o jsonpath={.status.conditions[0].reason}:{.status.conditions[0].message}")?;
        ensure!(condition == "SyncFailed:configmaps does not implement the scale subresource", "{condition}");
        Ok(())
    })
}
