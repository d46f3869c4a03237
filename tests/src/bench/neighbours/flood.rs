//! The floods.

use std::io::{Cursor, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::clients::{Tally, address, cause};
use super::tenants::{Ground, grant};
use super::{Counts, http};

/// Uploads and questions for files at a time, and the size of an upload.
const UPLOADERS: u8 = 8;
const UPLOAD_MIB: usize = 16;
/// Logins at a time.
const GUESSERS: u8 = 16;

/// One thing to take all of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flood {
    Idle,
    Http1,
    Http2,
    Logs,
    Disk,
    Pids,
    Uploads,
    LoginsOne,
    LoginsMany,
}

impl Flood {
    const ALL: [Self; 9] = [
        Self::Idle,
        Self::Http1,
        Self::Http2,
        Self::Logs,
        Self::Disk,
        Self::Pids,
        Self::Uploads,
        Self::LoginsOne,
        Self::LoginsMany,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Logs => "logs",
            Self::Disk => "disk",
            Self::Pids => "pids",
            Self::Uploads => "uploads",
            Self::LoginsOne => "logins",
            Self::LoginsMany => "logins-many",
        }
    }

    /// Those of these names; all without names.
    pub(super) fn named(names: &[String]) -> anyhow::Result<Vec<Self>> {
        if names.is_empty() {
            return Ok(Self::ALL.to_vec());
        }
        let known = || Self::ALL.map(Self::name).join(", ");
        let find = |name: &String| Self::ALL.into_iter().find(|flood| flood.name() == name);
        names
            .iter()
            .map(|name| find(name).with_context(|| format!("no flood {name:?}; there are {}", known())))
            .collect()
    }

    /// Counts without which it was none.
    pub(super) fn must_have_done(self) -> &'static [&'static str] {
        match self {
            Self::Idle => &[],
            Self::Http1 => &["answered 200", "held or waiting at the end"],
            Self::Http2 => &["answered 200", "reset"],
            Self::Logs => &["lines"],
            Self::Disk => &["MiB written and synced", "times full"],
            Self::Pids => &["processes", "times refused"],
            Self::Uploads => &["uploads of 16 MiB answered 200", "questions for files answered 201"],
            Self::LoginsOne | Self::LoginsMany => &["answered 401"],
        }
    }

    /// Floods for so long.
    pub(super) async fn run(self, ground: Ground, span: Duration) -> anyhow::Result<Counts> {
        match self {
            Self::Idle => {
                tokio::time::sleep(span).await;
                Ok(Counts::new())
            }
            Self::Http1 => Ok(http::connections(&ground, span).await),
            Self::Http2 => Ok(http::streams(&ground, span).await),
            Self::Logs => from_inside(&ground, span, "logs", ["lines", ""]).await,
            Self::Disk => from_inside(&ground, span, "disk", ["MiB written and synced", "times full"]).await,
            Self::Pids => from_inside(&ground, span, "pids", ["processes", "times refused"]).await,
            Self::Uploads => uploads(&ground, span).await,
            Self::LoginsOne => guesses(&ground, span, |_| address(1)).await,
            Self::LoginsMany => guesses(&ground, span, address).await,
        }
    }
}

/// A script of the app floods, which counts itself.
async fn from_inside(ground: &Ground, span: Duration, script: &str, names: [&str; 2]) -> anyhow::Result<Counts> {
    let begun = http::get(ground, &format!("/begin/{script}")).await?;
    ensure!(begun == "ok", "the app did not begin: {begun}");
    tokio::time::sleep(span).await;
    let counted = http::get(ground, "/end").await?;
    let numbers: Vec<u64> = counted.split(' ').filter_map(|word| word.parse().ok()).collect();
    ensure!(numbers.len() == 2, "not two numbers: {counted:?}");
    let named = names.into_iter().zip(numbers).filter(|(name, _)| !name.is_empty());
    Ok(named.map(|(name, number)| (name.to_owned(), number)).collect())
}

/// Runs workers until the time is over; what they are about is cut off.
async fn until_over(span: Duration, tally: &Tally, mut workers: JoinSet<anyhow::Result<()>>) -> anyhow::Result<Counts> {
    tokio::select! {
        () = tokio::time::sleep(span) => {}
        Some(ended) = workers.join_next() => {
            ended??;
            bail!("a worker ended before its time");
        }
    }
    Ok(tally.counts())
}

/// Packages of bytes that nobody has sent before, and questions for files that nobody knows.
async fn uploads(ground: &Ground, span: Duration) -> anyhow::Result<Counts> {
    let (tally, mut workers) = (Tally::default(), JoinSet::<anyhow::Result<()>>::new());
    for number in 0..UPLOADERS {
        let (mine, counts) = (ground.clone(), tally.clone());
        workers.spawn(async move {
            let mut seed = u64::from(number) + 1;
            loop {
                counts.add(&format!("uploads of {UPLOAD_MIB} MiB {}", upload(&mine, &mut seed).await?));
            }
        });
        let (mine, counts) = (ground.clone(), tally.clone());
        workers.spawn(async move {
            let mut seed = u64::from(number) + 1000;
            loop {
                let files: Vec<Value> = (0..1000)
                    .map(|_| json!({ "checksum": { "value": format!("{:040x}", random(&mut seed)) }, "size_in_bytes": 70_000 }))
                    .collect();
                let asked = mine.flooder.request(Method::POST, "/v3/resource_matches");
                let answer = asked.json(&json!({ "resources": files })).send().await;
                counts.add(&format!("questions for files {}", outcome(answer)));
            }
        });
    }
    until_over(span, &tally, workers).await
}

async fn upload(ground: &Ground, seed: &mut u64) -> anyhow::Result<String> {
    let body = json!({ "type": "bits", "relationships": { "app": { "data": { "guid": ground.flooding_app } } } });
    let made = match ground.flooder.request(Method::POST, "/v3/packages").json(&body).send().await {
        Ok(made) if made.status().is_success() => made.json::<Value>().await?,
        refused => return Ok(format!("not begun: {}", outcome(refused))),
    };
    let guid = made["guid"].as_str().context("no guid of a package")?;
    let part = reqwest::multipart::Part::bytes(archive(seed)?).file_name("app.zip").mime_str("application/zip")?;
    let form = reqwest::multipart::Form::new().part("bits", part);
    let sent = ground.flooder.request(Method::POST, &format!("/v3/packages/{guid}/upload")).multipart(form);
    Ok(outcome(sent.send().await))
}

/// A zip file of random bytes.
fn archive(seed: &mut u64) -> anyhow::Result<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("bits", SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored))?;
    let mut block = Vec::with_capacity(1 << 20);
    for _ in 0..UPLOAD_MIB {
        block.clear();
        while block.len() < 1 << 20 {
            block.extend_from_slice(&random(seed).to_ne_bytes());
        }
        writer.write_all(&block)?;
    }
    Ok(writer.finish()?.into_inner())
}

/// Xorshift: what matters is that it is another one each time.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Wrong passwords, for the neighbour's account and for ones that there are not.
async fn guesses(ground: &Ground, span: Duration, from: fn(u8) -> IpAddr) -> anyhow::Result<Counts> {
    let (tally, mut workers) = (Tally::default(), JoinSet::<anyhow::Result<()>>::new());
    let (_, host) = ground.base.split_once("//").context("the API's address has no host")?;
    let host = host.split(':').next().unwrap_or_default().to_owned();
    for number in 0..GUESSERS {
        let client = reqwest::Client::builder()
            .resolve(&host, ground.router)
            .local_address(from(number))
            .timeout(Duration::from_secs(60))
            .build()?;
        let (mine, counts) = (ground.clone(), tally.clone());
        workers.spawn(async move {
            for guess in 0_u64.. {
                let user =
                    if guess % 2 == 0 { mine.neighbour.name.clone() } else { format!("nobody-{number}-{guess}") };
                counts.add(&outcome(grant(&client, &mine.base, &user, &format!("wrong {guess}")).send().await));
            }
            Ok(())
        });
    }
    until_over(span, &tally, workers).await
}

fn outcome(answer: reqwest::Result<reqwest::Response>) -> String {
    match answer {
        Ok(answer) => format!("answered {}", answer.status().as_u16()),
        Err(error) => format!("not answered: {}", cause(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_have_names() {
        let names = |names: &[&str]| Flood::named(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(names(&["disk", "idle"]).expect("known"), [Flood::Disk, Flood::Idle]);
        assert_eq!(names(&[]).expect("all").len(), Flood::ALL.len());
        let error = names(&["flod"]).expect_err("unknown").to_string();
        assert!(error.contains("flod") && error.contains("logins-many"), "{error}");
    }

    #[test]
    fn no_two_archives_are_the_same() {
        let mut seed = 1;
        let (one, other) = (archive(&mut seed).expect("made"), archive(&mut seed).expect("made"));
        assert!(one.len() > UPLOAD_MIB << 20 && one != other);
    }
}
