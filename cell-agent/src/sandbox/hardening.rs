//! Settings of the host that undo a guard of sandboxes, or remove its second line of defence. The host belongs to its
//! operator: they are reported, not changed.

/// What to look at below `/proc/sys`, when it is wrong, and what to say.
type Setting = (&'static str, fn(&str) -> bool, &'static str);

const SETTINGS: [Setting; 6] = [
    (
        "kernel/core_pattern",
        // A program after `|` is not run, because of the limit of cores; a socket is asked whatever the limit.
        |value| value.starts_with('@'),
        "crashes of apps are handed to the program behind this socket: use a file or a program as core_pattern",
    ),
    (
        "kernel/unprivileged_bpf_disabled",
        |value| value == "0",
        "only the system call filter keeps apps from bpf: set it to 2",
    ),
    (
        "kernel/perf_event_paranoid",
        |value| value.parse::<i32>().is_ok_and(|value| value < 2),
        "only the system call filter keeps apps from the host's performance events: set it to 2 or more",
    ),
    (
        "vm/unprivileged_userfaultfd",
        |value| value == "1",
        "only the system call filter keeps apps from userfaultfd: set it to 0",
    ),
    (
        "vm/mmap_min_addr",
        |value| value == "0",
        "apps may map address 0, which helps to use faults of the kernel: set it to 65536",
    ),
    ("kernel/randomize_va_space", |value| value != "2", "addresses of programs can be guessed: set it to 2"),
];

/// In words, for `slipway status`.
pub(super) fn warnings() -> Vec<String> {
    find(|name| std::fs::read_to_string(format!("/proc/sys/{name}")).ok())
}

fn find(read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    // A kernel without the setting does not have what it is about.
    let wrong = |(name, wrong, text): &Setting| {
        let value = read(name)?;
        let value = value.trim();
        wrong(value).then(|| format!("{} is {value}: {text}", name.replace('/', ".")))
    };
    SETTINGS.iter().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_undo_a_guard_are_named_and_no_others() {
        let good = [
            ("kernel/core_pattern", "|/usr/share/apport/apport %p\n"),
            ("kernel/unprivileged_bpf_disabled", "2\n"),
            ("kernel/perf_event_paranoid", "3\n"),
            ("vm/unprivileged_userfaultfd", "0\n"),
            ("vm/mmap_min_addr", "65536\n"),
            ("kernel/randomize_va_space", "2\n"),
        ];
        let bad = ["@/run/coredump.socket", "0", "-1", "1", "0", "0"];
        let of = |name: &str| good.iter().position(|(known, _)| *known == name).unwrap();
        assert_eq!(find(|name| Some(good[of(name)].1.to_owned())), Vec::<String>::new());
        assert_eq!(find(|_| None), Vec::<String>::new());
        let warnings = find(|name| Some(bad[of(name)].to_owned()));
        assert_eq!(warnings.len(), good.len());
        assert!(warnings[0].starts_with("kernel.core_pattern is @/run/coredump.socket: "), "{warnings:?}");
    }
}
