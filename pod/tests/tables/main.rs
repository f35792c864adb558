//! Tables of what `pod::plan` and `pod::status` answer, situation by situation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod ends;
mod explanations;
mod fixture;
mod plans;
mod resizes;
mod restarts;
mod statuses;
