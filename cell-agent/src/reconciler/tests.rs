use proptest::prelude::*;
use slipway_protocol::digest::SetDigest;

use super::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn assignment(number: u128, slot: u32, intent: Intent) -> Assignment {
    Assignment {
        id: id(number).to_string(),
        slot,
        intent: intent.into(),
        kind: WorkloadKind::Lrp.into(),
        ..Assignment::default()
    }
}

fn set(seq: u64, assignments: Vec<Assignment>) -> Event {
    let digest = SetDigest::of_assignments(&assignments).to_bytes();
    Event::Set(AssignmentSet { version: Some(Version::new(1, seq)), digest, assignments, policies: vec![] })
}

fn empty() -> Reconciler {
    Reconciler::new(Version::default(), Bytes::new(), 16, BTreeMap::new())
}

fn warned(actions: &[Action], words: &str) -> bool {
    actions.iter().any(|action| matches!(action, Action::Warn(text) if text.contains(words)))
}

#[test]
fn a_new_assignment_is_begun_and_an_unchanged_one_left_alone() {
    let mut core = empty();
    let one = assignment(1, 0, Intent::Run);
    let actions = core.step(set(1, vec![one.clone()]));
    assert!(matches!(&actions[..], [Action::Spawn(begun), Action::InForce(..)] if *begun == one), "{actions:?}");
    assert!(matches!(&core.step(set(2, vec![one]))[..], [Action::InForce(..)]));
    let drained = assignment(1, 0, Intent::Drain);
    let actions = core.step(set(3, vec![drained.clone()]));
    assert!(matches!(&actions[..], [Action::Assign(_, changed), Action::InForce(..)] if *changed == drained));
}

#[test]
fn absence_stops_nothing_and_is_reported() {
    let mut core = empty();
    core.step(set(1, vec![assignment(1, 0, Intent::Run)]));
    assert!(matches!(&core.step(set(2, vec![]))[..], [Action::Report(_), Action::InForce(..)]));
    assert_eq!(core.step(Event::Purge(vec![id(1).to_string()])), [Action::Purge(id(1))]);
}

#[test]
fn a_purge_of_what_the_set_names_is_not_followed() {
    let mut core = empty();
    core.step(set(1, vec![assignment(1, 0, Intent::Run)]));
    assert!(warned(&core.step(Event::Purge(vec![id(1).to_string()])), "names it"));
    assert!(warned(&core.step(Event::Purge(vec!["x".to_owned()])), "no id"));
    assert!(core.step(Event::Purge(vec![id(2).to_string()])).is_empty());
}

#[test]
fn older_and_contradicting_sets_are_refused() {
    let mut core = empty();
    core.step(set(5, vec![assignment(1, 0, Intent::Run)]));
    let before = core.clone();
    assert!(warned(&core.step(set(4, vec![assignment(1, 0, Intent::Stop)])), "5 is in force"));
    assert!(warned(&core.step(set(5, vec![assignment(1, 0, Intent::Stop)])), "another content"));
    let none = AssignmentSet { version: None, digest: Bytes::new(), assignments: vec![], policies: vec![] };
    assert!(warned(&core.step(Event::Set(none)), "without a version"));
    assert_eq!(core, before);
    // A higher epoch wins whatever its sequence.
    let digest = Bytes::from_static(b"x");
    let risen = AssignmentSet { version: Some(Version::new(2, 1)), digest, assignments: vec![], policies: vec![] };
    core.step(Event::Set(risen));
    assert_eq!(core.version(), Version::new(2, 1));
}

#[test]
fn slots_are_checked() {
    let mut core = empty();
    core.step(set(1, vec![assignment(1, 3, Intent::Run)]));
    let two = [assignment(1, 3, Intent::Run), assignment(2, 3, Intent::Run), assignment(3, 16, Intent::Run)];
    let actions = core.step(set(2, two.to_vec()));
    assert!(matches!(
        &actions[..],
        [Action::Refuse(_, Refusal::SlotTaken, _), Action::Refuse(_, Refusal::SpecInvalid, _), Action::InForce(..)]
    ));
    core.step(Event::Changed { id: id(1), settled: true, unacked: true });
    let actions = core.step(set(3, vec![assignment(1, 3, Intent::Stop), assignment(4, 3, Intent::Run)]));
    assert!(matches!(&actions[..], [Action::Assign(..), Action::Spawn(_), ..]), "{actions:?}");
}

#[test]
fn enum_values_of_a_newer_controller_are_refused() {
    let mut core = empty();
    let mut strange = assignment(1, 0, Intent::Run);
    strange.intent = 77;
    assert!(matches!(&core.step(set(1, vec![strange]))[..], [Action::Refuse(_, Refusal::SpecInvalid, _), ..]));
}

#[test]
fn settled_and_acknowledged_assignments_outside_the_set_are_forgotten() {
    let mut core = empty();
    core.step(set(1, vec![assignment(1, 0, Intent::Stop)]));
    assert!(core.step(Event::Changed { id: id(1), settled: true, unacked: true }).is_empty());
    assert!(matches!(&core.step(set(2, vec![]))[..], [Action::InForce(..)]));
    assert_eq!(core.step(Event::Changed { id: id(1), settled: true, unacked: false }), [Action::Forget(id(1))]);
    core.step(Event::Forgotten(id(1)));
    assert!(core.held().is_empty());
}

fn any_event() -> impl Strategy<Value = Event> {
    let intent = prop_oneof![Just(Intent::Run), Just(Intent::Drain), Just(Intent::Stop)];
    let one = (0_u128..6, 0_u32..4, intent).prop_map(|(number, slot, intent)| assignment(number, slot, intent));
    let number = 0_u128..6;
    prop_oneof![
        (0_u64..8, prop::collection::vec(one, 0..5)).prop_map(|(seq, list)| set(seq, list)),
        number.clone().prop_map(|number| Event::Purge(vec![id(number).to_string()])),
        (number.clone(), any::<bool>(), any::<bool>()).prop_map(|(number, settled, unacked)| Event::Changed {
            id: id(number),
            settled,
            unacked
        }),
        number.prop_map(|number| Event::Forgotten(id(number))),
    ]
}

proptest! {
    /// Whatever comes in whatever order: the version never falls, nothing named is purged or forgotten, and nothing
    /// unsettled is forgotten.
    #[test]
    fn invariants_hold(events in prop::collection::vec(any_event(), 1..40)) {
        let mut core = empty();
        for event in events {
            let before = core.version();
            let actions = core.step(event);
            prop_assert!(core.version() >= before);
            for action in actions {
                match action {
                    Action::Purge(id) => prop_assert!(!core.held()[&id].named),
                    Action::Forget(id) => {
                        let held = &core.held()[&id];
                        prop_assert!(held.settled && !held.unacked && !held.named);
                    }
                    _ => {}
                }
            }
        }
    }
}
