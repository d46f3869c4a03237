//! The rings of all apps, written by one thread.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use slipway_chassis::chain;
use slipway_log_ring::{NOTICE, RingError, Writer};

use super::waiting::Lines;

/// Rings held open, at most; those that were written longest ago are closed for new ones. Opening one again reads the end of
/// it, so there should be as many as apps with requests at a time.
const MAX_OPEN: u64 = 4096;
/// A ring that nobody wrote to for this long is of an app that is gone.
const FORGET: Duration = Duration::from_secs(7 * 24 * 3600);

/// Directory of an app's ring; `None` for an id that is no id.
pub(crate) fn ring_directory(root: &Path, app_id: &str) -> Option<PathBuf> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!app_id.is_empty() && app_id.len() <= 64 && app_id.bytes().all(good)).then(|| root.join(app_id))
}

/// See the module.
pub(super) struct Rings {
    root: PathBuf,
    ring_bytes: u64,
    open: HashMap<String, (u64, Writer)>,
    most_open: usize,
    clock: u64,
    complained: bool,
}

/// Half of the tenth of all descriptors that connections leave free.
fn most_open() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from((limit / 20).clamp(16, MAX_OPEN)).unwrap_or(16)
}

impl Rings {
    pub(super) fn new(root: PathBuf, ring_bytes: u64) -> Self {
        Self { root, ring_bytes, open: HashMap::new(), most_open: most_open(), clock: 0, complained: false }
    }

    /// Writes what the cores have gathered: of each app its lines by time, then how many found no room, at `now_ns`.
    pub(super) fn write(&mut self, cores: Vec<HashMap<Arc<str>, Lines>>, now_ns: i64) {
        let mut apps: HashMap<Arc<str>, Vec<Lines>> = HashMap::new();
        for (app, lines) in cores.into_iter().flatten() {
            apps.entry(app).or_default().push(lines);
        }
        for (app, parts) in apps {
            let mut lines: Vec<(i64, u8, &[u8])> =
                parts.iter().flat_map(Lines::iter).map(|(unix_ns, text)| (unix_ns, 0, text)).collect();
            lines.sort_by_key(|(unix_ns, ..)| *unix_ns);
            let dropped: u64 = parts.iter().map(|lines| lines.dropped).sum();
            let notice = format!("{dropped} access lines were dropped: requests came faster than lines can be written");
            if dropped > 0 {
                lines.push((now_ns, NOTICE, notice.as_bytes()));
            }
            match self.append(&app, lines) {
                Ok(()) => self.complained = false,
                Err(error) => {
                    self.open.remove(&*app);
                    if !self.complained {
                        tracing::error!(app.guid = &*app, error = %chain(&error), "access lines cannot be written");
                        self.complained = true;
                    }
                }
            }
        }
    }

    fn append(&mut self, app_id: &str, lines: Vec<(i64, u8, &[u8])>) -> Result<(), RingError> {
        self.clock += 1;
        if !self.open.contains_key(app_id) {
            let Some(directory) = ring_directory(&self.root, app_id) else { return Ok(()) };
            if self.open.len() >= self.most_open
                && let Some(oldest) = self.open.iter().min_by_key(|(_, (used, _))| *used).map(|(app, _)| app.clone())
            {
                self.open.remove(&oldest);
            }
            let writer = Writer::open(&directory, self.ring_bytes)?;
            self.open.insert(app_id.to_owned(), (0, writer));
        }
        if let Some((used, writer)) = self.open.get_mut(app_id) {
            *used = self.clock;
            writer.append_all(lines)?;
        }
        Ok(())
    }

    /// Removes the rings of apps that had no request for long.
    pub(super) fn tidy(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let newest = std::fs::read_dir(entry.path())
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|file| file.metadata().and_then(|metadata| metadata.modified()).ok())
                .max();
            let stale = newest.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > FORGET);
            if stale {
                self.open.remove(&*entry.file_name().to_string_lossy());
                if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                    tracing::warn!(path = %entry.path().display(), %error, "an old ring cannot be removed");
                }
            }
        }
    }
}
