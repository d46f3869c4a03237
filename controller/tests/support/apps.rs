//! What a push does, step by step, over the API.

use std::io::{Cursor, Write as _};

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use slipway_protocol::v1;
use sqlx::PgPool;
use uuid::Uuid;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::client::{TestClient, error};

/// A zip of these files.
pub fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).expect("start");
        writer.write_all(content).expect("write");
    }
    writer.finish().expect("finish").into_inner()
}

/// Layers, so that specs can be composed.
pub async fn catalogue(pool: &PgPool) {
    for (kind, line, byte) in [("stack", "debian12", 1_u8), ("runtime", "node-22", 2), ("build", "build-12", 3)] {
        sqlx::query(
            "insert into layer (digest, blob, blob_size, size, kind, name, line, version, architecture, manifest)
             values ($1, $1, 1, 1, $2, $3, $3, '1', 'x86_64', '{}') on conflict do nothing",
        )
        .bind(vec![byte; 32])
        .bind(kind)
        .bind(line)
        .execute(pool)
        .await
        .expect("a layer");
    }
}

/// The space `dev`.
pub async fn dev_space(pool: &PgPool) -> Uuid {
    sqlx::query_scalar("select guid from space where name = 'dev'").fetch_one(pool).await.expect("the first space")
}

pub fn manifest(client: &TestClient, space: Uuid, text: &str) -> RequestBuilder {
    client
        .request(Method::POST, &format!("/v3/spaces/{space}/actions/apply_manifest"))
        .header("content-type", "application/x-yaml")
        .body(text.to_owned())
}

/// The guid of the app with this name.
pub async fn app_named(client: &TestClient, name: &str) -> String {
    let (status, page) = client.get(&format!("/v3/apps?names={name}")).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    page["resources"][0]["guid"].as_str().unwrap_or_else(|| panic!("no app {name}: {page}")).to_owned()
}

/// Applies a manifest of one app and gives its guid.
pub async fn app_of(client: &TestClient, space: Uuid, name: &str, fields: &str) -> String {
    let text = format!("applications:\n- name: {name}\n{fields}");
    let job = client.job(manifest(client, space, &text)).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    app_named(client, name).await
}

/// An empty package.
pub async fn package(client: &TestClient, app: &str) -> String {
    let (status, body) = client
        .post("/v3/packages", json!({ "type": "bits", "relationships": { "app": { "data": { "guid": app } } } }))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(body["state"], "AWAITING_UPLOAD");
    body["guid"].as_str().expect("guid").to_owned()
}

pub async fn upload(
    client: &TestClient,
    package: &str,
    resources: &Value,
    bits: Option<Vec<u8>>,
) -> (StatusCode, Value) {
    let mut form = Form::new().text("resources", resources.to_string());
    if let Some(bits) = bits {
        form = form.part("bits", Part::bytes(bits).file_name("package.zip"));
    }
    client.send(client.request(Method::POST, &format!("/v3/packages/{package}/upload")).multipart(form)).await
}

/// A package with one file.
pub async fn ready_package(client: &TestClient, app: &str) -> String {
    let package = package(client, app).await;
    let (status, body) = upload(client, &package, &json!([]), Some(zip_of(&[("server.js", b"hello")]))).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("READY")), "{body}");
    package
}

/// Asks for a build; its guid.
pub async fn build(client: &TestClient, package: &str) -> String {
    let (status, build) = client.post("/v3/builds", json!({ "package": { "guid": package } })).await;
    assert_eq!(status, StatusCode::CREATED, "{build}");
    assert_eq!(build["state"], "STAGING");
    build["guid"].as_str().expect("guid").to_owned()
}

/// A droplet as a build makes it. The same bytes each time.
pub fn droplet() -> Vec<u8> {
    let own = r#"{"layers":[{"line":"node-22","digest":"ab"}],"process_types":{"web":"node ."},"stack":"debian12"}"#;
    let encoder = slipway_layers::compressor(Vec::new()).expect("an encoder");
    let mut builder = tar::Builder::new(encoder);
    for (name, content) in [("app/server.js", "listen()"), ("slipway.json", own)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, content.as_bytes()).expect("appended");
    }
    builder.into_inner().and_then(zstd::Encoder::finish).expect("a droplet")
}

/// What a cell says of a build that went well, with a droplet of this content in the object store.
pub fn build_result(droplet: &[u8]) -> v1::BuildResult {
    v1::BuildResult {
        ok: true,
        droplet: Some(v1::Blob {
            digest: slipway_protocol::digest::sha256(droplet).to_vec().into(),
            size: droplet.len() as u64,
            format: "tar.zst".to_owned(),
        }),
        layers: vec![v1::Layer {
            kind: "runtime".to_owned(),
            name: "node".to_owned(),
            line: "node-22".to_owned(),
            ..v1::Layer::default()
        }],
        process_types: vec![
            v1::ProcessType { r#type: "web".to_owned(), command: "node server.js".to_owned() },
            v1::ProcessType { r#type: "worker".to_owned(), command: "node worker.js".to_owned() },
        ],
        stack: "debian12".to_owned(),
        buildpacks: vec![v1::DetectedBuildpack {
            name: "nodejs_buildpack".to_owned(),
            ..v1::DetectedBuildpack::default()
        }],
        ..v1::BuildResult::default()
    }
}

/// Gives an app the droplet of a build that has ended.
pub async fn use_droplet(client: &TestClient, app: &str, build: &str) {
    let (_, build) = client.get(&format!("/v3/builds/{build}")).await;
    assert_eq!(build["state"], "STAGED", "{build}");
    let droplet = json!({ "data": { "guid": build["droplet"]["guid"] } });
    let (status, body) = client.patch(&format!("/v3/apps/{app}/relationships/current_droplet"), droplet).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

/// `start`, `stop` or `restart`, which must succeed; the app's state after it.
pub async fn action(client: &TestClient, app: &str, action: &str) -> String {
    let (status, body) = client.act(&format!("/v3/apps/{app}/actions/{action}")).await;
    assert_eq!(status, StatusCode::OK, "{action}: {body}");
    body["state"].as_str().expect("a state").to_owned()
}

/// An error with this status whose only detail holds all of these texts.
pub fn refused(answer: &(StatusCode, Value), status: u16, texts: &[&str]) {
    assert_eq!(answer.0.as_u16(), status, "{}", answer.1);
    let detail = error(&answer.1).1;
    for text in texts {
        assert!(detail.contains(text), "{text:?} in {detail:?}");
    }
}
