//! Exact quantities (`resource.Quantity`): fixed point with nine decimals, as upstream keeps them; no floating point.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

#[cfg(test)]
mod tests;

const NANO: i128 = 1_000_000_000;
/// No quantity is greater than 2^63-1 (API doc of `Quantity`).
const MAX: i128 = i64::MAX as i128 * NANO;

/// How a quantity was written, and is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `1Ki`, `5Gi`.
    BinarySi,
    /// `100m`, `1k`, `5G`.
    DecimalSi,
    /// `1e3`.
    DecimalExponent,
}

/// An amount, with the way in which it is written. Equality and order are those of the amount alone.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why a text is not a quantity. The texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not of the shape number and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none that there is.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// An amount in whole units.
    #[must_use]
    pub fn new(value: i64, format: Format) -> Self {
        Self { nano: i128::from(value) * NANO, format }
    }

    /// An amount in thousandths.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self { nano: i128::from(milli) * 1_000_000, format: Format::DecimalSi }
    }

    /// Reads the text of an API object.
    ///
    /// # Errors
    /// When it is not a quantity.
    pub fn read(text: &Text) -> Result<Self, ParseError> {
        text.0.parse()
    }

    /// The amount in whole units, rounded away from zero.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled_up(NANO)
    }

    /// The amount in thousandths, rounded away from zero.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.scaled_up(1_000_000)
    }

    /// How it is written.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether the amount is 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// Whether the amount is below 0.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// The sum; written as the first summand, or as the second when the first is 0.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nano: (self.nano + other.nano).clamp(-MAX, MAX), format }
    }

    /// The difference; written as [`Quantity::plus`] does.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&Self { nano: -other.nano, format: other.format })
    }

    /// How many times `divisor` fits, rounded up; a divisor of 0 counts as 1 (`resourceFieldRef.divisor`).
    #[must_use]
    pub fn divided_up(&self, divisor: &Self) -> i64 {
        let divisor = if divisor.nano <= 0 { NANO } else { divisor.nano };
        self.scaled_up(divisor)
    }

    /// The canonical text as an API object holds it.
    #[must_use]
    pub fn to_text(&self) -> Text {
        Text(self.to_string())
    }

    fn scaled_up(&self, unit: i128) -> i64 {
        let away = if self.nano < 0 { -(unit - 1) } else { unit - 1 };
        let scaled = (self.nano + away) / unit;
        i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Format);
        }
        let parts = Parts::split(text)?;
        let (scale, format) = suffix_scale(parts.suffix).ok_or(ParseError::Suffix)?;
        let nano = magnitude(parts.whole, parts.fraction, scale);
        let format = if format == Format::BinarySi && nano > 0 && nano < NANO { Format::DecimalSi } else { format };
        Ok(Self { nano: if parts.negative { -nano } else { nano }, format })
    }
}

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, ParseError> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = leading(unsigned, |c| c.is_ascii_digit());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => leading(rest, |c| c.is_ascii_digit()),
            None => ("", rest),
        };
        let (_, exponent) = leading(suffix, |c| "eEinumkKMGTP".contains(c));
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if exponent.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self { negative, whole, fraction, suffix })
        } else {
            Err(ParseError::Format)
        }
    }
}

fn leading(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !keep(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[derive(Clone, Copy)]
enum Scale {
    Ten(i64),
    Two(u32),
}

fn suffix_scale(suffix: &str) -> Option<(Scale, Format)> {
    let decimal = |exponent| Some((Scale::Ten(exponent), Format::DecimalSi));
    let binary = |bits| Some((Scale::Two(bits), Format::BinarySi));
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
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
            Some((Scale::Ten(exponent), Format::DecimalExponent))
        }
    }
}

/// The number as billionths: more than nine decimals are rounded up, and it is capped at [`MAX`].
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let digits = whole.bytes().chain(fraction.bytes()).map(|byte| i128::from(byte.saturating_sub(b'0')));
    let fraction_len = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    match scale {
        Scale::Ten(exponent) => decimal(digits, exponent.saturating_sub(fraction_len).saturating_add(9)),
        Scale::Two(bits) => binary(digits, fraction_len, bits),
    }
}

/// `digits` * 10^`exponent`.
fn decimal(digits: impl Iterator<Item = i128> + Clone, exponent: i64) -> i128 {
    let count = i64::try_from(digits.clone().count()).unwrap_or(i64::MAX);
    let kept = count.saturating_add(exponent.min(0));
    let (mut value, mut lost) = (0_i128, false);
    for (index, digit) in (0_i64..).zip(digits) {
        if index < kept {
            value = value.saturating_mul(10).saturating_add(digit).min(MAX);
        } else {
            lost |= digit != 0;
        }
    }
    for _ in 0..exponent.clamp(0, 40) {
        value = value.saturating_mul(10).min(MAX);
    }
    (value + i128::from(lost)).min(MAX)
}

/// `digits` * 10^-`decimals` * 2^`bits`, in billionths.
fn binary(digits: impl Iterator<Item = i128> + Clone, decimals: i64, bits: u32) -> i128 {
    let count = i64::try_from(digits.clone().count()).unwrap_or(i64::MAX);
    let whole = count.saturating_sub(decimals);
    let mut value = 0_i128;
    for digit in digits.clone().take(usize::try_from(whole).unwrap_or(0)) {
        value = value.saturating_mul(10).saturating_add(digit).min(MAX);
    }
    let unit = NANO << bits;
    let mut nano = value.saturating_mul(1 << bits).saturating_mul(NANO).min(MAX);
    // Long division of the decimals: each digit is worth a tenth of the one before.
    let (mut worth, mut numerator, mut lost) = (1_i128, 0_i128, false);
    for digit in digits.skip(usize::try_from(whole).unwrap_or(0)) {
        if worth < 10_i128.pow(9) {
            worth *= 10;
            numerator = numerator * 10 + digit;
        } else {
            lost |= digit != 0;
        }
    }
    let scaled = numerator.saturating_mul(unit);
    nano = nano.saturating_add(scaled / worth);
    lost |= scaled % worth != 0;
    (nano + i128::from(lost)).min(MAX)
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the greatest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nano.abs() < 1024 * NANO;
        match self.format {
            _ if self.nano == 0 => f.write_str("0"),
            Format::BinarySi if !small && self.nano % NANO == 0 => {
                let (value, steps) = reduced(self.nano / NANO, 1024);
                write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(steps).unwrap_or(&""))
            }
            Format::BinarySi | Format::DecimalSi => {
                let (value, steps) = reduced(self.nano, 1000);
                let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                write!(f, "{value}{}", suffixes.get(steps).unwrap_or(&""))
            }
            Format::DecimalExponent => match reduced(self.nano, 1000) {
                (value, 3) => write!(f, "{value}"),
                (value, steps) => write!(f, "{value}e{}", steps as i64 * 3 - 9),
            },
        }
    }
}

/// Divides by `base` as long as nothing is left over; with the number of divisions. `value` is not 0.
fn reduced(mut value: i128, base: i128) -> (i128, usize) {
    let mut steps = 0;
    while value != 0 && value % base == 0 {
        value /= base;
        steps += 1;
    }
    (value, steps)
}
