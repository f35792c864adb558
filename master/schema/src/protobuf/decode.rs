//! From protobuf to JSON values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::table::{Field, Message, Type, table};
use super::wire::{Content, Damage, Reader};
use super::{ENVELOPE, Error, MAGIC, MEDIA_TYPE, message};
use crate::value::{Object, float};

/// How deep messages may be nested; JSON of a client may be no deeper.
const DEEPEST: usize = 128;

pub(super) fn body(body: &[u8], api_version: &str, kind: &str) -> Result<Value, Error> {
    let envelope = Envelope::read(body.strip_prefix(MAGIC).ok_or(Error::Prefix)?)?;
    // An envelope could hold compressed bytes or JSON, but no client sends that.
    if !envelope.encoding.is_empty() || !matches!(envelope.content_type, "" | MEDIA_TYPE) {
        return Err(Error::Encoding(format!("{} {}", envelope.content_type, envelope.encoding).trim().to_owned()));
    }
    let or = |said: &str, other: &str| if said.is_empty() { other.to_owned() } else { said.to_owned() };
    let (version, kind) = (or(envelope.api_version, api_version), or(envelope.kind, kind));
    let Some(message) = message(&version, &kind) else { return Err(Error::Unknown { version, kind }) };
    let mut object = Object::new();
    fields(message, envelope.raw, &mut object, 0)?;
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    encoding: &'a str,
    content_type: &'a str,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut envelope = Envelope::default();
        each(ENVELOPE, bytes, |number, content| {
            match number {
                1 => {
                    each(ENVELOPE, bytes_of(content, number).map_err(damaged(ENVELOPE))?, |number, content| {
                        match number {
                            1 => envelope.api_version = plain(content, number)?,
                            2 => envelope.kind = plain(content, number)?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                }
                2 => envelope.raw = bytes_of(content, number).map_err(damaged(ENVELOPE))?,
                3 => envelope.encoding = plain(content, number)?,
                4 => envelope.content_type = plain(content, number)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(envelope)
    }
}

/// Text of the envelope.
fn plain(content: Content<'_>, number: u32) -> Result<&str, Error> {
    let bytes = bytes_of(content, number).map_err(damaged(ENVELOPE))?;
    std::str::from_utf8(bytes).map_err(|_| Error::Content {
        message: ENVELOPE.into(),
        field: number.to_string(),
        what: "text that is no UTF-8",
    })
}

fn damaged(message: &str) -> impl Fn(Damage) -> Error {
    move |damage| Error::Damaged { message: message.to_owned(), damage }
}

/// Calls `take` for every field of a message.
fn each<'a>(
    name: &str,
    bytes: &'a [u8],
    mut take: impl FnMut(u32, Content<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = Reader(bytes);
    while let Some((number, content)) = reader.next().map_err(damaged(name))? {
        take(number, content)?;
    }
    Ok(())
}

fn bytes_of(content: Content<'_>, field: u32) -> Result<&[u8], Damage> {
    match content {
        Content::Bytes(bytes) => Ok(bytes),
        other => Err(Damage::Wire { field, wire: other.wire() }),
    }
}

fn integer_of(content: Content<'_>, field: u32) -> Result<i64, Damage> {
    match content {
        Content::Varint(value) => Ok(value.cast_signed()),
        other => Err(Damage::Wire { field, wire: other.wire() }),
    }
}

/// Reads a message into an object that may have some of its fields already. Fields that nobody knows are passed over, as
/// protobuf wants it.
fn fields(message: &Message, bytes: &[u8], object: &mut Object, depth: usize) -> Result<(), Error> {
    each(message.name, bytes, |number, content| match message.field(number) {
        Some(field) => Place { message, field, depth }.read(content, object),
        None => Ok(()),
    })
}

/// The field that is read.
struct Place<'a> {
    message: &'a Message,
    field: &'a Field,
    /// How many messages lie around it.
    depth: usize,
}

impl Place<'_> {
    fn damaged(&self, damage: Damage) -> Error {
        damaged(self.message.name)(damage)
    }

    fn wrong(&self, what: &'static str) -> Error {
        Error::Content { message: self.message.name.into(), field: self.field.name.into(), what }
    }

    fn bytes<'b>(&self, content: Content<'b>) -> Result<&'b [u8], Error> {
        bytes_of(content, self.field.number).map_err(|e| self.damaged(e))
    }

    fn text(&self, bytes: &[u8]) -> Result<String, Error> {
        String::from_utf8(bytes.to_vec()).map_err(|_| self.wrong("text that is no UTF-8"))
    }

    /// Adds one occurrence of the field: lists grow, messages are merged, of anything else the last one counts.
    fn read(&self, content: Content<'_>, object: &mut Object) -> Result<(), Error> {
        let name = self.field.name;
        match self.field.kind {
            Type::Inline(index) => self.message(index, self.bytes(content)?, object),
            Type::Message(index) => {
                let bytes = self.bytes(content)?;
                let held = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                held.as_object_mut().map_or(Ok(()), |held| self.message(index, bytes, held))
            }
            Type::List(item) => {
                let mut items = Vec::new();
                self.items(*item, content, &mut items)?;
                let held = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(held) = held {
                    held.append(&mut items);
                }
                Ok(())
            }
            Type::Map(item) => {
                let (key, value) = self.entry(*item, self.bytes(content)?)?;
                let held = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(held) = held {
                    held.insert(key, value);
                }
                Ok(())
            }
            kind => {
                let value = self.value(kind, content)?;
                object.insert(name.into(), value);
                Ok(())
            }
        }
    }

    fn message(&self, index: usize, bytes: &[u8], object: &mut Object) -> Result<(), Error> {
        // Schemas hold schemas: what a client sends must not go deeper than the stack.
        if self.depth == DEEPEST {
            return Err(self.wrong("messages that are nested too deep"));
        }
        table().get(index).map_or(Ok(()), |message| fields(message, bytes, object, self.depth + 1))
    }

    /// Items of a list: one, or as many numbers as were packed together.
    fn items(&self, kind: Type, content: Content<'_>, items: &mut Vec<Value>) -> Result<(), Error> {
        match (kind, content) {
            (Type::Bool | Type::Int32 | Type::Int64, Content::Bytes(packed)) => {
                let mut reader = Reader(packed);
                while !reader.is_empty() {
                    let number = reader.varint().map_err(|e| self.damaged(e))?;
                    items.push(self.value(kind, Content::Varint(number))?);
                }
            }
            _ => items.push(self.value(kind, content)?),
        }
        Ok(())
    }

    /// Key and value of a map's entry; what is missing is zero.
    fn entry(&self, kind: Type, bytes: &[u8]) -> Result<(String, Value), Error> {
        let (mut key, mut value) = (String::new(), None);
        each(self.message.name, bytes, |number, content| {
            match number {
                1 => key = self.text(self.bytes(content)?)?,
                2 => value = Some(self.value(kind, content)?),
                _ => {}
            }
            Ok(())
        })?;
        let value = match value {
            Some(value) => value,
            None if matches!(kind, Type::Bool | Type::Int32 | Type::Int64) => self.value(kind, Content::Varint(0))?,
            None => self.value(kind, Content::Bytes(&[]))?,
        };
        Ok((key, value))
    }

    fn value(&self, kind: Type, content: Content<'_>) -> Result<Value, Error> {
        if let Type::Bool | Type::Int32 | Type::Int64 = kind {
            let number = integer_of(content, self.field.number).map_err(|e| self.damaged(e))?;
            return Ok(match kind {
                Type::Bool => (number != 0).into(),
                // Go cuts off what does not fit.
                Type::Int32 => (number as i32).into(),
                _ => number.into(),
            });
        }
        if let (Type::Double, Content::Fixed64(bits)) = (kind, content) {
            return Ok(float(f64::from_bits(bits)));
        }
        let bytes = self.bytes(content)?;
        match kind {
            Type::Text => self.text(bytes).map(Value::from),
            Type::Bytes => Ok(STANDARD.encode(bytes).into()),
            Type::Quantity => self.quantity(bytes),
            Type::IntOrString => self.int_or_string(bytes),
            Type::Time => self.time(bytes, 0),
            Type::MicroTime => self.time(bytes, 6),
            Type::Json => self.json(bytes),
            Type::Wrapped(item) => self.wrapped(*item, bytes),
            Type::Union(index) => self.union(index, bytes),
            Type::Message(index) => {
                let mut object = Object::new();
                self.message(index, bytes, &mut object)?;
                Ok(Value::Object(object))
            }
            _ => Err(self.wrong("a list in a list")),
        }
    }

    /// Of the fields of a message the one that is set. Of none, `false` or an empty list is what was meant.
    fn union(&self, index: usize, bytes: &[u8]) -> Result<Value, Error> {
        let mut object = Object::new();
        self.message(index, bytes, &mut object)?;
        // A schema counts for more than what only says whether there may be one.
        if let Some(schema) = object.remove("schema") {
            return Ok(schema);
        }
        let is_bool = table().get(index).is_some_and(|m| m.fields().iter().any(|f| f.kind == Type::Bool));
        let nothing = if is_bool { Value::Bool(false) } else { Value::Array(Vec::new()) };
        Ok(object.into_iter().next().map_or(nothing, |(_, value)| value))
    }

    fn quantity(&self, bytes: &[u8]) -> Result<Value, Error> {
        let mut text = String::new();
        self.each(bytes, |number, content| {
            if number == 1 {
                text = self.text(self.bytes(content)?)?;
            }
            Ok(())
        })?;
        Ok(if text.is_empty() { "0".into() } else { text.into() })
    }

    fn int_or_string(&self, bytes: &[u8]) -> Result<Value, Error> {
        let (mut kind, mut number, mut text) = (0, 0, String::new());
        self.each(bytes, |field, content| {
            match field {
                1 => kind = self.integer(content)?,
                2 => number = self.integer(content)?,
                3 => text = self.text(self.bytes(content)?)?,
                _ => {}
            }
            Ok(())
        })?;
        match kind {
            0 => Ok((number as i32).into()),
            1 => Ok(text.into()),
            _ => Err(self.wrong("an impossible IntOrString.Type")),
        }
    }

    /// Nothing inside is no time at all.
    fn time(&self, bytes: &[u8], digits: usize) -> Result<Value, Error> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let (mut seconds, mut nanos) = (0, 0);
        self.each(bytes, |number, content| {
            match number {
                1 => seconds = self.integer(content)?,
                2 => nanos = self.integer(content)?,
                _ => {}
            }
            Ok(())
        })?;
        // JSON shows no more than `digits` decimals, and Go's decoder drops the rest as well.
        let nanos = if digits == 0 { 0 } else { i32::try_from(nanos).map_err(|_| self.wrong("an impossible time"))? };
        let time = Timestamp::new(seconds, nanos).map_err(|_| self.wrong("an impossible time"))?;
        Ok(format!("{time:.digits$}").into())
    }

    fn json(&self, bytes: &[u8]) -> Result<Value, Error> {
        let mut raw: &[u8] = &[];
        each(self.message.name, bytes, |number, content| {
            if number == 1 {
                raw = self.bytes(content)?;
            }
            Ok(())
        })?;
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(raw).map_err(|_| self.wrong("bytes that are no JSON"))
    }

    fn wrapped(&self, item: Type, bytes: &[u8]) -> Result<Value, Error> {
        let mut items = Vec::new();
        self.each(bytes, |number, content| if number == 1 { self.items(item, content, &mut items) } else { Ok(()) })?;
        Ok(items.into())
    }

    fn integer(&self, content: Content<'_>) -> Result<i64, Error> {
        integer_of(content, self.field.number).map_err(|e| self.damaged(e))
    }

    fn each<'b>(&self, bytes: &'b [u8], take: impl FnMut(u32, Content<'b>) -> Result<(), Error>) -> Result<(), Error> {
        each(self.message.name, bytes, take)
    }
}
