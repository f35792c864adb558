use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn settings() -> Settings {
    Settings { ids_per_pod: UNIT, max_pods: 3 }
}

fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    for (name, text) in files {
        std::fs::write(root.path().join("etc").join(name), text).unwrap();
    }
    root
}

fn first_of(namespace: &UserNamespace) -> u32 {
    assert_eq!(namespace.mode(), NamespaceMode::Pod);
    assert_eq!(namespace.uids, namespace.gids);
    let [one] = namespace.uids.as_slice() else { panic!("{namespace:?}") };
    assert_eq!((one.container_id, one.length), (0, UNIT));
    one.host_id
}

#[test]
fn ids_are_those_of_the_user_kubelet_or_all_others() {
    let with = |files: &[(&str, &str)]| subordinate(root(files).path(), UNIT);
    let everything = Ok((UNIT, (1 << 32) - u64::from(UNIT)));
    assert_eq!(with(&[]), everything);
    let passwd = ("passwd", "root:x:0:0::/:/bin/sh\nkubelet:x:999:999::/:/bin/false\n");
    let line = "someone:1:2\nkubelet:131072:7208960\n";
    assert_eq!(with(&[("subuid", line), ("subgid", line)]), everything, "there is no such user");
    assert_eq!(with(&[passwd]), everything);
    assert_eq!(with(&[passwd, ("subuid", line), ("subgid", line)]), Ok((131_072, 7_208_960)));
    let found = with(&[passwd, ("subuid", line), ("subgid", "kubelet:1:2\n")]).unwrap_err();
    assert_eq!(found, "mismatched subuids and subgids for user \"kubelet\"");
    let two = "kubelet:65536:65536\nkubelet:262144:65536\n";
    assert!(with(&[passwd, ("subuid", two), ("subgid", two)]).is_err());
}

#[test]
fn ids_that_cannot_be_used_are_named_as_upstream_does() {
    let wrong = |first, count, pods| Ranges::new(first, count, UNIT, pods).unwrap_err();
    assert_eq!(wrong(1, 65_536, 1), "kubelet user assigned ID 1 is not a multiple of 65536");
    assert_eq!(wrong(0, 65_536, 1), "kubelet user assigned ID 0 must be greater or equal to 65536");
    assert_eq!(wrong(65_536, 65_537, 1), "kubelet user assigned IDs length 65537 is not a multiple of 65536");
    assert_eq!(wrong(65_536, 65_536, 2), "kubelet user assigned IDs are not enough to support 2 pods");
    assert!(Ranges::new(UNIT, (1 << 32) - u64::from(UNIT), UNIT, 65_535).is_ok());
}

#[test]
fn a_range_stays_with_its_pod_over_restarts_and_goes_with_its_folder() {
    let (root, data) = (root(&[]), tempfile::tempdir().unwrap());
    let layout = Layout::new(data.path());
    let open = || UserNamespaces::open(layout.clone(), root.path(), settings());
    let namespaces = open();
    assert_eq!(first_of(&namespaces.of("a").unwrap()), 65_536);
    assert_eq!(first_of(&namespaces.of("b").unwrap()), 131_072);
    assert_eq!(first_of(&namespaces.of("a").unwrap()), 65_536);

    std::fs::remove_dir_all(layout.pod("a")).unwrap();
    namespaces.release("a");
    let namespaces = open();
    assert_eq!(first_of(&namespaces.of("c").unwrap()), 65_536, "what is free is given again");
    assert_eq!(first_of(&namespaces.of("b").unwrap()), 131_072, "what is not is kept");
}

#[test]
fn what_a_kubelet_wrote_is_understood_and_what_nobody_writes_is_refused() {
    let (root, data) = (root(&[]), tempfile::tempdir().unwrap());
    let layout = Layout::new(data.path());
    let write = |uid: &str, text: &str| {
        std::fs::create_dir_all(layout.pod(uid)).unwrap();
        std::fs::write(layout.pod(uid).join("userns"), text).unwrap();
    };
    let one = r#"[{"hostId":196608,"containerId":0,"length":65536}]"#;
    write("old", &format!(r#"{{"uidMappings":{one},"gidMappings":{one}}}"#));
    write("twin", &format!(r#"{{"uidMappings":{one},"gidMappings":{one}}}"#));
    write("odd", &format!(r#"{{"uidMappings":{one},"gidMappings":[]}}"#));
    let namespaces = UserNamespaces::open(layout.clone(), root.path(), settings());
    let known = ["old", "twin"].map(|uid| namespaces.of(uid));
    assert_eq!(known.iter().filter(|found| found.is_ok()).count(), 1, "{known:?}");
    let error = namespaces.of("odd").unwrap_err().to_string();
    assert!(error.ends_with("GID and UID mapping should be identical"), "{error}");
}

#[test]
fn without_ids_the_reason_is_said() {
    let line = "kubelet:65536:65536\n";
    let passwd = ("passwd", "kubelet:x:999:999::/:/bin/false\n");
    let (root, data) = (root(&[passwd, ("subuid", line), ("subgid", line)]), tempfile::tempdir().unwrap());
    let namespaces = UserNamespaces::open(Layout::new(data.path()), root.path(), settings());
    let error = namespaces.of("a").unwrap_err();
    assert_eq!(error.to_string(), "kubelet user assigned IDs are not enough to support 3 pods");
}

proptest! {
    /// Whatever comes and goes: no two pods share an id, none has one of the node's own users, and who was given one keeps it.
    #[test]
    fn ranges_are_disjoint(steps in prop::collection::vec((0_u8..6, any::<bool>()), 0..40)) {
        let mut ranges = Ranges::new(UNIT, 4 * u64::from(UNIT), UNIT, 1).unwrap();
        let mut held: BTreeMap<String, u32> = BTreeMap::new();
        for (pod, takes) in steps {
            let pod = pod.to_string();
            if !takes {
                ranges.release(&pod);
                held.remove(&pod);
                continue;
            }
            match ranges.take(&pod) {
                Some(first) => {
                    prop_assert!(first >= UNIT && first % UNIT == 0 && first < 5 * UNIT);
                    prop_assert!(held.get(&pod).is_none_or(|before| *before == first));
                    prop_assert!(held.iter().all(|(other, taken)| *other == pod || *taken != first));
                    held.insert(pod, first);
                }
                None => prop_assert_eq!(held.len(), 4),
            }
        }
    }
}
