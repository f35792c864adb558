//! nftables transactions as data.
//!
//! A [`Batch`] lists what happens to one `inet` table; [`Kernel`] commits it in one atomic transaction. The types model
//! what Keelson's rulesets use, in the kernel's own terms (registers, lookups, verdicts), so that a ruleset can be
//! compared, counted and printed (see [`Batch::listing`]) without a kernel.

mod kernel;
mod listing;
mod lower;
mod model;
#[cfg(test)]
mod tests;

pub use kernel::{Generation, Kernel, Nft};
pub use model::{
    Batch, Chain, CtKey, Data, Datum, Element, Expr, Family, Field, Hook, HookKind, MAX_WORDS, MetaKey, Name, Op, Reg,
    Reject, Rule, Set, Type, Verdict, key,
};
