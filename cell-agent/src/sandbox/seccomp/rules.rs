//! Rules that look at the arguments of a call.
//!
//! The kernel takes most of them as 32-bit numbers and forgets the upper half of the register, so only the lower half is
//! compared: otherwise a set bit above would make a refused number another one.

use std::collections::BTreeMap;

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use slipway_helper::guards::{Guard, Guards};

use super::calls::DENIED;
use super::{Compiled, Rules};

/// Each makes `clone` a way to new namespaces, in which a process would hold capabilities.
pub(super) const NAMESPACE_FLAGS: [i32; 7] = [
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
pub(super) const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The part of a socket's type that is not `SOCK_CLOEXEC` or `SOCK_NONBLOCK`.
const TYPE: u64 = 0xf;

/// What `personality` may set: Linux, 32 bits, the release number of old programs, and the question. What else there is
/// makes memory executable or addresses known.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Options that put another protocol on a TCP or UDP socket: TLS, SMC and others in the kernel; IPsec.
const UPPER: [(i32, i32); 2] = [(libc::SOL_TCP, 31), (libc::SOL_UDP, 100)];

/// The kind of all requests to btrfs, in their second byte.
const BTRFS: u32 = 0x9400;
/// Those of the kind that every file system answers: what `cp --reflink` does. `FICLONE`, `FICLONERANGE`,
/// `FIDEDUPERANGE`.
pub(super) const CLONING: [u32; 3] = [0x4004_9409, 0x4020_940d, 0xc018_9436];

/// A condition on the lower half of an argument.
fn is(argument: u8, operator: SeccompCmpOp, value: impl Into<i64>) -> Compiled<SeccompCondition> {
    let value = value.into().cast_unsigned() & u64::from(u32::MAX);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// A condition on an address.
fn pointer(argument: u8, operator: SeccompCmpOp) -> Compiled<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, 0)
}

/// None of these values.
fn none_of(argument: u8, values: &[i32]) -> Compiled<Vec<SeccompCondition>> {
    values.iter().map(|value| is(argument, SeccompCmpOp::Ne, *value)).collect()
}

fn all<const N: usize>(conditions: [Compiled<SeccompCondition>; N]) -> Compiled<SeccompRule> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

/// Sockets of a family that passes, of types and protocols that do not: the kernel would load a module for some. `ping` is
/// a datagram socket of its own protocol; netlink tells routes and addresses, which C libraries ask for.
pub(super) fn protocols(guards: &Guards) -> Compiled<Rules> {
    let mut rules = Vec::new();
    if guards.hold(Guard::SocketProtocols) {
        for (family, ping) in [(libc::AF_INET, libc::IPPROTO_ICMP), (libc::AF_INET6, libc::IPPROTO_ICMPV6)] {
            let of = |kind: i32, protocols: &[i32]| {
                let mut conditions = none_of(2, protocols)?;
                conditions.push(is(0, SeccompCmpOp::Eq, family)?);
                conditions.push(is(1, SeccompCmpOp::MaskedEq(TYPE), kind)?);
                SeccompRule::new(conditions)
            };
            for kind in 0..=0xf {
                match kind {
                    libc::SOCK_STREAM => rules.push(of(kind, &[0, libc::IPPROTO_TCP])?),
                    libc::SOCK_DGRAM => rules.push(of(kind, &[0, libc::IPPROTO_UDP, ping])?),
                    // Forbidden below: programs that ping try it first and ask for the other then.
                    libc::SOCK_RAW => {}
                    _ => rules.push(of(kind, &[])?),
                }
            }
        }
        let kind = |operator, value: i32| is(2, operator, value);
        rules.push(all([is(0, SeccompCmpOp::Eq, libc::AF_NETLINK), kind(SeccompCmpOp::Ne, libc::NETLINK_ROUTE)])?);
    }
    Ok(rules_of([(libc::SYS_socket, rules)]))
}

/// What is answered as done and is not: `sync` would write out every disk of the host, and writable layers do not outlive
/// their sandbox anyway (`fsync` of a program's own files goes on). The limit of cores stays at the one value with which the kernel runs no
/// program for a dump; to programs that want no dump the answer is true.
pub(super) fn quiet(guards: &Guards) -> Compiled<Rules> {
    let mut rules = Rules::new();
    if guards.hold(Guard::QuietSync) {
        rules.extend([(libc::SYS_sync, Vec::new()), (libc::SYS_syncfs, Vec::new())]);
    }
    if guards.hold(Guard::CoreLimitStays) {
        rules.insert(libc::SYS_setrlimit, vec![all([is(0, SeccompCmpOp::Eq, core_limit())])?]);
        rules.insert(libc::SYS_prlimit64, vec![changed_limit(SeccompCmpOp::Eq)?]);
    }
    Ok(rules)
}

/// What is dangerous.
pub(super) fn forbidden(guards: &Guards) -> Compiled<Rules> {
    let mut rules = match guards.hold(Guard::DangerousCalls) {
        true => DENIED.iter().map(|call| (*call, Vec::new())).collect(),
        false => Rules::new(),
    };
    let mut clone = Vec::new();
    if guards.hold(Guard::NamespaceFlags) {
        for flag in NAMESPACE_FLAGS {
            clone.push(all([is(0, SeccompCmpOp::MaskedEq(flag.unsigned_abs().into()), flag)])?);
        }
    }
    let (mut socket, mut pair) = (Vec::new(), Vec::new());
    if guards.hold(Guard::SocketFamilies) {
        socket.push(SeccompRule::new(none_of(0, &FAMILIES)?)?);
        // No other family has pairs, and the kernel makes two sockets of the protocol before it says so.
        pair.push(all([is(0, SeccompCmpOp::Ne, libc::AF_UNIX)])?);
    }
    if guards.hold(Guard::SocketProtocols) {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let raw = is(1, SeccompCmpOp::MaskedEq(TYPE), libc::SOCK_RAW);
            socket.push(all([is(0, SeccompCmpOp::Eq, family), raw])?);
        }
    }
    let mut option = Vec::new();
    if guards.hold(Guard::UpperProtocols) {
        for (level, name) in UPPER {
            option.push(all([is(1, SeccompCmpOp::Eq, level), is(2, SeccompCmpOp::Eq, name)])?);
        }
    }
    let mut request = Vec::new();
    if guards.hold(Guard::Typing) {
        // Typing into somebody's terminal.
        let typing = i64::try_from(libc::TIOCSTI).unwrap_or_default();
        request.push(all([is(1, SeccompCmpOp::Eq, typing)])?);
    }
    if guards.hold(Guard::Subvolumes) {
        // A build's volume is a btrfs, where everybody may make subvolumes: each has a quota of its own, which is none, and
        // one that is read only keeps the volume from ever being removed.
        let mut volumes = vec![is(1, SeccompCmpOp::MaskedEq(0xff00), BTRFS)?];
        for cloning in CLONING {
            volumes.push(is(1, SeccompCmpOp::Ne, cloning)?);
        }
        request.push(SeccompRule::new(volumes)?);
    }
    let mut persona = Vec::new();
    if guards.hold(Guard::Personality) {
        let other = PERSONALITIES.iter().map(|value| is(0, SeccompCmpOp::Ne, *value));
        persona.push(SeccompRule::new(other.collect::<Result<_, _>>()?)?);
    }
    let mut limit = Vec::new();
    if guards.hold(Guard::CoreLimitStays) {
        // Who asks for the old value as well would be answered nothing by a call that is not made.
        limit.push(changed_limit(SeccompCmpOp::Ne)?);
    }
    rules.extend(rules_of([
        (libc::SYS_clone, clone),
        (libc::SYS_socket, socket),
        (libc::SYS_socketpair, pair),
        (libc::SYS_setsockopt, option),
        (libc::SYS_ioctl, request),
        (libc::SYS_personality, persona),
        (libc::SYS_prlimit64, limit),
    ]));
    Ok(rules)
}

fn core_limit() -> i64 {
    i64::from(libc::RLIMIT_CORE)
}

/// `prlimit64` with a new limit of cores; `old` compares the place for the old one with none.
fn changed_limit(old: SeccompCmpOp) -> Compiled<SeccompRule> {
    all([is(1, SeccompCmpOp::Eq, core_limit()), pointer(2, SeccompCmpOp::Ne), pointer(3, old)])
}

/// A call without rules would be matched whatever its arguments.
fn rules_of<const N: usize>(calls: [(i64, Vec<SeccompRule>); N]) -> Rules {
    BTreeMap::from_iter(calls.into_iter().filter(|(_, rules)| !rules.is_empty()))
}
