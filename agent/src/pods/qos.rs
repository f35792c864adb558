//! The cgroups of the QoS classes: all Burstable pods together have the CPU shares that they ask for, and where the configuration says so, memory is
//! protected of what pods ask for, or kept from those of lower classes (pkg/kubelet/cm/qos_container_manager_linux.go).

use std::sync::{Mutex, MutexGuard, PoisonError};

use api::PodUid;
use cgroups::{Depth, Limit, QosLevel, Values};

use super::Context;
use super::stages::limits;
use crate::client::watch::describe;
use crate::exposition::float;
use crate::metrics::families::{MEMORY_QOS_LOW, MEMORY_QOS_MIN};

/// What this agent has written, and who writes.
#[derive(Debug, Default)]
pub struct Classes {
    turn: Turn,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Of each class in the order of [`QosLevel::ALL`], what was written last.
    written: [Option<Values>; 3],
    /// Pods whose cgroups are gone while they are still registered.
    leaving: Vec<PodUid>,
}

/// Why to look at the classes.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Pods or their resources may be others.
    Some,
    /// The pod has its cgroup.
    Came(&'a PodUid),
    /// The pod has none any more, and counts no longer.
    Left(&'a PodUid),
}

/// Writes what the pods that are on the node now make of the classes, or leaves it to who is writing. What fails is made good with the next
/// change. Blocks where it writes.
pub fn update(context: &Context, change: Change<'_>) {
    {
        let mut known = lock(&context.classes.known);
        match change {
            Change::Some => {}
            Change::Came(pod) => known.leaving.retain(|uid| uid != pod),
            Change::Left(pod) => known.leaving.push(pod.clone()),
        }
    }
    context.classes.turn.take(|| write(context));
}

fn write(context: &Context) {
    let wanted = wanted(context);
    for (index, (level, values)) in QosLevel::ALL.into_iter().zip(wanted).enumerate() {
        let is_written =
            lock(&context.classes.known).written.get(index).is_some_and(|old| old.as_ref() == Some(&values));
        if is_written || values == Values::default() {
            continue;
        }
        let written = write_class(context, level, &values).then_some(values);
        if let Some(entry) = lock(&context.classes.known).written.get_mut(index) {
            *entry = written;
        }
    }
}

/// What the classes are to have now.
fn wanted(context: &Context) -> [Values; 3] {
    let mut pods = context.registry.active();
    {
        let mut known = lock(&context.classes.known);
        known.leaving.retain(|uid| pods.iter().any(|(active, _)| active == uid));
        pods.retain(|(uid, _)| !known.leaving.contains(uid));
    }
    let requests = limits::class_requests(pods.iter().filter_map(|(_, pod)| pod.spec.as_ref()));
    let policy = &context.config.classes;
    if let Some(protects) = policy.protects_memory {
        let told = |bytes: u64| float(if protects { bytes } else { 0 });
        MEMORY_QOS_MIN.set(told(requests.guaranteed_memory));
        MEMORY_QOS_LOW.set(told(requests.burstable_memory));
    }
    QosLevel::ALL.map(|level| cgroups::values::class(level, &requests, policy))
}

/// Whether the class has now what it is to have.
fn write_class(context: &Context, level: QosLevel, values: &Values) -> bool {
    let name = context.tree.qos(level);
    // Made when the agent starts, and removed only where it leaves.
    if !context.cgroups.exists(&name) {
        return false;
    }
    let Err(error) = context.cgroups.ensure(&name, values) else { return true };
    // The class may use more already than it is to have: it shall not grow at least.
    let used = context.cgroups.stats(&context.cgroups.naming().relative(&name), Depth::Brief).map(|it| it.memory.usage);
    let error = match (values.memory, used) {
        (Some(Limit::At(limit)), Ok(used)) if used > limit => {
            let near = Values { memory: Some(Limit::At(used)), ..values.clone() };
            context.cgroups.ensure(&name, &near).err().unwrap_or(error)
        }
        _ => error,
    };
    tracing::warn!(error = %describe(&error), class = %name, "the cgroup of a QoS class is not as it is to be");
    false
}

/// One works at a time, and nobody waits for him: who comes meanwhile has him look once more.
#[derive(Debug, Default)]
struct Turn(Mutex<Work>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Work {
    #[default]
    None,
    UnderWay,
    /// And again after it.
    Again,
}

impl Turn {
    /// Does `work` until nobody has asked for it since it began, or leaves that to who is at it.
    fn take(&self, work: impl Fn()) {
        {
            let mut state = lock(&self.0);
            if *state != Work::None {
                *state = Work::Again;
                return;
            }
            *state = Work::UnderWay;
        }
        let mut ending = Ending { turn: self, is_over: false };
        while !ending.is_over {
            work();
            let mut state = lock(&self.0);
            ending.is_over = *state != Work::Again;
            *state = if ending.is_over { Work::None } else { Work::UnderWay };
        }
    }
}

/// Gives the turn back also where work panics.
struct Ending<'a> {
    turn: &'a Turn,
    is_over: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            *lock(&self.turn.0) = Work::None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn nobody_waits_for_who_writes_and_the_last_word_is_written() {
        let (turn, wanted, written) = (Turn::default(), AtomicU32::new(1), Mutex::new(Vec::new()));
        let (began, has_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        std::thread::scope(|scope| {
            let (turn, wanted, written) = (&turn, &wanted, &written);
            let writer = scope.spawn(move || {
                turn.take(|| {
                    let value = wanted.load(Ordering::SeqCst);
                    began.send(()).unwrap();
                    // A D-Bus call that takes its time.
                    may_go.recv().unwrap();
                    lock(written).push(value);
                });
            });
            has_begun.recv().unwrap();
            // Other pods start meanwhile: none writes, none waits.
            for value in [2, 3] {
                wanted.store(value, Ordering::SeqCst);
                turn.take(|| lock(written).push(0));
            }
            go.send(()).unwrap();
            go.send(()).unwrap();
            writer.join().unwrap();
        });
        assert_eq!(*lock(&written), [1, 3]);
        turn.take(|| lock(&written).push(4));
        assert_eq!(*lock(&written), [1, 3, 4]);
    }

    #[test]
    fn a_panic_ends_the_turn() {
        let turn = Turn::default();
        assert!(catch_unwind(AssertUnwindSafe(|| turn.take(|| panic!("broken")))).is_err());
        let ran = AtomicU32::new(0);
        turn.take(|| ran.store(1, Ordering::SeqCst));
        assert_eq!(ran.into_inner(), 1);
    }
}
