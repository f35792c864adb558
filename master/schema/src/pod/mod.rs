//! Pod specs: shared by pods and by everything that makes pods from a template.

pub(crate) mod image;
pub(crate) mod qos;
pub(crate) mod row;
pub(crate) mod update;
pub(crate) mod validate;
