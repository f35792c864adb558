//! Byte counts in the two canonical forms of a Quantity, and the little reading that configuration needs.

/// Canonical binary form: the largest of Ki, Mi, … that divides the number.
#[must_use]
pub fn binary(bytes: u64) -> String {
    scaled(bytes, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

/// Canonical decimal form: the largest of k, M, … that divides the number.
#[must_use]
pub fn decimal(value: u64) -> String {
    scaled(value, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

fn scaled(mut value: u64, base: u64, suffixes: &[&str]) -> String {
    let mut suffixes = suffixes.iter();
    let mut suffix = suffixes.next();
    while value != 0 && value.is_multiple_of(base) {
        let Some(next) = suffixes.next() else { break };
        suffix = Some(next);
        value /= base;
    }
    format!("{value}{}", suffix.unwrap_or(&""))
}

/// A non-negative Quantity in thousandths, rounded up; `None` for what is none.
#[must_use]
pub fn parse_milli(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator): (u128, u128) = match suffix {
        "" => (1000, 1),
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        _ => return None,
    };
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (integer.is_empty() && fraction.is_empty()) || fraction.len() > 9 || integer.len() > 18 {
        return None;
    }
    let ten = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let mantissa: u128 = format!("{integer}{fraction}").parse().ok()?;
    Some(mantissa.checked_mul(numerator)?.div_ceil(denominator * ten))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_canonical() {
        assert_eq!(binary(16 << 30), "16Gi");
        assert_eq!(binary(1025), "1025");
        assert_eq!(binary(0), "0");
        assert_eq!(decimal(2_000_000), "2M");
    }

    #[test]
    fn reads_quantities_of_configuration_files() {
        for (text, milli) in [("1", 1000), ("100m", 100), ("0.2", 200), ("1.5Ki", 1_536_000), ("1n", 1), ("2k", 2_000_000)] {
            assert_eq!(parse_milli(text), Some(milli), "{text}");
        }
        for text in ["", ".", "x", "1x", "1 Gi", "-1"] {
            assert_eq!(parse_milli(text), None, "{text}");
        }
    }
}
