//! The configurations of admission as they are committed: each is read once, and so are its expressions. With them go the
//! connections to the webhooks that they name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use auth::Observer;
use expressions::Programs;
use serde_json::{Value, json};

use super::client::trust;
use super::{GROUP, MUTATING, VALIDATING, policies};
use crate::https::{Connections, LazyConnections, Trust, connections};

const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");
const INTERESTS: [(&str, &str); 7] = [
    (GROUP, MUTATING),
    (GROUP, VALIDATING),
    (GROUP, policies::MUTATING.policies),
    (GROUP, policies::MUTATING.bindings),
    (GROUP, policies::VALIDATING.policies),
    (GROUP, policies::VALIDATING.bindings),
    DEFINITIONS,
];
const NO_HOOKS: &[Value] = &[];

/// A policy, a binding, or webhooks.
pub(crate) struct Configuration {
    pub object: Value,
    /// Of its expressions.
    pub programs: Arc<Programs>,
    /// Those that it names, some more than once.
    servers: Arc<[Trust]>,
}

impl Configuration {
    pub(super) fn spec(&self) -> &Value {
        &self.object["spec"]
    }

    pub(super) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn hooks(&self) -> &[Value] {
        hooks(&self.object)
    }

    /// An object, in place of another: what comes of parts that are as before is not made anew.
    fn following(object: Value, old: Option<&Self>) -> Self {
        // Expressions and servers are where these are; the status of a policy has none.
        let same = |old: &&Self| ["spec", "webhooks"].iter().all(|part| old.object[part] == object[part]);
        let (programs, servers) = match old.filter(same) {
            Some(old) => (Arc::clone(&old.programs), Arc::clone(&old.servers)),
            None => (Arc::default(), clients(&object).filter_map(trust).collect()),
        };
        Configuration { object, programs, servers }
    }
}

fn hooks(object: &Value) -> &[Value] {
    object["webhooks"].as_array().map_or(NO_HOOKS, Vec::as_slice)
}

/// What a configuration says of servers.
fn clients(object: &Value) -> impl Iterator<Item = &Value> {
    let hooks = hooks(object).iter().map(|hook| &hook["clientConfig"]);
    hooks.chain(Some(&object["spec"]["conversion"]["webhook"]["clientConfig"]).filter(|config| !config.is_null()))
}

/// One webhook of a configuration.
pub(super) struct Hook {
    pub configuration: Arc<Configuration>,
    index: usize,
}

impl Hook {
    pub fn said(&self) -> &Value {
        self.configuration.hooks().get(self.index).unwrap_or(&Value::Null)
    }

    pub fn name(&self) -> &str {
        self.said()["name"].as_str().unwrap_or_default()
    }

    /// What tells it apart from others.
    pub fn key(&self) -> String {
        format!("{}/{}", self.configuration.name(), self.index)
    }
}

#[derive(Default)]
pub(crate) struct Configured(RwLock<Current>);

#[derive(Default)]
struct Current {
    /// By resource, and then by name.
    objects: HashMap<String, BTreeMap<String, Arc<Configuration>>>,
    servers: HashMap<Trust, Server>,
}

#[derive(Default)]
struct Server {
    connections: LazyConnections,
    /// How often configurations name it.
    named: usize,
}

impl Configured {
    /// All of a resource, in the order of their names.
    pub(super) fn all(&self, resource: &str) -> Vec<Arc<Configuration>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.objects.get(resource).into_iter().flat_map(BTreeMap::values).map(Arc::clone).collect()
    }

    pub(super) fn any(&self, resource: &str) -> bool {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.objects.get(resource).is_some_and(|all| !all.is_empty())
    }

    /// All webhooks of a sort, in the order of their configurations' names.
    pub(super) fn hooks(&self, sort: &str) -> Vec<Hook> {
        let of = |configuration: Arc<Configuration>| {
            let count = configuration.hooks().len();
            (0..count).map(move |index| Hook { configuration: Arc::clone(&configuration), index })
        };
        self.all(sort).into_iter().flat_map(of).collect()
    }

    /// How servers with such certificates are reached. What no configuration names any more is not kept.
    pub(super) fn connections(&self, server: &Trust) -> Result<Connections, String> {
        let kept = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .servers
            .get(server)
            .map(|one| Arc::clone(&one.connections));
        kept.unwrap_or_default().get_or_init(|| connections(server, &None)).clone()
    }
}

impl Current {
    fn put(&mut self, resource: &str, name: &str, object: Option<Value>) {
        let all = self.objects.entry(resource.to_owned()).or_default();
        let old = all.remove(name);
        let new = object.map(|object| Arc::new(Configuration::following(object, old.as_deref())));
        // The new one first, so that the connections of servers that both name are kept.
        if let Some(new) = new {
            for server in new.servers.iter() {
                self.servers.entry(server.clone()).or_default().named += 1;
            }
            all.insert(name.to_owned(), new);
        }
        for server in old.iter().flat_map(|old| old.servers.iter()) {
            let Some(known) = self.servers.get_mut(server) else { continue };
            known.named = known.named.saturating_sub(1);
            if known.named == 0 {
                self.servers.remove(server);
            }
        }
    }
}

impl Observer for Configured {
    fn interests(&self) -> &'static [(&'static str, &'static str)] {
        &INTERESTS
    }

    fn observe(&self, group: &str, resource: &str, _: &str, name: &str, object: Option<&Value>) {
        // Of definitions only those count that have a webhook, and of these only that: their schemas are large.
        let webhook = |definition: &Value| {
            let conversion = &definition["spec"]["conversion"];
            let metadata = json!({ "name": name });
            (!conversion["webhook"].is_null())
                .then(|| json!({ "metadata": metadata, "spec": { "conversion": conversion } }))
        };
        let object = match (group, resource) {
            DEFINITIONS => object.and_then(webhook),
            _ => object.cloned(),
        };
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        current.put(resource, name, object);
    }
}

#[cfg(test)]
mod tests {
    use expressions::Variables;
    use serde_json::json;

    use super::*;

    fn policy(expression: &str) -> Value {
        json!({ "metadata": { "name": "p" }, "spec": { "validations": [{ "expression": expression }] } })
    }

    #[test]
    fn expressions_are_read_once_until_they_change() {
        let configured = Configured::default();
        let put = |object: Option<&Value>| configured.observe(GROUP, policies::VALIDATING.policies, "", "p", object);
        let judge = || {
            let policy = configured.all(policies::VALIDATING.policies).remove(0);
            let expression = policy.spec()["validations"][0]["expression"].as_str().unwrap();
            assert_eq!(Variables::with(Arc::clone(&policy.programs)).holds(expression), Ok(true));
            Arc::clone(&policy.programs)
        };
        put(Some(&policy("1 == 1")));
        let first = judge();
        let mut checked = policy("1 == 1");
        checked["status"] = json!({ "observedGeneration": 1 });
        put(Some(&checked));
        assert!(Arc::ptr_eq(&first, &judge()));
        assert_eq!(first.count(), 1);
        put(Some(&policy("2 == 2")));
        let second = judge();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(second.count(), 1);
        put(None);
        assert!(!configured.any(policies::VALIDATING.policies));
    }

    #[test]
    fn servers_are_known_while_they_are_named() {
        let configured = Configured::default();
        let hooks = |urls: &[&str]| {
            let hooks: Vec<Value> = urls.iter().map(|url| json!({ "clientConfig": { "url": url } })).collect();
            json!({ "metadata": { "name": "w" }, "webhooks": hooks })
        };
        let names = || {
            let current = configured.0.read().unwrap();
            let mut names: Vec<String> = current.servers.keys().map(|server| server.name.clone()).collect();
            names.sort();
            names
        };
        configured.observe(GROUP, MUTATING, "", "w", Some(&hooks(&["https://a.test/x", "https://a.test/y"])));
        configured.observe(GROUP, VALIDATING, "", "w", Some(&hooks(&["https://a.test:1/z", "https://b.test"])));
        let conversion = json!({ "webhook": { "clientConfig": { "service": { "namespace": "ns", "name": "c" } } } });
        let definition = json!({ "metadata": { "name": "d" }, "spec": { "conversion": conversion } });
        configured.observe(DEFINITIONS.0, DEFINITIONS.1, "", "d", Some(&definition));
        assert_eq!(names(), ["a.test", "b.test", "c.ns.svc"]);
        let connections = |name: &str| {
            let current = configured.0.read().unwrap();
            let (_, server) = current.servers.iter().find(|(server, _)| server.name == name).unwrap();
            Arc::as_ptr(&server.connections)
        };
        let before = connections("b.test");
        configured.observe(GROUP, MUTATING, "", "w", None);
        assert_eq!(names(), ["a.test", "b.test", "c.ns.svc"]);
        configured.observe(GROUP, VALIDATING, "", "w", Some(&hooks(&["https://b.test"])));
        configured.observe(DEFINITIONS.0, DEFINITIONS.1, "", "d", Some(&json!({ "spec": {} })));
        assert_eq!(names(), ["b.test"]);
        assert_eq!(connections("b.test"), before, "they are kept");
        configured.observe(GROUP, VALIDATING, "", "w", None);
        assert!(names().is_empty());
    }
}
