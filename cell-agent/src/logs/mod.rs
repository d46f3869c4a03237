//! The rings of all instances: where they are, whose they are, the cell's own words beside the app's, and the Query
//! service that controllers read them through. Rings outlive their instance for an hour, and are bounded in total.

mod owners;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slipway_chassis::clock;
use slipway_log_ring::{GAP, PROGRAM_SHIFT, Query as RingQuery, Reader, Record, STDERR, Writer};
use slipway_protocol::v1::query_server::Query;
use slipway_protocol::v1::{EnvVar, LogBatch, LogLine, LogQuery, LogSource, WorkloadKind};
use slipway_protocol::{LOG_ITSELF, PeerIdentity, Role};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use self::owners::{Owner, Owners, id_of};

/// How long a ring stays after its instance ended.
const KEEP: Duration = Duration::from_secs(3600);
/// Bytes of rings whose instance has ended; the oldest go first.
const MAX_ENDED_BYTES: u64 = 1 << 30;
/// Bytes of the cell's own words on one instance.
const OWN_BYTES: u64 = 64 << 10;
/// Lines of one answer.
const MAX_LINES: u32 = 1000;

/// See the module.
#[derive(Debug)]
pub struct Logs {
    root: PathBuf,
    owners: Mutex<Owners>,
    own: Mutex<BTreeMap<Uuid, Writer>>,
}

impl Logs {
    /// The rings below the state directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let root = state.join("logs");
        // Apps write what they like to their output: nobody but the agent reads it.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        let owners = Mutex::new(Owners::read(&root)?);
        Ok(Self { root, owners, own: Mutex::default() })
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self, id: Uuid) -> PathBuf {
        self.root.join(id.to_string())
    }

    /// Directory of an instance's output ring.
    #[must_use]
    pub fn ring(&self, id: Uuid) -> PathBuf {
        self.directory(id).join("out")
    }

    /// Notes whose ring this is. `sidecars` = names of the programs beside the command.
    pub fn register(&self, id: Uuid, source: &LogSource, index: u32, kind: WorkloadKind, sidecars: Vec<String>) {
        let owner = Owner {
            source_id: source.source_id.clone(),
            source_type: source.source_type.clone(),
            instance_id: if kind == WorkloadKind::Lrp { index.to_string() } else { "0".to_owned() },
            tags: source.tags.iter().map(|tag| (tag.name.clone(), tag.value.clone())).collect(),
            sidecars,
            ended_ms: None,
        };
        self.note_owner(id, owner);
    }

    fn note_owner(&self, id: Uuid, owner: Owner) {
        let written = owner.write(&self.directory(id));
        if let Err(error) = written {
            tracing::warn!(%error, assignment.id = %id, "the owner of a log ring was not noted; the next agent cannot read its lines");
        }
        self.owners().put(id, owner);
    }

    /// The cell says something about an instance.
    pub fn say(&self, id: Uuid, text: &str) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = match own.remove(&id) {
            Some(writer) => Ok(writer),
            None => Writer::open(&self.directory(id).join("cell"), OWN_BYTES),
        };
        let said = writer.and_then(|mut writer| {
            writer.append(clock::unix_ns(), 0, text.as_bytes())?;
            own.insert(id, writer);
            Ok(())
        });
        if let Err(error) = said {
            tracing::warn!(error = %slipway_chassis::chain(&error), assignment.id = %id, "a line of the cell was not kept");
        }
    }

    /// The instance ended: its ring goes in a while.
    pub fn ended(&self, id: Uuid) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let owner = self.owners().get(id).filter(|owner| owner.ended_ms.is_none()).cloned();
        if let Some(owner) = owner {
            self.note_owner(id, Owner { ended_ms: Some(clock::unix_ms()), ..owner });
        }
    }

    /// Removes rings that ended long ago, or are too much together.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn sweep(&self, now_ms: i64) -> std::io::Result<()> {
        self.sweep_to(now_ms, MAX_ENDED_BYTES)
    }

    fn sweep_to(&self, now_ms: i64, most: u64) -> std::io::Result<()> {
        let keep = i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
        let mut ended = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let path = entry?.path();
            let ended_ms = id_of(&path).and_then(|id| self.owners().get(id).map(|owner| owner.ended_ms));
            match ended_ms {
                Some(ended_ms) => ended.extend(ended_ms.map(|at| (at, path))),
                // Of something that was refused before it had an owner: as old as its last line.
                None => ended.extend(last_change_ms(&path).filter(|at| now_ms - at > keep).map(|at| (at, path))),
            }
        }
        ended.sort();
        ended.reverse();
        let mut total = 0;
        for (at, path) in ended {
            total += ring_bytes(&path.join("out")) + ring_bytes(&path.join("cell"));
            if now_ms - at > keep || total > most {
                match (std::fs::remove_dir_all(&path), id_of(&path)) {
                    (Ok(()), Some(id)) => self.owners().remove(id),
                    (Ok(()), None) => {}
                    (Err(error), _) => {
                        tracing::warn!(%error, path = %path.display(), "an old log ring was not removed");
                    }
                }
            }
        }
        Ok(())
    }

    /// Lines of a source, of all its rings, merged by time.
    ///
    /// # Errors
    /// When a ring cannot be read.
    pub fn read(&self, query: &LogQuery) -> Result<Vec<LogLine>, std::io::Error> {
        let limit = if query.limit == 0 { MAX_LINES } else { query.limit.min(MAX_LINES) } as usize;
        let end_ns = if query.end_unix_ns <= 0 { i64::MAX } else { query.end_unix_ns };
        let wanted = RingQuery { start_ns: query.start_unix_ns, end_ns, descending: query.descending, limit };
        let rings = self.owners().of_source(&query.source_id);
        let mut lines = Vec::new();
        for (id, owner) in rings {
            let path = self.directory(id);
            for part in ["out", "cell"] {
                let records = Reader::new(&path.join(part)).range(wanted).map_err(std::io::Error::other)?;
                lines.extend(records.into_iter().map(|record| line(&path, part, &owner, record)));
            }
        }
        lines.sort_by(|a, b| (a.unix_ns, &a.ring, a.seq).cmp(&(b.unix_ns, &b.ring, b.seq)));
        if query.descending {
            lines.reverse();
        }
        lines.truncate(limit);
        Ok(lines)
    }

    /// Lines of one instance's output from a number on, as the wire carries them.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn since(&self, id: Uuid, seq: u64, limit: usize) -> Result<Vec<LogLine>, slipway_log_ring::RingError> {
        let directory = self.directory(id);
        let Some(owner) = self.owners().get(id).cloned() else { return Ok(Vec::new()) };
        let records = Reader::new(&self.ring(id)).since(seq, limit)?;
        Ok(records.into_iter().map(|record| line(&directory, "out", &owner, record)).collect())
    }

    /// Bytes in the segments of an instance's output ring, by segment: growth between two looks is its log rate.
    #[must_use]
    pub fn segments(&self, id: Uuid) -> BTreeMap<PathBuf, u64> {
        segments(&self.ring(id))
    }
}

fn segments(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len()))).collect()
}

/// When the last line was written in one of an instance's rings, as the file system tells it.
fn last_change_ms(directory: &Path) -> Option<i64> {
    let rings = [directory.to_owned(), directory.join("out"), directory.join("cell")];
    let files = rings.iter().flat_map(|ring| segments(ring).into_keys()).chain([directory.to_owned()]);
    let changed = files.filter_map(|path| path.metadata().ok()?.modified().ok()).max()?;
    let since = changed.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

fn ring_bytes(directory: &Path) -> u64 {
    segments(directory).values().sum()
}

/// Who wrote a line: the cell, the command, or one of its sidecars; or the log itself, where lines are missing.
fn source_type(part: &str, owner: &Owner, flags: u8) -> String {
    if flags & GAP != 0 {
        return LOG_ITSELF.to_owned();
    }
    if part == "cell" {
        return "CELL".to_owned();
    }
    match usize::from(flags >> PROGRAM_SHIFT).checked_sub(1).and_then(|place| owner.sidecars.get(place)) {
        None => owner.source_type.clone(),
        Some(name) => format!("{}/SIDECAR/{}", owner.source_type, name.to_uppercase()),
    }
}

fn line(directory: &Path, part: &str, owner: &Owner, record: Record) -> LogLine {
    let id = directory.file_name().unwrap_or_default().to_string_lossy();
    LogLine {
        unix_ns: record.unix_ns,
        seq: record.seq,
        stderr: record.flags & STDERR != 0,
        text: record.text.into(),
        source_id: owner.source_id.clone(),
        source_type: source_type(part, owner, record.flags),
        instance_id: owner.instance_id.clone(),
        tags: owner.tags.iter().map(|(name, value)| EnvVar { name: name.clone(), value: value.clone() }).collect(),
        ring: if part == "cell" { format!("{id}/cell") } else { id.into_owned() },
    }
}

/// Serves [`Logs`] to controllers.
#[derive(Debug)]
pub struct QueryService(pub Arc<Logs>);

#[tonic::async_trait]
impl Query for QueryService {
    async fn read_logs(&self, request: Request<LogQuery>) -> Result<Response<LogBatch>, Status> {
        PeerIdentity::of_request(&request, Role::Controller)?;
        let logs = Arc::clone(&self.0);
        let query = request.into_inner();
        let read = tokio::task::spawn_blocking(move || logs.read(&query)).await;
        let lines = read.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| {
            Status::internal(format!("the logs cannot be read: {}", slipway_chassis::chain(&error)))
        })?;
        Ok(Response::new(LogBatch { lines }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(root: &Path) -> Logs {
        Logs::open(root).expect("logs")
    }

    fn source(id: &str) -> LogSource {
        let tags = vec![EnvVar { name: "app_name".into(), value: "shop".into() }];
        LogSource { source_id: id.into(), source_type: "APP/PROC/WEB".into(), tags }
    }

    fn write(logs: &Logs, id: Uuid, lines: &[(i64, &str)]) {
        let mut writer = Writer::open(&logs.ring(id), 1 << 20).expect("ring");
        for (at, text) in lines {
            writer.append(*at, STDERR, text.as_bytes()).expect("append");
        }
    }

    #[test]
    fn rings_of_a_source_are_merged_with_the_cells_own_lines() {
        let root = tempfile::tempdir().expect("directory");
        let logs = logs(root.path());
        let (first, second, other) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        for (id, index, name) in [(first, 0, "app"), (second, 1, "app"), (other, 0, "else")] {
            logs.register(id, &source(name), index, WorkloadKind::Lrp, vec![]);
        }
        write(&logs, first, &[(10, "a"), (30, "c")]);
        write(&logs, second, &[(20, "b")]);
        write(&logs, other, &[(15, "not mine")]);
        logs.say(first, "starting");
        let query = LogQuery { source_id: "app".into(), limit: 100, ..LogQuery::default() };
        let lines = logs.read(&query).expect("read");
        let texts: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect();
        assert_eq!(texts, ["a", "b", "c", "starting"]);
        assert_eq!(lines[1].instance_id, "1");
        assert_eq!(lines[3].source_type, "CELL");
        assert_eq!(lines[0].tags[0].value, "shop");
        assert!(lines[0].stderr);
        let newest = LogQuery { descending: true, limit: 2, end_unix_ns: 30, ..query };
        let lines = logs.read(&newest).expect("read");
        assert_eq!(lines.iter().map(|line| line.unix_ns).collect::<Vec<_>>(), [20, 10]);
    }

    #[test]
    fn lines_that_a_ring_has_overwritten_are_reported_in_order_for_tasks_too() {
        let root = tempfile::tempdir().expect("directory");
        let logs = logs(root.path());
        let id = Uuid::from_u128(1);
        let source = LogSource { source_type: "APP/TASK/many".into(), ..source("app") };
        logs.register(id, &source, 0, WorkloadKind::Task, vec![]);
        let mut writer = Writer::open(&logs.ring(id), 16 << 10).expect("ring");
        for number in 1..=2_000_i64 {
            writer.append(number, 0, format!("line {number}").as_bytes()).expect("append");
        }
        logs.ended(id);
        let lines = logs.read(&LogQuery { source_id: "app".into(), ..LogQuery::default() }).expect("read");
        let (gap, first) = (&lines[0], &lines[1]);
        let wanted = format!("{} lines are missing here: the log could not hold them", first.seq - 1);
        assert_eq!((gap.source_type.as_str(), gap.seq, &gap.text[..]), (LOG_ITSELF, 0, wanted.as_bytes()));
        assert_eq!((first.source_type.as_str(), gap.unix_ns), ("APP/TASK/many", first.unix_ns));
        assert_eq!(lines.iter().filter(|line| line.source_type == LOG_ITSELF).count(), 1);
    }

    #[test]
    fn a_question_opens_no_file_of_other_apps_and_a_new_agent_knows_whose_rings_there_are() {
        let root = tempfile::tempdir().expect("directory");
        let first = logs(root.path());
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for (id, name) in [(mine, "app"), (other, "else")] {
            first.register(id, &source(name), 0, WorkloadKind::Lrp, vec![]);
            write(&first, id, &[(1, name)]);
        }
        let query = LogQuery { source_id: "app".into(), ..LogQuery::default() };
        let again = logs(root.path());
        assert_eq!(again.read(&query).expect("read").len(), 1, "noted on disk");
        for id in [mine, other] {
            std::fs::write(again.directory(id).join("owner.json"), "damaged").expect("write");
        }
        assert_eq!(again.read(&query).expect("read").len(), 1, "and in memory");
        again.ended(mine);
        again.sweep(clock::unix_ms() + 2 * 3_600_000).expect("sweep");
        assert_eq!(again.read(&query).expect("read").len(), 0);
        assert_eq!(again.owners().of_source("else").len(), 1, "the other one stays");
        assert!(again.owners().get(mine).is_none(), "what was removed is forgotten");
    }

    #[test]
    fn lines_of_sidecars_have_their_name() {
        let root = tempfile::tempdir().expect("directory");
        let logs = logs(root.path());
        let id = Uuid::from_u128(1);
        logs.register(id, &source("app"), 0, WorkloadKind::Lrp, vec!["proxy".into(), "agent".into()]);
        let mut writer = Writer::open(&logs.ring(id), 1 << 20).expect("ring");
        for program in 0..4_u8 {
            writer.append(i64::from(program), (program << PROGRAM_SHIFT) | STDERR, b"x").expect("append");
        }
        let lines = logs.read(&LogQuery { source_id: "app".into(), ..LogQuery::default() }).expect("read");
        let types: Vec<&str> = lines.iter().map(|line| line.source_type.as_str()).collect();
        let (command, proxy, agent) = ("APP/PROC/WEB", "APP/PROC/WEB/SIDECAR/PROXY", "APP/PROC/WEB/SIDECAR/AGENT");
        assert_eq!(types, [command, proxy, agent, command], "a number without a name is the command's");
        assert!(lines.iter().all(|line| line.stderr));
    }

    #[test]
    fn log_rings_of_refused_assignments_are_removed_as_well() {
        let root = tempfile::tempdir().expect("directory");
        let logs = logs(root.path());
        let refused = Uuid::from_u128(1);
        logs.say(refused, "this cell cannot run it");
        logs.ended(refused);
        logs.sweep_to(clock::unix_ms(), 0).expect("sweep");
        assert!(logs.directory(refused).exists(), "it was said just now");
        logs.sweep(clock::unix_ms() + 2 * 3_600_000).expect("sweep");
        assert!(!logs.directory(refused).exists());
    }

    #[test]
    fn ended_rings_go_by_age_and_by_size() {
        let root = tempfile::tempdir().expect("directory");
        let logs = logs(root.path());
        let (live, old) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for id in [live, old] {
            logs.register(id, &source("app"), 0, WorkloadKind::Lrp, vec![]);
            write(&logs, id, &[(1, "x")]);
        }
        logs.ended(old);
        let now = clock::unix_ms();
        logs.sweep(now).expect("sweep");
        assert!(logs.ring(old).exists());
        logs.sweep_to(now, 1).expect("sweep");
        assert!(!logs.ring(old).exists() && logs.ring(live).exists());
        logs.ended(live);
        logs.sweep(now + 2 * 3_600_000).expect("sweep");
        assert!(!logs.ring(live).exists());
    }
}
