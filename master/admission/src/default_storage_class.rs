//! DefaultStorageClass: a claim that says nothing of a class gets the default one (`plugin/pkg/admission/storage`).

use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, newest, text};

const DEFAULT: [&str; 2] = [
    "/metadata/annotations/storageclass.kubernetes.io~1is-default-class",
    "/metadata/annotations/storageclass.beta.kubernetes.io~1is-default-class",
];
const OLD_CLASS: &str = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";

pub struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn admit(&self, context: &Context, request: &Request<'_>, claim: &mut Value) -> Result<(), Refusal> {
        if !request.is("", "persistentvolumeclaims", "") || request.operation != Operation::Create {
            return Ok(());
        }
        if claim.pointer("/spec/storageClassName").is_some_and(Value::is_string) || claim.pointer(OLD_CLASS).is_some() {
            return Ok(());
        }
        let mut classes = context.lookup.list("storage.k8s.io", "storageclasses", "");
        classes.retain(|class| DEFAULT.iter().any(|pointer| text(class, pointer) == "true"));
        if let (Some(class), Some(spec)) = (newest(&classes), claim["spec"].as_object_mut()) {
            spec.insert("storageClassName".into(), class["metadata"]["name"].clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Cluster;

    #[test]
    fn only_a_claim_that_says_nothing_gets_the_default() {
        let class = json!({ "metadata": { "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } } });
        let cluster = Cluster::with("storageclasses", "", "fast", class);
        let claim = |spec: Value| json!({ "metadata": { "name": "c" }, "spec": spec });
        let class =
            |spec| cluster.created("persistentvolumeclaims", claim(spec)).unwrap()["spec"]["storageClassName"].clone();
        assert_eq!(class(json!({})), "fast");
        assert_eq!(class(json!({ "storageClassName": "" })), "");
        assert_eq!(Cluster::new().created("persistentvolumeclaims", claim(json!({}))).unwrap()["spec"], json!({}));
    }
}
