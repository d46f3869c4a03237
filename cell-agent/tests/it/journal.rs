//! What a journal that cannot be written, or was not written to the end, costs.

use slipway_cell_agent::sim::Program;
use slipway_cell_agent::store::Journal;
use slipway_protocol::v1::{Addresses, InstanceState, Intent, Members, PortRange, Refusal, Version, WorkloadKind};
use uuid::Uuid;

use crate::world::{LIMIT, World, assignment, eventually};

impl World {
    /// Waits until the cell has a set without assignments in force.
    async fn idle(&self) {
        let version = self.controller.desire(vec![]);
        eventually("applied", LIMIT, || async { (self.controller.applied() == Some(version)).then_some(()).ok_or(()) })
            .await;
    }

    /// Nothing can be written about assignments, as on a full disk, until the answer is dropped.
    async fn break_journal(&self) -> BrokenJournal {
        self.idle().await;
        let directory = self.config.state_directory.join("journal/assignments");
        let aside = directory.with_extension("aside");
        std::fs::rename(&directory, &aside).expect("aside");
        std::fs::write(&directory, "in the way").expect("in the way");
        BrokenJournal { directory, aside }
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.config.state_directory).expect("journal")
    }
}

struct BrokenJournal {
    directory: std::path::PathBuf,
    aside: std::path::PathBuf,
}

impl Drop for BrokenJournal {
    fn drop(&mut self) {
        std::fs::remove_file(&self.directory).expect("out of the way");
        std::fs::rename(&self.aside, &self.directory).expect("back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_not_started_when_nothing_would_keep_it_from_starting_twice() {
    let world = World::new(|_, _| Program::Serve).await;
    let _broken = world.break_journal().await;
    let id = Uuid::new_v4();
    let mut spec = world.web();
    spec.kind = WorkloadKind::Task.into();
    let digest = world.controller.put_spec(&spec);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    let refused = world.state(id, InstanceState::Refused).await;
    assert_eq!(refused.refusal(), Refusal::CellBroken, "{}", refused.reason);
    assert!(refused.reason.contains("journal"), "{}", refused.reason);
    assert!(world.runtime.started().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_is_not_in_the_journal_is_asked_for_again() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    let broken = world.break_journal().await;
    let version = world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.observed("it serves all the same", |seen| seen.ready).await;
    eventually("applied", LIMIT, || async { (world.controller.applied() == Some(version)).then_some(()).ok_or(()) })
        .await;
    world.kill().await;
    drop(broken);
    let header = world.journal().load().expect("load").header.expect("header");
    assert_eq!((header.version(), header.digest), (Version::new(1, 0), vec![]), "the header must not claim the set");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_writes_are_repeated_when_there_is_space_again() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    let broken = world.break_journal().await;
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.observed("ready", |seen| seen.ready).await;
    drop(broken);
    let journal = world.journal();
    eventually("written", LIMIT, || async {
        let loaded = journal.load().expect("load");
        let slots: Vec<_> =
            loaded.entries.iter().map(|entry| (entry.assignment.slot, entry.life.incarnation)).collect();
        if slots == [(0, 1)] { Ok(()) } else { Err(slots) }
    })
    .await;
    world.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_was_written_and_not_yet_followed_is_followed_by_the_next_agent() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    world.controller.desire(vec![assignment(id, 0, &spec, &digest, Intent::Run)]);
    world.observed("ready", |seen| seen.ready).await;
    world.kill().await;
    // As when the agent is killed between the two writings: the assignment is there, what followed from it is not.
    let stop = assignment(id, 0, &spec, &digest, Intent::Stop);
    let journal = world.journal();
    let mut entry = journal.load().expect("load").entries.remove(0);
    entry.assignment = stop.clone();
    journal.write_entry(id, &entry).expect("write");
    world.controller.desire(vec![stop]);
    world.start();
    world.state(id, InstanceState::Stopped).await;
    assert_eq!(world.runtime.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ready_file_says_what_the_host_cannot() {
    let world = World::new(|_, _| Program::Serve).await;
    let path = world.config.ready_file.clone().expect("a ready file");
    let ready: serde_json::Value = eventually("ready", LIMIT, || async {
        let text = std::fs::read(&path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(ready["warnings"], serde_json::json!(["nothing is contained: this host is simulated"]));
    assert!(ready["query"].is_string(), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_known_after_a_start_without_a_controller() {
    let mut world = World::new(|_, _| Program::Serve).await;
    world.idle().await;
    let closed = vec![PortRange { host: "10.0.0.1".into(), first: 7000, last: 7001 }];
    let members = Members { closed, routers: Some(Addresses { addresses: vec!["10.0.0.3".into()] }) };
    world.controller.tell_members(members.clone());
    let announced =
        async |world: &World| eventually("told", LIMIT, || async { world.runtime.announced_members().ok_or(()) }).await;
    let known = announced(&world).await;
    assert_eq!((known.closed.len(), known.routers.as_ref().map(Vec::len)), (1, Some(1)));
    world.kill().await;
    world.runtime.forget_members();
    // This controller says it to nobody who comes later.
    world.start();
    assert_eq!(announced(&world).await, known);

    // A start that could not bring it into force takes it from the next controller that says it.
    world.kill().await;
    world.runtime.forget_members();
    world.runtime.break_members(true);
    world.start();
    world.idle().await;
    world.runtime.break_members(false);
    world.controller.tell_members(members);
    assert_eq!(announced(&world).await, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_instances_keep_their_layers_when_their_spec_is_lost() {
    let mut world = World::new(|_, _| Program::Serve).await;
    let (id, spec) = (Uuid::new_v4(), world.web());
    let digest = world.controller.put_spec(&spec);
    let runs = assignment(id, 0, &spec, &digest, Intent::Run);
    world.controller.desire(vec![runs.clone()]);
    world.observed("ready", |seen| seen.ready).await;
    world.kill().await;
    std::fs::remove_file(world.config.state_directory.join("journal/specs").join(hex::encode(&digest))).expect("lost");
    world.controller.forget_spec(&digest);
    world.start();
    // Another one needs more room than there is: everything that nobody uses goes.
    let (large, mut wide) = (Uuid::new_v4(), world.web());
    wide.layers[0] = world.layer("stack", "large");
    wide.layers[0].size = 1 << 60;
    let digest = world.controller.put_spec(&wide);
    world.controller.desire(vec![runs, assignment(large, 1, &wide, &digest, Intent::Run)]);
    world.state(large, InstanceState::Refused).await;
    for layer in &world.runtime.started()[0].layers {
        assert!(layer.is_dir(), "{} is in use", layer.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_builds_go_with_the_agent_that_wrote_them() {
    let mut world = World::new(|_, _| Program::Serve).await;
    world.idle().await;
    world.kill().await;
    // Of a build whose entry in the journal is lost.
    let settings = world.config.state_directory.join("staging").join(Uuid::new_v4().to_string());
    std::fs::create_dir_all(&settings).expect("directory");
    std::fs::write(settings.join("npmrc"), "_authToken=secret").expect("file");
    world.start();
    world.idle().await;
    assert!(!settings.exists());
}
