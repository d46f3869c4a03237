use std::sync::Arc;

use crate::world::eventually;
use slipway_cell_agent::sandbox::{EgressRule, Exit, SandboxSpec};
use slipway_cell_agent::sim::{Program, SimRuntime, exit, loopback};
use slipway_cell_agent::store::Journal;
use slipway_protocol::instance::instance_guid;
use slipway_protocol::v1::{Assignment, Fault, InstanceState, Intent, Refusal, Version, WorkloadKind};
use uuid::Uuid;

use crate::world::{LIMIT, World, assignment};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_runs_crashes_comes_back_and_stops_on_intent_alone() {
    let world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    let version = world.controller.desire(vec![assignment(id, 3, &spec, &digest, Intent::Run)]);
    let ready = world.observed("ready", |seen| seen.ready).await;
    assert!(world.runtime.gate_is_open(3), "the gate is open before anybody is told");
    let endpoint = ready.endpoint.expect("endpoint");
    assert_eq!((endpoint.host.as_str(), endpoint.port), ("10.62.0.5", 8080));
    let started = world.runtime.started();
    assert_eq!(started[0].argv, ["/tmp/lifecycle/launcher", "/home/vcap/app", "node server.js", ""]);
    assert!(started[0].env.contains(&("PORT".to_owned(), "8080".to_owned())));
    let guid = |spec: &SandboxSpec| {
        let found = spec.env.iter().find(|(name, _)| name == "CF_INSTANCE_GUID");
        found.expect("a guid").1.parse::<Uuid>().expect("a guid")
    };
    assert_eq!(guid(&started[0]), instance_guid(id, 1));
    // The droplet's one file takes a block of the app's disk.
    assert_eq!(started[0].limits.disk_bytes, (spec.disk_mb << 20) - 4096);
    let droplet = started[0].layers.last().expect("droplet");
    assert_eq!(std::fs::read_to_string(droplet.join("home/vcap/app/server.js")).expect("unpacked"), "hello");
    eventually("applied", LIMIT, || async { (world.controller.applied() == Some(version)).then_some(()).ok_or(()) })
        .await;

    let oom = Exit { out_of_memory: true, reason: "out of memory: limit 64 MiB".to_owned(), ..exit(137) };
    world.runtime.end(id, &oom);
    let crash = world.state(id, InstanceState::Crashed).await;
    let record = crash.exit.expect("exit");
    assert_eq!((record.reason.as_str(), record.fault()), ("out of memory: limit 64 MiB", Fault::App));
    assert!(crash.crash_event);
    world.observed("ready again", |seen| seen.ready && seen.incarnation == 2).await;
    assert_eq!(
        guid(&world.runtime.started()[1]),
        instance_guid(id, 2),
        "each start has its own, the place is the same"
    );

    // A set without it, and older sets, stop nothing.
    world.controller.desire(vec![]);
    world.controller.desire_at(Version::new(0, 1), vec![assignment(id, 3, &spec, &digest, Intent::Stop)]);
    let version = world.controller.desire_at_next(vec![assignment(id, 3, &spec, &digest, Intent::Drain)], 20);
    eventually("drained", LIMIT, || async { (world.controller.applied() == Some(version)).then_some(()).ok_or(()) })
        .await;
    assert_eq!(world.runtime.running().len(), 1);
    world.controller.desire_at_next(vec![assignment(id, 3, &spec, &digest, Intent::Stop)], 21);
    world.state(id, InstanceState::Stopped).await;
    assert!(!world.runtime.gate_is_open(3));
    assert_eq!(world.runtime.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_adopts_what_runs_and_sends_what_nobody_acknowledged() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    world.controller.acknowledge(false);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.observed("ready", |seen| seen.ready).await;
    world.runtime.end(id, &exit(7));
    let crash = world.state(id, InstanceState::Crashed).await;
    let ready = world.observed("ready again", |seen| seen.ready && seen.incarnation == 2).await;
    world.kill().await;
    assert_eq!(world.runtime.running().len(), 1, "sandboxes outlive the agent");
    world.controller.forget_seen();
    world.start();
    let again = world.observed("told again", |seen| seen.counter == crash.counter).await;
    assert_eq!(again.exit.map(|exit| exit.code), Some(7));
    let later = world.observed("adopted", |seen| seen.counter > ready.counter && seen.ready).await;
    assert_eq!(later.incarnation, 2);
    assert_eq!(world.runtime.started().len(), 2, "nothing was started again");
    assert!(world.runtime.gate_is_open(0));
    world.controller.acknowledge(true);

    // A crash while nobody looked, then a power cut: it comes back each time.
    world.kill().await;
    world.runtime.power_cut();
    world.start();
    world.observed("ready after a power cut", |seen| seen.ready && seen.incarnation == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reported_as_stopped_while_its_sandbox_is_left() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.observed("ready", |seen| seen.ready).await;
    world.runtime.keep_everything(true);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Stop)]);
    eventually("tries to remove it", LIMIT, || async {
        let tries = world.runtime.failed_removals();
        if tries > 4 { Ok(()) } else { Err(tries) }
    })
    .await;
    let stopped = |world: &World| world.controller.seen().iter().any(|seen| seen.state() == InstanceState::Stopped);
    assert!(!stopped(&world), "its slot would be given to the next one");
    // The next agent knows as well.
    world.kill().await;
    let tries = world.runtime.failed_removals();
    world.start();
    eventually("tries of the next agent", LIMIT, || async {
        let now = world.runtime.failed_removals();
        if now > tries { Ok(()) } else { Err(now) }
    })
    .await;
    assert!(!stopped(&world));
    world.runtime.keep_everything(false);
    world.state(id, InstanceState::Stopped).await;
    assert_eq!(world.runtime.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_instance_whose_gate_fails_is_followed_and_served_later() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    let ready = world.observed("ready", |seen| seen.ready).await;
    world.kill().await;
    world.runtime.break_gates(true);
    world.start();
    world.observed("not ready", |seen| seen.counter > ready.counter && !seen.ready).await;
    world.runtime.end(id, &exit(1));
    let crash = world.state(id, InstanceState::Crashed).await;
    assert_eq!(crash.exit.expect("exit").code, 1, "its end is noticed");
    world.runtime.break_gates(false);
    world.observed("ready again", |seen| seen.ready && seen.incarnation == 2).await;
    assert!(world.runtime.gate_is_open(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_does_not_grow_while_nobody_acknowledges() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    world.controller.acknowledge(false);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.observed("ready", |seen| seen.ready).await;
    // Each set that does not name it makes it say again where it is.
    for _ in 0..40 {
        let version = world.controller.desire(vec![]);
        eventually("applied", LIMIT, || async {
            (world.controller.applied() == Some(version)).then_some(()).ok_or(())
        })
        .await;
    }
    // A set is in force before the instance has said its word to it; what is not said by the end of the agent never is.
    world.observed("the last of forty words", |seen| seen.counter > 40).await;
    world.kill().await;
    let loaded = Journal::open(&world.config.state_directory).expect("journal").load().expect("load");
    let unacked = &loaded.entries[0].unacked;
    assert!(unacked.len() == 1 && unacked[0].ready, "{unacked:?}");
    assert!(unacked[0].counter > 40, "the numbers go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_egress_policy_holds_for_what_runs_and_outlives_the_agent() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    let (one, other) = (world.controller.put_policy("192.0.2.1"), world.controller.put_policy("192.0.2.2"));
    let with = |policy: &bytes::Bytes| Assignment {
        egress_policy: policy.clone(),
        ..assignment(id, 0, &spec, &digest, Intent::Run)
    };
    world.controller.desire(vec![with(&one)]);
    world.observed("ready", |seen| seen.ready).await;
    let first = |rules: &[EgressRule]| rules.iter().map(|rule| rule.first.to_string()).collect::<Vec<_>>();
    assert_eq!(first(&world.runtime.started()[0].egress), ["192.0.2.1"]);
    assert!(world.runtime.permitted(id).is_none(), "what it was started with needs no change");

    world.controller.desire(vec![with(&other)]);
    let permitted = |what: &'static str, runtime: Arc<SimRuntime>| async move {
        eventually(what, LIMIT, || async {
            let now = runtime.permitted(id).map(|rules| first(&rules));
            if now == Some(vec!["192.0.2.2".to_owned()]) { Ok(()) } else { Err(now) }
        })
        .await;
    };
    permitted("the other rules", Arc::clone(&world.runtime)).await;
    assert_eq!(world.runtime.started().len(), 1, "it was not restarted");

    // The next incarnation, of an agent that was restarted and reaches nobody, has the newest rules.
    world.kill().await;
    world.runtime.forget_permitted();
    world.start();
    permitted("the rules of the adopted", Arc::clone(&world.runtime)).await;
    world.runtime.end(id, &exit(1));
    world.observed("ready again", |seen| seen.ready && seen.incarnation == 2).await;
    assert_eq!(first(&world.runtime.started()[1].egress), ["192.0.2.2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_stops_nothing() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.observed("ready", |seen| seen.ready).await;
    world.kill().await;
    let journal = world.config.state_directory.join("journal");
    std::fs::write(journal.join("assignments").join(id.to_string()), b"rubbish").expect("damage");
    std::fs::write(journal.join("header"), b"rubbish").expect("damage");
    world.controller.forget_seen();
    world.start();
    world.observed("ready again", |seen| seen.ready && seen.incarnation == 1).await;
    assert_eq!(world.runtime.started().len(), 1, "it was never stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_unknown_to_the_controller_are_purged() {
    let world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.observed("ready", |seen| seen.ready).await;
    let version = world.controller.desire(vec![]);
    eventually("applied", LIMIT, || async { (world.controller.applied() == Some(version)).then_some(()).ok_or(()) })
        .await;
    assert_eq!(world.runtime.running().len(), 1);
    world.controller.purge(&id.to_string());
    eventually("gone", LIMIT, || async { (world.runtime.leftovers() == 0).then_some(()).ok_or(()) }).await;
    let file = world.config.state_directory.join("journal/assignments").join(id.to_string());
    eventually("forgotten", LIMIT, || async { (!file.exists()).then_some(()).ok_or(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_reported_when_an_app_never_listens() {
    let elsewhere = |spec: &SandboxSpec| if spec.slot == 0 { loopback(3000) } else { loopback(8080) };
    let world = World::new(move |spec, _| Program::Deaf(vec![elsewhere(spec)])).await;
    let (id, other, spec) = (Uuid::new_v4(), Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    world.controller.desire(vec![
        assignment(id, 0, &spec, &digest, Intent::Run),
        assignment(other, 1, &spec, &digest, Intent::Run),
    ]);
    let crash = world.state(other, InstanceState::Crashed).await;
    assert!(crash.reason.contains("it listens on 127.0.0.1 only; listen on 0.0.0.0"), "{}", crash.reason);
    let crash = world.state(id, InstanceState::Crashed).await;
    assert!(crash.reason.starts_with("did not listen on port 8080 within 0.3 s"), "{}", crash.reason);
    assert!(crash.reason.contains("127.0.0.1:3000"), "{}", crash.reason);
    world
        .observed("waits", |seen| {
            seen.state() == InstanceState::Crashed && seen.restart.is_some_and(|restart| restart.crashes == 4)
        })
        .await;
    assert!(!world.runtime.gate_is_open(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_the_cell_cannot_run_is_refused_with_the_reason() {
    let world = World::new(|_, _| Program::NoRoom).await;
    let (full, damaged, huge) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let spec = world.web();
    let digest = world.controller.put_spec(&spec);
    let mut broken = world.web();
    broken.layers[0] = world.layer("stack", "other");
    world.controller.damage_blob(&broken.layers[0].blob);
    let broken_digest = world.controller.put_spec(&broken);
    let mut large = world.web();
    large.layers[0] = world.layer("stack", "large");
    large.layers[0].size = 1 << 60;
    let large_digest = world.controller.put_spec(&large);
    world.controller.desire(vec![
        assignment(full, 0, &spec, &digest, Intent::Run),
        assignment(damaged, 1, &broken, &broken_digest, Intent::Run),
        assignment(huge, 2, &large, &large_digest, Intent::Run),
    ]);
    for (id, refusal, words) in [
        (full, Refusal::NoSpace, "0 MiB free"),
        (damaged, Refusal::LayerUnavailable, "other"),
        (huge, Refusal::NoSpace, "MiB are free"),
    ] {
        let seen = world.state(id, InstanceState::Refused).await;
        assert_eq!(seen.refusal(), refusal, "{}", seen.reason);
        assert!(seen.reason.contains(words), "{}", seen.reason);
    }
    assert_eq!(world.runtime.leftovers(), 0);
    let temporary = world.config.state_directory.join("cache/tmp");
    assert_eq!(std::fs::read_dir(temporary).expect("list").count(), 0, "nothing half done is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_once_even_when_the_agent_is_killed() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let id = Uuid::new_v4();
    let mut spec = world.web();
    spec.kind = WorkloadKind::Task.into();
    let digest = world.controller.put_spec(&spec);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.state(id, InstanceState::Running).await;
    world.kill().await;
    world.runtime.power_cut();
    world.start();
    let seen = world.state(id, InstanceState::Completed).await;
    assert_eq!(seen.refusal(), Refusal::AttemptSpent);
    assert_eq!(seen.exit.expect("exit").fault(), Fault::Platform);
    assert_eq!(world.runtime.started().len(), 1);
}
