use slipway_protocol::v1::{BuildResult, Fault, InstanceState, Intent, Refusal, WorkloadKind};

use super::crash::GOOD_RUN_MS;
use super::state::{
    Action, AfterRemoval, AfterStop, DesiredState, Event, FoundSandbox, Life, Phase, Report, StartFault,
};
use crate::sandbox::Exit;

const NOW: i64 = 1_000_000;

fn wanted(kind: WorkloadKind, intent: Intent) -> DesiredState {
    DesiredState { kind, intent, attempt: 1, nonce: 0, crashes: 0, incarnation: 0 }
}

fn exit(code: i32) -> Exit {
    Exit { code, signal: None, out_of_memory: false, reason: String::new(), platform_fault: false, at_unix_ms: NOW }
}

/// One step on a host where everything can be removed.
fn step(life: &mut Life, event: Event) -> Vec<Action> {
    let mut actions = life.step(event, NOW, 0.0);
    if actions.last() == Some(&Action::Destroy) {
        actions.extend(life.step(Event::Removed, NOW, 0.0));
    }
    actions
}

fn reports(actions: &[Action]) -> Vec<Report> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Observe(report) => Some((**report).clone()),
            _ => None,
        })
        .collect()
}

fn states(actions: &[Action]) -> Vec<InstanceState> {
    reports(actions).iter().map(|report| report.state).collect()
}

/// Brings a new instance to running and ready.
fn running(kind: WorkloadKind) -> Life {
    let mut life = Life::new(wanted(kind, Intent::Run));
    for event in [Event::Begin, Event::Prepared, Event::Started, Event::Healthy { ready: true }] {
        step(&mut life, event);
    }
    assert!(matches!(life.phase, Phase::Running { .. }), "{life:?}");
    life
}

#[test]
fn the_gate_opens_before_ready_is_reported_and_closes_before_a_crash_is() {
    let mut life = Life::new(wanted(WorkloadKind::Lrp, Intent::Run));
    step(&mut life, Event::Begin);
    let actions = step(&mut life, Event::Prepared);
    assert_eq!(actions[0], Action::Gate(false), "closed before the start");
    let actions = step(&mut life, Event::Healthy { ready: true });
    assert_eq!(actions[0], Action::Gate(true));
    assert!(reports(&actions)[0].ready);
    let actions = step(&mut life, Event::Exited(exit(1)));
    assert_eq!(actions[0], Action::Gate(false));
    let crash = &reports(&actions)[0];
    assert!(crash.crash && !crash.ready);
    assert_eq!(
        crash.exit.as_ref().map(|(exit, fault)| (exit.reason.as_str(), *fault)),
        Some(("exited with status 1", Fault::App))
    );
}

#[test]
fn crashes_restart_three_times_at_once_then_wait_then_give_up() {
    let mut life = running(WorkloadKind::Lrp);
    for crash in 1..=200_u32 {
        let actions = step(&mut life, Event::Exited(exit(1)));
        match crash {
            1..=3 => assert_eq!(life.phase, Phase::Preparing, "crash {crash}"),
            200 => {
                assert_eq!(life.phase, Phase::GivenUp);
                assert_eq!(states(&actions), [InstanceState::GivenUp]);
                return;
            }
            _ => {
                let Phase::Backoff { until_ms } = life.phase else { panic!("crash {crash}: {life:?}") };
                assert!(until_ms > NOW);
                assert!(actions.contains(&Action::Wake(until_ms)));
                assert_eq!(step(&mut life, Event::Timer), [Action::Wake(until_ms)], "too early");
                life.step(Event::Timer, until_ms, 0.0);
            }
        }
        step(&mut life, Event::Prepared);
        assert_eq!(life.incarnation, u64::from(crash) + 1);
    }
}

#[test]
fn five_good_minutes_forget_crashes_and_platform_faults_do_not_count() {
    let mut life = running(WorkloadKind::Lrp);
    life.crashes = 150;
    life.step(Event::Exited(exit(1)), NOW + GOOD_RUN_MS, 0.0);
    assert_eq!(life.crashes, 1);
    let mut life = running(WorkloadKind::Lrp);
    let actions = step(&mut life, Event::Exited(Exit { platform_fault: true, ..exit(1) }));
    assert_eq!(life.crashes, 0);
    assert_eq!(reports(&actions)[0].exit.as_ref().map(|(_, fault)| *fault), Some(Fault::Platform));
}

#[test]
fn an_unhealthy_instance_is_withdrawn_stopped_and_crashed_with_the_reason() {
    let mut life = running(WorkloadKind::Lrp);
    let actions = step(&mut life, Event::Unhealthy("no answer".to_owned()));
    assert_eq!(actions[0], Action::Gate(false));
    assert!(!reports(&actions)[0].ready);
    assert!(actions.contains(&Action::Stop));
    let actions = step(&mut life, Event::Exited(exit(143)));
    let crash = &reports(&actions)[0];
    assert_eq!((crash.state, crash.reason.as_str()), (InstanceState::Crashed, "no answer"));
}

#[test]
fn only_stop_and_purge_end_an_instance() {
    let mut life = running(WorkloadKind::Lrp);
    assert!(step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Drain))).is_empty());
    assert!(step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Unspecified))).is_empty());
    let actions = step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Stop)));
    assert_eq!(actions[0], Action::Gate(false));
    assert_eq!(life.phase, Phase::Stopping(AfterStop::Stopped));
    assert!(step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Stop))).is_empty());
    let actions = step(&mut life, Event::Exited(exit(143)));
    assert_eq!(actions[0], Action::Destroy, "nothing is left when STOPPED is told");
    assert_eq!(states(&actions), [InstanceState::Stopped]);

    let mut life = running(WorkloadKind::Lrp);
    step(&mut life, Event::Purge);
    assert_eq!(step(&mut life, Event::Exited(exit(143))), [Action::Destroy, Action::Forget]);
}

#[test]
fn a_raised_nonce_replaces_the_incarnation_once_and_is_no_crash() {
    let mut life = running(WorkloadKind::Lrp);
    let again = DesiredState { nonce: 1, ..wanted(WorkloadKind::Lrp, Intent::Run) };
    assert!(step(&mut life, Event::Assigned(again)).contains(&Action::Stop));
    step(&mut life, Event::Exited(exit(143)));
    assert_eq!((life.phase.clone(), life.crashes), (Phase::Preparing, 0));
    step(&mut life, Event::Prepared);
    assert!(step(&mut life, Event::Assigned(again)).is_empty());
    life.phase = Phase::GivenUp;
    let actions = step(&mut life, Event::Assigned(DesiredState { nonce: 2, ..again }));
    assert!(actions.contains(&Action::Prepare));
}

#[test]
fn a_task_or_build_never_starts_twice_in_one_attempt() {
    for kind in [WorkloadKind::Task, WorkloadKind::Build] {
        let mut life = Life::new(wanted(kind, Intent::Run));
        step(&mut life, Event::Begin);
        // Killed while preparing: nothing was started, so it may be.
        assert!(step(&mut life, Event::Recovered(FoundSandbox::Gone)).contains(&Action::Prepare));
        step(&mut life, Event::Prepared);
        let actions = step(&mut life, Event::Recovered(FoundSandbox::Gone));
        assert!(!actions.iter().any(|action| matches!(action, Action::Prepare | Action::Start)), "{actions:?}");
        let report = &reports(&actions)[0];
        assert_eq!((report.state, report.refusal), (InstanceState::Completed, Some(Refusal::AttemptSpent)));
        assert_eq!(report.exit.as_ref().map(|(_, fault)| *fault), Some(Fault::Platform));
        assert_eq!(report.build.is_some(), kind == WorkloadKind::Build);
        // The same attempt is not begun again; the next one is.
        assert!(step(&mut life, Event::Assigned(wanted(kind, Intent::Run))).is_empty());
        let next = DesiredState { attempt: 2, ..wanted(kind, Intent::Run) };
        assert!(step(&mut life, Event::Assigned(next)).contains(&Action::Prepare));
    }
}

#[test]
fn tasks_and_builds_complete() {
    let mut life = running_once(WorkloadKind::Task);
    let actions = step(&mut life, Event::Exited(exit(3)));
    assert_eq!(states(&actions), [InstanceState::Completed]);
    assert_eq!(reports(&actions)[0].exit.as_ref().map(|(_, fault)| *fault), Some(Fault::App));
    let mut life = running_once(WorkloadKind::Build);
    let actions = step(&mut life, Event::Built(Box::new(BuildResult { ok: true, ..BuildResult::default() })));
    assert_eq!(actions[0], Action::Destroy);
    assert!(reports(&actions)[0].build.as_ref().is_some_and(|build| build.ok));
}

fn running_once(kind: WorkloadKind) -> Life {
    let mut life = Life::new(wanted(kind, Intent::Run));
    for event in [Event::Begin, Event::Prepared, Event::Started] {
        step(&mut life, event);
    }
    life
}

#[test]
fn running_instances_are_adopted_and_keep_their_traffic() {
    let mut life = running(WorkloadKind::Lrp);
    let actions = step(&mut life, Event::Recovered(FoundSandbox::Running));
    // Followed first: a gate that fails must not keep its end from being noticed.
    assert_eq!(actions[..3], [Action::Follow, Action::Gate(true), Action::Watch { healthy: true, ready: true }]);
    assert!(reports(&actions)[0].ready);
    // After a reboot it starts again, and that is no crash of the app.
    let mut life = running(WorkloadKind::Lrp);
    assert!(step(&mut life, Event::Recovered(FoundSandbox::Gone)).contains(&Action::Prepare));
    assert_eq!(life.crashes, 0);
}

#[test]
fn an_unknown_sandbox_is_retained_until_a_set_names_it() {
    let mut life = Life::unknown(4);
    assert!(step(&mut life, Event::Recovered(FoundSandbox::Running)).contains(&Action::Follow));
    assert!(step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Run))).is_empty());
    assert_eq!((life.phase.clone(), life.incarnation), (Phase::Starting, 4));
    // A damaged entry without a sandbox: an instance starts again, a task does not.
    for (kind, starts) in [(WorkloadKind::Lrp, true), (WorkloadKind::Task, false)] {
        let mut life = Life::unknown(0);
        step(&mut life, Event::Recovered(FoundSandbox::Gone));
        let actions = step(&mut life, Event::Assigned(wanted(kind, Intent::Run)));
        assert_eq!(actions.contains(&Action::Prepare), starts, "{kind:?}: {actions:?}");
    }
}

#[test]
fn a_cell_that_cannot_start_it_tries_and_then_refuses() {
    let mut life = Life::new(wanted(WorkloadKind::Lrp, Intent::Run));
    step(&mut life, Event::Begin);
    for fault in 1..=5 {
        step(&mut life, Event::Prepared);
        let actions = step(&mut life, Event::StartFailed(StartFault::Host("mount".to_owned())));
        if fault == 5 {
            assert_eq!(reports(&actions)[0].refusal, Some(Refusal::CellBroken));
            break;
        }
        let Phase::Backoff { until_ms } = life.phase else { panic!("{life:?}") };
        assert_eq!(life.crashes, 0);
        life.step(Event::Timer, until_ms, 0.0);
    }
    assert_eq!(life.phase, Phase::Refused);
    assert_eq!(
        states(&step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Stop)))),
        [InstanceState::Stopped]
    );
}

/// Stops and removes nothing at first; gives the actions of the step that ended it.
fn stuck(life: &mut Life, end: Event) -> Vec<Action> {
    let actions = life.step(end, NOW, 0.0);
    assert_eq!(actions.last(), Some(&Action::Destroy), "{actions:?}");
    assert_eq!(life.step(Event::NotRemoved, NOW, 0.0), [Action::Wake(NOW + 1000)]);
    actions
}

#[test]
fn the_slot_is_in_use_until_nothing_is_left() {
    let mut life = running(WorkloadKind::Lrp);
    step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Stop)));
    let actions = stuck(&mut life, Event::Exited(exit(143)));
    assert_eq!(states(&actions), [], "nobody is told that it stopped");
    assert!(!life.is_settled());
    assert_eq!(life.report().state, InstanceState::Running);
    assert_eq!(life.step(Event::Timer, NOW + 999, 0.0), [Action::Wake(NOW + 1000)], "too early");
    assert_eq!(life.step(Event::Timer, NOW + 1000, 0.0), [Action::Destroy]);
    assert_eq!(life.step(Event::NotRemoved, NOW, 0.0), [Action::Wake(NOW + 2000)], "the pause grows");
    // The agent may be restarted meanwhile; what the journal holds is enough.
    let journal = serde_json::to_string(&life).expect("write");
    let mut life: Life = serde_json::from_str(&journal).expect("read");
    assert_eq!(life.step(Event::Recovered(FoundSandbox::Ended(exit(143))), NOW, 0.0), [Action::Destroy]);
    assert_eq!(states(&life.step(Event::Removed, NOW, 0.0)), [InstanceState::Stopped]);
    assert!(life.is_settled());
    assert_eq!(life.step(Event::Removed, NOW, 0.0), []);
}

#[test]
fn whatever_ends_waits_for_its_removal() {
    // A crash is told at once; the next start waits.
    let mut life = running(WorkloadKind::Lrp);
    let actions = stuck(&mut life, Event::Exited(exit(1)));
    assert_eq!(states(&actions), [InstanceState::Crashed]);
    assert!(life.step(Event::Removed, NOW, 0.0).contains(&Action::Prepare));
    // A stop meanwhile decides what follows.
    let mut life = running(WorkloadKind::Lrp);
    stuck(&mut life, Event::Exited(exit(1)));
    assert_eq!(step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Stop))), []);
    assert_eq!(states(&life.step(Event::Removed, NOW, 0.0)), [InstanceState::Stopped]);
    // And a purge outranks the stop.
    let mut life = running(WorkloadKind::Lrp);
    step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Stop)));
    stuck(&mut life, Event::Exited(exit(143)));
    step(&mut life, Event::Purge);
    step(&mut life, Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Stop)));
    assert_eq!(life.step(Event::Removed, NOW, 0.0), [Action::Forget]);
}

#[test]
fn the_end_of_a_task_is_reported_once_when_its_sandbox_is_removed() {
    let mut life = running_once(WorkloadKind::Task);
    assert_eq!(states(&stuck(&mut life, Event::Exited(exit(3)))), []);
    let journal = serde_json::to_string(&life).expect("write");
    let actions = life.step(Event::Removed, NOW, 0.0);
    assert_eq!(reports(&actions)[0].exit.as_ref().map(|(exit, _)| exit.code), Some(3));
    // After a restart of the agent the sandbox's record tells it.
    let mut life: Life = serde_json::from_str(&journal).expect("read");
    let actions = step(&mut life, Event::Recovered(FoundSandbox::Ended(exit(3))));
    assert_eq!(reports(&actions)[0].exit.as_ref().map(|(exit, _)| exit.code), Some(3));
    // The record goes with what is left of the sandbox; then the journal tells it.
    let mut life: Life = serde_json::from_str(&journal).expect("read");
    let actions = step(&mut life, Event::Recovered(FoundSandbox::Gone));
    let report = reports(&actions)[0].clone();
    assert_eq!((report.exit.map(|(exit, _)| exit.code), report.refusal), (Some(3), None));
    // Where nobody saw the end its outcome is unknown, and it does not run again.
    let actions = step(&mut reread(&running_once(WorkloadKind::Task)), Event::Recovered(FoundSandbox::Gone));
    assert_eq!(reports(&actions)[0].refusal, Some(Refusal::AttemptSpent));
    // The next attempt waits for the removal of the last one, which is told first.
    let mut life = running_once(WorkloadKind::Task);
    stuck(&mut life, Event::Exited(exit(3)));
    step(&mut life, Event::Assigned(DesiredState { attempt: 2, ..wanted(WorkloadKind::Task, Intent::Run) }));
    let actions = life.step(Event::Removed, NOW, 0.0);
    assert_eq!(states(&actions), [InstanceState::Completed, InstanceState::Preparing]);
}

#[test]
fn a_leftover_of_an_instance_that_waits_is_removed_at_once() {
    let mut life = running(WorkloadKind::Lrp);
    life.phase = Phase::Backoff { until_ms: NOW + 5 };
    let actions = step(&mut life, Event::Recovered(FoundSandbox::Ended(exit(1))));
    assert!(actions.contains(&Action::Destroy) && actions.ends_with(&[Action::Wake(NOW + 5)]), "{actions:?}");
    let Phase::Backoff { .. } = life.phase else { panic!("{life:?}") };
    life.phase = Phase::Removing { after: AfterRemoval::GivenUp, tries: 3, until_ms: NOW };
    let again = DesiredState { nonce: 1, ..wanted(WorkloadKind::Lrp, Intent::Run) };
    assert_eq!(step(&mut life, Event::Assigned(again)), []);
    assert!(life.step(Event::Removed, NOW, 0.0).contains(&Action::Prepare));
}

#[test]
fn a_draining_instance_is_not_started_again() {
    let drain = Event::Assigned(wanted(WorkloadKind::Lrp, Intent::Drain));
    let mut life = running(WorkloadKind::Lrp);
    step(&mut life, drain.clone());
    let actions = step(&mut life, Event::Exited(exit(1)));
    assert_eq!(states(&actions), [InstanceState::Crashed, InstanceState::Stopped]);
    assert!(!actions.contains(&Action::Prepare), "{actions:?}");

    let mut life = running(WorkloadKind::Lrp);
    life.phase = Phase::Backoff { until_ms: NOW };
    step(&mut life, drain.clone());
    assert_eq!(states(&step(&mut life, Event::Timer)), [InstanceState::Stopped]);

    let mut life = running(WorkloadKind::Lrp);
    step(&mut life, drain);
    assert_eq!(states(&step(&mut life, Event::Recovered(FoundSandbox::Gone))), [InstanceState::Stopped]);
}

#[test]
fn a_gate_that_fails_is_tried_again_for_as_long_as_the_check_says_ready() {
    let mut life = running(WorkloadKind::Lrp);
    let actions = step(&mut life, Event::GateFailed);
    assert!(!reports(&actions)[0].ready, "what was told is taken back");
    assert!(actions.contains(&Action::Wake(NOW + 1000)));
    assert_eq!(step(&mut life, Event::Timer)[0], Action::Gate(true));
    assert_eq!(step(&mut life, Event::GateFailed), [Action::Wake(NOW + 1000)], "told once");
    // The check has changed its mind since: nothing is opened.
    assert_eq!(step(&mut life, Event::Readiness(false)), []);
    assert_eq!(step(&mut life, Event::Timer), []);
    assert_eq!(step(&mut life, Event::Readiness(true))[0], Action::Gate(true));
}

/// What the journal gives back.
fn reread(life: &Life) -> Life {
    serde_json::from_slice(&serde_json::to_vec(life).expect("written")).expect("read")
}

#[test]
fn a_found_sandbox_counts_as_started_whatever_the_journal_says() {
    for earlier in [vec![], vec![Event::Begin]] {
        let begun = || {
            let mut life = Life::new(wanted(WorkloadKind::Task, Intent::Run));
            for event in earlier.clone() {
                step(&mut life, event);
            }
            life
        };
        let mut life = begun();
        let actions = step(&mut life, Event::Recovered(FoundSandbox::Ended(exit(0))));
        assert_eq!(states(&actions), [InstanceState::Completed]);
        assert_eq!(reports(&actions)[0].exit.as_ref().map(|(exit, _)| exit.code), Some(0));

        let mut life = begun();
        assert!(step(&mut life, Event::Recovered(FoundSandbox::Running)).contains(&Action::Follow));
        let actions = step(&mut reread(&life), Event::Recovered(FoundSandbox::Gone));
        assert_eq!(reports(&actions)[0].refusal, Some(Refusal::AttemptSpent), "it may have done its work");
    }
}

#[test]
fn trouble_is_reported_only_while_an_app_starts() {
    let mut life = Life::new(wanted(WorkloadKind::Lrp, Intent::Run));
    step(&mut life, Event::Begin);
    step(&mut life, Event::Prepared);
    let trouble = Event::Trouble("does not listen".to_owned());
    let actions = step(&mut life, trouble.clone());
    let reported = reports(&actions);
    assert_eq!(
        (reported.len(), reported[0].state, reported[0].reason.as_str()),
        (1, InstanceState::Starting, "does not listen")
    );
    assert!(actions.contains(&Action::Say("does not listen".to_owned())));
    step(&mut life, Event::Healthy { ready: true });
    assert_eq!(step(&mut life, trouble), []);
}
