//! DefaultIngressClass: an Ingress that says nothing of a class gets the default one
//! (`plugin/pkg/admission/network/defaultingressclass`).

use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, newest, text};

const DEFAULT: &str = "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class";
const OLD_CLASS: &str = "/metadata/annotations/kubernetes.io~1ingress.class";

pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn admit(&self, context: &Context, request: &Request<'_>, ingress: &mut Value) -> Result<(), Refusal> {
        let is_new = request.is("networking.k8s.io", "ingresses", "") && request.operation == Operation::Create;
        let says = ingress.pointer("/spec/ingressClassName").is_some_and(Value::is_string);
        if !is_new || says || ingress.pointer(OLD_CLASS).is_some() {
            return Ok(());
        }
        let mut classes = context.lookup.list("networking.k8s.io", "ingressclasses", "");
        classes.retain(|class| text(class, DEFAULT) == "true");
        if let (Some(class), Some(spec)) = (newest(&classes), ingress["spec"].as_object_mut()) {
            spec.insert("ingressClassName".into(), class["metadata"]["name"].clone());
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
