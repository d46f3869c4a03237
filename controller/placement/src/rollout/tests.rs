//! Tables of single steps, and whole deployments with instances that come, crash and return in any order.

use proptest::prelude::*;

use super::*;

fn side(desired: u32, serving: impl IntoIterator<Item = u32>) -> Side {
    let routable: BTreeSet<u32> = serving.into_iter().collect();
    Side { desired, acked: routable.clone(), routable, broken: BTreeSet::new() }
}

fn rolling(wanted: u32, old: Side, new: Side) -> State {
    State { wanted, restore: wanted, max_in_flight: 1, old: vec![old], new, ..State::default() }
}

fn scale(old: u32, new: u32) -> Step {
    Step::Scale { old: vec![old], new }
}

#[test]
fn one_at_a_time() {
    for (old, new, next) in [
        (side(3, 0..3), side(1, []), scale(3, 1)),
        (side(3, 0..3), side(1, 0..1), scale(2, 2)),
        (side(2, 0..2), side(2, 0..2), scale(1, 3)),
        (side(1, 0..1), side(3, 0..3), scale(0, 3)),
        (side(0, []), side(3, 0..3), Step::Finish),
        // An old one is missing: the new one fills the gap, nothing that serves is given up.
        (side(3, [0, 2]), side(1, 0..1), scale(3, 2)),
        // The last old one does not serve: it is no loss.
        (side(3, 0..2), side(1, 0..1), scale(2, 2)),
        // Nothing of the old serves: a broken app is replaced by count.
        (side(3, []), side(1, 0..1), scale(2, 2)),
        (side(3, []), side(1, []), scale(3, 1)),
        // A new one crashed after old ones went: nothing more goes, and nothing is taken back.
        (side(1, 0..1), side(3, [0]), scale(1, 3)),
    ] {
        let state = rolling(3, old, new);
        assert_eq!(step(&state), next, "{state:?}");
    }
}

#[test]
fn only_acknowledged_instances_count() {
    let mut state = rolling(2, side(2, 0..2), side(1, 0..1));
    state.new.acked.clear();
    assert_eq!(step(&state), scale(2, 1));
}

#[test]
fn more_in_flight_and_another_size() {
    let mut state = rolling(5, side(2, 0..2), side(2, []));
    state.max_in_flight = 2;
    assert_eq!(step(&state), scale(2, 2));
    state.new = side(2, 0..2);
    assert_eq!(step(&state), scale(2, 4));
    state.new = side(4, 0..4);
    assert_eq!(step(&state), scale(1, 5));
    let fewer = rolling(1, side(3, 0..3), side(1, []));
    assert_eq!(step(&fewer), scale(1, 1), "more than wanted serve");
    let none = rolling(0, side(0, []), side(0, []));
    assert_eq!(step(&none), Step::Finish);
}

#[test]
fn what_superseded_deployments_left_goes_first() {
    let mut state = rolling(3, side(2, 0..2), side(1, 0..1));
    state.old.push(side(1, 0..1));
    assert_eq!(step(&state), Step::Scale { old: vec![2, 0], new: 2 });
}

#[test]
fn cancelling_restores_before_it_removes() {
    let mut state = rolling(3, side(1, 0..1), side(3, 0..2));
    state.cancelling = true;
    assert_eq!(step(&state), scale(3, 2), "the one that does not serve goes at once");
    state.old[0] = side(3, 0..2);
    assert_eq!(step(&state), scale(3, 1));
    state.old[0] = side(3, 0..3);
    assert_eq!(step(&state), Step::Cancelled);
    state.old[0] = side(3, 0..2);
    state.old[0].broken.insert(2);
    assert_eq!(step(&state), Step::Cancelled, "what crashes as before does not hold the cancellation");
    state.old[0] = side(3, 0..1);
    state.cancel_overdue = true;
    assert_eq!(step(&state), Step::Cancelled);
}

#[test]
fn a_canary_has_the_share_that_cloud_foundry_gives_it() {
    for (weight, wanted, before, new, old) in [
        (None, 3, 3, 1, 3),
        (None, 1, 10, 1, 10),
        (Some(1), 10, 10, 1, 10),
        (Some(20), 10, 10, 2, 9),
        (Some(25), 10, 10, 3, 8),
        (Some(24), 10, 10, 2, 9),
        (Some(50), 3, 3, 2, 2),
        (Some(99), 3, 3, 3, 1),
        (Some(100), 3, 3, 3, 0),
        (Some(50), 4, 10, 2, 3),
        (Some(50), 10, 4, 2, 3),
        // There it would have one, of which nothing is wanted: an app of workers has no command for it.
        (Some(100), 0, 0, 0, 0),
        (None, 0, 3, 0, 3),
    ] {
        let step = Canary::of(weight, wanted, before);
        assert_eq!((step.new, step.old), (new, old), "{weight:?} of {wanted}, before {before}");
        assert!(weight.is_none() || step.enough == wanted.min(before));
    }
}

fn canary(weight: Option<u32>, old: Side, new: Side) -> State {
    State { canary: Some(Canary::of(weight, 4, 4)), ..rolling(4, old, new) }
}

#[test]
fn a_canary_stops_at_its_step_and_goes_on_from_there() {
    for (weight, old, new, next) in [
        (None, side(4, 0..4), side(0, []), scale(4, 1)),
        (None, side(4, 0..4), side(1, []), scale(4, 1)),
        (None, side(4, 0..4), side(1, 0..1), Step::Pause),
        (Some(50), side(4, 0..4), side(1, 0..1), scale(4, 2)),
        (Some(50), side(4, 0..4), side(2, 0..2), scale(3, 2)),
        (Some(50), side(3, 0..3), side(2, 0..2), Step::Pause),
        // The old one is missing an instance: what serves stays, and the step is reached all the same.
        (Some(50), side(4, [3]), side(2, 0..2), Step::Pause),
        (Some(100), side(3, 0..3), side(4, 0..4), scale(0, 4)),
        (Some(100), side(0, []), side(4, 0..4), Step::Pause),
    ] {
        let state = canary(weight, old, new);
        assert_eq!(step(&state), next, "{state:?}");
    }
    let mut state = canary(Some(50), side(3, 0..3), side(2, 0..2));
    state.paused = true;
    assert_eq!(step(&state), scale(3, 2), "nothing moves while it waits");
    state.new.acked.clear();
    assert_eq!(step(&state), scale(3, 2), "and nothing when the canary dies");
    state.cancelling = true;
    assert_eq!(step(&state), scale(4, 1), "but it can be taken back");
    let state = rolling(4, side(3, 0..3), side(2, 0..2));
    assert_eq!(step(&state), scale(2, 3));
}

#[test]
fn an_abandoned_canary_goes_as_soon_as_the_others_are_enough() {
    let mut state = rolling(3, side(3, 0..3), side(1, []));
    state.old.push(side(2, 0..2));
    assert_eq!(step(&state), Step::Scale { old: vec![3, 0], new: 1 });
    state.old = vec![side(2, 0..2), side(2, 0..2)];
    state.abandoned = 1;
    assert_eq!(step(&state), Step::Scale { old: vec![2, 1], new: 1 }, "three must serve");
    // A canary that follows a canary leaves the old ones alone and takes the other's place.
    state.canary = Some(Canary::of(None, 3, 3));
    state.old = vec![side(3, 0..3), side(1, 0..1)];
    assert_eq!(step(&state), Step::Scale { old: vec![3, 0], new: 1 });
}

#[test]
fn another_number_is_wanted_while_it_rolls() {
    for (why, counts, before, after, now) in [
        ("its turn has not come", vec![2, 0], 2, 5, vec![5, 0]),
        ("its turn has not come", vec![4, 0], 4, 1, vec![1, 0]),
        ("what a superseded one left goes first", vec![2, 2, 0], 4, 1, vec![1, 0, 0]),
        ("half way, up: of what is known to work", vec![1, 2], 2, 5, vec![4, 2]),
        ("half way, down: the steps know what serves", vec![2, 2], 3, 1, vec![2, 2]),
        ("rolled", vec![0, 3], 3, 5, vec![0, 5]),
        ("rolled, down: the steps know what serves", vec![0, 3], 3, 1, vec![0, 3]),
        ("nothing was wanted", vec![0, 0], 0, 2, vec![2, 0]),
        ("the same", vec![2, 1, 0], 2, 2, vec![2, 1, 0]),
    ] {
        let mut counts = counts;
        rescale(&mut counts, before, after);
        assert_eq!(counts, now, "{why}: from {before} to {after}");
    }
    // Fewer are wanted, but the new one that would stay does not serve.
    for (old, new, next) in [
        (side(1, 0..1), side(3, [1, 2]), scale(1, 1)),
        (side(0, []), side(3, [1, 2]), scale(0, 2)),
        (side(0, []), side(3, 0..3), Step::Finish),
    ] {
        let state = rolling(1, old, new);
        assert_eq!(step(&state), next, "{state:?}");
    }
}

/// Applies a step; indexes beyond what is desired leave the table.
fn apply(state: &mut State, old: &[u32], new: u32) {
    for (side, count) in state.old.iter_mut().zip(old).chain([(&mut state.new, &new)]) {
        side.desired = *count;
        for set in [&mut side.routable, &mut side.acked, &mut side.broken] {
            set.retain(|index| index < count);
        }
    }
}

fn serving(state: &State) -> u32 {
    state.old.iter().chain([&state.new]).map(|side| side.serving_below(side.desired)).sum()
}

/// What happens to an instance between two steps.
#[derive(Clone, Copy, Debug)]
enum Event {
    Routable,
    Acked,
    Crash,
}

fn happen(side: &mut Side, index: u32, event: Event) {
    if index >= side.desired {
        return;
    }
    match event {
        Event::Routable => {
            side.routable.insert(index);
            side.broken.remove(&index);
        }
        Event::Acked => {
            if side.routable.contains(&index) {
                side.acked.insert(index);
            }
        }
        Event::Crash => {
            side.routable.remove(&index);
            side.acked.remove(&index);
            side.broken.insert(index);
        }
    }
}

fn events() -> impl Strategy<Value = Vec<(bool, u32, Event)>> {
    let event = prop_oneof![3 => Just(Event::Routable), 3 => Just(Event::Acked), 1 => Just(Event::Crash)];
    prop::collection::vec((any::<bool>(), 0_u32..6, event), 0..60)
}

/// What a deployment is asked to be.
fn wish() -> impl Strategy<Value = (u32, u32, u32, u32, Vec<Option<u32>>)> {
    let steps = prop_oneof![
        2 => Just(Vec::new()),
        1 => Just(vec![None]),
        2 => prop::collection::vec((1_u32..=100).prop_map(Some), 1..4)
            .prop_map(|mut steps| { steps.sort_unstable(); steps }),
    ];
    (0_u32..6, 0_u32..6, 1_u32..4, 0_u32..3, steps)
}

/// Checks one step against everything that must hold, and does it. `steps` = canary steps that remain. Whether the
/// deployment is over.
fn advance(state: &mut State, steps: &mut Vec<Option<u32>>) -> Result<bool, TestCaseError> {
    let floor = if state.cancelling { state.restore } else { state.canary.map_or(state.wanted, |step| step.enough) };
    let served = serving(state);
    match step(state) {
        Step::Scale { old, new } => {
            let begun = new.saturating_sub(state.new.desired);
            let waiting = state.new.desired - state.new.acked();
            prop_assert!(begun == 0 || begun + waiting <= state.max_in_flight, "{begun} more beside {waiting}");
            if !state.cancelling {
                let none_new = state.new.acked.is_empty() && state.new.routable.is_empty();
                let old_stay = state.old.iter().zip(&old).all(|(side, count)| *count >= side.desired);
                let before: u32 = state.old.iter().map(|side| side.desired).sum();
                prop_assert!(
                    !none_new || old_stay || before > state.wanted.min(floor),
                    "nothing new serves, and {state:?} shrinks to {old:?}"
                );
            }
            apply(state, &old, new);
            prop_assert!(serving(state) >= served.min(floor), "{served} served, now {state:?}");
            if begun > 0 && !state.cancelling {
                let most = state.canary.map_or(state.wanted, |step| (step.new + step.old).max(state.wanted));
                let old: u32 = state.old.iter().map(|side| side.serving_below(side.desired)).sum();
                prop_assert!(old + new <= most + state.max_in_flight, "{old} old ones beside {new}");
            }
            let again = step(state);
            prop_assert!(!matches!(again, Step::Scale { .. }) || again == Step::Scale { old, new }, "{again:?}");
            Ok(false)
        }
        Step::Pause => {
            let at = state.canary.take().expect("only a canary pauses");
            prop_assert!(!state.cancelling && state.new.acked() >= at.new && state.new.desired == at.new);
            // The developer goes on at once.
            steps.remove(0);
            state.canary = steps.first().map(|weight| Canary::of(*weight, state.wanted, state.restore));
            Ok(false)
        }
        Step::Finish => {
            prop_assert!(!state.cancelling && state.new.acked() >= state.wanted && state.canary.is_none());
            Ok(true)
        }
        Step::Cancelled => {
            prop_assert!(state.cancelling && state.old[0].desired >= state.restore);
            Ok(true)
        }
    }
}

/// Types other than `web` may be scaled; they have no canary steps.
fn want_another_number(state: &mut State, after: u32) -> Result<(), TestCaseError> {
    if state.canary.is_some() || state.wanted != state.restore {
        return Ok(());
    }
    let (served, before) = (serving(state), state.wanted);
    let mut counts: Vec<u32> = state.old.iter().chain([&state.new]).map(|side| side.desired).collect();
    rescale(&mut counts, before, after);
    let new = counts.pop().unwrap_or_default();
    if after >= before {
        prop_assert!(state.old.iter().zip(&counts).all(|(side, count)| *count >= side.desired), "{counts:?}");
        prop_assert!(new >= state.new.desired);
    }
    (state.wanted, state.restore) = (after, after);
    apply(state, &counts, new);
    prop_assert!(after < before || serving(state) >= served, "{served} served, now {state:?}");
    Ok(())
}

proptest! {
    /// Whatever happens, a step never takes what serves below the wanted number, never starts more than allowed, asks
    /// for nothing when it is asked again, leaves the old ones alone while nothing new serves, and the deployment ends
    /// once its instances stay up: rolling, through all steps of a canary, or back when it is cancelled at any moment;
    /// also when the developer wants another number in the middle of it.
    #[test]
    fn capacity_never_falls_and_it_ends(
        (wanted, before, max_in_flight, left, mut steps) in wish(),
        abandoned in any::<bool>(), events in events(), cancel_at in prop::option::of(0_usize..60),
        another in prop::option::of((0_usize..60, 0_u32..6)),
    ) {
        let mut state = State {
            wanted,
            restore: before,
            max_in_flight,
            old: vec![side(before, 0..before), side(left, 0..left)],
            abandoned: usize::from(abandoned),
            canary: steps.first().map(|weight| Canary::of(*weight, wanted, before)),
            ..State::default()
        };
        let mut over = false;
        for (place, (new, index, event)) in events.into_iter().enumerate() {
            state.cancelling |= cancel_at == Some(place);
            if let Some((at, after)) = another
                && at == place
            {
                want_another_number(&mut state, after)?;
            }
            over = advance(&mut state, &mut steps)?;
            if over {
                break;
            }
            happen(if new { &mut state.new } else { &mut state.old[0] }, index, event);
        }
        // From here on everything that is wanted comes up and stays.
        for _ in 0..40 {
            if over {
                break;
            }
            for one in state.old.iter_mut().chain([&mut state.new]) {
                *one = side(one.desired, 0..one.desired);
            }
            over = advance(&mut state, &mut steps)?;
        }
        prop_assert!(over, "it never ended: {state:?}");
    }
}
