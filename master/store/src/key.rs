//! Names of stored objects.

use std::fmt;
use std::sync::Arc;

const ROOT: &str = "/registry/";

/// `/registry/<resource>/[<namespace>/]<name>`; `resource` is `pods` or `deployments.apps`. Ordered as text, which is the
/// order of lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// An empty namespace means an object of the whole cluster.
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        if namespace.is_empty() {
            Key(format!("{ROOT}{resource}/{name}").into())
        } else {
            Key(format!("{ROOT}{resource}/{namespace}/{name}").into())
        }
    }

    /// `None` for a text that is no key.
    pub fn parse(text: &str) -> Option<Self> {
        let (resource, tail) = text.strip_prefix(ROOT)?.split_once('/')?;
        let valid = !resource.is_empty() && !tail.is_empty() && tail.matches('/').count() <= 1;
        valid.then(|| Key(text.into()))
    }

    /// What all keys of a resource, or of one namespace of it, start with.
    pub fn prefix(resource: &str, namespace: &str) -> String {
        if namespace.is_empty() { format!("{ROOT}{resource}/") } else { format!("{ROOT}{resource}/{namespace}/") }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn resource(&self) -> &str {
        self.parts().0
    }

    /// Empty for objects of the whole cluster.
    pub fn namespace(&self) -> &str {
        self.tail().rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub fn name(&self) -> &str {
        self.tail().rsplit_once('/').map_or(self.tail(), |(_, name)| name)
    }

    fn tail(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.strip_prefix(ROOT).and_then(|rest| rest.split_once('/')).unwrap_or(("", ""))
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn parts_come_back() {
        let pod = Key::new("pods", "default", "web-0");
        assert_eq!(pod.as_str(), "/registry/pods/default/web-0");
        assert_eq!((pod.resource(), pod.namespace(), pod.name()), ("pods", "default", "web-0"));
        let node = Key::new("nodes", "", "n1");
        assert_eq!((node.resource(), node.namespace(), node.name()), ("nodes", "", "n1"));
        assert_eq!(Key::parse(pod.as_str()), Some(pod));
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in ["", "/registry/", "/registry/pods", "/registry/pods/", "/other/pods/x", "/registry/pods/a/b/c"] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }
}
