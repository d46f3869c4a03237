//! Packages: what may be uploaded, what must not, and what need not.

use std::io::{Cursor, Write as _};

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha1::Digest as _;
use slipway_controller::config::Limits;
use slipway_test_support::eventually;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::apps::{app_of, package, refused, upload, zip_of};
use crate::support::{TestClient, TestController, error};

async fn state_of(client: &TestClient, package: &str) -> String {
    client.get(&format!("/v3/packages/{package}")).await.1["state"].as_str().expect("a state").to_owned()
}

#[tokio::test]
async fn bad_uploads_leave_the_package_waiting() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let package = package(&client, &app).await;

    let (status, body) = client.post("/v3/builds", json!({ "package": { "guid": package } })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error(&body).1, "Bad request: Cannot stage package whose state is not ready.");

    for (bits, part) in [
        (b"this is no zip".to_vec(), "not a valid zip"),
        (zip_of(&[("../evil", b"x")]), "climbs out"),
        (zip_of(&[("/etc/passwd", b"x")]), "absolute"),
        (zip_of(&[("a", b"x"), ("./a", b"y")]), "more than once"),
    ] {
        let (status, body) = upload(&client, &package, &json!([]), Some(bits)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert!(error(&body).1.contains(part), "{body}");
        assert_eq!(state_of(&client, &package).await, "AWAITING_UPLOAD");
    }
    let (status, body) = upload(&client, &package, &json!([]), None).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");

    // Broken off in the middle of the file: no closing boundary.
    let half = "--b\r\nContent-Disposition: form-data; name=\"bits\"; filename=\"p.zip\"\r\n\r\nPK\x03\x04half";
    let request = client
        .request(Method::POST, &format!("/v3/packages/{package}/upload"))
        .header("content-type", "multipart/form-data; boundary=b")
        .body(half);
    let (status, body) = client.send(request).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(state_of(&client, &package).await, "AWAITING_UPLOAD");

    let good = zip_of(&[("index.html", b"hello")]);
    let form = || Form::new().part("bits", Part::bytes(good.clone()).file_name("p.zip"));
    let path = format!("/v3/packages/{package}/upload");
    let wrong = client.request(Method::POST, &path).header("x-slipway-sha256", "00".repeat(32)).multipart(form());
    let (status, body) = client.send(wrong).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    let right = hex::encode(sha2::Sha256::digest(&good));
    let right = client.request(Method::POST, &path).header("x-slipway-sha256", right).multipart(form());
    let (status, body) = client.send(right).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("READY")), "{body}");
    let (status, body) = upload(&client, &package, &json!([]), Some(good)).await;
    assert_eq!((status, error(&body).0), (StatusCode::BAD_REQUEST, 150_004));
}

#[tokio::test]
async fn files_that_the_platform_has_are_not_sent_again() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let large: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let first = package(&client, &app).await;
    let (status, body) = upload(&client, &first, &json!([]), Some(zip_of(&[("big.bin", &large)]))).await;
    assert_eq!(status, StatusCode::OK, "{body}");

    let sha1 = hex::encode(sha1::Sha1::digest(&large));
    let entry =
        json!({ "path": "lib/big.bin", "mode": "755", "checksum": { "value": sha1 }, "size_in_bytes": 100_000 });
    let other = json!({ "path": "x", "mode": "644", "checksum": { "value": "0".repeat(40) }, "size_in_bytes": 5 });
    let (status, body) = client.post("/v3/resource_matches", json!({ "resources": [entry, other] })).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(body["resources"].as_array().map(Vec::len), Some(1));
    assert_eq!(body["resources"][0]["mode"], "755");

    // Everything matched: no part `bits` at all.
    let second = package(&client, &app).await;
    let (status, body) = upload(&client, &second, &body["resources"], None).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("READY")), "{body}");
    let response =
        client.request(Method::GET, &format!("/v3/packages/{second}/download")).send().await.expect("an answer");
    let bytes = response.bytes().await.expect("bytes");
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).expect("zip");
    assert_eq!(archive.by_name("lib/big.bin").expect("there").size(), 100_000);

    let third = package(&client, &app).await;
    let (status, body) = upload(&client, &third, &json!([other]), None).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
}

#[tokio::test]
async fn hostile_archives_and_bombs_are_refused_with_what_is_wrong() {
    let limits = Limits {
        max_package_bytes: 64 << 10,
        max_package_unpacked_bytes: 1 << 20,
        max_package_files: 5,
        ..Limits::default()
    };
    let controller = TestController::with_limits(limits).await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let package = package(&client, &app).await;
    let link = |name: &str, target: &str| {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink(name, target, SimpleFileOptions::default()).expect("link");
        writer.start_file("x", SimpleFileOptions::default()).expect("start");
        writer.write_all(b"x").expect("write");
        writer.finish().expect("finish").into_inner()
    };
    let mut seed = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    })
    .take(100_000)
    .collect();
    let mut damaged = zip_of(&[("a.bin", &noise[..4000])]);
    damaged[2000] ^= 0xff;
    let crowd: Vec<String> = (0..6).map(|n| format!("f{n}")).collect();
    let crowd: Vec<(&str, &[u8])> = crowd.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    for (bits, text) in [
        (link("l", "/etc/passwd"), "a link to an absolute path"),
        (link("l", "../../etc/passwd"), "a link that leads out of the package"),
        (zip_of(&[("a/../../evil", b"x")]), "climbs out"),
        (zip_of(&[("..\\evil", b"x")]), "backslash"),
        // 2 MiB of zeros in 2 KiB.
        (zip_of(&[("bomb", &vec![0; 2 << 20])]), "unpacks to more than 1048576 bytes"),
        (zip_of(&crowd), "holds 6 files, more than the 5"),
        (zip_of(&[("noise", &noise)]), "this platform takes at most 65536"),
        (damaged, "damaged"),
    ] {
        refused(&upload(&client, &package, &json!([]), Some(bits)).await, 422, &[text]);
        assert_eq!(state_of(&client, &package).await, "AWAITING_UPLOAD", "{text}");
    }
    let climbing =
        json!([{ "path": "../x", "mode": "644", "checksum": { "value": "0".repeat(40) }, "size_in_bytes": 5 }]);
    refused(&upload(&client, &package, &climbing, None).await, 422, &["../x"]);
    let (status, body) = upload(&client, &package, &json!([]), Some(zip_of(&[("good", b"x")]))).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("READY")), "{body}");
    assert_eq!(received(&controller), 0, "nothing of the refused ones is left");
}

/// What lies where uploads are received.
fn received(controller: &TestController) -> usize {
    std::fs::read_dir(controller.context.config.blob_directory.join("incoming")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let package = package(&client, &app).await;
    let mut connection = TcpStream::connect(controller.address).await.expect("connect");
    let head = format!(
        "POST /v3/packages/{package}/upload HTTP/1.1\r\nHost: api\r\nAuthorization: bearer {}\r\n\
         Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n\
         --b\r\nContent-Disposition: form-data; name=\"bits\"; filename=\"p.zip\"\r\n\r\nPK\x03\x04half",
        client.token.as_deref().expect("a token")
    );
    connection.write_all(head.as_bytes()).await.expect("write");
    let limit = slipway_test_support::PATIENCE;
    eventually("the upload is being received", limit, || async {
        if received(&controller) == 1 { Ok(()) } else { Err(received(&controller)) }
    })
    .await;
    drop(connection);
    eventually("it is forgotten", limit, || async {
        if received(&controller) == 0 { Ok(()) } else { Err(received(&controller)) }
    })
    .await;
    assert_eq!(state_of(&client, &package).await, "AWAITING_UPLOAD");
    let (status, body) = upload(&client, &package, &json!([]), Some(zip_of(&[("x", b"y")]))).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("READY")), "{body}");
}

#[tokio::test]
async fn of_two_uploads_at_once_one_counts() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let package = package(&client, &app).await;
    let none = json!([]);
    let send = |text: &'static [u8]| upload(&client, &package, &none, Some(zip_of(&[("x", text)])));
    let (first, second) = tokio::join!(send(b"one"), send(b"two"));
    let (good, bad) = if first.0 == StatusCode::OK { (first, second) } else { (second, first) };
    assert_eq!((good.0, &good.1["state"]), (StatusCode::OK, &json!("READY")), "{}", good.1);
    assert_eq!((bad.0, error(&bad.1).0), (StatusCode::BAD_REQUEST, 150_004), "{}", bad.1);
}

/// Sends a form to this path.
async fn send(client: &TestClient, path: &str, form: Form, digest: Option<&str>) -> (StatusCode, serde_json::Value) {
    let request = client.request(Method::POST, &format!("{path}/upload")).multipart(form);
    client.send(digest.into_iter().fold(request, |request, digest| request.header("x-slipway-sha256", digest))).await
}

#[tokio::test]
async fn forms_are_taken_as_far_as_they_are_used() {
    let controller = TestController::with_limits(Limits { max_package_files: 5, ..Limits::default() }).await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let path = format!("/v3/packages/{}", package(&client, &app).await);
    let twice = Form::new().text("resources", "[]").text("resources", "[]");
    refused(&send(&client, &path, twice, None).await, 400, &["'resources' twice"]);
    let entry = json!({ "path": "x", "mode": "644", "checksum": { "value": "0".repeat(40) }, "size_in_bytes": 5 });
    let six = json!([entry, entry, entry, entry, entry, entry]).to_string();
    refused(&send(&client, &path, Form::new().text("resources", six), None).await, 422, &["6 files", "at most 5"]);
    let long = format!("[{}]", " ".repeat(8 << 20));
    refused(
        &send(&client, &path, Form::new().text("resources", long), None).await,
        422,
        &["larger than 8388608 bytes"],
    );
    let many = (0..40).fold(Form::new(), |form, n| form.text(format!("f{n}"), "x"));
    refused(&send(&client, &path, many, None).await, 400, &["more than 32 parts"]);
    // What nobody asked for is read past, as far as it is bearable.
    let bits = || Part::bytes(zip_of(&[("x", b"y")])).file_name("x.zip");
    let long = Form::new().part("nonsense", Part::bytes(vec![b'x'; 65 << 20])).part("bits", bits());
    let (status, body) = send(&client, &path, long, None).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("READY")), "{body}");
}

#[tokio::test]
async fn droplets_and_buildpacks_are_compared_with_the_digest_announced() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let of_app = json!({ "app": { "data": { "guid": app } } });
    let (_, droplet) = client.post("/v3/droplets", json!({ "relationships": of_app })).await;
    let admin = controller.admin().await;
    let (_, pack) = admin.post("/v3/buildpacks", json!({ "name": "mine" })).await;
    let path = |kind: &str, made: &serde_json::Value| format!("/v3/{kind}/{}", made["guid"].as_str().expect("a guid"));
    for (client, path) in [(&client, path("droplets", &droplet)), (&admin, path("buildpacks", &pack))] {
        let bits = Form::new().part("bits", Part::bytes(zip_of(&[("bin/compile", b"x")])).file_name("x.zip"));
        refused(&send(client, &path, bits, Some(&"00".repeat(32))).await, 422, &["was announced"]);
        let (_, body) = client.get(&path).await;
        assert_eq!(body["state"], "AWAITING_UPLOAD", "{body}");
    }
}

#[tokio::test]
async fn an_unusable_droplet_is_refused() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let wish = |count: usize, name: &str| {
        let types: serde_json::Map<String, serde_json::Value> =
            (0..count).map(|n| (format!("{name}{n}"), json!("run"))).collect();
        json!({ "relationships": { "app": { "data": { "guid": app } } }, "process_types": types })
    };
    let (status, made) = client.post("/v3/droplets", wish(100, "t")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    refused(&client.post("/v3/droplets", wish(101, "t")).await, 422, &["101 are named", "at most 100"]);
    refused(&client.post("/v3/droplets", wish(1, &"x".repeat(255))).await, 422, &["256 characters"]);

    // An archive may name more, which come on top.
    let own = json!({ "process_types": { "one-more": "run" } }).to_string();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(own.len() as u64);
    tar.append_data(&mut header, "slipway.json", own.as_bytes()).expect("an entry");
    let bits = tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("an archive");
    let form = Form::new().part("bits", Part::bytes(bits).file_name("droplet.tgz"));
    let path = format!("/v3/droplets/{}", made["guid"].as_str().expect("a guid"));
    refused(&send(&client, &path, form, None).await, 422, &["101 are named"]);
    let form = Form::new().part("bits", Part::bytes(&b"text"[..]).file_name("droplet.txt"));
    let message = "Uploaded droplet file is invalid: droplet.txt is not a tgz";
    refused(&send(&client, &path, form, None).await, 422, &[message]);
    assert_eq!(client.get(&path).await.1["state"], "AWAITING_UPLOAD");
}

/// `cf download-droplet` saves it as `.tgz`, and `cf push --droplet` brings it back.
#[tokio::test]
async fn a_droplet_is_downloaded_as_tgz_and_comes_back_as_it_was() {
    let controller = TestController::start().await;
    let client = controller.admin().await;
    let app = controller.pushed(&client, "web").await;
    let (_, before) = client.get(&format!("/v3/apps/{app}/droplets/current")).await;
    let path = format!("/v3/droplets/{}/download", before["guid"].as_str().expect("a guid"));
    let response = client.request(Method::GET, &path).send().await.expect("an answer");
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(header("content-type").as_deref(), Some("application/gzip"));
    assert_eq!(header("content-length"), None, "it is not known before it is made");
    assert!(header("content-disposition").is_some_and(|name| name.ends_with(".tgz\"")));
    let tgz = response.bytes().await.expect("bytes").to_vec();
    let mut names = Vec::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(&tgz[..])).entries().expect("a tar") {
        names.push(entry.expect("an entry").path().expect("a name").display().to_string());
    }
    assert_eq!(names, ["app/server.js", "slipway.json"]);

    let waiting = async || {
        let body = json!({ "relationships": { "app": { "data": { "guid": app } } } });
        let (status, droplet) = client.post("/v3/droplets", body).await;
        assert_eq!(status, StatusCode::CREATED, "{droplet}");
        droplet["guid"].as_str().expect("a guid").to_owned()
    };
    let send = async |droplet: &str, bits: Vec<u8>| {
        let form = Form::new().part("bits", Part::bytes(bits).file_name("droplet.tgz"));
        let request = client.request(Method::POST, &format!("/v3/droplets/{droplet}/upload"));
        client.send(request.multipart(form)).await
    };
    // Cut off behind what a tar must have: the checksum is missing.
    let droplet = waiting().await;
    let (status, body) = send(&droplet, tgz[..tgz.len() - 4].to_vec()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert!(error(&body).1.contains("the archive is damaged"), "{body}");

    let (status, body) = send(&droplet, tgz).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let (_, after) = client.get(&format!("/v3/droplets/{droplet}")).await;
    assert_eq!((&after["state"], &after["checksum"]), (&json!("STAGED"), &before["checksum"]), "{after}");
    let layers = |guid: &Value| {
        let guid = guid.as_str().expect("a guid").parse::<uuid::Uuid>().expect("a guid");
        sqlx::query_as::<_, (String, Value)>("select format, layers from droplet where guid = $1").bind(guid)
    };
    let pool = &controller.database.pool;
    let (format, stored) = layers(&after["guid"]).fetch_one(pool).await.expect("a droplet");
    assert_eq!((format.as_str(), &stored[0]["line"]), ("tar.zst", &json!("node-22")));
}
