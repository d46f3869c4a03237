//! Kernel resources that all sandboxes share and that count against the host's root. Each sandbox has a limit of its own
//! (set in `init`), and the host's limit must be large enough for all of them.

use slipway_helper::spec::{INOTIFY_INSTANCES, INOTIFY_WATCHES};

/// Raises the host's bounds where they are below what so many sandboxes may take, with one share for the host. Answers, in
/// words, what could not be raised: sandboxes then take from each other, which is no reason to run none.
pub(super) fn prepare(slots: u32) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, each) in [("max_user_instances", INOTIFY_INSTANCES), ("max_user_watches", INOTIFY_WATCHES)] {
        let path = format!("/proc/sys/fs/inotify/{name}");
        // A kernel without it has nothing to be raised.
        let Ok(now) = std::fs::read_to_string(&path) else { continue };
        let wanted = u64::from(each) * (u64::from(slots) + 1);
        if now.trim().parse::<u64>().is_ok_and(|now| now < wanted)
            && let Err(error) = std::fs::write(&path, wanted.to_string())
        {
            let now = now.trim();
            warnings.push(format!(
                "one instance may leave others without inotify: {path} is {now} and could not be set to {wanted} ({error})"
            ));
        }
    }
    warnings
}

/// Huge pages that the operator has set aside on this host.
pub(super) fn huge_pages() -> u64 {
    let Ok(sizes) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return 0 };
    let pages = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("nr_hugepages")).ok();
    sizes.flatten().filter_map(pages).filter_map(|text| text.trim().parse::<u64>().ok()).sum()
}
