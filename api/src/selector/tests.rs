use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn texts_select() {
    let have = labels(&[("app", "web"), ("tier", "front"), ("n", "5"), ("empty", "")]);
    for text in [
        "",
        "app=web",
        "app==web",
        "app!=db",
        "none!=x",
        "app in (web,db)",
        "app notin (db)",
        "none notin (x)",
        "app",
        "!none",
        "n>4",
        "n<6",
        "empty=",
        "app = web , tier=front",
        "app in (web)",
        "empty in (,)",
        "empty in (a,)",
    ] {
        assert!(Selector::parse(text).unwrap().matches(&have), "{text}");
    }
    for text in ["app=db", "app!=web", "!app", "none", "n>5", "n<5", "app in (db)", "app notin (web)", "app>1"] {
        assert!(!Selector::parse(text).unwrap().matches(&have), "{text}");
    }
}

#[test]
fn texts_that_are_not_selectors() {
    let table = [
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "n>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(Selector::parse(text).unwrap_err().to_string(), expected, "{text}");
    }
    let error = Selector::parse("a/b/c").unwrap_err().to_string();
    assert!(
        error.starts_with("unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must"),
        "{error}"
    );
    let error = Selector::parse("a=-b").unwrap_err().to_string();
    assert!(
        error.starts_with("unable to parse requirement: values[0]: Invalid value: \"-b\": a valid label must"),
        "{error}"
    );
}

#[test]
fn objects() {
    let object: LabelSelector = serde_json::from_value(serde_json::json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}, {"key": "x", "operator": "DoesNotExist"}]
    }))
    .unwrap();
    assert!(label_selector_matches(&object, &labels(&[("app", "web")])));
    assert!(!label_selector_matches(&object, &labels(&[("app", "web"), ("tier", "back")])));
    assert!(label_selector_matches(&LabelSelector::default(), &labels(&[])));
    let object: LabelSelector =
        serde_json::from_value(serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]})).unwrap();
    assert_eq!(
        Selector::from_object(&object).unwrap_err().to_string(),
        "\"Gt\" is not a valid label selector operator"
    );
}

#[test]
fn fields() {
    let selector = FieldSelector::parse(r"metadata.name=a\,b,status.phase!=Running").unwrap();
    let value = |name| move |field: &str| if field == "metadata.name" { Some(name) } else { Some("Pending") };
    assert!(selector.matches(value("a,b")));
    assert!(!selector.matches(value("a")));
    assert!(FieldSelector::parse("").unwrap().requirements.is_empty());
    assert_eq!(
        FieldSelector::parse("a=b,c").unwrap_err().to_string(),
        "invalid selector: 'a=b,c'; can't understand 'c'"
    );
    assert!(FieldSelector::parse(r"a=\x").is_err());
}
