//! DefaultStorageClass and DefaultIngressClass: what says nothing of its class gets the default one (`plugin/pkg/admission/storage`,
//! `plugin/pkg/admission/network/defaultingressclass`).

use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, text};

pub struct DefaultClass {
    /// What has a class: group and resource.
    of: (&'static str, &'static str),
    /// The field of its spec that says which.
    field: &'static str,
    /// The annotation that said so before there was the field.
    old: &'static str,
    /// The classes: group and resource.
    classes: (&'static str, &'static str),
    /// The annotations that make one the default.
    defaults: &'static [&'static str],
}

pub const STORAGE: DefaultClass = DefaultClass {
    of: ("", "persistentvolumeclaims"),
    field: "storageClassName",
    old: "/metadata/annotations/volume.beta.kubernetes.io~1storage-class",
    classes: ("storage.k8s.io", "storageclasses"),
    defaults: &[
        "/metadata/annotations/storageclass.kubernetes.io~1is-default-class",
        "/metadata/annotations/storageclass.beta.kubernetes.io~1is-default-class",
    ],
};

pub const INGRESS: DefaultClass = DefaultClass {
    of: ("networking.k8s.io", "ingresses"),
    field: "ingressClassName",
    old: "/metadata/annotations/kubernetes.io~1ingress.class",
    classes: ("networking.k8s.io", "ingressclasses"),
    defaults: &["/metadata/annotations/ingressclass.kubernetes.io~1is-default-class"],
};

impl Plugin for DefaultClass {
    fn admit(&self, context: &Context, request: &Request<'_>, object: &mut Value) -> Result<(), Refusal> {
        if !request.is(self.of.0, self.of.1, "") || request.operation != Operation::Create {
            return Ok(());
        }
        if object["spec"][self.field].is_string() || object.pointer(self.old).is_some() {
            return Ok(());
        }
        let mut classes = context.lookup.list(self.classes.0, self.classes.1, "");
        classes.retain(|class| self.defaults.iter().any(|pointer| text(class, pointer) == "true"));
        // Of several the youngest counts, then the first by name: they come by name.
        let newest = classes.iter().rev().max_by_key(|class| text(class, "/metadata/creationTimestamp").to_owned());
        if let (Some(class), Some(spec)) = (newest, object["spec"].as_object_mut()) {
            spec.insert(self.field.into(), class["metadata"]["name"].clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Cluster, admin, on};
    use crate::{Operation, Request};

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

    #[test]
    fn only_an_ingress_that_says_nothing_gets_the_default() {
        let class = json!({ "metadata": { "annotations": { "ingressclass.kubernetes.io/is-default-class": "true" } } });
        let cluster = Cluster::with("ingressclasses", "", "web", class);
        let user = admin();
        let class = |mut ingress: Value| {
            let request = on(&user, Operation::Create, "ingresses", "default", "i");
            cluster.chain().admit(&Request { group: "networking.k8s.io", ..request }, &mut ingress).unwrap();
            ingress["spec"]["ingressClassName"].clone()
        };
        assert_eq!(class(json!({ "spec": {} })), "web");
        assert_eq!(class(json!({ "spec": { "ingressClassName": "other" } })), "other");
        let old = json!({ "metadata": { "annotations": { "kubernetes.io/ingress.class": "x" } }, "spec": {} });
        assert_eq!(class(old), Value::Null);
    }
}
