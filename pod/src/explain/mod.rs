//! A plan in words: what is wanted next for a pod, why, what it waits for, and the facts that this was decided from.
//!
//! Pure as the plan itself. Made only when somebody asks, and of a step when it begins.

mod facts;
mod reasons;
mod waits;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::{Plan, Step};
use crate::view::View;
use crate::world::{Stage, World};

/// What a plan says, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// When the facts were read.
    pub at: String,
    /// What the plan was made from.
    pub facts: Vec<Fact>,
    /// What is to be done now.
    pub steps: Vec<Reason>,
    /// What comes later, and what holds it up.
    pub waits: Vec<String>,
    /// When the plan asks to be made anew although nothing happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<String>,
    /// Nothing is left of the pod, and nothing is wanted.
    pub done: bool,
}

/// One thing that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Of what.
    pub about: String,
    /// What.
    pub says: String,
}

/// A step, and why it is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What is to be done.
    pub step: String,
    /// What led to it.
    pub because: String,
}

/// The plan of a world, explained.
#[must_use]
pub fn explain(world: &World, plan: &Plan) -> Explanation {
    let view = View::new(world);
    Explanation {
        at: time(world.now),
        facts: facts::facts(&view),
        steps: plan.steps.iter().map(|step| reasons::reason(&view, step)).collect(),
        waits: waits::waits(&view, plan),
        wake_at: plan.wake_at.map(time),
        done: plan.done,
    }
}

/// Why one step of the plan of a world is taken.
#[must_use]
pub fn reason(world: &World, step: &Step) -> Reason {
    reasons::reason(&View::new(world), step)
}

/// To the millisecond: what happens within one second has an order.
fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// As much of an id as people compare.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn stage(stage: &Stage) -> String {
    match stage {
        Stage::Volumes => "volumes".to_owned(),
        Stage::Cgroup => "cgroup".to_owned(),
        Stage::Sandbox => "sandbox".to_owned(),
        Stage::Container(name) => format!("start of {name}"),
        Stage::Kill(name) => format!("kill of {name}"),
        Stage::Teardown => "teardown".to_owned(),
        Stage::Mirror => "mirror".to_owned(),
        Stage::Resize => "resize".to_owned(),
    }
}
