//! Pod specs: shared by pods and by everything that makes pods from a template.

pub(crate) mod image;
