//! ServiceCIDRs, followed: the networks of cluster IPs. Where the cluster does not show them to its nodes none are known.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::watch::{Change, Collection, follow_map};

/// The part of a ServiceCIDR that matters here.
#[derive(Debug, Deserialize)]
struct Seen {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Meta {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    cidrs: Option<Vec<String>>,
}

type Named = (String, Vec<IpNet>);

impl Seen {
    fn named(self) -> Named {
        let cidrs = self.spec.cidrs.unwrap_or_default();
        (self.metadata.name, cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect())
    }
}

/// Follows them until the task is ended.
pub(super) fn follow(client: kube::Client) -> (watch::Receiver<Vec<IpNet>>, JoinHandle<()>) {
    let mut changes = follow_map(client, Collection::all("/apis/networking.k8s.io/v1/servicecidrs"), Seen::named);
    let (told, networks) = watch::channel(Vec::new());
    let task = tokio::spawn(async move {
        let mut known = BTreeMap::new();
        while let Some(change) = changes.recv().await {
            absorb(&mut known, change);
            let now: Vec<IpNet> = known.values().flatten().copied().collect();
            told.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
    });
    (networks, task)
}

fn absorb(known: &mut BTreeMap<String, Vec<IpNet>>, change: Change<Named>) {
    match change {
        Change::Replaced(all) => *known = all.into_iter().collect(),
        Change::Applied((name, cidrs)) => drop(known.insert(name, cidrs)),
        Change::Deleted((name, _)) => drop(known.remove(&name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_those_of_all_that_are_there() {
        let seen = |json: &str| serde_json::from_str::<Seen>(json).unwrap().named();
        let first = seen(r#"{"metadata":{"name":"kubernetes"},"spec":{"cidrs":["10.96.0.0/12","fd00::/108","x"]}}"#);
        let second = seen(r#"{"metadata":{"name":"more"},"spec":{"cidrs":["10.128.0.0/16"]}}"#);
        let mut known = BTreeMap::new();
        absorb(&mut known, Change::Replaced(vec![first]));
        assert_eq!(known["kubernetes"].len(), 2);
        absorb(&mut known, Change::Applied(second));
        assert_eq!(known.values().flatten().count(), 3);
        absorb(&mut known, Change::Deleted(seen(r#"{"metadata":{"name":"kubernetes"}}"#)));
        assert_eq!(known.into_keys().collect::<Vec<_>>(), ["more"]);
    }
}
