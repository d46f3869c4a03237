//! Deployments as a pure function of counts: what stands in, how many of each are wanted next out. No clock, no I/O, no
//! specs. One call is about one process type; a canary deployment is a rolling one that stops at its steps.
//!
//! One rule holds for both directions: an instance that serves is given up only when the others that serve are enough
//! for the wanted number. Of the side that grows, an instance counts once every live router has it in force; of the
//! side that shrinks, whatever the routing table holds. Cancelling is the mirror image of rolling.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

/// One process of the deployment, as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// How many instances are wanted now.
    pub desired: u32,
    /// Indexes in the routing table.
    pub routable: BTreeSet<u32>,
    /// Of these, the ones that every live router has in force.
    pub acked: BTreeSet<u32>,
    /// Indexes that have crashed and wait for their next start, or were given up.
    pub broken: BTreeSet<u32>,
}

impl Side {
    fn serving_below(&self, limit: u32) -> u32 {
        count(self.routable.range(..limit.min(self.desired)))
    }

    fn acked(&self) -> u32 {
        count(self.acked.range(..self.desired))
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// What a step of a canary deployment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Instances of the new version.
    pub new: u32,
    /// Instances of what ran before.
    pub old: u32,
    /// How many must serve all the time.
    pub enough: u32,
}

impl Canary {
    /// The counts for a weight in percent, as Cloud Foundry rounds them: at least one new instance, and one old one
    /// more than the weight leaves, until everything is new. Without a weight: one new instance beside all old ones.
    /// Where nothing is wanted, there is no canary, but its steps stand.
    /// `wanted` and `before` are the instances of the new version at its end, and of the old one at the beginning.
    #[must_use]
    pub fn of(weight: Option<u32>, wanted: u32, before: u32) -> Self {
        if wanted == 0 {
            return Self { new: 0, old: before, enough: 0 };
        }
        let Some(weight) = weight else { return Self { new: 1, old: before, enough: before.min(wanted) } };
        let whole = wanted.min(before);
        let share = (u64::from(whole) * u64::from(weight.min(100)) + 50) / 100;
        let new = u32::try_from(share).unwrap_or(whole).max(1);
        let old = if weight >= 100 { 0 } else { (whole + 1).saturating_sub(new) };
        Self { new, old, enough: whole }
    }
}

/// Everything a step depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Instances that the new process is to have.
    pub wanted: u32,
    /// Instances that the first old process gets back when the deployment is cancelled.
    pub restore: u32,
    /// New instances that may be on their way at a time; at least 1.
    pub max_in_flight: u32,
    /// What ran before, then what superseded deployments left. Never empty; the last one shrinks first.
    pub old: Vec<Side>,
    /// How many of `old`, counted from the end, are canaries of superseded deployments: nobody said of them that they
    /// are good, so they go as soon as the others are enough.
    pub abandoned: usize,
    /// The step at which the deployment stops; `None` = it goes to its end.
    pub canary: Option<Canary>,
    /// It stands at its step and waits for the developer.
    pub paused: bool,
    /// What is rolled out.
    pub new: Side,
    /// The developer wants the old ones back.
    pub cancelling: bool,
    /// The old ones have had their time to come back, see [`CANCEL_TIMEOUT_S`].
    pub cancel_overdue: bool,
}

/// For how long a cancelled deployment waits for old instances that neither serve nor crash. Longer keeps a client
/// waiting for a cell that has no room; shorter takes new instances away from requests before old ones serve.
pub const CANCEL_TIMEOUT_S: i64 = 300;

/// What a step wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These many instances of each from now on; equal to what is desired when there is nothing to do.
    Scale {
        /// One for each of [`State::old`].
        old: Vec<u32>,
        /// Of the new process.
        new: u32,
    },
    /// The canary's step is reached: nothing more until the developer says so.
    Pause,
    /// The new process takes over: nothing of the old ones is wanted any more.
    Finish,
    /// The first old process is back: all others go.
    Cancelled,
}

/// Decides. Applying the result and deciding again without any other change asks for nothing more.
#[must_use]
pub fn step(state: &State) -> Step {
    if state.cancelling { cancel(state) } else { roll(state) }
}

fn roll(state: &State) -> Step {
    let before: Vec<u32> = state.old.iter().map(|side| side.desired).collect();
    if state.paused {
        return Step::Scale { old: before, new: state.new.desired };
    }
    let (goal, total, enough) = match state.canary {
        Some(step) => (step.new, step.new.saturating_add(step.old), step.enough),
        None => (state.wanted, state.wanted, state.wanted),
    };
    // The developer may want fewer than before, see [`rescale`]: those beyond the goal do not stay.
    let acked = count(state.new.acked.range(..state.new.desired.min(goal)));
    let grown = acked.saturating_add(state.max_in_flight.max(1));
    // A crash does not take back what was begun.
    let new =
        if state.new.desired > goal { lower(state, goal, enough) } else { state.new.desired.max(grown).min(goal) };
    if state.canary.is_none() && acked >= goal && before.iter().all(|count| *count == 0) {
        return Step::Finish;
    }
    let lasting = before[..before.len().saturating_sub(state.abandoned)].iter().sum();
    let sides: Vec<&Side> = state.old.iter().collect();
    let old = shrink(&sides, acked, enough, total.saturating_sub(acked).min(lasting));
    if state.canary.is_some() && acked >= goal && old == before && new == state.new.desired {
        return Step::Pause;
    }
    Step::Scale { old, new }
}

/// The new process with fewer instances, down to `goal` as long as enough serve.
fn lower(state: &State, goal: u32, enough: u32) -> u32 {
    let old: u32 = state.old.iter().map(|side| side.serving_below(side.desired)).sum();
    let mut new = state.new.desired;
    while new > goal {
        let last = new - 1;
        if state.new.routable.contains(&last) && old.saturating_add(state.new.serving_below(last)) < enough {
            break;
        }
        new = last;
    }
    new
}

/// The developer wants `after` instances in place of `before` while the deployment goes on. `counts` are those of the old
/// processes and, last, of the new one; never empty. More are wanted of what is known to work at once; fewer are left to
/// the steps, which know what serves, unless nothing has been rolled yet.
pub fn rescale(counts: &mut [u32], before: u32, after: u32) {
    let Some((new, old)) = counts.split_last_mut() else { return };
    if after > before {
        // Where the new ones have replaced all others, they are what is known to work.
        let rolled = before > 0 && *new >= before && old.iter().all(|count| *count == 0);
        match old.first_mut() {
            Some(own) if !rolled => *own = own.saturating_add(after - before),
            _ => *new = after.max(*new),
        }
    } else if after < before && *new == 0 {
        let mut over = old.iter().sum::<u32>().saturating_sub(after);
        for count in old.iter_mut().rev() {
            let less = over.min(*count);
            *count -= less;
            over -= less;
        }
    }
}

fn cancel(state: &State) -> Step {
    let Some((first, superseded)) = state.old.split_first() else { return Step::Cancelled };
    let settled = |index: u32| first.acked.contains(&index) || first.broken.contains(&index);
    if state.cancel_overdue || (first.desired >= state.restore && (0..state.restore).all(settled)) {
        return Step::Cancelled;
    }
    let others: Vec<&Side> = superseded.iter().chain([&state.new]).collect();
    let mut counts = shrink(&others, first.acked(), state.restore, 0);
    let new = counts.pop().unwrap_or(0);
    // All old ones at once: they are known to work, and the sooner they are back the better.
    counts.insert(0, state.restore.max(first.desired));
    Step::Scale { old: counts, new }
}

/// Takes instances from the last side on, down to `keep` in all, as long as `acked` and what still serves is enough.
/// An instance that does not serve is never the reason to keep one.
fn shrink(sides: &[&Side], acked: u32, enough: u32, keep: u32) -> Vec<u32> {
    let mut counts: Vec<u32> = sides.iter().map(|side| side.desired).collect();
    while counts.iter().sum::<u32>() > keep
        && let Some(last) = counts.iter().rposition(|count| *count > 0)
    {
        counts[last] -= 1;
        let serving: u32 = sides.iter().zip(&counts).map(|(side, count)| side.serving_below(*count)).sum();
        if sides[last].routable.contains(&counts[last]) && serving.saturating_add(acked) < enough {
            counts[last] += 1;
            break;
        }
    }
    counts
}
