//! The ways in which one may act as another (KEP-5284; `impersonation/mode.go`). All but the oldest are constrained: the right to
//! be somebody goes with the right to do, as him, what is asked for. They are tried in order; one suffices.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{AUTHENTICATION, service_account, with_everyone};
use crate::service_account::NODE_NAME;
use crate::{Attributes, Authorizer, Refusal, UserInfo, names};

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];
/// From so many groups or values on, the right to all of them is asked for first.
const MANY: usize = 4;
/// What the Node's own pod is known by instead of the names in its token.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As the node that the ServiceAccount's pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// As anybody else, with groups, UID and extra.
    UserInfo,
    /// By the verb `impersonate` alone.
    Legacy,
}

/// The user that is wanted, as he would be if he came himself; `asked` is the request, with who sent it.
pub(super) fn permitted(
    wanted: &UserInfo,
    asked: &Attributes<'_>,
    authorizer: &dyn Authorizer,
) -> Result<UserInfo, Refusal> {
    let mut first = None;
    for mode in MODES.into_iter().filter(|mode| mode.applies(wanted, asked.user)) {
        match mode.judge(wanted, asked, authorizer) {
            Ok(()) => return Ok(mode.complete(wanted.clone())),
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    Err(first.unwrap_or_else(|| Refusal::internal("all impersonation modes failed")))
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    fn is_constrained(self) -> bool {
        self != Mode::Legacy
    }

    fn applies(self, wanted: &UserInfo, requester: &UserInfo) -> bool {
        let is_name_only = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node(&wanted.username), service_account(&wanted.username));
        match self {
            Mode::AssociatedNode => is_name_only && node.is_some_and(|node| runs_on(requester, node)),
            Mode::ArbitraryNode => is_name_only && node.is_some(),
            Mode::ServiceAccount => is_name_only && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
            Mode::Legacy => true,
        }
    }

    fn judge(self, wanted: &UserInfo, asked: &Attributes<'_>, authorizer: &dyn Authorizer) -> Result<(), Refusal> {
        let requester = self.shown(asked.user);
        if self.is_constrained() {
            let verb = format!("impersonate-on:{}:{}", self.name(), asked.verb);
            allow(authorizer, &Attributes { user: &requester, verb: &verb, ..*asked })?;
        }
        let verb =
            if self.is_constrained() { format!("impersonate:{}", self.name()) } else { "impersonate".to_owned() };
        let group = if self.is_constrained() { AUTHENTICATION } else { "" };
        let about = Attributes { version: "v1", ..Attributes::of(&requester, &verb) };
        let judge = Judge { mode: self, authorizer, about };
        allow(authorizer, &self.username(wanted, Attributes { group, ..about }))?;
        if !wanted.uid.is_empty() {
            allow(authorizer, &Attributes { group: AUTHENTICATION, resource: "uids", name: &wanted.uid, ..about })?;
        }
        judge.groups(&wanted.groups, group)?;
        judge.extra(&wanted.extra)
    }

    /// The requester, as he is judged: a pod is known by its ServiceAccount, whatever node it is on.
    fn shown(self, requester: &UserInfo) -> Cow<'_, UserInfo> {
        if self != Mode::AssociatedNode {
            return Cow::Borrowed(requester);
        }
        let keys = requester.extra.keys().cloned().collect();
        let extra = BTreeMap::from([(NODE_KEYS.to_owned(), keys)]);
        Cow::Owned(UserInfo { extra, ..requester.clone() })
    }

    fn username<'a>(self, wanted: &'a UserInfo, about: Attributes<'a>) -> Attributes<'a> {
        let name = wanted.username.as_str();
        match (node(name).filter(|_| self.is_constrained()), service_account(name)) {
            (Some(_), _) if self == Mode::AssociatedNode => Attributes { resource: "nodes", name: "*", ..about },
            (Some(node), _) => Attributes { resource: "nodes", name: node, ..about },
            (None, Some((namespace, name))) => Attributes { resource: "serviceaccounts", namespace, name, ..about },
            (None, None) => Attributes { resource: "users", name, ..about },
        }
    }

    /// Adds the groups that such a user has when he comes himself.
    fn complete(self, mut user: UserInfo) -> UserInfo {
        if self.is_constrained() && node(&user.username).is_some() {
            user.groups = vec![names::NODES_GROUP.to_owned()];
        } else if let Some((namespace, name)) = service_account(&user.username).filter(|_| user.groups.is_empty()) {
            user.groups = UserInfo::service_account(namespace, name, "").groups;
        }
        with_everyone(user)
    }
}

/// Judges groups and extra.
struct Judge<'a> {
    mode: Mode,
    authorizer: &'a dyn Authorizer,
    about: Attributes<'a>,
}

impl Judge<'_> {
    fn groups(&self, groups: &[String], group: &str) -> Result<(), Refusal> {
        let about = |name| Attributes { group, resource: "groups", name, ..self.about };
        if self.mode.is_constrained() {
            let refuse = |name, why: &str| Err(about(name).forbidden(why));
            if groups.iter().any(String::is_empty) {
                return refuse("", "impersonating the empty string group is not allowed");
            }
            if groups.iter().any(|group| group == names::PRIVILEGED_GROUP) {
                return refuse(names::PRIVILEGED_GROUP, "impersonating the system:masters group is not allowed");
            }
            if groups.len() >= MANY && self.authorizer.authorize(&about("*")).allowed() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|name| allow(self.authorizer, &about(name)))
    }

    fn extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Refusal> {
        let about = |subresource, name| Attributes {
            group: AUTHENTICATION,
            resource: "userextras",
            subresource,
            name,
            ..self.about
        };
        if self.mode.is_constrained() {
            if let Some(why) = extra.iter().find_map(|(key, values)| unfit(key, values)) {
                return Err(about("", "").forbidden(&why));
            }
            let count: usize = extra.values().map(Vec::len).sum();
            if count >= MANY && self.authorizer.authorize(&about("*", "*")).allowed() {
                return Ok(());
            }
        }
        let mut all = extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        all.try_for_each(|(key, value)| allow(self.authorizer, &about(key, value)))
    }
}

fn allow(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Result<(), Refusal> {
    let decision = authorizer.authorize(attributes);
    if decision.allowed() { Ok(()) } else { Err(attributes.forbidden(decision.reason())) }
}

/// Why a constrained user cannot have this in his extra (`validateExtra`).
fn unfit(key: &str, values: &[String]) -> Option<String> {
    let is_path = key.split_once('/').is_some_and(|(domain, path)| is_subdomain(domain) && is_url_path(path));
    let why = match () {
        () if key.is_empty() => "the empty string key in extra is not allowed".to_owned(),
        () if !is_path => format!("an invalid key in extra is not allowed: {key:?} must be a domain-prefixed path"),
        () if key.chars().any(char::is_uppercase) => format!("a non-lowercase key in extra is not allowed: {key:?}"),
        () if values.iter().any(String::is_empty) => "the empty string value in extra is not allowed".to_owned(),
        () => return None,
    };
    Some(format!("impersonating {why}"))
}

fn is_url_path(path: &str) -> bool {
    !path.is_empty() && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b))
}

fn is_subdomain(name: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.iter().all(|b| is_inner(*b) || *b == b'-')
            && bytes.first().is_some_and(|b| is_inner(*b))
            && bytes.last().is_some_and(|b| is_inner(*b))
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

fn node(username: &str) -> Option<&str> {
    username.strip_prefix(names::NODE_USER_PREFIX).filter(|name| is_subdomain(name))
}

/// Whether somebody is the ServiceAccount of a pod on this node, by the token that the pod has.
fn runs_on(requester: &UserInfo, node: &str) -> bool {
    let nodes = requester.extra.get(NODE_NAME).map(Vec::as_slice);
    service_account(&requester.username).is_some() && matches!(nodes, Some([one]) if one == node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decision;

    /// Allows what is listed, as `verb resource[/subresource] [namespace/]name`.
    struct Listed(&'static [&'static str]);

    impl Authorizer for Listed {
        fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
            let namespace = if attributes.namespace.is_empty() { "" } else { &format!("{}/", attributes.namespace) };
            let (verb, what) = (attributes.verb, attributes.combined_resource());
            let wanted = format!("{verb} {what} {namespace}{}", attributes.name);
            match self.0.contains(&wanted.as_str()) {
                true => Decision::Allow(String::new()),
                false => Decision::NoOpinion(String::new()),
            }
        }
    }

    fn act(requester: &UserInfo, wanted: &UserInfo, rights: &'static [&'static str]) -> Result<UserInfo, String> {
        let asked = Attributes { resource: "pods", namespace: "x", name: "p", ..Attributes::of(requester, "get") };
        permitted(wanted, &asked, &Listed(rights)).map_err(|refusal| refusal.message)
    }

    #[test]
    fn one_acts_as_another_only_in_what_is_allowed_to_be_done_as_him() {
        let (admin, jane) = (UserInfo::new("admin", &[]), UserInfo::new("jane", &["developers"]));
        let all = &[
            "impersonate:user-info users jane",
            "impersonate:user-info groups developers",
            "impersonate-on:user-info:get pods x/p",
        ];
        assert_eq!(act(&admin, &jane, all).unwrap().groups, ["developers", "system:authenticated"]);
        let wanted = "pods \"p\" is forbidden: User \"admin\" cannot impersonate-on:user-info:get resource \"pods\" in API group \"\" \
                      in the namespace \"x\"";
        let rights = &["impersonate:user-info users jane", "impersonate:user-info groups developers"];
        assert_eq!(act(&admin, &jane, rights), Err(wanted.to_owned()));
        assert_eq!(
            act(&admin, &jane, &["impersonate users jane", "impersonate groups developers"]).unwrap().username,
            "jane"
        );
        // Not as one who may do everything, nor in a group of no name.
        for group in ["system:masters", ""] {
            let master = UserInfo::new("jane", &[group]);
            let all = &[
                "impersonate:user-info users jane",
                "impersonate:user-info groups system:masters",
                "impersonate:user-info groups ",
                "impersonate-on:user-info:get pods x/p",
            ];
            assert!(act(&admin, &master, all).unwrap_err().ends_with("group is not allowed"), "{group}");
        }
    }

    #[test]
    fn nodes_and_service_accounts_bring_their_groups() {
        let admin = UserInfo::new("admin", &[]);
        let (node, app) = (UserInfo::new("system:node:n1", &[]), UserInfo::new("system:serviceaccount:y:app", &[]));
        let rights = &["impersonate:arbitrary-node nodes n1", "impersonate-on:arbitrary-node:get pods x/p"];
        assert_eq!(act(&admin, &node, rights).unwrap().groups, ["system:nodes", "system:authenticated"]);
        let rights =
            &["impersonate:serviceaccount serviceaccounts y/app", "impersonate-on:serviceaccount:get pods x/p"];
        let groups = ["system:serviceaccounts", "system:serviceaccounts:y", "system:authenticated"];
        assert_eq!(act(&admin, &app, rights).unwrap().groups, groups);
        // They are nobody else's to be.
        let rights = &["impersonate:user-info users system:node:n1", "impersonate-on:user-info:get pods x/p"];
        assert!(act(&admin, &node, rights).is_err());
    }

    #[test]
    fn a_pod_acts_as_its_own_node() {
        let mut agent = UserInfo::service_account("kube-system", "agent", "");
        agent.extra.insert(NODE_NAME.to_owned(), vec!["n1".to_owned()]);
        let rights = &["impersonate:associated-node nodes *", "impersonate-on:associated-node:get pods x/p"];
        let user = act(&agent, &UserInfo::new("system:node:n1", &[]), rights).unwrap();
        assert_eq!((user.username.as_str(), user.groups.len()), ("system:node:n1", 2));
        assert!(act(&agent, &UserInfo::new("system:node:n2", &[]), rights).is_err());
    }

    #[test]
    fn extra_is_what_it_can_be() {
        for (key, value, fits) in [
            ("example.com/team", "a", true),
            ("team", "a", false),
            ("example.com/team", "", false),
            ("", "a", false),
            ("example.com/Team", "a", false),
        ] {
            assert_eq!(unfit(key, &[value.to_owned()]).is_none(), fits, "{key}={value}");
        }
    }
}
