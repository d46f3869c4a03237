//! How a sandbox ends when it is asked to.
//!
//! SIGTERM is sent once, to the command and to each program beside it, as on Cloud Foundry: a server with workers stops
//! taking requests and lets them finish, and a server that signals its workers itself must not find them gone. A shell that
//! waits for its child (`a; b`, or a script of npm) does not pass the signal on but is killed by it. Everything that it
//! started would then be killed at once, in the middle of a request. So the processes that such a program leaves behind,
//! which are children of this process from then on, are signalled in its place, once, and have the rest of the grace
//! period. A program that ends by itself after the signal has decided for all that it started: the sandbox ends with it.

use std::collections::BTreeSet;

use nix::unistd::Pid;

/// Number of SIGTERM, and the status by which shells and virtual machines say that they ended by it.
const TERMINATED: (i32, i32) = (libc::SIGTERM, 128 + libc::SIGTERM);

/// How the program with this number ended: status, and the signal if one killed it.
pub(super) type End = (usize, i32, Option<i32>);

/// A process that was collected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reaped {
    pub(super) pid: Pid,
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
}

impl Reaped {
    /// As the end of a program, when it is one.
    pub(super) fn end(&self, programs: &[Pid]) -> Option<End> {
        let place = programs.iter().position(|program| *program == self.pid)?;
        Some((place, self.code, self.signal))
    }
}

/// Who was asked to end, and what the sandbox's end will be.
#[derive(Debug, Default)]
pub(super) struct Termination {
    signalled: BTreeSet<Pid>,
    /// Children when the leave began: what a program has put into the background, which is nobody's orphan.
    daemons: BTreeSet<Pid>,
    /// Some program fell by the signal: what it started is asked in its place.
    fallen: bool,
    /// The end of a command that fell, held back until those that it left behind have ended.
    held: Option<End>,
    /// The grace is over.
    pub(super) killed: bool,
}

impl Termination {
    /// Asks the programs to end.
    pub(super) fn begin(
        &mut self,
        programs: &[Pid],
        children: impl FnOnce() -> Option<Vec<Pid>>,
        terminate: impl Fn(Pid),
    ) {
        let others = children().unwrap_or_default().into_iter().filter(|pid| !programs.contains(pid));
        self.daemons = others.collect();
        for program in programs {
            self.tell(*program, &terminate);
        }
    }

    /// Asks a process to end, if it was not asked before.
    fn tell(&mut self, pid: Pid, terminate: impl FnOnce(Pid)) {
        if self.signalled.insert(pid) {
            terminate(pid);
        }
    }

    /// Takes in what was collected while the sandbox is being ended; `ended` is the end of the command, if it is among
    /// them. Answers the end of the sandbox once it has come.
    pub(super) fn reaped(
        &mut self,
        reaped: &[Reaped],
        ended: Option<End>,
        programs: &[Pid],
        children: impl FnOnce() -> Option<Vec<Pid>>,
        terminate: impl Fn(Pid),
    ) -> Option<End> {
        let fell = |(code, signal): (i32, Option<i32>)| match signal {
            Some(signal) => signal == TERMINATED.0,
            None => code == TERMINATED.1,
        };
        let was_signalled = |one: &&Reaped| self.signalled.contains(&one.pid);
        self.fallen |= reaped.iter().filter(was_signalled).any(|one| fell((one.code, one.signal)));
        for one in reaped {
            // The number may be given to another process.
            self.signalled.remove(&one.pid);
            self.daemons.remove(&one.pid);
        }
        if self.killed || ended.is_some_and(|(_, code, signal)| !fell((code, signal))) {
            return ended.or(self.held);
        }
        self.held = self.held.or(ended);
        if !self.fallen {
            return None;
        }
        let Some(left) = children() else { return self.held };
        let left: Vec<Pid> = left.into_iter().filter(|pid| !programs.contains(pid)).collect();
        for pid in &left {
            // A program that finishes its work may need what runs in the background; without the command nobody does.
            if self.held.is_some() || !self.daemons.contains(pid) {
                self.tell(*pid, &terminate);
            }
        }
        self.held.filter(|_| left.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const COMMAND: Pid = Pid::from_raw(2);
    const COMPANION: Pid = Pid::from_raw(3);
    const PROGRAMS: [Pid; 2] = [COMMAND, COMPANION];

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number)
    }

    fn by_signal(pid: Pid) -> Reaped {
        Reaped { pid, code: 143, signal: Some(15) }
    }

    struct World {
        termination: Termination,
        signalled: RefCell<Vec<i32>>,
    }

    impl World {
        /// Both programs were asked.
        fn ending() -> Self {
            Self::with_daemons(&[])
        }

        fn with_daemons(daemons: &[i32]) -> Self {
            let mut world = Self { termination: Termination::default(), signalled: RefCell::default() };
            let children = PROGRAMS.into_iter().chain(daemons.iter().map(|number| pid(*number))).collect();
            let signalled = &world.signalled;
            world.termination.begin(&PROGRAMS, || Some(children), |pid| signalled.borrow_mut().push(pid.as_raw()));
            world
        }

        fn reaped(&mut self, reaped: &[Reaped], children: &[i32]) -> Option<End> {
            let ended = reaped.iter().find(|one| one.pid == COMMAND).and_then(|one| one.end(&PROGRAMS));
            let children = children.iter().map(|number| pid(*number)).collect();
            let signalled = &self.signalled;
            self.termination.reaped(
                reaped,
                ended,
                &PROGRAMS,
                || Some(children),
                |pid| signalled.borrow_mut().push(pid.as_raw()),
            )
        }
    }

    #[test]
    fn a_command_that_ends_by_itself_decides_for_its_workers() {
        let mut world = World::ending();
        let end = world.reaped(&[Reaped { pid: COMMAND, code: 0, signal: None }], &[3, 7, 8]);
        assert_eq!(end, Some((0, 0, None)));
        assert_eq!(*world.signalled.borrow(), [2, 3], "workers are the command's business");
    }

    #[test]
    fn processes_left_by_a_killed_shell_are_signalled_once_and_awaited() {
        let mut world = World::ending();
        // The shell falls; a master, whose workers are its own children, is left.
        assert_eq!(world.reaped(&[by_signal(COMMAND)], &[3, 7]), None);
        assert_eq!(*world.signalled.borrow(), [2, 3, 7]);
        // Something else that had been adopted ends: nobody is asked twice.
        assert_eq!(world.reaped(&[Reaped { pid: pid(9), code: 0, signal: None }], &[3, 7]), None);
        assert_eq!(*world.signalled.borrow(), [2, 3, 7]);
        // The master has finished; the companion's slowness does not matter.
        let end = world.reaped(&[Reaped { pid: pid(7), code: 0, signal: None }], &[3]);
        assert_eq!(end, Some((0, 143, Some(15))), "the end of the sandbox is that of its command");
    }

    #[test]
    fn a_chain_of_shells_passes_the_signal_on() {
        let mut world = World::ending();
        assert_eq!(world.reaped(&[by_signal(COMMAND)], &[3, 7]), None);
        assert_eq!(world.reaped(&[by_signal(pid(7))], &[3, 8]), None);
        assert_eq!(*world.signalled.borrow(), [2, 3, 7, 8]);
        assert_eq!(world.reaped(&[by_signal(pid(8))], &[3]), Some((0, 143, Some(15))));
    }

    #[test]
    fn processes_left_by_a_killed_companion_are_signalled_while_the_command_runs() {
        let mut world = World::ending();
        assert_eq!(world.reaped(&[by_signal(COMPANION)], &[2, 9]), None);
        assert_eq!(*world.signalled.borrow(), [2, 3, 9]);
        let end = world.reaped(&[Reaped { pid: COMMAND, code: 5, signal: None }], &[9]);
        assert_eq!(end, Some((0, 5, None)));
    }

    #[test]
    fn background_processes_are_signalled_when_the_command_was_killed() {
        let mut world = World::with_daemons(&[5]);
        assert_eq!(*world.signalled.borrow(), [2, 3]);
        assert_eq!(world.reaped(&[by_signal(COMPANION)], &[2, 5, 9]), None);
        assert_eq!(*world.signalled.borrow(), [2, 3, 9], "the command may still need it");
        assert_eq!(world.reaped(&[by_signal(COMMAND), by_signal(pid(9))], &[5]), None);
        assert_eq!(*world.signalled.borrow(), [2, 3, 9, 5]);
        assert_eq!(world.reaped(&[by_signal(pid(5))], &[]), Some((0, 143, Some(15))));
    }

    #[test]
    fn the_end_of_the_grace_period_ends_the_sandbox() {
        let mut world = World::ending();
        assert_eq!(world.reaped(&[by_signal(COMMAND)], &[3, 7]), None);
        world.termination.killed = true;
        let killed = Reaped { pid: pid(7), code: 137, signal: Some(9) };
        assert_eq!(world.reaped(&[killed], &[]), Some((0, 143, Some(15))));
    }

    #[test]
    fn without_a_list_of_children_a_killed_command_ends_the_sandbox() {
        let mut world = World::ending();
        let reaped = [by_signal(COMMAND)];
        let end = world.termination.reaped(&reaped, reaped[0].end(&PROGRAMS), &PROGRAMS, || None, |_| {});
        assert_eq!(end, Some((0, 143, Some(15))));
    }
}
