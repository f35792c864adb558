//! Who is being answered, and who waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::oneshot;

/// How many requests of a level are answered at once, and what becomes of those beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What it has, whatever others need.
    sure: usize,
    /// What it takes where others need nothing.
    most: usize,
    beyond: Beyond,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Beyond {
    /// There is no limit.
    Exempt,
    Refused,
    /// Each flow has a hand of the queues and joins the shortest of them.
    Queued {
        queues: usize,
        hand: u64,
        longest: usize,
    },
}

impl Plan {
    /// What becomes of levels that are no more.
    const GONE: Plan = Plan { sure: 0, most: usize::MAX, beyond: Beyond::Refused };

    /// Divides the seats by the shares of the levels.
    pub(super) fn of<'a>(seats: usize, levels: impl Iterator<Item = (&'a str, &'a Value)>) -> BTreeMap<Arc<str>, Plan> {
        let levels: Vec<(&str, &Value)> = levels.collect();
        let part = |spec: &'a Value| if spec["type"] == "Exempt" { &spec["exempt"] } else { &spec["limited"] };
        let number = |value: &Value, unsaid: u64| value.as_u64().unwrap_or(unsaid);
        let shares = |spec: &'a Value| {
            number(&part(spec)["nominalConcurrencyShares"], if spec["type"] == "Exempt" { 0 } else { 30 })
        };
        let all: u64 = levels.iter().map(|(_, spec)| shares(spec)).sum::<u64>().max(1);
        let plan = |spec: &'a Value| {
            let nominal = (seats as u64).saturating_mul(shares(spec)).div_ceil(all);
            let lent = nominal.saturating_mul(number(&part(spec)["lendablePercent"], 0)).div_ceil(100).min(nominal);
            let borrowed =
                part(spec)["borrowingLimitPercent"].as_u64().map(|percent| nominal.saturating_mul(percent) / 100);
            let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            Plan {
                sure: count(nominal - lent),
                most: borrowed.map_or(seats, |borrowed| count(nominal.saturating_add(borrowed))),
                beyond: Beyond::of(spec),
            }
        };
        levels.iter().map(|(name, spec)| (Arc::from(*name), plan(spec))).collect()
    }
}

impl Beyond {
    fn of(spec: &Value) -> Self {
        let response = &spec["limited"]["limitResponse"];
        let number = |field: &str, unsaid: u64| response["queuing"][field].as_u64().unwrap_or(unsaid);
        let count = |field: &str, unsaid: u64| usize::try_from(number(field, unsaid)).unwrap_or(usize::MAX);
        match (spec["type"].as_str(), response["type"].as_str()) {
            (Some("Exempt"), _) => Beyond::Exempt,
            (_, Some("Queue")) => Beyond::Queued {
                queues: count("queues", 64).max(1),
                hand: number("handSize", 8),
                longest: count("queueLengthLimit", 50),
            },
            _ => Beyond::Refused,
        }
    }
}

/// The place of a request that is being answered.
pub(crate) struct Seat(Option<(Arc<Seats>, Arc<str>)>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((seats, level)) = self.0.take() {
            seats.free(&level);
        }
    }
}

/// What becomes of a request.
pub(super) enum Taken {
    Now(Seat),
    Later(oneshot::Receiver<Seat>),
    Never,
}

/// All seats.
pub(super) struct Seats {
    all: usize,
    levels: Mutex<BTreeMap<Arc<str>, Level>>,
}

struct Level {
    plan: Plan,
    taken: usize,
    queues: Vec<VecDeque<oneshot::Sender<Seat>>>,
    /// Whose turn it is.
    next: usize,
}

impl Level {
    fn new(plan: Plan) -> Self {
        let mut level = Level { plan: Plan::GONE, taken: 0, queues: Vec::new(), next: 0 };
        level.follow(plan);
        level
    }

    /// Those who wait keep their places, as far as there are queues for them.
    fn follow(&mut self, plan: Plan) {
        let queues = if let Beyond::Queued { queues, .. } = plan.beyond { queues } else { 0 };
        if self.queues.len() != queues {
            let waiting: Vec<_> = std::mem::take(&mut self.queues).into_iter().flatten().collect();
            self.queues.resize_with(queues.max(usize::from(!waiting.is_empty())), VecDeque::new);
            let count = self.queues.len().max(1);
            for (index, turn) in waiting.into_iter().enumerate() {
                if let Some(queue) = self.queues.get_mut(index % count) {
                    queue.push_back(turn);
                }
            }
            self.next = 0;
        }
        self.plan = plan;
    }

    fn is_anybody_waiting(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
    }

    fn wait(&mut self, flow: u64) -> Option<oneshot::Receiver<Seat>> {
        let Beyond::Queued { hand, longest, .. } = self.plan.beyond else { return None };
        let count = self.queues.len() as u64;
        let pick = |card: u64| {
            let mut hasher = DefaultHasher::new();
            (flow, card).hash(&mut hasher);
            usize::try_from(hasher.finish().checked_rem(count)?).ok()
        };
        let length = |index: &usize| self.queues.get(*index).map_or(usize::MAX, VecDeque::len);
        let index = (0..hand.max(1)).filter_map(pick).min_by_key(length)?;
        let queue = self.queues.get_mut(index)?;
        if queue.len() >= longest {
            queue.retain(|turn| !turn.is_closed());
        }
        if queue.len() >= longest {
            return None;
        }
        let (turn, told) = oneshot::channel();
        queue.push_back(turn);
        Some(told)
    }

    /// The one whose turn it is: of each queue one after the other.
    fn first(&mut self) -> Option<oneshot::Sender<Seat>> {
        for _ in 0..self.queues.len() {
            let index = self.next % self.queues.len();
            self.next = index + 1;
            if let Some(turn) = self.queues.get_mut(index).and_then(VecDeque::pop_front) {
                return Some(turn);
            }
        }
        None
    }
}

impl Seats {
    pub(super) fn new(all: usize) -> Self {
        Seats { all, levels: Mutex::default() }
    }

    pub(super) fn configure(&self, plans: BTreeMap<Arc<str>, Plan>) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, level) in levels.iter_mut().filter(|(name, _)| !plans.contains_key(*name)) {
            tracing::debug!(level = &**name, "a priority level is no more");
            level.follow(Plan::GONE);
        }
        levels.retain(|name, level| plans.contains_key(name) || level.taken > 0 || level.is_anybody_waiting());
        for (name, plan) in plans {
            match levels.get_mut(&name) {
                Some(level) => level.follow(plan),
                None => {
                    levels.insert(name, Level::new(plan));
                }
            }
        }
    }

    /// Takes a seat of a level, or a place in a queue.
    pub(super) fn take(self: &Arc<Self>, name: &Arc<str>, flow: u64) -> Taken {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = self.has_room(&levels, name);
        let Some(level) = levels.get_mut(name) else { return Taken::Now(Seat(None)) };
        if level.plan.beyond == Beyond::Exempt {
            return Taken::Now(Seat(None));
        }
        if has_room && !level.is_anybody_waiting() {
            level.taken += 1;
            return Taken::Now(Seat(Some((Arc::clone(self), Arc::clone(name)))));
        }
        let Some(turn) = level.wait(flow) else { return Taken::Never };
        // Those before him may all have gone away.
        self.serve(&mut levels, name);
        Taken::Later(turn)
    }

    /// Whether one more of a level can be answered without taking what others are sure of.
    fn has_room(&self, levels: &BTreeMap<Arc<str>, Level>, name: &str) -> bool {
        let Some(own) = levels.get(name) else { return true };
        if own.taken < own.plan.sure {
            return true;
        }
        let others = levels.iter().filter(|(other, _)| &***other != name);
        let kept: usize = others.map(|(_, level)| level.taken.max(level.plan.sure)).sum();
        own.taken < own.plan.most && own.taken + kept < self.all
    }

    fn free(self: &Arc<Self>, name: &str) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(level) = levels.get_mut(name) {
            level.taken = level.taken.saturating_sub(1);
        }
        // Who was served least compared with what he is sure of comes first: his own level, mostly.
        let mut waiting: Vec<Arc<str>> =
            levels.iter().filter(|(_, level)| level.is_anybody_waiting()).map(|(name, _)| Arc::clone(name)).collect();
        waiting.sort_by_key(|name| levels.get(name).map(|level| level.taken >= level.plan.sure));
        for name in waiting {
            self.serve(&mut levels, &name);
        }
    }

    /// Gives seats to those of a level who wait, as long as there is room for them.
    fn serve(self: &Arc<Self>, levels: &mut BTreeMap<Arc<str>, Level>, name: &Arc<str>) {
        while self.has_room(levels, name) && self.call(levels, name) {}
    }

    /// Gives a seat to the first of a level who still waits; false when nobody does.
    fn call(self: &Arc<Self>, levels: &mut BTreeMap<Arc<str>, Level>, name: &Arc<str>) -> bool {
        let Some(level) = levels.get_mut(name) else { return false };
        while let Some(turn) = level.first() {
            let seat = Seat(Some((Arc::clone(self), Arc::clone(name))));
            match turn.send(seat) {
                Ok(()) => {
                    level.taken += 1;
                    return true;
                }
                // He went away; his seat was not counted.
                Err(mut seat) => {
                    seat.0.take();
                }
            }
        }
        false
    }
}
