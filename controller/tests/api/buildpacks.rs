//! `/v3/buildpacks`: their order, their lock, and what an upload may be.

use std::io::{Cursor, Write as _};

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use slipway_test_support::{PATIENCE, eventually};

use crate::errors::{expected, failed};
use crate::support::apps::refused;
use crate::support::{TestClient, TestController};

async fn made(admin: &TestClient, name: &str, body: Value) -> String {
    let mut wish = body;
    wish["name"] = json!(name);
    let (status, body) = admin.post("/v3/buildpacks", wish).await;
    assert_eq!(status, 201, "{body}");
    format!("/v3/buildpacks/{}", body["guid"].as_str().expect("a guid"))
}

/// Names in order; the positions must be 1, 2, 3, …
async fn order(client: &TestClient) -> Vec<String> {
    let (_, body) = client.get("/v3/buildpacks").await;
    let list = body["resources"].as_array().expect("a list");
    let positions: Vec<i64> = list.iter().map(|pack| pack["position"].as_i64().expect("a position")).collect();
    assert_eq!(positions, (1..=positions.len() as i64).collect::<Vec<_>>(), "no holes");
    list.iter().map(|pack| pack["name"].as_str().expect("a name").trim_end_matches("_buildpack").to_owned()).collect()
}

#[tokio::test]
async fn the_order_has_no_holes() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    assert_eq!(order(&admin).await, ["staticfile", "nodejs", "python", "binary"]);
    let one = made(&admin, "one", json!({})).await;
    made(&admin, "far", json!({ "position": 99 })).await;
    assert_eq!(order(&admin).await, ["one", "staticfile", "nodejs", "python", "binary", "far"], "first unless said");
    for (position, wanted) in [
        (3, ["staticfile", "nodejs", "one", "python", "binary", "far"]),
        (5, ["staticfile", "nodejs", "python", "binary", "one", "far"]),
        (2, ["staticfile", "one", "nodejs", "python", "binary", "far"]),
        (2, ["staticfile", "one", "nodejs", "python", "binary", "far"]),
        (100, ["staticfile", "nodejs", "python", "binary", "far", "one"]),
    ] {
        let (status, body) = admin.patch(&one, json!({ "position": position })).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(order(&admin).await, wanted, "moved to {position}");
    }
    refused(&admin.patch(&one, json!({ "position": 0 })).await, 422, &["greater than or equal to 1"]);
    admin.patch(&one, json!({ "position": 2 })).await;
    assert_eq!(admin.delete_job(&one).await["state"], "COMPLETE");
    assert_eq!(order(&admin).await, ["staticfile", "nodejs", "python", "binary", "far"], "the others moved up");

    // At once, from several sides.
    let all: Vec<String> = futures::future::join_all((0..6).map(|number| {
        let admin = admin.clone();
        async move { made(&admin, &format!("n{number}"), json!({ "position": 1 + number % 3 })).await }
    }))
    .await;
    assert_eq!(order(&admin).await.len(), 11);
    futures::future::join_all(all.iter().map(|path| admin.delete_job(path))).await;
    assert_eq!(order(&admin).await, ["staticfile", "nodejs", "python", "binary", "far"]);
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("an entry");
        zip.write_all(text.as_bytes()).expect("content");
    }
    zip.finish().expect("a zip").into_inner()
}

/// The job of an upload, and the body of its answer.
async fn upload(admin: &TestClient, path: &str, bits: Vec<u8>) -> (Value, Value) {
    let form = Form::new().part("bits", Part::bytes(bits).file_name("pack-v1.zip"));
    let response =
        admin.request(Method::POST, &format!("{path}/upload")).multipart(form).send().await.expect("an answer");
    assert_eq!(response.status(), 202);
    let job = response.headers()["location"].to_str().expect("text").to_owned();
    let body = response.json().await.expect("the buildpack");
    (admin.get(&job).await.1, body)
}

#[tokio::test]
async fn an_upload_is_checked_by_its_job() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let mine = made(&admin, "mine", json!({})).await;
    let with = |stack: &str| archive(&[("bin/compile", "#!/bin/sh"), ("manifest.yml", &format!("stack: {stack}\n"))]);

    let (job, body) = upload(&admin, &mine, b"no zip at all".to_vec()).await;
    failed(
        &job,
        &expected(
            422,
            390_013,
            "CF-BuildpackZipError",
            "Buildpack zip error: invalid Zip archive: Could not find EOCD",
        ),
    );
    assert_eq!(body["state"], "AWAITING_UPLOAD");
    let (job, _) = upload(&admin, &mine, archive(&[("../evil", "x")])).await;
    let words = "Buildpack is invalid: the archive entry \"../evil\" climbs out of its directory with '..'; package the \
                 files of one directory, with relative paths";
    failed(&job, &expected(400, 290_003, "CF-BuildpackInvalid", words));
    let (job, _) = upload(&admin, &mine, with("plan9")).await;
    let words = "Uploaded buildpack stack (plan9) does not exist";
    failed(&job, &expected(422, 390_012, "CF-BuildpackStackDoesNotExist", words));

    let (job, body) = upload(&admin, &mine, with("cflinuxfs4")).await;
    assert_eq!(job["state"], "COMPLETE", "{job}");
    assert_eq!(
        (&body["state"], &body["stack"], &body["filename"]),
        (&json!("READY"), &json!("cflinuxfs4"), &json!("pack-v1.zip"))
    );
    let (job, body) = upload(&admin, &mine, with("debian12")).await;
    let words = "Uploaded buildpack stack (debian12) does not match cflinuxfs4";
    failed(&job, &expected(422, 390_011, "CF-BuildpackStacksDontMatch", words));
    assert_eq!(body["stack"], "cflinuxfs4", "the old archive stays");

    // Another one of the same name becomes the same by its upload.
    let twin = made(&admin, "mine", json!({})).await;
    let (job, _) = upload(&admin, &twin, with("cflinuxfs4")).await;
    let words = "The buildpack name mine is already in use for the stack cflinuxfs4 and the lifecycle buildpack";
    failed(&job, &expected(422, 290_000, "CF-BuildpackNameStackLifecycleTaken", words));
    let again = admin.post("/v3/buildpacks", json!({ "name": "mine" })).await;
    refused(&again, 422, &["Buildpack with name 'mine' and an unassigned stack already exists"]);

    assert_eq!(admin.patch(&mine, json!({ "locked": true })).await.0, 200);
    let form = Form::new().part("bits", Part::bytes(with("cflinuxfs4")).file_name("x.zip"));
    let locked = admin.send(admin.request(Method::POST, &format!("{mine}/upload")).multipart(form)).await;
    refused(&locked, 422, &["Buildpack is locked"]);
    refused(
        &admin.patch(&mine, json!({ "stack": "debian12" })).await,
        422,
        &["Buildpack stack cannot be changed from 'cflinuxfs4'"],
    );
}

#[tokio::test]
async fn changes_at_once_all_count() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let pool = &controller.database.pool;
    let pack = made(&admin, "mine", json!({})).await;
    let (_, stacks) = admin.get("/v3/stacks?names=debian12").await;
    let stack = format!("/v3/stacks/{}", stacks["resources"][0]["guid"].as_str().expect("a guid"));
    for (path, other, own, wanted) in [
        (
            &pack,
            "update buildpack set enabled = false where name = 'mine'",
            json!({ "locked": true }),
            ["enabled", "locked"],
        ),
        (
            &stack,
            "update stack set state_reason = 'old' where name = 'debian12'",
            json!({ "state": "DEPRECATED" }),
            ["state_reason", "state"],
        ),
    ] {
        // Another change is under way when this one comes.
        let mut tx = slipway_controller::store::begin(pool).await.expect("a transaction");
        sqlx::query(sqlx::AssertSqlSafe(other)).execute(&mut *tx).await.expect("changed");
        let change = tokio::spawn({
            let (admin, path) = (admin.clone(), path.clone());
            async move { admin.patch(&path, own).await }
        });
        eventually("the change waits", PATIENCE, async || {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_one(pool)
            .await
            .expect("an answer");
            if waiting > 0 { Ok(()) } else { Err("nobody waits") }
        })
        .await;
        tx.commit().await.expect("committed");
        let (status, body) = change.await.expect("joined");
        assert_eq!(status, 200, "{body}");
        let (_, body) = admin.get(path).await;
        let found = wanted.map(|field| body[field].clone());
        let right = [json!(false), json!(true)] == found || [json!("old"), json!("DEPRECATED")] == found;
        assert!(right, "{body}");
    }
}
