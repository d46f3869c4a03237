//! Events of an instance, and the actions that they cause.

use slipway_protocol::v1::{BuildResult, Fault, InstanceState, Intent, Refusal, WorkloadKind};

use crate::sandbox::Exit;

/// The part of an assignment that the core acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// Kind of workload.
    pub kind: WorkloadKind,
    /// What is wanted now.
    pub intent: Intent,
    /// Attempt of a task or build.
    pub attempt: u32,
    /// Raised to replace the running incarnation once.
    pub nonce: u64,
    /// Crashes carried from an earlier place.
    pub crashes: u32,
    /// Starts at earlier places.
    pub incarnation: u64,
}

/// What was found on the host after the agent came back.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundSandbox {
    /// Its sandbox runs.
    Running,
    /// Its sandbox has ended while nobody looked.
    Ended(Exit),
    /// There is no sandbox.
    Gone,
}

/// Why a sandbox did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFault {
    /// It can run nowhere.
    Invalid(String),
    /// The cell is out of something.
    Exhausted(String),
    /// A step failed on this host.
    Host(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A new assignment.
    Begin,
    /// The agent came back.
    Recovered(FoundSandbox),
    /// The assignment was changed by a newer set.
    Assigned(DesiredState),
    /// The controller does not know it.
    Purge,
    /// Everything a start needs is there.
    Prepared,
    /// The cell cannot run it.
    Refused(Refusal, String),
    /// The sandbox did not start.
    StartFailed(StartFault),
    /// The program was executed.
    Started,
    /// The health check passed.
    Healthy {
        /// Whether it may take traffic at once (no readiness check).
        ready: bool,
    },
    /// The readiness check changed its mind.
    Readiness(bool),
    /// What keeps a starting app from being healthy was seen; it may still become right.
    Trouble(String),
    /// The health check failed, or the start took too long.
    Unhealthy(String),
    /// The sandbox ended.
    Exited(Exit),
    /// A build ended, with or without a droplet.
    Built(Box<BuildResult>),
    /// A time asked for by [`Action::Wake`] has come.
    Timer,
    /// The gate could not be opened.
    GateFailed,
    /// Nothing is left of the sandbox; answers [`Action::Destroy`].
    Removed,
    /// Something is left of the sandbox; answers [`Action::Destroy`].
    NotRemoved,
}

/// What the shell must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Fetch what a start needs; answers `Prepared` or `Refused`.
    Prepare,
    /// Drop a preparation that is under way.
    Abandon,
    /// Start the current incarnation. The journal is written first.
    Start,
    /// Follow a sandbox that runs already.
    Follow,
    /// Start health checks.
    Watch {
        /// It was healthy before (adopted): go on with the checks of a running instance.
        healthy: bool,
        /// It was ready before.
        ready: bool,
    },
    /// Let traffic through or refuse it.
    Gate(bool),
    /// End the sandbox: SIGTERM, then SIGKILL.
    Stop,
    /// Remove what is left of the current incarnation; answers `Removed` or `NotRemoved`. Always the last action.
    Destroy,
    /// Send [`Event::Timer`] at this time (Unix milliseconds).
    Wake(i64),
    /// Tell the controllers.
    Observe(Box<Report>),
    /// Tell the developer, in the instance's log.
    Say(String),
    /// Remove every trace.
    Forget,
}

/// The state half of an observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The state.
    pub state: InstanceState,
    /// May take traffic.
    pub ready: bool,
    /// How it ended, and whose fault that is.
    pub exit: Option<(Exit, Fault)>,
    /// For people.
    pub reason: String,
    /// Why the cell cannot run it.
    pub refusal: Option<Refusal>,
    /// A crash that is recorded as an app event.
    pub crash: bool,
    /// Of a completed build.
    pub build: Option<BuildResult>,
}

impl Report {
    pub(super) fn of(state: InstanceState) -> Self {
        Self { state, ready: false, exit: None, reason: String::new(), refusal: None, crash: false, build: None }
    }

    pub(super) fn action(self) -> Action {
        Action::Observe(Box::new(self))
    }
}

/// The action of telling nothing but a state.
pub(super) fn observe(state: InstanceState) -> Action {
    Report::of(state).action()
}
