//! Custom kinds against the real kubectl: they survive a master that is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod common;

use common::{Master, said};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: foos.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: foos, kind: Foo, shortNames: [fo]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, default: 2}}}
"#;

#[test]
fn a_custom_kind_survives_a_crash_and_its_resources_go_with_it() {
    let mut master = Master::new();
    said(&master.init(&[]));
    master.start();
    said(&master.kubectl_reading(DEFINITION, &["apply", "-f", "-"]));
    master.say(&["wait", "crd/foos.example.com", "--for=condition=Established", "--timeout=60s"]);
    let foo = "apiVersion: example.com/v1\nkind: Foo\nmetadata: {name: a}\nspec: {}\n";
    said(&master.kubectl_reading(foo, &["apply", "-f", "-"]));
    let size = ["get", "fo", "a", "-o", "jsonpath={.spec.size}"];
    assert_eq!(master.say(&size), "2");
    master.kill();
    master.start();
    assert_eq!(master.say(&size), "2");
    assert!(master.say(&["explain", "foo.spec.size"]).contains("FIELD: size <integer>"));
    master.say(&["delete", "crd", "foos.example.com", "--timeout=60s"]);
    assert!(!master.kubectl(&["get", "--raw", "/apis/example.com/v1/foos"]).status.success());
    // The name can be used again, and nothing is left of the old objects.
    said(&master.kubectl_reading(DEFINITION, &["apply", "-f", "-"]));
    master.say(&["wait", "crd/foos.example.com", "--for=condition=Established", "--timeout=60s"]);
    assert_eq!(master.say(&["get", "foos", "-A", "-o", "name"]), "");
}
