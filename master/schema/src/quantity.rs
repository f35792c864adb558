//! `resource.Quantity` as far as decoding, defaulting and validation need it: exact to the nano, with upstream's
//! canonical spelling.

use std::cmp::Ordering;

/// What upstream says of a text that is no quantity.
pub(crate) const SYNTAX: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX: &str = "unable to parse quantity's suffix";

const NANO: i128 = 1_000_000_000;
/// Upstream caps what it reads at the largest 64-bit integer.
const MOST: i128 = i64::MAX as i128 * NANO;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// A parsed quantity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, String> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let digits = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(SYNTAX.into());
        }
        let (format, base, exponent) = scale(suffix)?;
        let magnitude = magnitude(whole, fraction, base, exponent).unwrap_or(MOST).min(MOST);
        let nanos = if text.starts_with('-') { -magnitude } else { magnitude };
        Ok(Self { nanos, format })
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is a whole number.
    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }

    pub fn compare(self, other: Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }

    /// Rounded up to a thousandth, as upstream's defaults do to resource lists.
    pub fn round_up_milli(self) -> Self {
        Self { nanos: ceil(self.nanos, NANO / 1_000) * (NANO / 1_000), format: self.format }
    }

    /// Upstream's canonical spelling: no fraction, the largest suffix that needs none.
    pub fn canonical(self) -> String {
        if self.nanos == 0 {
            return "0".into();
        }
        let small = self.nanos.abs() < 1_024 * NANO;
        match self.format {
            Format::Binary if !small => {
                const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
                let (number, steps) = reduce(ceil(self.nanos, NANO), 1_024, SUFFIXES.len() - 1);
                format!("{number}{}", SUFFIXES.get(steps).unwrap_or(&""))
            }
            Format::Exponent => {
                let (number, steps) = reduce(self.nanos, 1_000, usize::MAX);
                match i64::try_from(steps).unwrap_or(i64::MAX) * 3 - 9 {
                    0 => number.to_string(),
                    exponent => format!("{number}e{exponent}"),
                }
            }
            _ => {
                const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                let (number, steps) = reduce(self.nanos, 1_000, SUFFIXES.len() - 1);
                format!("{number}{}", SUFFIXES.get(steps).unwrap_or(&""))
            }
        }
    }
}

/// The canonical spelling of a quantity, or upstream's error.
pub(crate) fn canonical(text: &str) -> Result<String, String> {
    Quantity::parse(text).map(Quantity::canonical)
}

/// Rounded away from zero, as upstream rounds.
fn ceil(value: i128, unit: i128) -> i128 {
    let rest = value % unit;
    if rest == 0 { value / unit } else { value / unit + value.signum() }
}

fn reduce(mut number: i128, by: i128, most: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < most && number != 0 && number % by == 0 {
        number /= by;
        steps += 1;
    }
    (number, steps)
}

fn scale(suffix: &str) -> Result<(Format, i128, i32), String> {
    let decimal = |exponent| Ok((Format::Decimal, 10, exponent));
    let binary = |exponent| Ok((Format::Binary, 2, exponent));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => match suffix.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
            Some(Ok(exponent)) => Ok((Format::Exponent, 10, exponent)),
            _ if suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c)) => Err(SUFFIX.into()),
            _ => Err(SYNTAX.into()),
        },
    }
}

/// In nanos, rounded up; `None` where it is larger than anything upstream keeps.
fn magnitude(whole: &str, fraction: &str, base: i128, exponent: i32) -> Option<i128> {
    let fraction = fraction.trim_end_matches('0');
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    if value == 0 {
        return Some(0);
    }
    let decimals = i32::try_from(fraction.len()).ok()?;
    let (multiplier, tens) = if base == 2 { (1_i128 << exponent, 9 - decimals) } else { (1, 9 - decimals + exponent) };
    let value = value.checked_mul(multiplier)?;
    if tens >= 0 {
        return value.checked_mul(10_i128.checked_pow(tens.unsigned_abs())?);
    }
    match 10_i128.checked_pow(tens.unsigned_abs()) {
        Some(divisor) => Some(ceil(value, divisor)),
        None => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_spellings_are_upstreams() {
        for (given, expected) in [
            ("0", "0"),
            ("0.0", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("100Ki", "100Ki"),
            ("0.1Mi", "104858"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e1", "120"),
            ("1E", "1E"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("9223372036854775807", "9223372036854775807"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for bad in ["", "-", ".", "1.2.3", "abc", "1 Gi", " 1"] {
            assert_eq!(canonical(bad), Err(SYNTAX.to_string()), "{bad}");
        }
        assert_eq!(canonical("1Kii"), Err(SUFFIX.to_string()));
        assert_eq!(canonical("1KB"), Err(SYNTAX.to_string()));
    }
}
