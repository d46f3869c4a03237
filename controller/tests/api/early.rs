//! Requests that are refused before they are read: the client sees why.

use serde_json::json;
use slipway_controller::config::Limits;
use slipway_test_support::{PATIENCE, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::apps::{app_of, package, upload, zip_of};
use crate::support::{TestClient, TestController};

const LENGTH: usize = 5_000_000;

/// Sends a whole request before it reads anything, as simple clients do, and gives the whole answer. A server that closes
/// with bytes unread resets the connection: then either fails.
async fn sent_then_read(controller: &TestController, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(controller.address).await.expect("connect");
    let head = format!("{head}Host: api\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    for piece in body.chunks(64 << 10) {
        stream.write_all(piece).await.expect("the body is taken to its end");
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    read.expect("an answer, not a reset");
    String::from_utf8_lossy(&answer).into_owned()
}

fn bearer(client: &TestClient) -> String {
    format!("Authorization: bearer {}\r\n", client.token.as_deref().expect("a token"))
}

#[tokio::test]
async fn a_client_that_sends_a_large_body_early_reads_the_refusal() {
    let limits = Limits { max_package_bytes: 16 << 20, ..Limits::default() };
    let controller = TestController::with_limits(limits).await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let waits = package(&client, &app).await;
    let auth = bearer(&client);
    let expired = "Authorization: bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln\r\n";
    let upload_path = format!("/v3/packages/{waits}/upload");
    let form = "Content-Type: multipart/form-data; boundary=b\r\n";
    for (line, headers, status, code) in [
        ("POST /v3/apps", auth.as_str(), 400, "1004"),
        ("POST /v3/apps", "", 401, "10002"),
        ("POST /v3/apps", expired, 401, "1000"),
        ("POST /v3/nothing", auth.as_str(), 404, "10000"),
        ("PUT /v3/apps", auth.as_str(), 404, "10000"),
        ("POST /v3/apps?x=%ff", auth.as_str(), 400, "10004"),
        ("POST /v3/isolation_segments/x/relationships/organizations", auth.as_str(), 400, "1004"),
        ("POST /oauth/token", "Content-Type: application/x-www-form-urlencoded\r\n", 0, ""),
        (&format!("POST {upload_path}"), &format!("{expired}{form}"), 401, "1000"),
        (&format!("POST {upload_path}"), &format!("{auth}{form}"), 400, "1004"),
        (&format!("POST {upload_path}"), auth.as_str(), 400, "1004"),
        (&format!("POST /v3/packages/{}/upload", uuid::Uuid::nil()), &format!("{auth}{form}"), 404, "10010"),
        (&format!("POST /v3/spaces/{space}/actions/apply_manifest"), auth.as_str(), 400, "1004"),
    ] {
        let answer = sent_then_read(&controller, &format!("{line} HTTP/1.1\r\n{headers}"), &vec![b'x'; LENGTH]).await;
        let begins = format!("HTTP/1.1 {status} ");
        let code_field = format!("\"code\":{code},");
        let fits = match status {
            0 => answer.starts_with("HTTP/1.1 4"),
            _ => answer.starts_with(&begins) && answer.contains(&code_field),
        };
        assert!(fits, "{line} {headers}: {answer}");
    }
    // The late upload changed nothing.
    let (_, body) = client.get(&format!("/v3/packages/{waits}")).await;
    assert_eq!(body["state"], "AWAITING_UPLOAD");
    let (status, body) = upload(&client, &waits, &json!([]), Some(zip_of(&[("x", b"y")]))).await;
    assert_eq!(status, 200, "{body}");
}

/// A client that asks before it sends is told at once, and not told to go on.
#[tokio::test]
async fn expect_continue_is_answered_before_a_refused_body_is_sent() {
    let controller = TestController::start().await;
    let mut stream = TcpStream::connect(controller.address).await.expect("connect");
    let head = "POST /v3/apps HTTP/1.1\r\nHost: api\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"]}") {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("in time").expect("an answer");
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("100 Continue"), "{answer}");
}

/// One organization has its part of the places, the others have theirs; who waits too long is told when to come again.
#[tokio::test]
async fn uploads_take_permits_and_give_them_back() {
    let limits = Limits {
        uploads_at_once: 2,
        uploads_at_once_per_organization: 1,
        upload_wait_s: 1,
        access_token_s: 86_400,
        ..Limits::default()
    };
    let controller = TestController::with_limits(limits).await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let (slow, quick) = (package(&client, &app).await, package(&client, &app).await);
    let mut held = TcpStream::connect(controller.address).await.expect("connect");
    let head = format!(
        "POST /v3/packages/{slow}/upload HTTP/1.1\r\nHost: api\r\n{}\
         Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n",
        bearer(&client)
    );
    held.write_all(head.as_bytes()).await.expect("sent");
    let incoming = controller.context.config.blob_directory.join("incoming");
    let receiving = async || std::fs::read_dir(&incoming).map_or(0, Iterator::count);
    eventually("it is being received", PATIENCE, || async {
        let count = receiving().await;
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await;
    let form = reqwest::multipart::Form::new()
        .part("bits", reqwest::multipart::Part::bytes(zip_of(&[("x", b"y")])).file_name("x.zip"));
    let request = client.request(reqwest::Method::POST, &format!("/v3/packages/{quick}/upload")).multipart(form);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 503);
    assert!(response.headers()["retry-after"].to_str().expect("text").parse::<u32>().expect("seconds") > 0);
    let body: serde_json::Value = response.json().await.expect("json");
    assert_eq!(body["errors"][0]["code"], 10_015, "{body}");
    // The platform's own has another place.
    let admin = controller.admin().await;
    let (_, pack) = admin.post("/v3/buildpacks", json!({ "name": "mine" })).await;
    let form = reqwest::multipart::Form::new()
        .part("bits", reqwest::multipart::Part::bytes(zip_of(&[("bin/compile", b"y")])).file_name("x.zip"));
    let path = format!("/v3/buildpacks/{}/upload", pack["guid"].as_str().expect("a guid"));
    assert_eq!(admin.send(admin.request(reqwest::Method::POST, &path).multipart(form)).await.0, 202);
    // Who hangs up gives his place back.
    drop(held);
    eventually("the place is free", PATIENCE, || async {
        let count = receiving().await;
        if count == 0 { Ok(()) } else { Err(count) }
    })
    .await;
    let (status, body) = upload(&client, &quick, &json!([]), Some(zip_of(&[("x", b"y")]))).await;
    assert_eq!(status, 200, "{body}");
}
