//! How messages look: read once from `data/protobuf.json.gz`.

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

use crate::types::Interner;

static DATA: &[u8] = include_bytes!("../../data/protobuf.json.gz");

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    /// Seconds.
    Time,
    /// Microseconds.
    MicroTime,
    /// A message whose only field is bytes that hold JSON: RawExtension, FieldsV1.
    Json,
    /// A message whose only field is a list, which in JSON stands for itself: ExtraValue.
    Wrapped(&'static Type),
    List(&'static Type),
    Map(&'static Type),
    Message(usize),
    /// A message whose fields are its holder's own in JSON.
    Inline(usize),
    /// A message of whose fields one stands for the whole in JSON: `true`, or an object, or a list.
    Union(usize),
}

#[derive(Debug)]
pub(super) struct Field {
    pub number: u32,
    /// As in JSON.
    pub name: &'static str,
    pub kind: Type,
}

#[derive(Debug)]
pub(super) struct Message {
    /// The name of its definition in OpenAPI.
    pub name: &'static str,
    /// Sorted by number.
    fields: Box<[Field]>,
    /// Places in `fields`, sorted by the names of what they hold.
    by_name: Box<[u16]>,
}

impl Message {
    fn new(name: &'static str, fields: Box<[Field]>) -> Self {
        let mut by_name: Box<[u16]> = (0..).take(fields.len()).collect();
        by_name.sort_by_key(|place| fields.get(usize::from(*place)).map(|field| field.name));
        Message { name, fields, by_name }
    }

    /// The field of that name in JSON; one of its own, not of those that are inlined.
    pub fn named(&self, name: &str) -> Option<&Field> {
        let at = |place: &u16| self.fields.get(usize::from(*place));
        let index = self.by_name.binary_search_by(|place| at(place).map_or("", |field| field.name).cmp(name)).ok()?;
        self.by_name.get(index).and_then(at).filter(|field| !matches!(field.kind, Type::Inline(_)))
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub fn field(&self, number: u32) -> Option<&Field> {
        let index = self.fields.binary_search_by_key(&number, |f| f.number).ok()?;
        self.fields.get(index)
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, usize>,
}

impl Table {
    pub fn get(&self, index: usize) -> Option<&Message> {
        self.messages.get(index)
    }

    pub fn named(&self, name: &str) -> Option<&Message> {
        self.get(*self.by_name.get(name)?)
    }
}

/// The table, read on first use.
pub(super) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| match load() {
        Ok(table) => table,
        Err(error) => {
            // The data is part of the program, and tests read it: this cannot be a user's fault.
            tracing::error!(%error, "the built-in protobuf table cannot be read");
            Table::default()
        }
    })
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("decompress protobuf.json.gz")]
    Decompress(#[from] std::io::Error),
    #[error("parse protobuf.json.gz")]
    Parse(#[from] serde_json::Error),
    #[error("type {0:?} in protobuf.json.gz")]
    Type(String),
}

type RawMessage = (String, Vec<(u32, String, String)>);

fn load() -> Result<Table, LoadError> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(DATA).read_to_string(&mut text)?;
    let raw: Vec<RawMessage> = serde_json::from_str(&text)?;
    let mut names = Interner::default();
    let mut table = Table::default();
    for (index, (name, fields)) in raw.into_iter().enumerate() {
        let name = names.intern(&name);
        let field = |(number, name, kind): (u32, String, String)| {
            Ok::<_, LoadError>(Field { number, name: names.intern(&name), kind: parse_type(&kind)? })
        };
        let fields = fields.into_iter().map(field).collect::<Result<_, _>>()?;
        table.messages.push(Message::new(name, fields));
        table.by_name.insert(name, index);
    }
    Ok(table)
}

fn parse_type(text: &str) -> Result<Type, LoadError> {
    let mut rest = text.chars();
    let first = rest.next();
    let rest = rest.as_str();
    let inner = || -> Result<&'static Type, LoadError> { Ok(Box::leak(Box::new(parse_type(rest)?))) };
    let index = || rest.parse().map_err(|_| LoadError::Type(text.to_owned()));
    Ok(match first {
        Some('s') => Type::Text,
        Some('b') => Type::Bool,
        Some('i') => Type::Int32,
        Some('l') => Type::Int64,
        Some('f') => Type::Double,
        Some('B') => Type::Bytes,
        Some('q') => Type::Quantity,
        Some('o') => Type::IntOrString,
        Some('t') => Type::Time,
        Some('m') => Type::MicroTime,
        Some('r') => Type::Json,
        Some('(') => Type::Wrapped(inner()?),
        Some('[') => Type::List(inner()?),
        Some('{') => Type::Map(inner()?),
        Some('#') => Type::Message(index()?),
        Some('?') => Type::Union(index()?),
        Some('+') => Type::Inline(index()?),
        _ => return Err(LoadError::Type(text.to_owned())),
    })
}
