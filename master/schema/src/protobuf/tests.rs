//! The table against the rest of the crate, and what cannot be read.

use proptest::prelude::*;
use serde_json::json;

use super::table::{Message, Type, table};
use super::*;
use crate::Registry;
use crate::types::{Type as JsonType, types};

#[test]
fn every_kind_and_every_list_has_a_message() {
    for kind in Registry::builtin().kinds() {
        assert!(describes(&kind.api_version(), kind.kind), "{kind:?}");
        if !kind.list_kind.is_empty() && kind.verbs.contains(&"list") {
            assert!(describes(&kind.api_version(), kind.list_kind), "{}", kind.list_kind);
        }
    }
    for (version, kind) in [("v1", "Status"), ("apps/v1", "DeleteOptions"), ("meta.k8s.io/v1", "PartialObjectMetadata")]
    {
        assert!(describes(version, kind), "{kind}");
    }
    assert!(!describes("meta.k8s.io/v1", "Table"));
    assert!(!describes("v2", "Pod"));
}

/// Fields of a message in JSON, inlined ones too.
fn names_of(message: &Message, names: &mut Vec<&'static str>) {
    for field in message.fields() {
        match field.kind {
            Type::Inline(index) => names_of(table().get(index).unwrap(), names),
            _ => names.push(field.name),
        }
    }
}

#[test]
fn messages_have_the_fields_of_their_definitions() {
    let tables = types();
    let mut compared = 0;
    for index in 0.. {
        let Some(definition) = tables.get(index) else { break };
        let Some(message) = table().named(definition.name) else { panic!("{}", definition.name) };
        let mut found = Vec::new();
        names_of(message, &mut found);
        found.sort_unstable();
        let own = |name: &&str| {
            let plain = definition.field(name).is_some_and(|f| f.kind == JsonType::Text);
            // Only of objects: references have them as fields of their own.
            !(plain && matches!(*name, "apiVersion" | "kind")) || found.contains(name)
        };
        let wanted: Vec<&str> = definition.fields.iter().map(|f| f.name).filter(own).collect();
        assert_eq!(found, wanted, "{}", definition.name);
        compared += 1;
    }
    assert!(compared > 200, "{compared}");
}

/// Nothing that a client sends can make decoding go deeper than the types do; where these hold themselves there is a bound.
#[test]
fn messages_hold_themselves_only_where_schemas_do() {
    fn walk(kind: Type, path: &mut Vec<usize>) {
        match kind {
            Type::List(inner) | Type::Map(inner) | Type::Wrapped(inner) => walk(*inner, path),
            Type::Message(index) | Type::Inline(index) | Type::Union(index) => {
                let message = table().get(index).unwrap();
                if path.contains(&index) {
                    return assert!(message.name.contains(".JSONSchemaProps"), "{path:?}");
                }
                path.push(index);
                message.fields().iter().for_each(|field| walk(field.kind, path));
                path.pop();
            }
            _ => {}
        }
    }
    for index in (0..).take_while(|index| table().get(*index).is_some()) {
        walk(Type::Message(index), &mut Vec::new());
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let refused = |bytes: &[u8]| decode(bytes, "v1", "ConfigMap").unwrap_err().to_string();
    assert_eq!(
        refused(b"{}"),
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    );
    assert_eq!(refused(b"k8s\0\x12\x7f"), "protobuf message runtime.Unknown is damaged: unexpected end");
    assert_eq!(
        refused(b"k8s\0\x12\x02\x12\x7f"),
        "protobuf message io.k8s.api.core.v1.ConfigMap is damaged: unexpected end"
    );
    assert_eq!(
        refused(b"k8s\0\x12\x02\x08\x01"),
        "protobuf message io.k8s.api.core.v1.ConfigMap is damaged: wrong wire type 0 for field 1"
    );
    assert_eq!(refused(b"k8s\0\x0a\x03\x12\x01X"), "no kind \"X\" is registered for version \"v1\" in protobuf");
    assert_eq!(refused(b"k8s\0\x1a\x04gzip"), "gzip is not an encoding that is understood here");
    assert_eq!(refused(b"k8s\0\x0b"), "protobuf message runtime.Unknown is damaged: illegal tag 11");
    let status = json!({ "kind": "Status", "apiVersion": "v1", "code": "x" });
    assert_eq!(
        encode(&status).unwrap_err().to_string(),
        "field code of io.k8s.apimachinery.pkg.apis.meta.v1.Status cannot be written as protobuf: \"x\" where a whole number is wanted"
    );
}

#[test]
fn packed_numbers_unknown_fields_and_merged_messages_are_read() {
    // securityContext (14) twice: supplementalGroups (4) packed, then one by one; field 99 is unknown.
    let spec = b"\x72\x04\x22\x02\x01\x02\x72\x02\x20\x03\x9a\x06\x01x";
    let mut pod = b"k8s\0\x12\x10\x12\x0e".to_vec();
    pod.extend_from_slice(spec);
    let decoded = decode(&pod, "v1", "Pod").unwrap();
    assert_eq!(decoded["spec"]["securityContext"]["supplementalGroups"], json!([1, 2, 3]));
    assert_eq!((&decoded["kind"], &decoded["apiVersion"]), (&json!("Pod"), &json!("v1")));
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
        kind in proptest::sample::select(Registry::builtin().kinds().collect::<Vec<_>>()),
    ) {
        let _ = decode(&bytes, &kind.api_version(), kind.kind);
        // Behind a good envelope.
        let mut body = MAGIC.to_vec();
        wire::put_bytes(&mut body, 2, &bytes);
        let _ = decode(&body, &kind.api_version(), kind.kind);
    }
}

#[test]
fn schemas_are_nested_only_so_deep() {
    let nested = |depth: usize| {
        // `not` of a schema is field 28.
        let mut schema = Vec::new();
        for _ in 0..depth {
            let mut outer = Vec::new();
            wire::put_bytes(&mut outer, 28, &schema);
            schema = outer;
        }
        let mut bytes = schema;
        for field in [1, 4, 7, 2] {
            let mut outer = Vec::new();
            wire::put_bytes(&mut outer, field, &bytes);
            bytes = outer;
        }
        let mut type_meta = Vec::new();
        wire::put_bytes(&mut type_meta, 1, b"apiextensions.k8s.io/v1");
        wire::put_bytes(&mut type_meta, 2, b"CustomResourceDefinition");
        let mut body = MAGIC.to_vec();
        wire::put_bytes(&mut body, 1, &type_meta);
        wire::put_bytes(&mut body, 2, &bytes);
        decode(&body, "", "")
    };
    assert!(nested(50).is_ok());
    assert!(nested(2_000).unwrap_err().to_string().contains("nested too deep"));
}
