//! What the project's issues promise of the figures, and whether it is kept.

use super::compare::Compared;
use super::rows::Better;

/// A promise about one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Where it was made.
    pub issue: u8,
    pub row: &'static str,
    pub limit: Limit,
}

/// What the middle over all rounds must not exceed or, where more is better, not fall below.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    Value(f64),
    /// So many times what stock has on the same machine.
    OfStock(f64),
}

const fn goal(issue: u8, row: &'static str, value: f64) -> Goal {
    Goal { issue, row, limit: Limit::Value(value) }
}

const fn of_stock(issue: u8, row: &'static str, share: f64) -> Goal {
    Goal { issue, row, limit: Limit::OfStock(share) }
}

pub const NODE: &[Goal] = &[
    goal(3, "ready.floor", 1.15),
    goal(3, "gone.floor", 1.3),
    goal(3, "burst.floor", 1.15),
    goal(3, "empty.pss", 20.0),
    goal(3, "full.pss", 35.0),
    goal(3, "full.cpu", 0.5),
    goal(3, "full.runtime.cpu", 0.5),
    goal(5, "ready.floor", 1.10),
    goal(5, "probed.after", 100.0),
    goal(5, "gone.floor", 1.25),
    goal(5, "burst.floor", 1.1),
    goal(5, "burst.gone.floor", 1.2),
    goal(5, "empty.pss", 15.0),
    goal(5, "full.pss", 25.0),
    goal(5, "full.cpu", 0.2),
    goal(5, "full.runtime.cpu", 0.3),
    of_stock(5, "probing.cpu", 0.25),
];

pub const CONTROL: &[Goal] =
    &[of_stock(3, "create.protobuf.one", 2.0), of_stock(3, "create.protobuf.many", 2.0), goal(3, "idle.pss", 60.0)];

pub const PROXY: &[Goal] = &[goal(3, "change.few", 10.0), goal(3, "change.many", 10.0)];

pub const CNI: &[Goal] = &[goal(3, "bridge.add", 5.0), goal(3, "bridge.del", 8.0)];

/// Flat: less than a KiB stays of a pod.
pub const FLAT: &[Goal] = &[goal(5, "flat.growth", 0.8)];

/// Whether a goal is met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    pub goal: Goal,
    /// What the goal comes to on this machine.
    pub limit: f64,
    pub measured: f64,
    pub met: bool,
}

impl Verdict {
    /// By how much it is missed: 0.04 is 4 % of the limit; 0 where it is met.
    #[must_use]
    pub fn missed_by(&self) -> f64 {
        if self.met { 0.0 } else { (self.measured / self.limit - 1.0).abs() }
    }
}

/// Judges those goals whose rows were measured.
#[must_use]
pub fn judge(goals: &[Goal], compared: &[Compared]) -> Vec<(Verdict, Compared)> {
    let row = |goal: &Goal| compared.iter().find(|c| c.row.id == goal.row);
    goals.iter().filter_map(|goal| row(goal).and_then(|c| Some((verdict(goal, c)?, c.clone())))).collect()
}

fn verdict(goal: &Goal, compared: &Compared) -> Option<Verdict> {
    let measured = compared.ours?.median;
    let limit = match goal.limit {
        Limit::Value(value) => value,
        Limit::OfStock(share) => compared.stock?.median * share,
    };
    let met = match compared.row.better {
        Better::Less => measured <= limit,
        Better::More => measured >= limit,
    };
    Some(Verdict { goal: *goal, limit, measured, met })
}

#[cfg(test)]
mod tests {
    use super::super::figures::Spread;
    use super::super::rows::{Row, Take, Unit};
    use super::*;

    fn compared(better: Better, stock: f64, ours: f64) -> Compared {
        let row = Row { id: "x".into(), what: "x".into(), take: Take::Median("x".into()), unit: Unit::Times, better };
        Compared { row, stock: Spread::of(&[stock]), ours: Spread::of(&[ours]), factor: None }
    }

    fn judged(goal: Goal, compared: Compared) -> Verdict {
        judge(&[goal], &[compared])[0].0
    }

    #[test]
    fn a_limit_is_the_most_where_less_is_better_and_the_least_where_more_is() {
        assert!(judged(goal(3, "x", 2.0), compared(Better::Less, 9.0, 2.0)).met);
        assert!(!judged(goal(3, "x", 2.0), compared(Better::Less, 9.0, 2.1)).met);
        assert!(!judged(goal(3, "x", 2.0), compared(Better::More, 9.0, 1.9)).met);
    }

    #[test]
    fn a_limit_may_be_a_share_of_stock() {
        let verdict = judged(of_stock(5, "x", 0.25), compared(Better::Less, 8.0, 3.0));
        assert_eq!((verdict.limit, verdict.met, verdict.missed_by()), (2.0, false, 0.5));
        assert!(judged(of_stock(3, "x", 2.0), compared(Better::More, 8.0, 16.0)).met);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        let mut missing = compared(Better::Less, 1.0, 1.0);
        missing.stock = None;
        assert!(judge(&[of_stock(5, "x", 1.0), goal(5, "y", 1.0)], &[missing]).is_empty());
    }
}
