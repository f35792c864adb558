//! Quantities as decoding, defaulting and validation need them.

use api::quantity::Quantity;

/// What upstream says of a value that is not even a text.
pub(crate) use api::quantity::ParseError;

/// The canonical spelling of a quantity.
pub(crate) fn canonical(text: &str) -> Result<String, ParseError> {
    text.parse::<Quantity>().map(|quantity| quantity.to_string())
}

/// Rounded up to a thousandth, as upstream's defaults do to resource lists; `None` where nothing is to be rounded.
pub(crate) fn rounded_to_milli(text: &str) -> Option<String> {
    let quantity: Quantity = text.parse().ok()?;
    let rounded = Quantity::from_milli(quantity.milli_value());
    (rounded != quantity).then(|| rounded.to_string())
}

/// Whether it is a whole number.
pub(crate) fn is_integer(quantity: &Quantity) -> bool {
    quantity.milli_value() % 1_000 == 0
}
