//! Who is being answered, and who waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::oneshot;

/// What any request takes at most (`MaximumListSeatsLimit`).
const WIDEST: u64 = 100;

/// How many requests of a level are answered at once, and what becomes of those beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What it has, whatever others need.
    sure: usize,
    /// What it takes where others need nothing.
    most: usize,
    /// What one request takes at most.
    widest: usize,
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
    const GONE: Plan = Plan { sure: 0, most: usize::MAX, widest: 1, beyond: Beyond::Refused };

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
            let beyond = Beyond::of(spec);
            // A part of the level's own seats (`priorityLevelMaxSeatsPercent`).
            let widest = match beyond {
                Beyond::Queued { hand, .. } => (nominal * 15).div_ceil(100).min(nominal / hand.max(1)).max(1),
                Beyond::Exempt | Beyond::Refused => WIDEST,
            };
            Plan {
                sure: count(nominal - lent),
                most: borrowed.map_or(seats, |borrowed| count(nominal.saturating_add(borrowed))),
                widest: count(widest.min(WIDEST)),
                beyond,
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

/// The seats of a request that is being answered.
pub(crate) struct Seat(Option<Taking>);

struct Taking {
    seats: Arc<Seats>,
    level: Arc<str>,
    width: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(Taking { seats, level, width }) = self.0.take() {
            seats.free(&level, width);
        }
    }
}

/// One who waits.
struct Turn {
    width: usize,
    told: oneshot::Sender<Seat>,
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
    queues: Vec<VecDeque<Turn>>,
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

    fn wait(&mut self, flow: u64, width: usize) -> Option<oneshot::Receiver<Seat>> {
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
            queue.retain(|turn| !turn.told.is_closed());
        }
        if queue.len() >= longest {
            return None;
        }
        let (told, turn) = oneshot::channel();
        queue.push_back(Turn { width, told });
        Some(turn)
    }

    /// Whose turn it is, of each queue one after the other, and how many seats he takes. Those who went away are passed over.
    fn first(&mut self) -> Option<(usize, usize)> {
        for step in 0..self.queues.len() {
            let index = (self.next + step) % self.queues.len();
            let Some(queue) = self.queues.get_mut(index) else { continue };
            while queue.front().is_some_and(|turn| turn.told.is_closed()) {
                queue.pop_front();
            }
            if let Some(turn) = queue.front() {
                return Some((index, turn.width));
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

    /// Takes so many seats of a level, or a place in a queue.
    pub(super) fn take(self: &Arc<Self>, name: &Arc<str>, flow: u64, width: usize) -> Taken {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let width = levels.get(name).map_or(1, |level| width.clamp(1, level.plan.widest));
        let has_room = self.has_room(&levels, name, width);
        let Some(level) = levels.get_mut(name) else { return Taken::Now(Seat(None)) };
        if level.plan.beyond == Beyond::Exempt {
            return Taken::Now(Seat(None));
        }
        if has_room && !level.is_anybody_waiting() {
            level.taken += width;
            return Taken::Now(self.seat(name, width));
        }
        let Some(turn) = level.wait(flow, width) else { return Taken::Never };
        // Those before him may all have gone away.
        self.serve(&mut levels, name);
        Taken::Later(turn)
    }

    fn seat(self: &Arc<Self>, level: &Arc<str>, width: usize) -> Seat {
        Seat(Some(Taking { seats: Arc::clone(self), level: Arc::clone(level), width }))
    }

    /// Whether so many more seats of a level can be taken without taking what others are sure of. What is wider than all that
    /// a level may have is answered alone.
    fn has_room(&self, levels: &BTreeMap<Arc<str>, Level>, name: &str, width: usize) -> bool {
        let Some(own) = levels.get(name) else { return true };
        if own.taken + width <= own.plan.sure {
            return true;
        }
        let others = levels.iter().filter(|(other, _)| &***other != name);
        let kept: usize = others.map(|(_, level)| level.taken.max(level.plan.sure)).sum();
        let fits = |width: usize| own.taken + width <= own.plan.most && own.taken + width + kept <= self.all;
        fits(width) || (own.taken == 0 && fits(1))
    }

    fn free(self: &Arc<Self>, name: &str, width: usize) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(level) = levels.get_mut(name) {
            level.taken = level.taken.saturating_sub(width);
        }
        // Who was served least compared with what he is sure of comes first: his own level, mostly.
        let mut waiting: Vec<Arc<str>> =
            levels.iter().filter(|(_, level)| level.is_anybody_waiting()).map(|(name, _)| Arc::clone(name)).collect();
        waiting.sort_by_key(|name| levels.get(name).map(|level| level.taken >= level.plan.sure));
        for name in waiting {
            self.serve(&mut levels, &name);
        }
    }

    /// Gives seats to those of a level who wait, as long as there is room for the next of them.
    fn serve(self: &Arc<Self>, levels: &mut BTreeMap<Arc<str>, Level>, name: &Arc<str>) {
        while let Some((index, width)) = levels.get_mut(name).and_then(Level::first) {
            if !self.has_room(levels, name, width) {
                return;
            }
            let Some(level) = levels.get_mut(name) else { return };
            let Some(turn) = level.queues.get_mut(index).and_then(VecDeque::pop_front) else { return };
            level.next = index + 1;
            match turn.told.send(self.seat(name, width)) {
                Ok(()) => level.taken += width,
                // He went away meanwhile; his seats were not counted.
                Err(mut seat) => {
                    seat.0.take();
                }
            }
        }
    }
}
