use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + seconds).unwrap()
}

/// The Secret of a good token, with some keys replaced or, by an empty text, removed.
fn secret(changes: &[(&str, &str)]) -> Value {
    let mut data = json!({
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "expiration": "2026-01-02T00:00:00Z",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:a,system:bootstrappers:b-c",
    });
    for (key, value) in changes {
        data[key] = json!(value);
    }
    let data: serde_json::Map<String, Value> = data
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| value.as_str() != Some(""))
        .map(|(key, value)| (key.clone(), json!(STANDARD.encode(value.as_str().unwrap()))))
        .collect();
    json!({ "type": SECRET_TYPE, "metadata": { "name": "bootstrap-token-abcdef" }, "data": data })
}

fn user(secret: &Value, guess: &str, now: Timestamp) -> Option<UserInfo> {
    BootstrapToken::from_secret(secret)?.authenticate(guess, now)
}

#[test]
fn a_good_token_gives_its_user_and_groups() {
    let user = user(&secret(&[]), "0123456789abcdef", now()).unwrap();
    assert_eq!(user.username, "system:bootstrap:abcdef");
    assert_eq!(
        user.groups,
        ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b-c", "system:authenticated"]
    );
}

#[test]
fn what_makes_a_token_bad() {
    let good = "0123456789abcdef";
    for changes in [
        [("token-id", "abcdeg")],
        [("token-secret", "")],
        [("token-secret", "0123456789abcdeX")],
        [("expiration", "2025-12-31T23:59:59Z")],
        [("expiration", "2026-01-01T00:00:00Z")],
        [("expiration", "soon")],
        [("usage-bootstrap-authentication", "")],
        [("usage-bootstrap-authentication", "false")],
        [("auth-extra-groups", "system:masters")],
        [("auth-extra-groups", "system:bootstrappers:a,system:nodes")],
        [("auth-extra-groups", "system:bootstrappers:-")],
    ] {
        assert_eq!(user(&secret(&changes), good, now()), None, "{changes:?}");
    }
    let mut other_type = secret(&[]);
    other_type["type"] = json!("Opaque");
    assert_eq!(user(&other_type, good, now()), None);
    let mut going = secret(&[]);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(user(&going, good, now()), None);
    assert_eq!(user(&secret(&[]), "wrong", now()), None);
}

#[test]
fn a_token_without_expiration_stays() {
    let far = Timestamp::from_second(now().as_second() * 2).unwrap();
    assert!(user(&secret(&[("expiration", "")]), "0123456789abcdef", far).is_some());
}

#[test]
fn a_token_survives_its_secret() {
    let token = BootstrapToken::generate(Some(later(60)));
    let read = BootstrapToken::from_secret(&token.to_secret()).unwrap();
    assert_eq!(read.reveal(), token.reveal());
    assert_eq!(read.expires(), token.expires());
    let text = token.reveal();
    let (id, secret) = BootstrapToken::parse(&text).unwrap();
    assert_eq!(id, token.id());
    assert!(read.authenticate(secret, now()).is_some());
    assert!(read.authenticate(secret, later(61)).is_none());
}

#[test]
fn only_one_form_is_a_token() {
    BootstrapToken::parse("abcdef.0123456789abcdef").unwrap();
    for wrong in
        ["", ".", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "abcdef.0123456789abcdef0"]
    {
        BootstrapToken::parse(wrong).unwrap_err();
    }
}

#[test]
fn nothing_shows_the_secret() {
    let token = BootstrapToken::from_secret(&secret(&[])).unwrap();
    assert!(!format!("{token:?}").contains("0123456789abcdef"));
    let error = BootstrapToken::parse("abcdef_0123456789abcdef").unwrap_err().to_string();
    assert!(!error.contains("0123456789"), "{error}");
}

#[test]
fn a_purpose_is_kept_and_checked_as_kubeadm_does() {
    let purpose = |usages: &[&str], groups: &[&str]| TokenPurpose {
        usages: usages.iter().map(|&usage| usage.to_owned()).collect(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        description: "rack 7".to_owned(),
    };
    let make = |purpose| BootstrapToken::chosen("abcdef.0123456789abcdef", None).unwrap().purposed(purpose);
    let kept = |purpose| BootstrapToken::from_secret(&make(purpose).unwrap().to_secret()).unwrap();
    let all = kept(purpose(&[], &[]));
    assert_eq!(all.reveal(), "abcdef.0123456789abcdef");
    assert_eq!((all.usages().join(","), all.description()), ("authentication,signing".to_owned(), "rack 7"));
    assert_eq!(all.extra_groups(), [DEFAULT_EXTRA_GROUP]);
    let one = kept(purpose(&["authentication"], &["system:bootstrappers:a"]));
    assert_eq!(
        (one.usages(), one.extra_groups()),
        (vec!["authentication"], &["system:bootstrappers:a".to_owned()][..])
    );
    let signing = kept(purpose(&["signing"], &[]));
    assert_eq!((signing.usages(), signing.extra_groups().len(), signing.is_usable(now())), (vec!["signing"], 0, false));
    for (usages, groups, wrong) in [
        (
            &["x", "signing"][..],
            &[][..],
            "invalid bootstrap usage string: x, valid usage options: signing,authentication",
        ),
        (
            &[],
            &["system:masters"],
            r#"bootstrap group "system:masters" is invalid (must match \Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z)"#,
        ),
        (
            &["signing"],
            &["system:bootstrappers:a"],
            r#"token groups cannot be specified unless --usages includes "authentication""#,
        ),
    ] {
        assert_eq!(make(purpose(usages, groups)).unwrap_err().to_string(), wrong);
    }
}
