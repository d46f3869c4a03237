//! From the supervisor's child to the app: every privilege is given up, then the program is executed.

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use caps::CapSet;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, Gid, Pid, Uid};
use seccompiler::sock_filter;
use slipway_helper::guards::Guard;
use slipway_helper::spec::{Failure, InitSpec, Status};

use super::{Report, at, invalid};

/// The app's standard output and error, this end.
pub(super) struct Pipes {
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
}

/// Opens the files by which the app will join its cgroups; their paths are out of reach later.
pub(super) fn open_cgroups(spec: &InitSpec) -> Result<Vec<File>, Failure> {
    let open = |directory: &std::path::PathBuf| {
        let path = directory.join("cgroup.procs");
        File::options().write(true).open(&path).map_err(at(format!("open {}", path.display())))
    };
    spec.app_cgroups.iter().map(open).collect()
}

/// Forks a program of the app. Returns its process id; the report tells whether it was executed.
pub(super) fn start(
    spec: &InitSpec,
    argv: &[String],
    users: &OwnedFd,
    cgroups: &[File],
    pipes: Pipes,
    report: &mut Report,
) -> Result<Pid, Failure> {
    let account = find_account(&spec.user)?;
    // SAFETY: this program has one thread, so the child may do anything.
    match unsafe { nix::unistd::fork() }.map_err(at("fork the app"))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let failure = match become_app(spec, argv, users, cgroups, &pipes, &account) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            report.send(&Status::Failed(failure));
            std::process::exit(126)
        }
    }
}

fn become_app(
    spec: &InitSpec,
    argv: &[String],
    users: &OwnedFd,
    cgroups: &[File],
    pipes: &Pipes,
    account: &Account,
) -> Result<std::convert::Infallible, Failure> {
    let program = c_string(&argv.first().cloned().unwrap_or_default())?;
    let arguments = argv.iter().map(|argument| c_string(argument)).collect::<Result<Vec<_>, _>>()?;
    let environment =
        spec.env.iter().map(|(name, value)| c_string(&format!("{name}={value}"))).collect::<Result<Vec<_>, _>>()?;
    let filters: Vec<Vec<sock_filter>> = spec.filters.iter().map(|filter| decode_filter(filter)).collect();

    // Limits first: from here on all is on the app's account.
    for mut cgroup in cgroups {
        cgroup.write_all(b"0").map_err(at("join the app's cgroup"))?;
    }
    let hold = |guard| spec.guards.hold(guard);
    if hold(Guard::CgroupNamespace) {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(at("make a cgroup namespace"))?;
    }
    limits(spec)?;
    streams(pipes, spec.id_base, account)?;
    signals()?;
    if hold(Guard::AppSession) {
        nix::unistd::setsid().map_err(at("make a session"))?;
    }
    // Now the users: privileges over the host end here.
    setns(users.as_fd(), CloneFlags::CLONE_NEWUSER).map_err(at("enter the user namespace"))?;
    if hold(Guard::BoundingSet) {
        give_up_bounding_set()?;
    }
    if hold(Guard::Groups) {
        nix::unistd::setgroups(&[]).map_err(at("leave all groups"))?;
    }
    let (gid, uid) = if hold(Guard::User) { (account.gid, account.uid) } else { (0, 0) };
    let (gid, uid) = (Gid::from_raw(gid), Uid::from_raw(uid));
    nix::unistd::setresgid(gid, gid, gid).map_err(at(format!("become group {gid}")))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(at(format!("become user {uid}")))?;
    if hold(Guard::Capabilities) {
        give_up_capabilities()?;
    }
    // As the user, so that a directory it may not enter is an error here and not a surprise in the app.
    nix::unistd::chdir(&spec.cwd).map_err(invalid(format!("enter working directory {}", spec.cwd.display())))?;
    if hold(Guard::Filters) {
        nix::sys::prctl::set_no_new_privs().map_err(at("forbid new privileges"))?;
    }
    // Last, because the filters forbid some of the calls above.
    for filter in &filters {
        seccompiler::apply_filter(filter).map_err(|error| Failure {
            step: format!("install the system call filter: {error}"),
            errno: 0,
            invalid: false,
        })?;
    }
    nix::unistd::execve(&program, &arguments, &environment)
        .map_err(invalid(format!("execute {}", program.to_string_lossy())))
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure {
        // Not the text itself: it may be a secret.
        step: "pass arguments and environment: one of them contains a zero byte".to_owned(),
        errno: 0,
        invalid: true,
    })
}

fn decode_filter(instructions: &[u64]) -> Vec<sock_filter> {
    instructions
        .iter()
        .map(|instruction| {
            let [a, b, jt, jf, k0, k1, k2, k3] = instruction.to_ne_bytes();
            sock_filter { code: u16::from_ne_bytes([a, b]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
        })
        .collect()
}

fn limits(spec: &InitSpec) -> Result<(), Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(at("read the limit of open files"))?;
    // Without CAP_SYS_RESOURCE (a container as host) the hard limit is the most there is.
    let wanted = u64::from(spec.nofile);
    if spec.guards.hold(Guard::OpenFiles) && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        let most = wanted.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(at("limit open files"))?;
    }
    if spec.guards.hold(Guard::CoreLimit) {
        // Not 0: with a program as `core_pattern` the kernel runs that one, as root of the host and fed by the app, for every
        // limit but this one. As the size of a file it is too small for any core.
        setrlimit(Resource::RLIMIT_CORE, 1, 1).map_err(at("limit core files"))?;
    }
    Ok(())
}

/// The app's user owns its pipes: what opens `/dev/stdout` or `/dev/stderr` by name needs that.
fn streams(pipes: &Pipes, id_base: u32, account: &Account) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(id_base + account.uid), Gid::from_raw(id_base + account.gid));
    for pipe in [&pipes.out, &pipes.err] {
        nix::unistd::fchown(pipe, Some(uid), Some(gid)).map_err(at("give the app its output"))?;
    }
    let null = File::open("/dev/null").map_err(at("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(at("connect standard input"))?;
    nix::unistd::dup2_stdout(&pipes.out).map_err(at("connect standard output"))?;
    nix::unistd::dup2_stderr(&pipes.err).map_err(at("connect standard error"))
}

/// The supervisor blocks signals and ignores SIGPIPE; a program expects neither.
fn signals() -> Result<(), Failure> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }.map_err(at("reset SIGPIPE"))?;
    SigSet::empty().thread_set_mask().map_err(at("unblock signals"))
}

fn give_up_bounding_set() -> Result<(), Failure> {
    for number in 0u8..64 {
        // SAFETY: plain numbers.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        match nix::errno::Errno::result(dropped) {
            // Beyond the last one that this kernel knows.
            Err(nix::errno::Errno::EINVAL) => break,
            other => other.map_err(at(format!("give up capability {number} for good")))?,
        };
    }
    Ok(())
}

fn give_up_capabilities() -> Result<(), Failure> {
    let failed = |error: caps::errors::CapsError| Failure {
        step: format!("give up capabilities: {error}"),
        errno: 0,
        invalid: false,
    };
    // The effective set must stay within the permitted one at every moment.
    [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted]
        .into_iter()
        .try_for_each(|set| caps::clear(None, set).map_err(failed))
}

pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Looks the user up in the sandbox's own list.
fn find_account(user: &str) -> Result<Account, Failure> {
    let list = std::fs::read_to_string("/etc/passwd").map_err(invalid("read /etc/passwd of the stack"))?;
    parse_account(&list, user).ok_or_else(|| no_account(user))
}

pub(super) fn no_account(user: &str) -> Failure {
    let step = format!("find user {user:?}, who must not be root, in /etc/passwd of the stack");
    Failure { step, errno: 0, invalid: true }
}

/// Root is no account for a program: it would own what the layers hold.
pub(super) fn parse_account(list: &str, user: &str) -> Option<Account> {
    let ids = |line: &str| {
        let mut fields = line.split(':');
        let own = fields.next()? == user;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let ids = 1..super::users::IDS;
        (own && ids.contains(&uid) && ids.contains(&gid)).then_some(Account { uid, gid })
    };
    list.lines().find_map(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_and_foreign_ids_are_not() {
        let list = "root:x:0:0::/root:/bin/sh\nbroken\nvcap:x:2000:2001:a:/home/vcap:/bin/bash\nbig:x:70000:1::/:/\n";
        let account = parse_account(list, "vcap").unwrap();
        assert_eq!((account.uid, account.gid), (2000, 2001));
        assert!(parse_account(list, "big").is_none());
        assert!(parse_account(list, "broken").is_none());
        assert!(parse_account(list, "nobody").is_none());
        assert!(parse_account(list, "root").is_none());
        assert!(parse_account("vcap:x:0:1::/:/\nvcap:x:1:0::/:/\n", "vcap").is_none());
    }

    #[test]
    fn instructions_keep_their_fields() {
        let word = u64::from_ne_bytes([0x20, 0, 1, 2, 4, 3, 2, 1]);
        let filter = decode_filter(&[word]);
        assert_eq!((filter[0].code, filter[0].jt, filter[0].jf), (u16::from_ne_bytes([0x20, 0]), 1, 2));
    }
}
