//! The object store: content names itself, and what is spoken of, or will be in a moment, stays.

use bytes::Bytes;
use futures::TryStreamExt as _;
use serde_json::json;
use slipway_controller::blobs::{BlobDigest, BlobError};
use slipway_controller::store::apps::app_build_cache_tx;
use slipway_controller::store::list::Visible;
use slipway_controller::store::space_files::FileRow;
use slipway_controller::store::stored::SETTLE_S;
use slipway_protocol::digest::sha256;

use crate::support::TestController;
use crate::support::apps::{app_of, package, ready_package};

async fn there(controller: &TestController, digest: &BlobDigest) -> bool {
    controller.context.blobs.exists(digest).await.expect("an answer")
}

/// Lets all blobs settle.
async fn settle(controller: &TestController) {
    sqlx::query("update blob set put_at = put_at - make_interval(secs => $1)")
        .bind(SETTLE_S)
        .execute(&controller.database.pool)
        .await
        .expect("settled");
}

#[tokio::test]
async fn content_names_itself() {
    let controller = TestController::start().await;
    let blobs = &controller.context.blobs;
    let digest = controller.put_blob(b"hello").await;
    assert_eq!(digest, sha256(b"hello"));
    assert_eq!(controller.put_blob(b"hello").await, digest);
    let read = async |offset| {
        let pieces: Vec<Bytes> = blobs.read(&digest, offset).await.expect("there").try_collect().await.expect("read");
        pieces.concat()
    };
    assert_eq!(read(0).await, b"hello");
    assert_eq!(read(3).await, b"lo");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), b"other").expect("written");
    let wrong = blobs.put_file_as(file.path(), &digest).await.expect_err("another content");
    assert!(
        matches!(&wrong, BlobError::WrongDigest { found, .. } if *found == hex::encode(sha256(b"other"))),
        "{wrong}"
    );
    assert!(!there(&controller, &sha256(b"other")).await);
}

#[tokio::test]
async fn a_damaged_blob_is_stored_again_when_its_content_comes_again() {
    let controller = TestController::start().await;
    let digest = controller.put_blob(b"a droplet").await;
    let name = hex::encode(digest);
    let path = controller.context.config.blob_directory.join("sha256").join(&name[..2]).join(&name);
    // As a power cut leaves a file whose content had not reached the disk.
    std::fs::write(&path, b"").expect("cut short");
    assert_eq!(controller.put_blob(b"a droplet").await, digest);
    assert_eq!(std::fs::read(&path).expect("read"), b"a droplet");
}

#[tokio::test]
async fn fresh_blobs_are_not_removed_and_unreferenced_ones_are_later() {
    let controller = TestController::start().await;
    let blobs = &controller.context.blobs;
    let digest = controller.put_blob(b"a droplet").await;
    // Somebody else gives up the same content before the row of the new droplet is there.
    blobs.remove_unused(&[digest.to_vec()]).await;
    assert!(there(&controller, &digest).await);
    blobs.sweep().await.expect("swept");
    assert!(there(&controller, &digest).await);

    // Nobody came: it was an upload that broke off.
    settle(&controller).await;
    // Put again, it counts as new.
    assert_eq!(controller.put_blob(b"a droplet").await, digest);
    blobs.sweep().await.expect("swept");
    assert!(there(&controller, &digest).await);
    settle(&controller).await;
    blobs.sweep().await.expect("swept");
    assert!(!there(&controller, &digest).await);
    assert_eq!(controller.put_blob(b"a droplet").await, digest);
    assert!(there(&controller, &digest).await);

    // Of a time when puts were not noted.
    sqlx::query("delete from blob").execute(&controller.database.pool).await.expect("forgotten");
    blobs.remove_unused(&[digest.to_vec()]).await;
    assert!(!there(&controller, &digest).await);
}

#[tokio::test]
async fn a_file_that_no_upload_speaks_of_any_more_is_given_up() {
    let controller = TestController::start().await;
    let (blobs, store) = (&controller.context.blobs, &controller.context.store);
    let mut files = Vec::new();
    for number in 0..3 {
        let blob = controller.put_blob(format!("file {number}").as_bytes()).await;
        files.push((blob, FileRow { sha1: vec![number; 20], size: 6, blob: blob.to_vec() }));
    }
    let rows: Vec<_> = files.iter().map(|(_, row)| row.clone()).collect();
    let (_, space) = controller.dev().await;
    store.files_remember(space, &rows).await.expect("remembered");
    settle(&controller).await;
    blobs.sweep().await.expect("swept");
    // They are in use; without a reason nobody looks at their blobs again.
    for (row, days) in rows.iter().zip([29, 31, 31]) {
        sqlx::query("update space_file set used_at = now() - make_interval(days => $1) where sha1 = $2")
            .bind(days)
            .bind(&row.sha1)
            .execute(&controller.database.pool)
            .await
            .expect("aged");
    }
    // The last one is asked for once more.
    assert_eq!(
        store.files_known(&Visible::Only(vec![space]), &[rows[2].sha1.clone()], &[6]).await.expect("an answer").len(),
        1
    );
    blobs.sweep().await.expect("swept");
    let sha1s: Vec<_> = rows.iter().map(|row| row.sha1.clone()).collect();
    let known = store.files_known(&Visible::All, &sha1s, &[6; 3]).await.expect("an answer");
    assert_eq!(known.len(), 2, "{known:?}");
    for (number, (blob, _)) in files.iter().enumerate() {
        assert_eq!(there(&controller, blob).await, number != 1, "file {number}");
    }
    // What the packages of a space held goes with it.
    sqlx::query("update space_file set space_guid = gen_random_uuid()")
        .execute(&controller.database.pool)
        .await
        .expect("gone");
    settle(&controller).await;
    blobs.sweep().await.expect("swept");
    for (blob, _) in files {
        assert!(!there(&controller, &blob).await);
    }
}

#[tokio::test]
async fn the_cache_of_an_older_build_is_removed_when_another_takes_its_place() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app: uuid::Uuid = app_of(&client, space, "a", "").await.parse().expect("a guid");
    let keep = async |cache: &BlobDigest| {
        let mut tx = slipway_controller::store::begin(&controller.database.pool).await.expect("a transaction");
        app_build_cache_tx(&mut tx, app, cache, 1).await.expect("kept");
        tx.commit().await.expect("committed");
    };
    let sweep = async || controller.context.blobs.sweep().await.expect("swept");
    let first = controller.put_blob(b"the first cache").await;
    keep(&first).await;
    settle(&controller).await;
    sweep().await;
    assert!(there(&controller, &first).await);
    let second = controller.put_blob(b"the second cache").await;
    keep(&second).await;
    sweep().await;
    assert!(there(&controller, &first).await, "a build that has begun may still fetch it");
    settle(&controller).await;
    sweep().await;
    assert!(!there(&controller, &first).await);
    // The same once more is the same.
    keep(&second).await;
    settle(&controller).await;
    sweep().await;
    assert!(there(&controller, &second).await);
}

#[tokio::test]
async fn a_put_waits_for_the_removal_of_the_same_content() {
    let controller = TestController::start().await;
    let digest = controller.put_blob(b"x").await;
    // A removal that is under way holds the note of the blob.
    let mut removal = controller.context.store.begin().await.expect("a transaction");
    sqlx::query("delete from blob where digest = $1").bind(&digest[..]).execute(&mut *removal).await.expect("held");
    let put = controller.put_blob(b"x");
    tokio::pin!(put);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut put).await;
    assert!(early.is_err(), "it looked whether the blob is there while it was being removed");
    let name = hex::encode(digest);
    let path = controller.context.config.blob_directory.join("sha256").join(&name[..2]).join(&name);
    std::fs::remove_file(path).expect("removed");
    removal.commit().await.expect("over");
    assert_eq!(put.await, digest);
    assert!(there(&controller, &digest).await);
}

#[tokio::test]
async fn a_copy_keeps_the_blob_of_a_package_that_is_deleted() {
    let controller = TestController::start().await;
    let client = controller.user_with("dev@example.com", "space_developer").await;
    let (_, space) = controller.dev().await;
    let app = app_of(&client, space, "a", "").await;
    let first = ready_package(&client, &app).await;
    let (_, shown) = client.get(&format!("/v3/packages/{first}")).await;
    let blob = hex::decode(shown["data"]["checksum"]["value"].as_str().expect("a digest")).expect("hex");
    let digest = BlobDigest::try_from(&blob[..]).expect("a digest");
    let copied = json!({ "relationships": { "app": { "data": { "guid": app } } } });
    let (status, copy) = client.post(&format!("/v3/packages?source_guid={first}"), copied.clone()).await;
    assert_eq!(status, 201, "{copy}");
    settle(&controller).await;
    client.delete_job(&format!("/v3/packages/{first}")).await;
    assert!(there(&controller, &digest).await);
    client.delete_job(&format!("/v3/packages/{}", copy["guid"].as_str().expect("a guid"))).await;
    assert!(!there(&controller, &digest).await);

    // One that has nothing yet gives nothing.
    let waiting = package(&client, &app).await;
    let (status, body) = client.post(&format!("/v3/packages?source_guid={waiting}"), copied).await;
    assert_eq!(status, 422, "{body}");

    // A copy that has begun holds its source: the removal comes after it and sees it.
    let source = ready_package(&client, &app).await;
    let mut copying = controller.context.store.begin().await.expect("a transaction");
    let guid = source.parse().expect("a guid");
    let row = slipway_controller::store::blobs::package_keep_tx(&mut copying, guid).await.expect("an answer");
    assert!(row.is_some());
    let held = sqlx::query("select 1 from package where guid = $1 for update nowait")
        .bind(guid)
        .execute(&controller.database.pool)
        .await;
    assert!(held.is_err());
}
