//! Uploads and requests that no honest client sends: a clear answer, and the platform is as it was before.

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;
use slipway_tests::api::{Entry, error, zip_of};
use slipway_tests::{Api, Platform};

use crate::neighbour;

fn to(guid: &str) -> serde_json::Value {
    json!({ "data": { "guid": guid } })
}

async fn package(api: &Api, app: &str) -> anyhow::Result<String> {
    api.make("/v3/packages", json!({ "type": "bits", "relationships": { "app": to(app) } })).await
}

/// A file as large as these bytes that does not get smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(bytes)
    .collect()
}

pub(crate) async fn uploads_that_are_refused(platform: &mut Platform) -> anyhow::Result<()> {
    let limits = [("max_package_unpacked_bytes", "67108864"), ("max_package_files", "100")];
    let limited = neighbour::Limits::set(platform, &limits).await?;
    let api = Api::admin(platform).await?;
    let space = api.find("spaces", "dev").await?;
    let app = api.make("/v3/apps", json!({ "name": "uploads", "relationships": { "space": to(&space) } })).await?;
    let guid = package(&api, &app).await?;
    let path = format!("/v3/packages/{guid}/upload");

    let file = |name| zip_of(&[Entry::File(name, b"x".to_vec())]);
    let many: Vec<String> = (0..101).map(|number| format!("f{number}")).collect();
    let many: Vec<Entry<'_>> = many.iter().map(|name| Entry::File(name, Vec::new())).collect();
    let whole = zip_of(&[Entry::File("data", noise(1 << 20))])?;
    let cases: Vec<(&str, Vec<u8>, u64, &str)> = vec![
        ("climbs", file("../climbs")?, 10008, "climbs out of its directory"),
        ("climbs inside", file("a/../../climbs")?, 10008, "climbs out of its directory"),
        ("absolute", file("/etc/cron.d/evil")?, 10008, "absolute path"),
        ("backslash", file("..\\evil")?, 10008, "backslash"),
        ("link out", zip_of(&[Entry::Link("l", "/etc/shadow")])?, 10008, "link to an absolute path"),
        ("link up", zip_of(&[Entry::Link("a/l", "../../x")])?, 10008, "leads out of the package"),
        (
            "through a link",
            zip_of(&[Entry::Link("l", "a"), Entry::File("l/x", b"x".to_vec())])?,
            10008,
            "below a file or a link",
        ),
        ("bomb", zip_of(&[Entry::Zeros("zeros", 65)])?, 10008, "67108864 bytes"),
        ("crowd", zip_of(&many)?, 10008, "101 files"),
        ("cut", whole[..whole.len() / 2].to_vec(), 10008, "not a valid zip"),
        ("no zip", b"this is no archive".to_vec(), 10008, "not a valid zip"),
    ];
    for (name, bits, code, said) in &cases {
        let (status, body) = api.upload(&path, bits, &[]).await?;
        let (found, text) = error(&body);
        ensure!((status, found) == (422, *code) && text.contains(said), "{name}: {status} {body}");
    }
    let wrong = "00".repeat(32);
    let (status, body) = api.upload(&path, &whole, &[("x-slipway-sha256", &wrong)]).await?;
    ensure!(status == 422 && error(&body).1.contains("was announced"), "{status} {body}");
    let (status, body) = api.send(Method::POST, &path, "{}").await?;
    ensure!(status == 400 && error(&body).1.contains("multipart"), "{status} {body}");
    api.upload_half(&path, &whole).await?;

    // After all that the package still waits for its first upload, and takes a good one, once.
    let (_, body) = api.send(Method::GET, &format!("/v3/packages/{guid}"), "").await?;
    ensure!(body["state"] == "AWAITING_UPLOAD", "{body}");
    let (status, body) = api.upload(&path, &whole, &[]).await?;
    ensure!(status == 200 && body["state"] == "READY", "{status} {body}");
    let (status, body) = api.upload(&path, &whole, &[]).await?;
    ensure!(status == 400 && body["errors"][0]["title"] == "CF-PackageBitsAlreadyUploaded", "{status} {body}");
    let incoming = platform.layout().state("blobs/incoming");
    Platform::eventually("no half upload is kept", std::time::Duration::from_secs(120), || {
        let uploads = std::fs::read_dir(&incoming).map(|entries| entries.count()).unwrap_or(0);
        async move {
            ensure!(uploads == 0, "{uploads} directories of uploads");
            Ok(())
        }
    })
    .await?;
    limited.reset(platform).await?;
    platform.ok(&["delete", "uploads", "-f"]).map(drop)
}

/// A user-provided service whose credentials are nested deeper than any stack would bear.
fn deep(in_space: &serde_json::Value) -> String {
    let whole = json!({
        "type": "user-provided", "name": "deep", "relationships": in_space, "credentials": { "nested": "HERE" },
    });
    whole.to_string().replace("\"HERE\"", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)))
}

pub(crate) async fn requests_that_are_refused(platform: &mut Platform) -> anyhow::Result<()> {
    let api = Api::admin(platform).await?;
    let space = api.find("spaces", "dev").await?;
    let in_space = json!({ "space": to(&space) });
    let before = platform.settled_apps().await?;
    let long = "x".repeat(256);
    let unknown = "00000000-0000-4000-8000-000000000000";
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        ("cut JSON", "/v3/apps", "{\"name\": \"x\"".to_owned(), 400, "parse error"),
        ("no JSON", "/v3/apps", "name=x".to_owned(), 400, "parse error"),
        ("empty", "/v3/apps", String::new(), 400, "empty"),
        ("array", "/v3/apps", "[]".to_owned(), 422, ""),
        ("wrong type", "/v3/apps", json!({ "name": 7, "relationships": in_space }).to_string(), 422, "'name'"),
        (
            "unknown field",
            "/v3/apps",
            json!({ "name": "x", "nmae": "x", "relationships": in_space }).to_string(),
            422,
            "'nmae'",
        ),
        ("long name", "/v3/apps", json!({ "name": long, "relationships": in_space }).to_string(), 422, "too long"),
        ("no space", "/v3/apps", json!({ "name": "x" }).to_string(), 422, "relationships"),
        (
            "unknown space",
            "/v3/apps",
            json!({ "name": "x", "relationships": { "space": to(unknown) } }).to_string(),
            422,
            "space",
        ),
        (
            "guid that is none",
            "/v3/apps",
            json!({ "name": "x", "relationships": { "space": to("'; drop table app; --") } }).to_string(),
            422,
            "space",
        ),
        ("NUL", "/v3/apps", json!({ "name": "a\u{0}b", "relationships": in_space }).to_string(), 422, ""),
        ("deep in a field that takes anything", "/v3/service_instances", deep(&in_space), 400, "recursion limit"),
        ("unknown package", "/v3/builds", json!({ "package": { "guid": unknown } }).to_string(), 422, "package"),
        (
            "negative memory",
            "/v3/builds",
            json!({ "package": { "guid": unknown }, "staging_memory_in_mb": -1 }).to_string(),
            422,
            "",
        ),
    ];
    for (name, path, body, wanted, said) in cases {
        let (status, answer) = api.send(Method::POST, path, body).await?;
        let (_, text) = error(&answer);
        ensure!(status == wanted && text.contains(said) && !text.is_empty(), "{name}: {status} {answer}");
    }
    for path in ["/v3/apps/nonsense", &format!("/v3/apps/{unknown}"), &format!("/v3/apps/{unknown}/env")] {
        let (status, body) = api.send(Method::GET, path, "").await?;
        ensure!(status == 404 && error(&body).0 == 10010, "{path}: {status} {body}");
    }
    for query in ["per_page=0", "page=x", "per_page=5001", "order_by=passwords", "nmaes=x"] {
        let (status, body) = api.send(Method::GET, &format!("/v3/apps?{query}"), "").await?;
        ensure!(status == 400 && error(&body).0 == 10005, "{query}: {status} {body}");
    }
    let after = platform.ok(&["apps", "--json"])?.stdout;
    ensure!(before == after, "a refused request changed something: {before} became {after}");
    platform.fails(&["app", "never-was"], "never-was").and_then(|failed| {
        ensure!(failed.code == 4, "not found is exit code 4: {}", failed.all());
        Ok(())
    })
}

pub(crate) async fn a_route_of_another_space_stays_there(platform: &mut Platform) -> anyhow::Result<()> {
    neighbour::push(platform)?;
    platform.ok(&["create-space", "elsewhere"])?;
    platform.ok(&["target", "-s", "elsewhere"])?;
    let directory = platform.path("apps").join("thief");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("run.sh"), "sleep 100000")?;
    let manifest = platform.path("apps").join("thief.yml");
    let text = format!(
        "applications:\n  - name: thief\n    buildpacks: [binary_buildpack]\n    command: bash run.sh\n    routes:\n      - route: {}\n",
        Platform::host(neighbour::NAME)
    );
    std::fs::write(&manifest, text)?;
    let pushed = platform.run(&["push", "-p", &directory.to_string_lossy(), "-f", &manifest.to_string_lossy()])?;
    let mapped = platform.run(&["map-route", "thief", "slipway.localhost", "-n", neighbour::NAME])?;
    platform.run(&["delete", "thief", "-f"])?;
    platform.ok(&["target", "-s", "dev"])?;
    ensure!(pushed.code == 5 && pushed.all().contains(&Platform::host(neighbour::NAME)), "{}", pushed.all());
    ensure!(mapped.code != 0, "{}", mapped.all());
    let (status, body) = platform.get(neighbour::NAME, "/").await?;
    ensure!((status, body.as_str()) == (200, "ok"), "{status} {body}");
    Ok(())
}
