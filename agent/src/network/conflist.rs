//! The CNI configuration list that containerd finds.

use std::fs;
use std::io;
use std::path::Path;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::write_atomic;

/// Name of the file: it sorts before what distributions ship (`100-crio-bridge.conf`, `87-podman-bridge.conflist`).
pub const CONFLIST: &str = "10-keelson.conflist";
/// What `agent join --fix` appends to the names of configurations that come before ours, so that the runtime does not take them.
pub const ASIDE: &str = ".before-keelson";
/// The bridge that pods of this node are on.
pub const BRIDGE: &str = "keelson0";

/// The document for these pod networks. `1.0.0` is what containerd 1.6 knows; plugins answer 1.1 verbs regardless.
///
/// The proxy's table masquerades what leaves the cluster, so `ipMasq` stays off.
pub(super) fn document(pod_cidrs: &[IpNet], data_dir: &Path) -> Value {
    let ranges: Vec<Value> = pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr.to_string()}])).collect();
    let mut routes = Vec::new();
    if pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V4(_))) {
        routes.push(json!({"dst": "0.0.0.0/0"}));
    }
    if pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_))) {
        routes.push(json!({"dst": "::/0"}));
    }
    json!({
        "cniVersion": "1.0.0",
        "name": "keelson",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {"type": "host-local", "dataDir": data_dir.join("cni"), "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
}

/// Writes the document where it differs from what is there; says whether it did.
pub(super) fn write(dir: &Path, document: &Value) -> io::Result<bool> {
    let path = dir.join(CONFLIST);
    let text = serde_json::to_string_pretty(document)? + "\n";
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    fs::create_dir_all(dir)?;
    write_atomic(&path, text.as_bytes(), 0o644)?;
    Ok(true)
}

/// Gives configurations that were moved aside their names back, where nobody else has them now. Answers what could not be.
pub(super) fn put_back(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let aside = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(ASIDE).map(str::to_owned));
    let free: Vec<String> = aside.filter(|name| !dir.join(name).exists()).collect();
    let put = |name: &String| fs::rename(dir.join(format!("{name}{ASIDE}")), dir.join(name));
    free.iter().filter_map(|name| Some(format!("{}: {}", dir.join(name).display(), put(name).err()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_aside_is_put_back_where_its_name_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        write(&format!("05-a.conflist{ASIDE}"), "old a");
        write(&format!("06-b.conflist{ASIDE}"), "old b");
        write("06-b.conflist", "new b");
        assert_eq!(put_back(dir.path()), Vec::<String>::new());
        assert_eq!((read("05-a.conflist"), read("06-b.conflist")), ("old a".into(), "new b".into()));
        assert!(!dir.path().join(format!("05-a.conflist{ASIDE}")).exists());
        assert_eq!(put_back(Path::new("/nowhere")), Vec::<String>::new());
    }

    #[test]
    fn both_families_have_a_range_and_a_route() {
        let cidrs = ["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        let document = document(&cidrs, Path::new("/var/lib/keelson"));
        let ipam = &document["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:1::/64"}]]));
        assert_eq!(ipam["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        assert_eq!(ipam["dataDir"], "/var/lib/keelson/cni");
        assert_eq!(document["cniVersion"], "1.0.0");
    }

    #[test]
    fn an_unchanged_document_is_not_rewritten() {
        let dir = std::env::temp_dir().join(format!("keelson-conflist-{}", std::process::id()));
        let document = document(&["10.0.0.0/24".parse().unwrap()], &dir);
        assert!(write(&dir, &document).unwrap());
        assert!(!write(&dir, &document).unwrap());
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(left, [CONFLIST]);
    }
}
