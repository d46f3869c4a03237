//! The log-cache read API, in protobuf's JSON: decoders refuse unknown members, so nothing is added to envelopes.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use serde_json::{Map, Value, json};
use slipway_chassis::clock;
use slipway_protocol::v1;

use super::Router;
use super::api_lines;
use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use super::permissions::SpaceAction;
use crate::context::{Context, LogAnswer};
use crate::store::apps::AppRow;
use crate::store::events::Span;

/// What log-cache answers at most, and by default.
const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;

/// The start that log-cache's own client sends when it has none: the first day of the calendar, as it comes out of 64 bits.
const BEFORE_ALL_NS: i64 = -6_795_364_578_871_345_152;
/// `cf` follows lines that are two seconds old by its clock.
const SETTLED_NS: i64 = 2_200_000_000;

/// Endpoints.
pub fn routes() -> Router<Context> {
    Router::new().route("/api/v1/info", get(info)).route("/api/v1/read/{source_id}", get(read))
}

async fn info() -> Json<Value> {
    Json(json!({ "version": "2.11.0", "vm_uptime": "0" }))
}

async fn read(
    State(context): State<Context>,
    caller: Caller,
    Path(source_id): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let wish = parse(query.as_deref())?;
    // Whoever may not read the app learns nothing, not even that it exists.
    let app = super::apps::find(&context, &caller, &source_id, SpaceAction::Read).await?;
    let answer = match wish.logs {
        true => match wish.settled(clock::unix_ns()) {
            None => lines(&context, &caller, &app, &wish).await?,
            Some(settled) => match lines(&context, &caller, &app, &settled).await? {
                answer if answer.lines.is_empty() => lines(&context, &caller, &app, &wish).await?,
                answer => answer,
            },
        },
        false => LogAnswer::default(),
    };
    Ok(Json(json!({ "envelopes": { "batch": batch((&app.guid.to_string(), &app.name), answer, wish.descending) } })))
}

/// The lines of cells, routers and the API.
async fn lines(context: &Context, caller: &Caller, app: &AppRow, wish: &Wish) -> ApiResult<LogAnswer> {
    let query = v1::LogQuery {
        source_id: app.guid.to_string(),
        start_unix_ns: wish.start,
        end_unix_ns: wish.end,
        descending: wish.descending,
        limit: wish.limit,
    };
    let mut answer = context.cells.read_logs(&caller.user_guid, query).await;
    let events = context.store.events_of_app(app.guid, &api_lines::KINDS, &wish.span()).await?;
    add(&mut answer.lines, events.iter().filter_map(api_lines::line), wish);
    let waiting = context.store.waiting_of_app(app.guid).await?;
    let waiting = waiting.iter().filter_map(api_lines::waiting).filter(|line| wish.covers(line.unix_ns));
    let mut waiting: Vec<v1::LogLine> = waiting.collect();
    if wish.descending {
        waiting.reverse();
    }
    add(&mut answer.lines, waiting.into_iter(), wish);
    Ok(answer)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    start: i64,
    end: i64,
    limit: u32,
    descending: bool,
    logs: bool,
}

impl Wish {
    /// Whether this time is asked for; without an end there is none.
    fn covers(&self, unix_ns: i64) -> bool {
        unix_ns >= self.start && (self.end == 0 || unix_ns < self.end)
    }

    /// How `cf` looks for the line after which it begins to follow: it wants the newest one, and asks again until that is two
    /// seconds old. While an app or its build prints it would wait for the end and show nothing of what came before; so it
    /// gets the newest of those that are old enough, if there are any.
    fn settled(&self, now_ns: i64) -> Option<Self> {
        let looks = self.descending && self.limit == 1 && self.end == 0 && self.start == BEFORE_ALL_NS;
        looks.then(|| Self { end: now_ns.saturating_sub(SETTLED_NS), ..self.clone() })
    }

    fn span(&self) -> Span {
        // Without an end there is none; times before the first day of the store are its first day.
        let at = |ns: i64| DateTime::from_timestamp_nanos(ns);
        let end = if self.end == 0 { i64::MAX } else { self.end };
        Span { from: at(self.start.max(0)), to: at(end), descending: self.descending, limit: i64::from(self.limit) }
    }
}

/// Adds lines to lines that are in order. Each list has the first `limit` of its own, so the first `limit` of both are whole.
fn add(lines: &mut Vec<v1::LogLine>, more: impl Iterator<Item = v1::LogLine>, wish: &Wish) {
    lines.extend(more);
    match wish.descending {
        true => lines.sort_by_key(|line| std::cmp::Reverse(line.unix_ns)),
        false => lines.sort_by_key(|line| line.unix_ns),
    }
    lines.truncate(wish.limit as usize);
}

fn parse(query: Option<&str>) -> ApiResult<Wish> {
    let mut wish = Wish { start: 0, end: 0, limit: DEFAULT_LIMIT, descending: false, logs: true };
    let mut types = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let bad = || ApiError::bad_query(format!("The query parameter is invalid: {name} {value:?}"));
        match &*name {
            "start_time" => wish.start = value.parse().map_err(|_| bad())?,
            "end_time" => wish.end = value.parse().map_err(|_| bad())?,
            "limit" => {
                wish.limit = value.parse().map_err(|_| bad())?;
                if wish.limit > MAX_LIMIT {
                    return Err(ApiError::bad_query(format!(
                        "The query parameter is invalid: limit must be at most {MAX_LIMIT}, not {value}"
                    )));
                }
            }
            "descending" => wish.descending = value == "true",
            "envelope_types" => types.push(value.to_ascii_uppercase()),
            // `name_filter` narrows metrics, of which there are none here.
            _ => {}
        }
    }
    if wish.limit == 0 {
        wish.limit = DEFAULT_LIMIT;
    }
    wish.logs = types.is_empty() || types.iter().any(|kind| kind == "LOG" || kind == "ANY");
    Ok(wish)
}

fn batch(app: (&str, &str), answer: LogAnswer, descending: bool) -> Vec<Value> {
    let mut batch: Vec<Value> = answer.lines.iter().map(|line| envelope(app, line)).collect();
    if answer.unanswered.is_empty() {
        return batch;
    }
    // A gap is shown as a gap. The marker stands at the newest end, beside the newest line, because a tail asks next
    // for what is younger than the last envelope it saw.
    let newest = match descending {
        true => answer.lines.first(),
        false => answer.lines.last(),
    };
    let line = v1::LogLine {
        unix_ns: newest.map_or_else(clock::unix_ns, |line| line.unix_ns),
        stderr: true,
        text: format!("lines may be missing here: {} did not answer in time", answer.unanswered.join(", "))
            .into_bytes()
            .into(),
        source_type: "CELL".to_owned(),
        instance_id: "0".to_owned(),
        ..v1::LogLine::default()
    };
    let marker = envelope(app, &line);
    match descending {
        true => batch.insert(0, marker),
        false => batch.push(marker),
    }
    batch
}

/// Which component of Cloud Foundry such a line comes from; readers tell by it what a line is about.
fn origin(source_type: &str) -> &'static str {
    match source_type {
        "RTR" => "gorouter",
        "API" => "cloud_controller",
        _ => "rep",
    }
}

fn envelope((source_id, app_name): (&str, &str), line: &v1::LogLine) -> Value {
    let mut tags: Map<String, Value> =
        line.tags.iter().map(|tag| (tag.name.clone(), Value::String(tag.value.clone()))).collect();
    tags.insert("source_type".to_owned(), line.source_type.clone().into());
    tags.insert("instance_id".to_owned(), line.instance_id.clone().into());
    tags.insert("origin".to_owned(), origin(&line.source_type).into());
    // An instance knows the name that its app had when it was started.
    tags.insert("app_name".to_owned(), app_name.into());
    let kind = if line.stderr { "ERR" } else { "OUT" };
    let text = line.text.strip_suffix(b"\n").unwrap_or(&line.text);
    json!({
        "timestamp": line.unix_ns.to_string(),
        "source_id": source_id,
        "instance_id": line.instance_id,
        "deprecated_tags": {},
        "tags": tags,
        "log": { "payload": STANDARD.encode(text), "type": kind },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_the_cli_are_understood() {
        let wish = parse(Some("descending=true&envelope_types=LOG&limit=1000&start_time=-6795364578871345152"));
        let expected = Wish { start: -6_795_364_578_871_345_152, end: 0, limit: 1000, descending: true, logs: true };
        assert_eq!(wish.expect("valid"), expected);
        assert!(!parse(Some("envelope_types=TIMER")).expect("valid").logs);
        assert!(parse(Some("limit=1001")).is_err());
        assert!(parse(Some("start_time=now")).is_err());
    }

    #[test]
    fn who_looks_for_a_beginning_gets_a_line_that_is_old_enough() {
        let settled = |query| parse(Some(query)).expect("valid").settled(10_000_000_000);
        let looking = settled("descending=true&limit=1&start_time=-6795364578871345152").expect("it looks");
        assert_eq!((looking.end, looking.limit, looking.descending), (7_800_000_000, 1, true));
        for other in [
            "descending=true&limit=1&start_time=0",
            "descending=true&limit=2&start_time=-6795364578871345152",
            "limit=1&start_time=-6795364578871345152",
            "descending=true&limit=1&end_time=7&start_time=-6795364578871345152",
        ] {
            assert_eq!(settled(other), None, "{other}");
        }
    }

    #[test]
    fn lines_of_the_api_stand_among_the_others() {
        let line = |at| v1::LogLine { unix_ns: at, ..v1::LogLine::default() };
        for (query, expected) in [("limit=3", [1, 2, 3]), ("limit=3&descending=true", [5, 4, 3])] {
            let wish = parse(Some(query)).expect("valid");
            let (mut first, mut second) = (vec![line(1), line(3), line(4)], vec![line(2), line(5)]);
            if wish.descending {
                first.reverse();
                second.reverse();
            }
            add(&mut first, second.into_iter(), &wish);
            assert_eq!(first.iter().map(|line| line.unix_ns).collect::<Vec<_>>(), expected);
        }
        let span = parse(Some("start_time=-6795364578871345152")).expect("valid").span();
        assert!(span.from.timestamp() == 0 && span.to > chrono::Utc::now());
    }

    #[test]
    fn a_gap_is_shown_at_the_newest_end() {
        let line = |at, text: &'static str| v1::LogLine {
            unix_ns: at,
            text: text.into(),
            source_type: "APP/PROC/WEB".to_owned(),
            instance_id: "1".to_owned(),
            ..v1::LogLine::default()
        };
        let answer = LogAnswer { lines: vec![line(1, "a\n"), line(2, "b")], unanswered: vec!["cell 7".to_owned()] };
        let batch = batch(("app", "shop"), answer, false);
        assert_eq!(batch.len(), 3);
        assert_eq!(batch[0]["log"], json!({ "payload": "YQ==", "type": "OUT" }));
        assert_eq!(batch[0]["tags"]["source_type"], "APP/PROC/WEB");
        assert_eq!((&batch[0]["tags"]["origin"], &batch[0]["tags"]["app_name"]), (&json!("rep"), &json!("shop")));
        assert_eq!((&batch[2]["tags"]["source_type"], &batch[2]["log"]["type"]), (&json!("CELL"), &json!("ERR")));
        assert_eq!(batch[2]["timestamp"], "2");
    }
}
