//! System calls, each with arguments that the kernel refuses in its own way when no filter does.

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::{Line, call, line, result};

/// No address, no file, no process.
const BAD: libc::c_long = -1;

/// What the filter refuses by name. Written down once more: a call that is taken off that list is missed here.
const DANGEROUS: &[(&str, libc::c_long)] = &[
    ("acct", libc::SYS_acct),
    ("add_key", libc::SYS_add_key),
    ("adjtimex", libc::SYS_adjtimex),
    ("bpf", libc::SYS_bpf),
    ("chroot", libc::SYS_chroot),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("clock_settime", libc::SYS_clock_settime),
    ("delete_module", libc::SYS_delete_module),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("finit_module", libc::SYS_finit_module),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("fspick", libc::SYS_fspick),
    ("init_module", libc::SYS_init_module),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kcmp", libc::SYS_kcmp),
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
    ("mbind", libc::SYS_mbind),
    ("migrate_pages", libc::SYS_migrate_pages),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("move_pages", libc::SYS_move_pages),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("nfsservctl", libc::SYS_nfsservctl),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("pivot_root", libc::SYS_pivot_root),
    ("quotactl", libc::SYS_quotactl),
    ("reboot", libc::SYS_reboot),
    ("request_key", libc::SYS_request_key),
    ("set_mempolicy", libc::SYS_set_mempolicy),
    ("setdomainname", libc::SYS_setdomainname),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("settimeofday", libc::SYS_settimeofday),
    ("swapoff", libc::SYS_swapoff),
    ("swapon", libc::SYS_swapon),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("vhangup", libc::SYS_vhangup),
];

/// Calls that no list names, of kernels that Slipway runs on.
const UNLISTED: &[(&str, libc::c_long)] = &[
    ("futex_waitv", libc::SYS_futex_waitv),
    ("io_setup", libc::SYS_io_setup),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("process_madvise", libc::SYS_process_madvise),
    ("quotactl_fd", libc::SYS_quotactl_fd),
];

pub(super) fn all() -> Vec<Line> {
    let mut lines = Vec::new();
    let answer = |number, arguments| result(call(number, arguments));
    for (name, number) in DANGEROUS {
        lines.push(line(format!("call:{name}"), answer(*number, [BAD; 6])));
    }
    for (name, number) in UNLISTED {
        lines.push(line(format!("unlisted:{name}"), answer(*number, [BAD; 6])));
    }
    lines.push(line("clone3", answer(libc::SYS_clone3, [0; 6])));
    lines.push(line("namespace", child_in_namespace()));
    lines.push(line("typing", answer(libc::SYS_ioctl, [BAD, libc::TIOCSTI.cast_signed(), 0, 0, 0, 0])));
    // BTRFS_IOC_SUBVOL_CREATE.
    lines.push(line("subvolume", answer(libc::SYS_ioctl, [BAD, 0x5000_940e, 0, 0, 0, 0])));
    // ADDR_NO_RANDOMIZE, taken back at once.
    lines.push(line("personality", answer(libc::SYS_personality, [0x4_0000, 0, 0, 0, 0, 0])));
    let _ = call(libc::SYS_personality, [0; 6]);
    lines.push(line("syncfs", answer(libc::SYS_syncfs, [BAD, 0, 0, 0, 0, 0])));
    lines.push(line("core-limit-set", lower_core_limit()));
    // `getpid` by the numbers of programs with short addresses.
    lines.push(line("foreign:x32", answer(0x4000_0000 | libc::SYS_getpid, [0; 6])));
    #[cfg(target_arch = "x86_64")]
    lines.push(line("foreign:i386", in_child(old_call)));
    lines.push(line("crash", in_child(|| _ = nix::sys::signal::raise(Signal::SIGABRT))));
    lines
}

/// A child in a user namespace of its own would hold every capability there.
fn child_in_namespace() -> String {
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    match call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]) {
        // SAFETY: the child ends at once and runs nothing of this program's.
        Ok(0) => unsafe { libc::_exit(0) },
        made => {
            if made.is_ok() {
                let _ = waitpid(None, None);
            }
            result(made)
        }
    }
}

/// What programs with secrets do. Tells the answer and the limit after it.
fn lower_core_limit() -> String {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let answer = result(setrlimit(Resource::RLIMIT_CORE, 0, 0));
    getrlimit(Resource::RLIMIT_CORE).map_or_else(|errno| errno.to_string(), |(now, _)| format!("{answer}, then {now}"))
}

/// What became of a process that did this.
fn in_child(work: impl FnOnce()) -> String {
    // SAFETY: this program has one thread, so the child may do anything.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            work();
            std::process::exit(0)
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Signaled(_, signal, core)) => format!("{signal}{}", if core { " with a core" } else { "" }),
            Ok(WaitStatus::Exited(_, status)) => format!("ended {status}"),
            other => format!("{other:?}"),
        },
        Err(errno) => format!("{errno:?}"),
    }
}

/// `getpid` by the numbers of 32-bit programs, which the filters would take for another call.
#[cfg(target_arch = "x86_64")]
fn old_call() {
    // SAFETY: the call reads no memory.
    unsafe { std::arch::asm!("int 0x80", inout("rax") 20i64 => _, options(nostack)) };
}
