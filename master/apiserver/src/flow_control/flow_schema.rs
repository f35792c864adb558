//! Which requests a FlowSchema is about (`flowcontrol/rule.go`). Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use auth::{Attributes, UserInfo, names};
use http::header::HeaderValue;
use serde_json::Value;

/// What a FlowSchema says.
pub(super) struct FlowSchema {
    pub uid: HeaderValue,
    /// The name of its priority level.
    pub level: Arc<str>,
    pub precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// What makes requests of one schema different flows.
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    /// Everybody: a star instead of a name.
    All,
    User(String),
    Group(String),
    /// `system:serviceaccount:NAMESPACE:`
    Accounts(String),
}

struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster_scope: bool,
}

struct PathRule {
    verbs: Names,
    paths: Vec<String>,
}

/// Some names, or all.
enum Names {
    All,
    Some(Vec<String>),
}

impl Names {
    fn of(object: &Value, field: &str) -> Self {
        let list = texts(object, field);
        if list.len() == 1 && list.iter().any(|name| name == "*") { Names::All } else { Names::Some(list) }
    }

    fn has(&self, name: &str) -> bool {
        self.any(|one| one == name)
    }

    fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        match self {
            Names::All => true,
            Names::Some(list) => list.iter().any(|one| is(one)),
        }
    }
}

fn list<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object[field].as_array().into_iter().flatten()
}

fn texts(object: &Value, field: &str) -> Vec<String> {
    list(object, field).filter_map(Value::as_str).map(str::to_owned).collect()
}

impl FlowSchema {
    pub(super) fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        FlowSchema {
            uid: super::uid(object),
            level: spec["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default().into(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1_000),
            distinguisher: match spec["distinguisherMethod"]["type"].as_str() {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: list(spec, "rules").map(Rule::of).collect(),
        }
    }

    pub(super) fn matches(&self, attributes: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(attributes))
    }

    /// Tells flows of this schema apart.
    pub(super) fn flow(&self, attributes: &Attributes<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.level.hash(&mut hasher);
        self.uid.as_bytes().hash(&mut hasher);
        match self.distinguisher {
            Distinguisher::Nothing => {}
            Distinguisher::User => attributes.user.username.hash(&mut hasher),
            Distinguisher::Namespace => attributes.namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}

impl Rule {
    fn of(rule: &Value) -> Self {
        Rule {
            subjects: list(rule, "subjects").filter_map(Subject::of).collect(),
            resources: list(rule, "resourceRules").map(ResourceRule::of).collect(),
            paths: list(rule, "nonResourceRules").map(PathRule::of).collect(),
        }
    }

    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.is(attributes.user))
            && match attributes.path {
                None => self.resources.iter().any(|rule| rule.matches(attributes)),
                Some(path) => self.paths.iter().any(|rule| rule.matches(attributes.verb, path)),
            }
    }
}

impl Subject {
    fn of(subject: &Value) -> Option<Self> {
        let named = |field: &str| subject[field]["name"].as_str();
        Some(match subject["kind"].as_str()? {
            "User" => {
                named("user").map(|name| if name == "*" { Subject::All } else { Subject::User(name.to_owned()) })?
            }
            "Group" => {
                named("group").map(|name| if name == "*" { Subject::All } else { Subject::Group(name.to_owned()) })?
            }
            "ServiceAccount" => {
                let namespace = subject["serviceAccount"]["namespace"].as_str()?;
                let accounts = format!("{}{namespace}:", names::SERVICE_ACCOUNT_PREFIX);
                match named("serviceAccount")? {
                    "*" => Subject::Accounts(accounts),
                    name => Subject::User(format!("{accounts}{name}")),
                }
            }
            _ => return None,
        })
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Subject::All => true,
            Subject::User(name) => *name == user.username,
            Subject::Group(name) => user.in_group(name),
            Subject::Accounts(prefix) => user.username.starts_with(prefix),
        }
    }
}

impl ResourceRule {
    fn of(rule: &Value) -> Self {
        ResourceRule {
            verbs: Names::of(rule, "verbs"),
            groups: Names::of(rule, "apiGroups"),
            resources: Names::of(rule, "resources"),
            namespaces: Names::of(rule, "namespaces"),
            cluster_scope: rule["clusterScope"] == true,
        }
    }

    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let is_resource = |name: &str| match name.split_once('/') {
            None => name == asked.resource && asked.subresource.is_empty(),
            Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
        };
        self.verbs.has(asked.verb)
            && self.groups.has(asked.group)
            && self.resources.any(is_resource)
            && if asked.namespace.is_empty() { self.cluster_scope } else { self.namespaces.has(asked.namespace) }
    }
}

impl PathRule {
    fn of(rule: &Value) -> Self {
        PathRule { verbs: Names::of(rule, "verbs"), paths: texts(rule, "nonResourceURLs") }
    }

    fn matches(&self, verb: &str, path: &str) -> bool {
        let leads = |rule: &String| {
            let below = rule.trim_end_matches('*').trim_end_matches('/');
            rule == "*" || rule == path || path.strip_prefix(below).is_some_and(|rest| rest.starts_with('/'))
        };
        self.verbs.has(verb) && self.paths.iter().any(leads)
    }
}
