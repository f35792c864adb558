//! What the API server knows about each kind, as data plus small pure functions: types, defaults, validation,
//! strategies, merge keys, table columns, OpenAPI. No I/O, no HTTP, no store.
//!
//! An object is one [`serde_json::Value`] from the moment it is decoded until it is encoded. The road of a write is
//! [`Kind::decode`], [`Kind::default`], [`Kind::prepare_create`] or [`Kind::prepare_update`], admission (elsewhere),
//! [`Kind::validate_create`] or [`Kind::validate_update`], [`Kind::warnings`], [`Kind::to_storage`].
//!
//! # Adding a kind
//! 1. Name its definition in `data/generate.py` (`ROOTS`) and run that script; it writes `data/types.json.gz` (what the
//!    server checks against) and `data/openapi.json.gz` (what clients are shown). `data/protobuf.py` writes `data/protobuf.json.gz` (how its messages look).
//! 2. Write `src/kinds/<group>/<kind>.rs`: one `pub static KIND: Kind`, starting from [`Kind::namespaced`] or
//!    [`Kind::cluster`], that names the functions which differ from the plain ones ([`Hooks`]).
//! 3. List it in `kinds::ALL`.
//!
//! Nothing in the API server changes: paths, discovery, OpenAPI, tables, patches and watches follow from the description.

mod addresses;
mod custom;
mod decode;
mod defaults;
mod errors;
mod fields;
mod json;
mod kind;
mod kinds;
mod managed_fields;
mod meta;
mod names;
pub mod openapi;
mod pod;
pub mod protobuf;
mod quantity;
mod registry;
pub mod scale;
mod strategic;
mod strategy;
mod table;
mod types;
mod value;
mod warnings;

pub use custom::{Catalog, Custom};
pub use errors::{DecodeError, Errors, FieldError, PatchError, Path, UnsupportedField};
pub use kind::{
    Column, Decoded, Dependents, FieldLabel, FieldValidation, Hooks, Kind, NameRule, Names, Part, Priority,
    StatusOnCreate, Storage, Subresource,
};
pub use managed_fields::{ApplyError, Conflict, Manager};
pub use meta::selects_if_any as selects;
pub use pod::update::bind as bind_pod;
pub use registry::{Group, Registry, newest_first};
pub use table::human_duration;
pub use value::{DEEPEST, is_deeper};
pub use warnings::Warnings;
