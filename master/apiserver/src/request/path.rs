//! Paths (`apiserver/pkg/endpoints/request.RequestInfoFactory`).

use percent_encoding::percent_decode_str;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Resource(ResourcePath),
    /// Discovery, health, OpenAPI and everything that is not there.
    Other,
}

/// `/api/v1/namespaces/NS/pods/NAME/SUBRESOURCE/REST…` and its kin; what is not in the path is empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// Whether it asks for a watch by itself: `/api/v1/watch/…`.
    pub watches: bool,
    /// What follows the subresource, as it was sent: the path of a proxied request.
    pub rest: String,
}

impl Target {
    pub(crate) fn of(path: &str) -> Self {
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (root, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let found = match root {
            "api" => rest.split_once('/').map(|(version, rest)| ("", version, rest)),
            "apis" => rest
                .split_once('/')
                .and_then(|(group, rest)| rest.split_once('/').map(|(version, rest)| (group, version, rest))),
            _ => None,
        };
        match found {
            Some((group, version, rest)) if !rest.trim_matches('/').is_empty() => {
                Target::Resource(ResourcePath::parse(group, version, rest))
            }
            _ => Target::Other,
        }
    }
}

impl ResourcePath {
    fn parse(group: &str, version: &str, rest: &str) -> Self {
        let mut found = ResourcePath { group: decode(group), version: decode(version), ..Self::default() };
        let mut rest = rest;
        if let Some(watched) = rest.strip_prefix("watch/").filter(|watched| !watched.is_empty()) {
            found.watches = true;
            rest = watched;
        }
        if let Some(scoped) = rest.strip_prefix("namespaces/").filter(|scoped| !scoped.is_empty()) {
            let (namespace, tail) = next(scoped);
            // These two are the namespace's own, everything else lies inside it.
            if matches!(tail, "" | "status" | "finalize") {
                found.resource = "namespaces".into();
                found.name = decode(namespace);
                found.namespace = found.name.clone();
                found.subresource = tail.into();
                return found;
            }
            found.namespace = decode(namespace);
            rest = tail;
        }
        let (resource, tail) = next(rest);
        let (name, tail) = next(tail);
        let (subresource, tail) = next(tail);
        found.resource = decode(resource);
        found.name = decode(name);
        found.subresource = decode(subresource);
        found.rest = tail.to_owned();
        found
    }
}

fn next(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

fn decode(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::{ResourcePath, Target};

    fn parsed(path: &str) -> [String; 7] {
        let Target::Resource(path) = Target::of(path) else {
            return Default::default();
        };
        let ResourcePath { group, version, namespace, resource, name, subresource, rest, .. } = path;
        [group, version, namespace, resource, name, subresource, rest]
    }

    #[test]
    fn resources() {
        assert_eq!(parsed("/api/v1/pods"), ["", "v1", "", "pods", "", "", ""]);
        assert_eq!(parsed("/api/v1/namespaces"), ["", "v1", "", "namespaces", "", "", ""]);
        assert_eq!(parsed("/api/v1/namespaces/x"), ["", "v1", "x", "namespaces", "x", "", ""]);
        assert_eq!(parsed("/api/v1/namespaces/x/finalize"), ["", "v1", "x", "namespaces", "x", "finalize", ""]);
        assert_eq!(parsed("/api/v1/namespaces/x/pods/y/log"), ["", "v1", "x", "pods", "y", "log", ""]);
        assert_eq!(parsed("/apis/apps/v1/namespaces/x/deployments/y"), ["apps", "v1", "x", "deployments", "y", "", ""]);
        assert_eq!(parsed("/api/v1/nodes/n/proxy/a%2Fb/c"), ["", "v1", "", "nodes", "n", "proxy", "a%2Fb/c"]);
        assert_eq!(
            parsed("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode"),
            ["rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:node", "", ""]
        );
    }

    #[test]
    fn a_path_may_ask_for_a_watch() {
        for path in ["/api/v1/pods", "/api/v1/namespaces/x/pods/y", "/api/v1/namespaces/x", "/apis/apps/v1/deployments"]
        {
            let at = path.match_indices("/v1/").next().unwrap().0 + "/v1/".len();
            let watch = format!("{}watch/{}", &path[..at], &path[at..]);
            assert_eq!(parsed(&watch), parsed(path));
            let watches = |path: &str| matches!(Target::of(path), Target::Resource(path) if path.watches);
            assert_eq!((watches(&watch), watches(path)), (true, false), "{path}");
        }
    }

    #[test]
    fn everything_else() {
        for path in ["/", "/api", "/api/v1", "/api/v1/", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/version"]
        {
            assert_eq!(Target::of(path), Target::Other, "{path}");
        }
    }
}
