//! From JSON values to protobuf.
//!
//! Zero values that the object shows are written, and what it leaves out is not: to a Go client both read the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::table::{Field, Message, Type, table};
use super::wire::{put_bytes, put_double, put_integer, put_message};
use super::{Error, MAGIC, message};
use crate::value::Object;

pub(super) fn body(object: &Value) -> Result<Vec<u8>, Error> {
    let said = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (said("apiVersion"), said("kind"));
    let unknown = || Error::Unknown { version: version.to_owned(), kind: kind.to_owned() };
    let message = message(version, kind).ok_or_else(unknown)?;
    let members = object.as_object().ok_or_else(unknown)?;
    envelope((version, kind), 0, |out| fields(message, members, out))
}

/// A body around what `raw` writes, of which `size` is a guess.
pub(super) fn envelope(
    (version, kind): (&str, &str),
    size: usize,
    raw: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let mut type_meta = Vec::new();
    put_bytes(&mut type_meta, 1, version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(size + type_meta.len() + 24);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &type_meta);
    put_message(&mut out, 2, raw)?;
    // Content encoding and content type: empty, and always there.
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    Ok(out)
}

pub(super) fn watch_event(change: &str, body: &[u8]) -> Result<Vec<u8>, Error> {
    let mut extension = Vec::with_capacity(body.len() + 8);
    put_bytes(&mut extension, 1, body);
    let mut event = vec![0; size_of::<u32>()];
    put_bytes(&mut event, 1, change.as_bytes());
    put_bytes(&mut event, 2, &extension);
    let length = event.len() - size_of::<u32>();
    let prefix = u32::try_from(length).map_err(|_| Error::TooLarge(length))?.to_be_bytes();
    for (place, byte) in event.iter_mut().zip(prefix) {
        *place = byte;
    }
    Ok(event)
}

/// Writes what the object has of the message's fields. Others are passed over, as Go does.
fn fields(message: &Message, object: &Object, out: &mut Vec<u8>) -> Result<(), Error> {
    for field in message.fields() {
        let place = Place { message, field };
        if let Type::Inline(index) = field.kind {
            let mut inner = Vec::new();
            place.message(index, object, &mut inner)?;
            if !inner.is_empty() {
                put_bytes(out, field.number, &inner);
            }
            continue;
        }
        if let Some(value) = object.get(field.name).filter(|value| !value.is_null()) {
            place.write(field.kind, field.number, value, out)?;
        }
    }
    Ok(())
}

/// The field that is written.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub message: &'a Message,
    pub field: &'a Field,
}

impl Place<'_> {
    fn wrong(&self, found: &Value, wanted: &'static str) -> Error {
        let mut found = found.to_string();
        if found.len() > 40 {
            found = found.chars().take(40).chain("…".chars()).collect();
        }
        Error::Value { message: self.message.name.into(), field: self.field.name.into(), found, wanted }
    }

    fn message(&self, index: usize, object: &Object, out: &mut Vec<u8>) -> Result<(), Error> {
        table().get(index).map_or(Ok(()), |message| fields(message, object, out))
    }

    pub fn write(&self, kind: Type, number: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match kind {
            // In a list or a map null stands for the zero value.
            Type::Bool | Type::Int32 | Type::Int64 if value.is_null() => put_integer(out, number, 0),
            _ if value.is_null() => put_bytes(out, number, b""),
            Type::List(item) => {
                for item_value in value.as_array().ok_or_else(|| self.wrong(value, "a list"))? {
                    self.write(*item, number, item_value, out)?;
                }
            }
            Type::Map(item) => {
                for (key, item_value) in value.as_object().ok_or_else(|| self.wrong(value, "an object"))? {
                    let mut entry = Vec::new();
                    put_bytes(&mut entry, 1, key.as_bytes());
                    self.write(*item, 2, item_value, &mut entry)?;
                    put_bytes(out, number, &entry);
                }
            }
            Type::Bool => {
                let flag = value.as_bool().ok_or_else(|| self.wrong(value, "true or false"))?;
                put_integer(out, number, i64::from(flag));
            }
            Type::Int32 | Type::Int64 => {
                put_integer(out, number, value.as_i64().ok_or_else(|| self.wrong(value, "a whole number"))?);
            }
            Type::Double => {
                put_double(out, number, value.as_f64().ok_or_else(|| self.wrong(value, "a number"))?);
            }
            Type::Text => put_bytes(out, number, self.text(value)?.as_bytes()),
            _ => {
                let mut inner = Vec::new();
                self.inner(kind, value, &mut inner)?;
                put_bytes(out, number, &inner);
            }
        }
        Ok(())
    }

    /// What stands behind tag and length.
    fn inner(&self, kind: Type, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match kind {
            Type::Bytes => {
                out.extend(STANDARD.decode(self.text(value)?).map_err(|_| self.wrong(value, "base64"))?);
            }
            Type::Quantity => match value {
                Value::Number(number) => put_bytes(out, 1, number.to_string().as_bytes()),
                _ => put_bytes(out, 1, self.text(value)?.as_bytes()),
            },
            Type::IntOrString => match value.as_i64() {
                Some(number) => {
                    put_integer(out, 1, 0);
                    put_integer(out, 2, number);
                    put_bytes(out, 3, b"");
                }
                None => {
                    put_integer(out, 1, 1);
                    put_integer(out, 2, 0);
                    put_bytes(out, 3, self.text(value)?.as_bytes());
                }
            },
            Type::Time | Type::MicroTime => self.time(value, out)?,
            Type::Json => put_bytes(out, 1, value.to_string().as_bytes()),
            Type::Wrapped(item) => self.write(Type::List(item), 1, value, out)?,
            Type::Message(index) => match value {
                Value::Object(object) => self.message(index, object, out)?,
                _ => return Err(self.wrong(value, "an object")),
            },
            Type::Union(index) => self.union(index, value, out)?,
            _ => return Err(self.wrong(value, "something else")),
        }
        Ok(())
    }

    /// One of the fields of a message, by the type that it takes.
    fn union(&self, index: usize, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let Some(message) = table().get(index) else { return Ok(()) };
        for field in message.fields() {
            let place = Place { message, field };
            match (field.kind, value) {
                // Where there may be a schema, there may be something.
                (Type::Bool, Value::Object(_)) => put_integer(out, field.number, 1),
                (Type::Bool, Value::Bool(_))
                | (Type::Message(_), Value::Object(_))
                | (Type::List(_), Value::Array(_)) => {
                    place.write(field.kind, field.number, value, out)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn text<'a>(&self, value: &'a Value) -> Result<&'a str, Error> {
        value.as_str().ok_or_else(|| self.wrong(value, "text"))
    }

    fn time(&self, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        let time: Timestamp = self.text(value)?.parse().map_err(|_| self.wrong(value, "a time"))?;
        let (mut seconds, mut nanos) = (time.as_second(), i64::from(time.subsec_nanosecond()));
        if nanos < 0 {
            // Before 1970 jiff counts both backwards, protobuf only the seconds.
            seconds -= 1;
            nanos += 1_000_000_000;
        }
        put_integer(out, 1, seconds);
        put_integer(out, 2, nanos);
        Ok(())
    }
}
