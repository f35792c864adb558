//! What a kind is: its names, verbs and subresources as data, and the functions that data cannot say.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

use crate::custom::Custom;
use crate::errors::{DecodeError, Errors, FieldError, PatchError, UnsupportedField};
use crate::managed_fields::{self, ApplyError, Manager};
use crate::types::{Type, types};
use crate::value::put;
use crate::warnings::Warnings;
use crate::{decode, defaults, fields, strategic, strategy, table};

/// How a request asked for unknown and duplicate fields to be treated (`fieldValidation=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The main resource: `status` is kept from the stored object where the kind has a status subresource.
    Main,
    /// `…/status`: only `status` (and labels/annotations as upstream) comes from the request.
    Status,
    /// Pod `…/ephemeralcontainers`, `…/resize`, `…/binding`; namespace `…/finalize`; CSR `…/approval`; by name.
    Other(&'static str),
}

/// A value decoded from a request body, with the warnings that the client must see.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// The four spellings of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    pub kind: &'static str,
    pub list: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
}

/// Under which resource objects of a kind are stored: two kinds that share one (both `Event`s) are one set of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
}

/// A subresource as discovery shows it; `kind` is what its body is.
#[derive(Debug, Clone, Copy)]
pub struct Subresource {
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

impl Subresource {
    /// `…/status` of a kind.
    pub const fn status(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Subresource { name: "status", group, version, kind, verbs: &["get", "patch", "update"] }
    }

    /// `…/scale`
    pub const SCALE: Self = Subresource {
        name: "scale",
        group: "autoscaling",
        version: "v1",
        kind: "Scale",
        verbs: &["get", "patch", "update"],
    };
}

/// How wide a terminal must be for a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Always shown.
    Normal,
    /// Shown by `kubectl get -o wide` only (priority 1).
    Wide,
}

/// One column of `meta.k8s.io/v1 Table`.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `boolean`, …
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the column that names the object.
    pub format: &'static str,
    pub description: &'static str,
    pub priority: Priority,
}

/// A field that a list or watch may select by.
#[derive(Debug, Clone, Copy)]
pub struct FieldLabel {
    pub label: &'static str,
    /// JSON pointer of its value.
    pub pointer: &'static str,
    /// JSON pointer of what counts where there is none.
    pub otherwise: Option<&'static str>,
    /// What an absent value counts as: the zero value of its Go type.
    pub absent: &'static str,
}

impl FieldLabel {
    /// A text field: absent is empty.
    pub const fn text(label: &'static str, pointer: &'static str) -> Self {
        Self { label, pointer, otherwise: None, absent: "" }
    }
}

/// What becomes of `status` in a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusOnCreate {
    /// Dropped, as most strategies do.
    Reset,
    /// Taken from the request: Node, and kinds without a status subresource.
    Keep,
}

/// What a delete does with what the object owns where nothing is said about it (`DefaultGarbageCollectionPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependents {
    /// It is deleted, too: most kinds.
    Deleted,
    /// It stays, as it did before there was a choice: Job, ReplicationController.
    Orphaned,
    /// It owns nothing, whatever is said: Event.
    None,
}

/// How the names of a kind may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
    /// RFC 1123 label: Namespace.
    Label,
    /// RFC 1035 label: Service.
    Label1035,
    /// Whatever can stand in a URL path: RBAC kinds.
    PathSegment,
    /// An address in its canonical form: IPAddress.
    IpAddress,
    /// Nothing is asked of it: reviews.
    Any,
}

/// The functions of a kind: what is done beyond the steps that all kinds share. The plain form does nothing more.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Fills what the request left out, after the defaults that hang on types; idempotent.
    pub default: fn(&mut Value),
    pub prepare_create: fn(&mut Value),
    pub prepare_update: fn(Part, &mut Value, &Value),
    pub validate: fn(&Value, &mut Errors),
    /// Whether an update of the object itself, not of a subresource, must be valid as a new object must.
    pub revalidate: bool,
    /// Runs after that. Where a subresource is validated, too, or in another order, it calls `validate` itself.
    pub validate_update: fn(Part, &Value, &Value, &mut Errors),
    /// What the client is told of a part of a valid object, which is new where there is no old one.
    pub warnings: fn(Part, &Value, Option<&Value>, &mut Warnings),
    /// What the client is told of a new object before it is prepared: of what preparing rewrites.
    pub warnings_unprepared: fn(&Value, &mut Warnings),
    /// The cells of [`Kind::columns`].
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
    pub to_storage: fn(Value) -> Value,
    pub from_storage: fn(Value) -> Value,
}

impl Hooks {
    pub const PLAIN: Hooks = Hooks {
        default: |_| {},
        prepare_create: |_| {},
        prepare_update: |_, _, _| {},
        validate: |_, _| {},
        revalidate: false,
        validate_update: |_, _, _, _| {},
        warnings: |_, _, _, _| {},
        warnings_unprepared: |_, _| {},
        row: table::name_and_age,
        to_storage: |object| object,
        from_storage: |object| object,
    };
}

/// One kind of object: data, and the functions that data cannot say.
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub list_kind: &'static str,
    /// Empty for kinds that are only bodies (Eviction, TokenRequest, Scale, DeleteOptions): they have no path of their own.
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// In discovery's order.
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    pub storage: Storage,
    /// Name of its definition in the OpenAPI document.
    pub definition: &'static str,
    pub names: NameRule,
    pub status_on_create: StatusOnCreate,
    /// Whether `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// Whether a PUT to a name that does not exist creates the object (Lease, Event, Endpoints, …).
    pub create_on_update: bool,
    /// Whether an update needs no `metadata.resourceVersion`.
    pub unconditional_update: bool,
    /// Whether a delete is answered with the object, not with a Status (`ReturnDeletedObject`).
    pub returns_deleted_object: bool,
    pub dependents: Dependents,
    /// What every request for it is told where the version as a whole is deprecated (`endpoints/deprecation`).
    pub deprecated: Option<&'static str>,
    /// Selectable beside `metadata.name` and `metadata.namespace`.
    pub fields: &'static [FieldLabel],
    pub columns: &'static [Column],
    pub hooks: Hooks,
    /// Of kinds that a CustomResourceDefinition describes: what its schema says.
    pub custom: Option<&'static Custom>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.kind)
    }
}

/// What can be done with a stored object.
const CRUD: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Kind {
    const fn new(group: &'static str, version: &'static str, names: Names, namespaced: bool) -> Kind {
        Kind {
            group,
            version,
            kind: names.kind,
            list_kind: names.list,
            plural: names.plural,
            singular: names.singular,
            short_names: &[],
            categories: &[],
            namespaced,
            verbs: CRUD,
            subresources: &[],
            storage: Storage { group, version, plural: names.plural },
            definition: "",
            names: NameRule::Subdomain,
            status_on_create: StatusOnCreate::Reset,
            generation: false,
            create_on_update: false,
            unconditional_update: true,
            returns_deleted_object: false,
            dependents: Dependents::Deleted,
            deprecated: None,
            fields: &[],
            columns: table::NAME_AND_AGE,
            hooks: Hooks::PLAIN,
            custom: None,
        }
    }

    /// A kind whose objects live in namespaces, with all verbs and plain hooks.
    pub const fn namespaced(group: &'static str, version: &'static str, names: Names) -> Kind {
        Self::new(group, version, names, true)
    }

    /// A kind of the whole cluster, with all verbs and plain hooks.
    pub const fn cluster(group: &'static str, version: &'static str, names: Names) -> Kind {
        Self::new(group, version, names, false)
    }

    /// A kind that only occurs as a body: no path, no verbs.
    pub const fn body(group: &'static str, version: &'static str, kind: &'static str) -> Kind {
        let names = Names { kind, list: "", plural: "", singular: "" };
        Kind { verbs: &[], ..Self::new(group, version, names, true) }
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The type of its objects; `None` where no table describes it.
    pub(crate) fn root_type(&self) -> Option<Type> {
        self.custom.map(Custom::root).or_else(|| types().root(self.definition))
    }

    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Reads a JSON body: types checked, unknown fields dropped and reported, quantities and times made canonical, and
    /// zero values dropped or filled in as Go's encoder would.
    pub fn decode(&self, body: &[u8], validation: FieldValidation) -> Result<Decoded, DecodeError> {
        decode::from_json(self, body, validation)
    }

    /// [`Kind::decode`] for a body that was parsed already (YAML, a patched object).
    pub fn decode_value(&self, body: Value, validation: FieldValidation) -> Result<Decoded, DecodeError> {
        decode::from_value(self, body, Vec::new(), validation)
    }

    /// Fills in what the request left out, as upstream's `SetDefaults_*`; idempotent.
    pub fn default(&self, object: &mut Value) {
        defaults::apply(self, object);
    }

    /// Upstream's `PrepareForCreate`: status dropped, generation 1, fields that a client may not set cleared.
    pub fn prepare_create(&self, object: &mut Value) {
        strategy::prepare_create(self, object);
    }

    /// Upstream's `PrepareForUpdate` for one part of the object: what this write may not change is kept from `old`.
    pub fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        strategy::prepare_update(self, part, object, old);
    }

    /// Everything wrong with a new object, in upstream's words; runs after admission.
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        strategy::validate_create(self, object)
    }

    /// Everything wrong with a change of one part of an object.
    pub fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        strategy::validate_update(self, part, object, old)
    }

    /// What the client must be told of a change of one part of a valid object, or of a new one, in upstream's words.
    pub fn warnings(&self, part: Part, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Warnings::default();
        (self.hooks.warnings)(part, object, old, &mut warnings);
        warnings.into_vec()
    }

    /// What the client must be told of a new object that is not yet prepared, nor known to be valid.
    pub fn warnings_unprepared(&self, object: &Value) -> Vec<String> {
        let mut warnings = Warnings::default();
        (self.hooks.warnings_unprepared)(object, &mut warnings);
        warnings.into_vec()
    }

    /// What every request for this version is told.
    pub fn deprecation(&self) -> Option<&str> {
        self.deprecated.or_else(|| self.custom.and_then(|custom| custom.deprecation.as_deref()))
    }

    pub fn columns(&self) -> &'static [Column] {
        self.columns
    }

    /// The cells of one object, as many as there are [`Kind::columns`].
    pub fn table_row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self.custom {
            Some(custom) => custom.row(object, now),
            None => (self.hooks.row)(object, now),
        }
    }

    /// Every field that objects of this kind are selected by, with the object's value.
    pub fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        fields::of(self, object)
    }

    /// Whether a field selector may name this label.
    pub fn check_field_label(&self, label: &str) -> Result<(), UnsupportedField> {
        fields::check(self, label)
    }

    /// Applies a strategic merge patch.
    pub fn strategic_merge(&self, original: &Value, patch: &Value) -> Result<Value, PatchError> {
        strategic::merge(self, original, patch)
    }

    /// Notes in `metadata.managedFields` of `new` who owns what it changes of `old`; `None` is an object that is new.
    pub fn track(&self, old: Option<&Value>, new: &mut Value, by: &Manager) {
        managed_fields::update(self, old, new, by);
    }

    /// What a server-side apply of `config` makes of `old`: merged, with its owners noted, not yet decoded or defaulted.
    pub fn apply(&self, old: Option<&Value>, config: &Value, by: &Manager, force: bool) -> Result<Value, ApplyError> {
        managed_fields::apply(self, old, config, by, force)
    }

    /// Lays what a MutatingAdmissionPolicy wants over an object: merged as an apply would, but owned by nobody.
    pub fn overlay(&self, object: &Value, config: &Value) -> Result<Value, String> {
        managed_fields::overlay(self, object, config)
    }

    /// Makes a new version that differs from the old one only in the times of its owners the old one.
    pub fn settle(&self, new: &mut Value, old: &Value) {
        managed_fields::settle(new, old);
    }

    /// The object as it is stored: as a kind of [`Kind::storage`].
    pub fn to_storage(&self, mut object: Value) -> Value {
        if self.custom.is_some() {
            let Storage { group, version, .. } = self.storage;
            put(&mut object, "apiVersion", format!("{group}/{version}").into());
        }
        (self.hooks.to_storage)(object)
    }

    /// A stored object as this kind shows it.
    pub fn from_storage(&self, object: Value) -> Value {
        match self.custom {
            Some(custom) => custom.stored(self, object),
            None => (self.hooks.from_storage)(object),
        }
    }
}
