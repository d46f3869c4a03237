//! System call filters, compiled once per agent: compiling them costs as much as a whole start.
//!
//! One program for each answer. The first lets through what ordinary programs need and answers "no such call" to all else,
//! so that a C library that tries something newer falls back. `clone3` passes its flags in memory, where no filter can look:
//! "no such call" makes libraries use `clone`. Protocols that are not for apps answer as a kernel without them would. What
//! would disturb the host and need not be done answers "done". The last names what is dangerous and answers "not
//! permitted", as a kernel without the privilege would.

mod calls;
mod rules;

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};
use slipway_helper::guards::{Guard, Guards};

use super::{SandboxError, host};
use calls::{ALLOWED, ALLOWED_OLD};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// The programs in the order of their installation; an instruction is its eight bytes.
pub(super) fn compile(guards: &Guards) -> Result<Vec<Vec<u64>>, SandboxError> {
    let failed =
        |error: seccompiler::BackendError| host("compile the system call filters")(std::io::Error::other(error));
    Ok(programs(guards).map_err(failed)?.iter().map(encode).collect())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Compiled<T> = Result<T, seccompiler::BackendError>;

/// Where two refuse, the answer of the one installed last counts.
fn programs(guards: &Guards) -> Compiled<Vec<BpfProgram>> {
    if !guards.hold(Guard::Filters) {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    if guards.hold(Guard::ListedCalls) {
        let rules = ALLOWED.iter().chain(ALLOWED_OLD).map(|call| (*call, Vec::new())).collect();
        made.push(program(rules, refuse(libc::ENOSYS), SeccompAction::Allow)?);
    }
    let absent: Rules = match guards.hold(Guard::NoClone3) {
        true => BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        false => BTreeMap::new(),
    };
    for (rules, answer) in [
        (absent, libc::ENOSYS),
        (rules::protocols(guards)?, libc::EPROTONOSUPPORT),
        (rules::quiet(guards)?, 0),
        (rules::forbidden(guards)?, libc::EPERM),
    ] {
        if !rules.is_empty() {
            made.push(program(rules, SeccompAction::Allow, refuse(answer))?);
        }
    }
    Ok(made)
}

/// `otherwise` is the answer to what no rule matches.
fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Compiled<BpfProgram> {
    SeccompFilter::new(rules, otherwise, matched, ARCHITECTURE)?.try_into()
}

fn refuse(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn encode(program: &BpfProgram) -> Vec<u64> {
    let word = |instruction: &seccompiler::sock_filter| {
        let (code, k) = (instruction.code.to_ne_bytes(), instruction.k.to_ne_bytes());
        u64::from_ne_bytes([code[0], code[1], instruction.jt, instruction.jf, k[0], k[1], k[2], k[3]])
    };
    program.iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::calls::DENIED;
    use super::rules::{CLONING, FAMILIES, NAMESPACE_FLAGS};
    use super::*;

    #[test]
    fn nothing_is_both_allowed_and_denied() {
        let both: Vec<_> = DENIED.iter().filter(|call| ALLOWED.contains(call) || ALLOWED_OLD.contains(call)).collect();
        assert!(both.is_empty(), "{both:?}");
    }

    /// The names of calls in a list of a source.
    fn named(source: &str, list: &str) -> std::collections::BTreeSet<String> {
        let (_, text) = source.split_once(list).expect("the list");
        let (text, _) = text.split_once("];").expect("its end");
        let name =
            |rest: &str| rest.split(|byte: char| !byte.is_alphanumeric() && byte != '_').next().map(str::to_owned);
        text.split("libc::SYS_").skip(1).filter_map(name).collect()
    }

    #[test]
    fn the_probe_tries_every_dangerous_call() {
        let denied = named(include_str!("seccomp/calls.rs"), "const DENIED");
        assert_eq!(denied.len(), DENIED.len());
        assert_eq!(denied, named(include_str!("../../../helper/src/probe/calls.rs"), "const DANGEROUS"));
    }

    #[test]
    fn each_dangerous_call_is_refused_by_its_own_entry() {
        // Where its entry is missing it ends at the list of ordinary calls, so that none of them reaches the kernel.
        let ordinary = || ALLOWED.iter().chain(ALLOWED_OLD).map(|call| (*call, Vec::new())).collect();
        let ask = |missing: Option<i64>, call: i64| {
            let mut rules = rules::forbidden(&Guards::default()).unwrap();
            if let Some(missing) = missing {
                assert!(rules.remove(&missing).is_some());
            }
            let list = program(ordinary(), refuse(libc::ENOSYS), SeccompAction::Allow).unwrap();
            let forbidden = program(rules, SeccompAction::Allow, refuse(libc::EPERM)).unwrap();
            // SAFETY: no address is passed.
            answer_under(vec![list, forbidden], move || unsafe { libc::syscall(call, -1, -1, -1, -1, -1, -1) })
        };
        for call in DENIED {
            assert_eq!(ask(None, *call), Err(libc::EPERM), "{call}");
            assert_eq!(ask(Some(*call), *call), Err(libc::ENOSYS), "{call} without its entry");
        }
        assert_eq!(ask(Some(DENIED[0]), DENIED[1]), Err(libc::EPERM), "the others stay");
    }

    #[test]
    fn the_programs_fit_the_kernels_bound() {
        for program in compile(&Guards::default()).unwrap() {
            assert!((1..4096).contains(&program.len()), "{}", program.len());
        }
    }

    /// What a call answers that a thread makes for which the filters hold: a value, or the error number.
    fn answer(call: impl FnOnce() -> libc::c_long + Send + 'static) -> Result<libc::c_long, i32> {
        answer_under(programs(&Guards::default()).unwrap(), call)
    }

    fn answer_under(
        filters: Vec<BpfProgram>,
        call: impl FnOnce() -> libc::c_long + Send + 'static,
    ) -> Result<libc::c_long, i32> {
        let thread = std::thread::spawn(move || {
            for filter in &filters {
                seccompiler::apply_filter(filter).unwrap();
            }
            match call() {
                -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
                value => Ok(value),
            }
        });
        thread.join().unwrap()
    }

    fn refused(call: impl FnOnce() -> libc::c_long + Send + 'static) -> Option<i32> {
        answer(call).err()
    }

    fn socket(family: i32, kind: i32, protocol: i32) -> Option<i32> {
        // With bits above the 32 that the kernel looks at, which must not make it another call.
        let above = |value: i32| 0x7_0000_0000 | i64::from(value);
        // SAFETY: no pointer is passed, and a socket that is made goes with the process.
        refused(move || unsafe { libc::syscall(libc::SYS_socket, above(family), above(kind), above(protocol)) })
    }

    #[test]
    fn only_families_of_programs_have_sockets() {
        for family in FAMILIES {
            let made = socket(family, libc::SOCK_DGRAM, 0);
            assert!(matches!(made, None | Some(libc::EAFNOSUPPORT)), "{family}: {made:?}");
        }
        for family in [libc::AF_ALG, libc::AF_VSOCK, libc::AF_PACKET, libc::AF_TIPC, libc::AF_CAN, libc::AF_BLUETOOTH] {
            assert_eq!(socket(family, libc::SOCK_RAW, 0), Some(libc::EPERM), "{family}");
        }
        // The kernel makes two sockets of the protocol before it sees that a family has no pairs.
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_TIPC] {
            // SAFETY: the pair would be written to memory that lives.
            let pair = refused(move || unsafe {
                let mut pair = [0i32; 2];
                libc::syscall(libc::SYS_socketpair, family, libc::SOCK_STREAM, 132, pair.as_mut_ptr())
            });
            assert_eq!(pair, Some(libc::EPERM), "a pair of {family}");
        }
    }

    #[test]
    fn only_protocols_of_programs_have_sockets() {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        for family in [libc::AF_INET, libc::AF_INET6] {
            for (kind, protocol) in [
                (libc::SOCK_STREAM, 0),
                (libc::SOCK_STREAM, libc::IPPROTO_TCP),
                (libc::SOCK_DGRAM, 0),
                (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            ] {
                let made = socket(family, kind | flags, protocol);
                // A host may be without IPv6.
                assert!(matches!(made, None | Some(libc::EAFNOSUPPORT)), "{family} {kind} {protocol}: {made:?}");
            }
            // SCTP, MPTCP, SMC; UDP-Lite, L2TP; SCTP as a sequence; DCCP; packets (10); one that is none.
            for (kind, protocol) in [
                (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
                (libc::SOCK_STREAM | flags, libc::IPPROTO_MPTCP),
                (libc::SOCK_STREAM, 256),
                (libc::SOCK_DGRAM | flags, libc::IPPROTO_UDPLITE),
                (libc::SOCK_DGRAM, 115),
                (libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP),
                (libc::SOCK_DCCP, libc::IPPROTO_DCCP),
                (libc::SOCK_RDM, 0),
                (10, 3),
                (0xf, 0),
            ] {
                let made = socket(family, kind, protocol);
                assert_eq!(made, Some(libc::EPROTONOSUPPORT), "{family} {kind:#x} {protocol}");
            }
            assert_eq!(socket(family, libc::SOCK_RAW | flags, libc::IPPROTO_ICMP), Some(libc::EPERM), "{family}");
        }
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW | flags, libc::NETLINK_ROUTE), None);
        for kind in (1..32).filter(|kind| *kind != libc::NETLINK_ROUTE) {
            assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, kind), Some(libc::EPROTONOSUPPORT), "netlink {kind}");
        }
        // The options of the protocols above them. No file is open under the number: what passes is refused for that.
        for (level, option, wanted) in [
            (libc::SOL_TCP, 31, libc::EPERM),
            (libc::SOL_UDP, 100, libc::EPERM),
            (libc::SOL_TCP, libc::TCP_NODELAY, libc::EBADF),
            (libc::SOL_SOCKET, 31, libc::EBADF),
        ] {
            // SAFETY: no pointer is passed.
            let set = refused(move || unsafe { libc::syscall(libc::SYS_setsockopt, -1, level, option, 0, 0) });
            assert_eq!(set, Some(wanted), "{level} {option}");
        }
    }

    #[test]
    fn clone_makes_no_namespace() {
        for flag in NAMESPACE_FLAGS {
            // SAFETY: a child, if there is one, ends at once; it runs nothing of this program's.
            let made = refused(move || unsafe {
                let flags = i64::from(flag | libc::SIGCHLD);
                match libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) {
                    0 => libc::_exit(0),
                    made => made,
                }
            });
            assert_eq!(made, Some(libc::EPERM), "{flag:#x}");
        }
    }

    #[test]
    fn a_personality_is_an_ordinary_one() {
        for value in [0u32, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
            // SAFETY: no pointer is passed; the thread ends at once.
            let set = answer(move || unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(value)) });
            assert!(set.is_ok(), "{value:#x}: {set:?}");
        }
        // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, another system's, and the first with a bit that the kernel does not look at.
        for value in [0x4_0000u64, 0x40_0000, 0x6, 0x1_0004_0000] {
            // SAFETY: as above.
            let set = refused(move || unsafe { libc::syscall(libc::SYS_personality, value) });
            assert_eq!(set, Some(libc::EPERM), "{value:#x}");
        }
    }

    #[test]
    fn the_limit_of_cores_stays_and_sync_is_no_work() {
        // SAFETY: the structures live in the closures.
        unsafe {
            let wanted = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
            let limit = |resource: u32| {
                let mut now = libc::rlimit { rlim_cur: 7, rlim_max: 7 };
                libc::syscall(libc::SYS_prlimit64, 0, resource, 0usize, &raw mut now);
                now.rlim_cur
            };
            let before = limit(libc::RLIMIT_CORE);
            assert_ne!(before, wanted.rlim_cur, "the test needs another value");
            for call in [libc::SYS_prlimit64, libc::SYS_setrlimit] {
                let set = answer(move || {
                    let done = match call {
                        libc::SYS_setrlimit => libc::syscall(call, libc::RLIMIT_CORE, &raw const wanted),
                        _ => libc::syscall(call, 0, libc::RLIMIT_CORE, &raw const wanted, 0usize),
                    };
                    if done == 0 { i64::try_from(limit(libc::RLIMIT_CORE)).unwrap_or(i64::MAX) } else { -1 }
                });
                assert_eq!(set, Ok(i64::try_from(before).unwrap_or(i64::MAX)), "the limit by call {call}");
            }
            // Who asks for the old value too would get none.
            let both = refused(move || {
                let mut old = wanted;
                libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, &raw const wanted, &raw mut old)
            });
            assert_eq!(both, Some(libc::EPERM));
            let same = libc::rlimit { rlim_cur: limit(libc::RLIMIT_NOFILE), rlim_max: libc::RLIM_INFINITY };
            let other =
                answer(move || libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &raw const same, 0usize));
            assert_ne!(other, Ok(0), "another limit must reach the kernel, which refuses this value");
            assert_eq!(answer(|| libc::syscall(libc::SYS_sync)), Ok(0));
            // The kernel would say that no file is open under this number.
            assert_eq!(answer(|| libc::syscall(libc::SYS_syncfs, -1)), Ok(0));
            assert_eq!(refused(|| libc::syscall(libc::SYS_fsync, -1)), Some(libc::EBADF));
        }
    }

    #[test]
    fn a_build_makes_no_subvolumes_and_may_clone_files() {
        // No file is open under this number: what passes the filters is refused for that.
        let ask = |request: u32| {
            // SAFETY: no pointer is passed.
            refused(move || unsafe { libc::syscall(libc::SYS_ioctl, -1, libc::c_ulong::from(request), 0) })
        };
        // SUBVOL_CREATE, SUBVOL_CREATE_V2, SNAP_CREATE, SNAP_CREATE_V2, SNAP_DESTROY, SUBVOL_SETFLAGS.
        for request in [0x5000_940e, 0x5000_9418, 0x5000_9401, 0x5000_9417, 0x5000_940f, 0x4008_941a] {
            assert_eq!(ask(request), Some(libc::EPERM), "{request:#x}");
        }
        for request in CLONING.into_iter().chain([u32::try_from(libc::FIONREAD).unwrap()]) {
            assert_eq!(ask(request), Some(libc::EBADF), "{request:#x}");
        }
    }
}
