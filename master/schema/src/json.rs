//! JSON text to a value, noting duplicate fields: the last one wins, and the client is told.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::decode::note;
use crate::errors::quote;

/// Parses a document, and says of its first duplicate fields which they are, as `spec.containers[0].image`.
pub(crate) fn parse(body: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut duplicates = Vec::new();
    let value = read(body, &mut |path, is_duplicate| {
        if is_duplicate {
            note(&mut duplicates, || format!("duplicate field {}", quote(path)));
        }
    })?;
    Ok((value, duplicates))
}

/// Tells of every field of a document that [`parse`] took, as often as it is there, in the order of its text.
pub(crate) fn each_field(body: &[u8], mut tell: impl FnMut(&str)) {
    // It was read before, and can be read again.
    let _ = read(body, &mut |path, _| tell(path));
}

/// Told the path of each field, and whether it was there before.
type Note<'a> = &'a mut dyn FnMut(&str, bool);

fn read(body: &[u8], note: Note) -> Result<Value, serde_json::Error> {
    let mut path = String::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = deserializer.deserialize_any(Reader { path: &mut path, note })?;
    deserializer.end()?;
    Ok(value)
}

struct Reader<'a> {
    path: &'a mut String,
    note: Note<'a>,
}

impl Reader<'_> {
    fn again(&mut self) -> Reader<'_> {
        Reader { path: self.path, note: self.note }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let length = self.path.len();
        loop {
            self.path.push_str(&format!("[{}]", list.len()));
            let next = seq.next_element_seed(self.again())?;
            self.path.truncate(length);
            match next {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let length = self.path.len();
        while let Some(key) = access.next_key::<String>()? {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            (self.note)(self.path, map.contains_key(&key));
            let value = access.next_value_seed(self.again())?;
            self.path.truncate(length);
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
