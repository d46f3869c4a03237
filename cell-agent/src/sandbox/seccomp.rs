//! System call filters, compiled once per agent: compiling them costs as much as a whole start.
//!
//! Two programs. The first lets through what ordinary programs need and answers "no such call" to all else, so that a C
//! library that tries something newer falls back. The second names what is dangerous and answers "not permitted", as a
//! kernel without the privilege would. `clone3` passes its flags in memory, where no filter can look: "no such call" makes
//! libraries use `clone`.

mod calls;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{SandboxError, host};
use calls::{ALLOWED, ALLOWED_OLD, DENIED};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// Each makes `clone` a way to new namespaces, in which a process would hold capabilities.
const NAMESPACE_FLAGS: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Socket families of programs. All others are a wide way into the kernel, each loading a module of its own when it is
/// asked for (and some reach the kernel's inside or the hypervisor), so the list is of what passes.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The kind of all requests to btrfs, in their second byte.
const BTRFS: u32 = 0x9400;
/// Those of the kind that every file system answers: what `cp --reflink` does. `FICLONE`, `FICLONERANGE`,
/// `FIDEDUPERANGE`.
const CLONING: [u32; 3] = [0x4004_9409, 0x4020_940d, 0xc018_9436];

/// The programs in the order of their installation; an instruction is its eight bytes.
pub(super) fn compile() -> Result<Vec<Vec<u64>>, SandboxError> {
    let failed =
        |error: seccompiler::BackendError| host("compile the system call filters")(std::io::Error::other(error));
    // Where two refuse, the answer of the one installed last counts.
    [allowed(), absent(), forbidden()].into_iter().map(|made| made.map(|made| encode(&made)).map_err(failed)).collect()
}

type Compiled = Result<BpfProgram, seccompiler::BackendError>;

fn refuse(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn allowed() -> Compiled {
    let rules = BTreeMap::from_iter(ALLOWED.iter().chain(ALLOWED_OLD).map(|call| (*call, Vec::new())));
    SeccompFilter::new(rules, refuse(libc::ENOSYS), SeccompAction::Allow, ARCHITECTURE)?.try_into()
}

fn absent() -> Compiled {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    SeccompFilter::new(rules, SeccompAction::Allow, refuse(libc::ENOSYS), ARCHITECTURE)?.try_into()
}

fn forbidden() -> Compiled {
    SeccompFilter::new(denied()?, SeccompAction::Allow, refuse(libc::EPERM), ARCHITECTURE)?.try_into()
}

fn denied() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules = BTreeMap::from_iter(DENIED.iter().map(|call| (*call, Vec::new())));
    let one = |argument, operator, value: u32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value))
    };
    let flag = |flag: &i32| {
        let flag = flag.unsigned_abs();
        SeccompRule::new(vec![one(0, SeccompCmpOp::MaskedEq(flag.into()), flag)?])
    };
    rules.insert(libc::SYS_clone, NAMESPACE_FLAGS.iter().map(flag).collect::<Result<_, _>>()?);
    // None of the families that pass. A pair of sockets is made by a call of its own, also in families that have no pairs.
    let family = |family: &i32| one(0, SeccompCmpOp::Ne, family.unsigned_abs());
    let others = SeccompRule::new(FAMILIES.iter().map(family).collect::<Result<_, _>>()?)?;
    rules.insert(libc::SYS_socket, vec![others.clone()]);
    rules.insert(libc::SYS_socketpair, vec![others]);
    // Typing into somebody's terminal.
    let typing = u32::try_from(libc::TIOCSTI).unwrap_or_default();
    let typing = SeccompRule::new(vec![one(1, SeccompCmpOp::Eq, typing)?])?;
    // A build's volume is a btrfs, where everybody may make subvolumes: each has a quota of its own, which is none, and
    // one that is read only keeps the volume from ever being removed.
    let mut volumes = vec![one(1, SeccompCmpOp::MaskedEq(0xff00), BTRFS)?];
    for request in CLONING {
        volumes.push(one(1, SeccompCmpOp::Ne, request)?);
    }
    rules.insert(libc::SYS_ioctl, vec![typing, SeccompRule::new(volumes)?]);
    Ok(rules)
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
    use super::*;

    #[test]
    fn nothing_is_both_allowed_and_denied() {
        let both: Vec<_> = DENIED.iter().filter(|call| ALLOWED.contains(call) || ALLOWED_OLD.contains(call)).collect();
        assert!(both.is_empty(), "{both:?}");
    }

    #[test]
    fn the_programs_fit_the_kernels_bound() {
        for program in compile().unwrap() {
            assert!((1..4096).contains(&program.len()), "{}", program.len());
        }
    }

    /// The error number of a call made by a thread that the filters hold for.
    fn refused(call: impl FnOnce() -> libc::c_long + Send + 'static) -> Option<i32> {
        let filters: Vec<BpfProgram> = [allowed(), absent(), forbidden()].map(|made| made.unwrap()).into();
        let thread = std::thread::spawn(move || {
            for filter in &filters {
                seccompiler::apply_filter(filter).unwrap();
            }
            (call() == -1).then(|| std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
        });
        thread.join().unwrap()
    }

    #[test]
    fn only_families_of_programs_have_sockets() {
        for family in FAMILIES {
            // SAFETY: no pointer is passed, and a socket that is made goes with the process.
            let made = refused(move || unsafe { libc::syscall(libc::SYS_socket, family, libc::SOCK_DGRAM, 0) });
            assert!(matches!(made, None | Some(libc::EAFNOSUPPORT)), "{family}: {made:?}");
        }
        for family in [libc::AF_ALG, libc::AF_VSOCK, libc::AF_PACKET, libc::AF_TIPC, libc::AF_CAN, libc::AF_BLUETOOTH] {
            // SAFETY: as above; the pair would be written to memory that lives.
            let pair = refused(move || unsafe {
                let mut pair = [0i32; 2];
                libc::syscall(libc::SYS_socketpair, family, libc::SOCK_SEQPACKET, 0, pair.as_mut_ptr())
            });
            assert_eq!(pair, Some(libc::EPERM), "a pair of {family}");
            // SAFETY: as above.
            let one = refused(move || unsafe { libc::syscall(libc::SYS_socket, family, libc::SOCK_RAW, 0) });
            assert_eq!(one, Some(libc::EPERM), "{family}");
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
