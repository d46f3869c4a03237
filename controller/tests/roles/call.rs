//! One call of one row by one caller.

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::shape;
use crate::table::{Row, Sign};
use crate::world::World;

/// Who calls.
pub(crate) struct Caller<'w> {
    world: &'w World,
    name: &'static str,
}

/// What came back.
pub(crate) struct CallOutcome {
    status: StatusCode,
    body: Value,
    /// The thing that a list must hold, or lack.
    sought: Option<String>,
    /// What clients could not read.
    shape: Vec<String>,
}

impl<'w> Caller<'w> {
    pub(crate) fn new(world: &'w World, name: &'static str) -> Self {
        Self { world, name }
    }

    /// Makes the call. Only who may change something gets a thing of its own to change.
    pub(crate) async fn make(&self, row: &Row, sign: Sign) -> CallOutcome {
        let request = self.prepare(row, row.changes() && sign == Sign::Allowed).await;
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.expect("a body");
        let good = status.is_success() || status.is_redirection();
        let shape = if good { shape::problems(&row.path, status, &headers, &bytes) } else { Vec::new() };
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).chars().take(300).collect()));
        let sought = row.option("shows").map(|kind| self.world.base(kind));
        CallOutcome { status, body, sought, shape }
    }

    /// The call; `fresh` = about a thing made for it.
    pub(crate) async fn prepare(&self, row: &Row, fresh: bool) -> RequestBuilder {
        let (path, thing) = self.path(row, fresh).await;
        let method = Method::from_bytes(row.method.as_bytes()).expect("a method");
        let request = self.world.request(self.name, method, &path);
        let body = match &row.body {
            Some(body) => Some(self.world.fill(body, thing.as_deref()).await),
            None => None,
        };
        match (row.option("type"), body) {
            (Some("yaml"), Some(body)) => request.header("content-type", "application/x-yaml").body(body),
            (Some("upload"), _) => request
                .multipart(Form::new().part("bits", Part::bytes(b"no archive".to_vec()).file_name("application.zip"))),
            (None, Some(body)) => request.header("content-type", "application/json").body(body),
            (None, None) => request,
            other => panic!("{other:?} is no way to send a body"),
        }
    }

    /// The path with guids and names in place of its parameters, and the guid of the first.
    async fn path(&self, row: &Row, fresh: bool) -> (String, Option<String>) {
        let (mut filled, mut thing, mut before) = (Vec::new(), None, "");
        let only = row.path.matches('{').count() == 1;
        for segment in row.path.split('/') {
            let parameter = segment.starts_with('{');
            let value = match (parameter, before) {
                (false, _) => segment.to_owned(),
                (true, "processes") if thing.is_some() => "web".to_owned(),
                (true, "instances") => "0".to_owned(),
                (true, "destinations") => self.world.destination_of(thing.as_deref().expect("a route")).await,
                (true, "shared_spaces" | "spaces" | "running_spaces" | "staging_spaces") if thing.is_some() => {
                    self.world.base("space")
                }
                (true, "shared_organizations" | "organizations") if thing.is_some() => self.world.base("organization"),
                (true, collection) => match row.option("name").filter(|_| only || thing.is_some()) {
                    Some(name) => self.world.fill(name, None).await,
                    None => {
                        let kind = row.option("of").map_or_else(|| singular(collection), ToOwned::to_owned);
                        let guid = if fresh { self.world.make(&kind).await } else { self.world.base(&kind) };
                        thing = Some(guid.clone());
                        guid
                    }
                },
            };
            filled.push(value);
            if !parameter {
                before = segment;
            }
        }
        // What is sought may be on any page: copies are as old as what they are copied from, and the guids decide.
        let whole = row.option("shows").map(|_| "per_page=5000");
        let query: Vec<&str> = row.option("query").into_iter().chain(whole).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        (format!("{}{query}", filled.join("/")), thing)
    }
}

/// `apps` gives `app`.
fn singular(collection: &str) -> String {
    match collection {
        "processes" => "process".to_owned(),
        "Users" => "user".to_owned(),
        other => other.strip_suffix('s').unwrap_or(other).to_owned(),
    }
}

impl CallOutcome {
    /// Compares with what the table says; the difference as a sentence.
    pub(crate) fn is(&self, row: &Row, sign: Sign) -> Result<(), String> {
        let status = self.status.as_u16();
        let wanted = match sign {
            Sign::Forbidden => status == 403,
            Sign::Hidden => status == 404,
            Sign::Unusable => status == 422,
            Sign::Anonymous => status == 401,
            Sign::Empty => status == 200,
            Sign::Allowed => match row.option("is") {
                Some("any") => !matches!(status, 401 | 403 | 404) && status < 500,
                Some(number) => number == status.to_string(),
                None => self.status.is_success(),
            },
        };
        let said = row.option("says").map(|text| text.replace('_', " "));
        let says = said.is_none_or(|text| self.body["errors"][0]["detail"] == text);
        if !wanted || (sign == Sign::Allowed && !says) {
            return Err(format!("{sign:?} was expected, but the answer is {status}: {}", self.body));
        }
        if !self.shape.is_empty() {
            return Err(format!("clients cannot read it: {}", self.shape.join("; ")));
        }
        let Some(sought) = self.sought.as_ref().filter(|_| matches!(sign, Sign::Allowed | Sign::Empty)) else {
            return Ok(());
        };
        let shown = self.body["resources"]
            .as_array()
            .ok_or_else(|| format!("this is no list: {}", self.body))?
            .iter()
            .any(|resource| resource["guid"] == sought.as_str());
        match (sign, shown) {
            (Sign::Allowed, false) => Err(format!("the list lacks {sought}: {}", self.body)),
            (Sign::Empty, true) => Err("the list shows what should not be seen".to_owned()),
            _ => Ok(()),
        }
    }
}
