//! From JSON text to protobuf, with no value in memory between: a stored object is sent more often than it is changed.
//!
//! What is long or common is written as it is read; anything else becomes a small value that [`encode`](super::encode)
//! knows. Fields stand in the order of the text, which means the same to every reader.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::encode::{Place, envelope};
use super::table::{Field, Message, Type, table};
use super::wire::{put_bytes, put_message};
use super::{Error, message};

pub(super) fn body(version: &str, kind: &str, json: &[u8]) -> Result<Vec<u8>, Error> {
    let message = known(version, kind)?;
    envelope((version, kind), json.len(), |out| text(message, json, out))
}

pub(super) fn list<'a>(
    version: &str,
    kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<Vec<u8>, Error> {
    let message = known(version, kind)?;
    let field = |name| message.named(name).ok_or_else(|| unknown(version, kind));
    let (head, item) = (field("metadata")?, field("items")?);
    let Type::List(Type::Message(index)) = item.kind else { return Err(unknown(version, kind)) };
    let of = table().get(*index).ok_or_else(|| unknown(version, kind))?;
    envelope((version, kind), items.clone().map(<[u8]>::len).sum(), |out| {
        Place { message, field: head }.write(head.kind, head.number, metadata, out)?;
        items.into_iter().try_for_each(|json| put_message(out, item.number, |out| text(of, json, out)))
    })
}

fn unknown(version: &str, kind: &str) -> Error {
    Error::Unknown { version: version.to_owned(), kind: kind.to_owned() }
}

fn known(version: &str, kind: &str) -> Result<&'static Message, Error> {
    message(version, kind).ok_or_else(|| unknown(version, kind))
}

fn text(message: &Message, json: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = reader.deserialize_map(Fields { message, out }).and_then(|()| reader.end());
    read.map_err(|error| Error::Json { message: message.name.into(), reason: error.to_string() })
}

/// An object whose members are fields of a message. Others are passed over, as Go does.
struct Fields<'a> {
    message: &'a Message,
    out: &'a mut Vec<u8>,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = members.next_key()? {
            match find(self.message, &name) {
                Some((within, place)) => within_each(&within, self.out, |out| {
                    members.next_value_seed(Content::of(place, place.field.kind, place.field.number, out))
                })?,
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The name of a member, which is copied only where the text has it escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A field, and the numbers of the inlined messages that it lies in, the outermost first.
fn find<'a>(message: &'a Message, name: &str) -> Option<(Vec<u32>, Place<'a>)> {
    if let Some(field) = message.named(name) {
        return Some((Vec::new(), Place { message, field }));
    }
    message.fields().iter().find_map(|outer: &Field| {
        let Type::Inline(index) = outer.kind else { return None };
        let (mut within, place) = find(table().get(index)?, name)?;
        within.insert(0, outer.number);
        Some((within, place))
    })
}

/// Writes inside of these messages. One that is written in parts is put together by its reader.
fn within_each<E>(
    numbers: &[u32],
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    match numbers {
        [] => write(out),
        [number] => put_message(out, *number, write),
        [number, rest @ ..] => put_message(out, *number, |out| within_each(rest, out, write)),
    }
}

/// What a field, or an item or member of it, holds.
struct Content<'a> {
    place: Place<'a>,
    kind: Type,
    number: u32,
    /// In a list or a map null stands for the zero value.
    inner: bool,
    out: &'a mut Vec<u8>,
}

impl<'a> Content<'a> {
    fn of(place: Place<'a>, kind: Type, number: u32, out: &'a mut Vec<u8>) -> Self {
        Content { place, kind, number, inner: false, out }
    }

    fn inner(&mut self, kind: Type, number: u32) -> Content<'_> {
        Content { place: self.place, kind, number, inner: true, out: self.out }
    }

    fn value<E: serde::de::Error>(self, value: &Value) -> Result<(), E> {
        self.place.write(self.kind, self.number, value, self.out).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        if self.kind != Type::Json {
            return reader.deserialize_any(self);
        }
        match <&RawValue>::deserialize(reader)?.get() {
            "null" => self.visit_unit(),
            json => put_message(self.out, self.number, |out| {
                put_bytes(out, 1, json.as_bytes());
                Ok(())
            }),
        }
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field {} of {}", self.place.field.name, self.place.message.name)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.inner { self.value(&Value::Null) } else { Ok(()) }
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.value(&value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.value(&value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.value(&value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.value(&value.into())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            Type::Text => {
                put_bytes(self.out, self.number, text.as_bytes());
                Ok(())
            }
            _ => self.value(&text.into()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let Type::List(item) = self.kind else {
            return self.value(&Value::deserialize(SeqAccessDeserializer::new(items))?);
        };
        let number = self.number;
        while items.next_element_seed(self.inner(*item, number))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        match self.kind {
            Type::Message(index) => {
                let message = table().get(index).ok_or_else(|| A::Error::custom("the table has a hole"))?;
                put_message(self.out, self.number, |out| Fields { message, out }.visit_map(members))
            }
            Type::Map(item) => {
                while let Some(Name(name)) = members.next_key()? {
                    let place = self.place;
                    put_message(self.out, self.number, |out| {
                        put_bytes(out, 1, name.as_bytes());
                        members.next_value_seed(Content { inner: true, ..Content::of(place, *item, 2, out) })
                    })?;
                }
                Ok(())
            }
            _ => self.value(&Value::deserialize(MapAccessDeserializer::new(members))?),
        }
    }
}
