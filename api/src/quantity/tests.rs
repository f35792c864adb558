use super::*;
use proptest::prelude::*;

fn canonical(text: &str) -> String {
    text.parse::<Quantity>().unwrap().to_string()
}

#[test]
fn canonical_texts() {
    let table = [
        ("0", "0"),
        ("0Ki", "0"),
        ("100m", "100m"),
        ("0.1", "100m"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("1500", "1500"),
        ("12000", "12k"),
        ("1024Mi", "1Gi"),
        ("1024", "1024"),
        ("1025Ki", "1025Ki"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5", "500m"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e-3", "12e-3"),
        ("1E", "1E"),
        ("5e0", "5"),
        ("-1Gi", "-1Gi"),
        ("+7", "7"),
        ("1.1Ki", "1126400m"),
        ("0.0000000001", "1n"),
        ("1n", "1n"),
        ("100Ki", "100Ki"),
        ("1000Ki", "1000Ki"),
        (".5", "500m"),
        ("5.", "5"),
        ("007", "7"),
        ("100000000000000000000", "9223372036854775807"),
        ("0.3Gi", "322122547200m"),
    ];
    for (text, expected) in table {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn errors() {
    for text in ["", "abc", "1.2.3", "1x", "1 ", " 1", "1Ki5.", "1Kx"] {
        assert_eq!(text.parse::<Quantity>().unwrap_err(), ParseError::Format, "{text}");
    }
    for text in ["1K", "1ki", "1Mii", "1kk", "1i", "1ee3", "1Ki5", "1e", "--1"] {
        assert_eq!(text.parse::<Quantity>().unwrap_err(), ParseError::Suffix, "{text}");
    }
}

#[test]
fn rounds_up() {
    let parse = |text: &str| text.parse::<Quantity>().unwrap();
    assert_eq!(parse("100m").value(), 1);
    assert_eq!(parse("-100m").value(), -1);
    assert_eq!(parse("1500m").value(), 2);
    assert_eq!(parse("1u").milli_value(), 1);
    assert_eq!(parse("2").milli_value(), 2000);
    assert_eq!(parse("9E").milli_value(), i64::MAX);
    assert_eq!(parse("1Gi").divided_up(&parse("1Mi")), 1024);
    assert_eq!(parse("250m").divided_up(&parse("1m")), 250);
    assert_eq!(parse("250m").divided_up(&parse("0")), 1);
}

#[test]
fn compares_amounts_and_keeps_the_first_format() {
    let parse = |text: &str| text.parse::<Quantity>().unwrap();
    assert_eq!(parse("1024"), parse("1Ki"));
    assert!(parse("999m") < parse("1"));
    assert_eq!(parse("1Ki").plus(&parse("1024")).to_string(), "2Ki");
    assert_eq!(parse("0").plus(&parse("2Gi")).to_string(), "2Gi");
    assert_eq!(parse("1").minus(&parse("100m")).to_string(), "900m");
}

proptest! {
    #[test]
    fn canonical_form_is_stable_and_exact(nano in -MAX..=MAX, format in 0..3) {
        let format = [Format::BinarySi, Format::DecimalSi, Format::DecimalExponent][format as usize];
        let quantity = Quantity { nano, format };
        let text = quantity.to_string();
        let again: Quantity = text.parse().unwrap();
        prop_assert_eq!(again.nano, nano, "{}", text);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn never_panics(text in "[-+0-9.eEinumkKMGTP ]{0,24}|\\PC{0,8}") {
        let _ = text.parse::<Quantity>();
    }
}
