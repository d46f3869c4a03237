//! Peers that send what they should not.

use bytes::Bytes;
use slipway_protocol::Role;
use slipway_protocol::v1::blobs_client::BlobsClient;
use slipway_protocol::v1::cell_control_client::CellControlClient;
use slipway_protocol::v1::cell_message::Message;
use slipway_protocol::v1::{self, InstanceState, Intent, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use uuid::Uuid;

use crate::harness::Harness;
use crate::sim::{SimCell, SimRouter, cell_hello};

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_hello_is_refused_and_leaves_nothing() {
    let harness = Harness::start().await;
    let id = Uuid::new_v4();
    let good = || cell_hello(&harness, id, "z1");
    let info = |change: fn(&mut v1::CellInfo)| {
        let mut hello = good();
        change(hello.cell.as_mut().expect("info"));
        hello
    };
    let bad = [
        (v1::Hello { cluster_id: Uuid::new_v4().to_string(), ..good() }, Code::FailedPrecondition, "this is cluster"),
        (v1::Hello { cluster_id: "x".into(), ..good() }, Code::FailedPrecondition, "this is cluster"),
        (v1::Hello { node_id: Uuid::new_v4().to_string(), ..good() }, Code::PermissionDenied, "the certificate is of"),
        (v1::Hello { session: "1".into(), ..good() }, Code::InvalidArgument, "is no uuid"),
        (v1::Hello { digest: Bytes::from_static(b"short"), ..good() }, Code::InvalidArgument, "a digest of 5 bytes"),
        (v1::Hello { cell: None, ..good() }, Code::InvalidArgument, "must describe itself"),
        (info(|info| info.slots = 100_000), Code::InvalidArgument, "100000 slots"),
        (info(|info| info.advertise_mode = "magic".into()), Code::InvalidArgument, "advertise mode"),
        (
            info(|info| info.query_address = "10.9.8.7:22".into()),
            Code::PermissionDenied,
            "query address \"10.9.8.7:22\"",
        ),
        (info(|info| info.advertise_host = "10.9.8.7".into()), Code::PermissionDenied, "advertised host \"10.9.8.7\""),
        (
            info(|info| {
                info.advertise_mode = "direct".into();
                info.instance_network = "0.0.0.0/0".into();
            }),
            Code::InvalidArgument,
            "network of instances",
        ),
        (info(|info| info.memory_mb = 0), Code::InvalidArgument, "memory must be set"),
    ];
    for (hello, code, text) in bad {
        let status = SimCell::with_hello(&harness, id, hello).await.ended().await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    assert_eq!(harness.count("select count(*) from cell").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_opens_nothing_that_belongs_to_cells() {
    let harness = Harness::start().await;
    let credentials = harness.credentials(Role::Router, Uuid::new_v4());
    let channel = harness.channel(&credentials);
    let specs = CellControlClient::new(channel.clone()).get_specs(v1::SpecRequest::default()).await;
    assert_eq!(specs.expect_err("refused").code(), Code::PermissionDenied);
    let blob = BlobsClient::new(channel).get(v1::BlobRequest::default()).await;
    assert_eq!(blob.expect_err("refused").code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_served_to_routers_by_the_cluster_s_tls() {
    let harness = Harness::start().await;
    let ask = async |role| {
        let mut stream = harness.dial(role, b"http/1.1").await;
        // Who is not let in may be cut off while it writes or while it reads.
        let _ = stream.write_all(b"GET /v3/info HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = ask(Role::Router).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    for role in [Role::Cell, Role::Controller] {
        assert_eq!(ask(role).await, "", "{role}");
    }
    // Routers are told to come that way.
    let registered: (String, bool) =
        sqlx::query_as("select api_address, api_tls from controller").fetch_one(harness.pool()).await.expect("a row");
    assert_eq!(registered, (harness.cluster.clone(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_get_the_addresses_of_routers_as_soon_as_they_are_known() {
    let harness = Harness::start().await;
    let cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let await_routers = async |what: &str, wanted: &[&str]| {
        slipway_test_support::eventually(what, crate::harness::LIMIT, || async {
            let members = cell.seen.lock().expect("lock").members.clone();
            let routers = members.and_then(|members| members.routers).map(|routers| routers.addresses);
            if routers.as_ref().is_some_and(|routers| routers == wanted) { Ok(()) } else { Err(routers) }
        })
        .await;
    };
    await_routers("no router", &[]).await;
    let _router = SimRouter::connect(&harness, Uuid::new_v4()).await;
    await_routers("one router", &["127.0.0.1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_assignments_are_purged_and_unknown_states_refused() {
    let harness = Harness::start().await;
    let mut cell = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    let stranger = Uuid::new_v4().to_string();
    let running = cell.observation(&stranger, InstanceState::Running);
    cell.report(vec![running]).await;
    cell.acked().await;
    slipway_test_support::eventually("purge", crate::harness::LIMIT, || async {
        cell.seen.lock().expect("lock").purged.contains(&stranger).then_some(()).ok_or(())
    })
    .await;
    let mut odd = cell.observation(&stranger, InstanceState::Running);
    odd.state = 99;
    cell.report(vec![odd]).await;
    let status = cell.ended().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("the state 99"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_knows_more_raises_the_epoch_and_nothing_stops() {
    let harness = Harness::start().await;
    let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut cell = SimCell::connect(&harness, id, "z1").await;
    harness.app("kept", 1, 128).await;
    let assigned = cell.assigned(Intent::Run, 1).await;
    cell.run_all(&assigned).await;
    let counter = cell.counter;
    drop(cell);
    let from_before = |id, epoch, seq| v1::Hello {
        version: Some(Version::new(epoch, seq)),
        digest: Bytes::from(vec![1; 32]),
        ..cell_hello(&harness, id, "z1")
    };
    let mut cell = SimCell::with_hello(&harness, id, from_before(id, 3, 1_000_000)).await;
    let same = cell.assigned(Intent::Run, 1).await;
    assert_eq!(same[0].id, assigned[0].id);
    let version = cell.seen.lock().expect("lock").version;
    assert!(version > Version::new(3, 1_000_000));
    assert_eq!(harness.count("select epoch from store_identity").await, 4);

    // What the database lost is kept: on this cell, on one that comes from before the rise, also in a later session
    // that is up to date.
    let mut elsewhere = SimCell::with_hello(&harness, other, from_before(other, 3, 999)).await;
    elsewhere.welcomed().await;
    let mut fresh = SimCell::connect(&harness, Uuid::new_v4(), "z1").await;
    cell.counter = counter;
    let lost = Uuid::new_v4().to_string();
    for _ in 0..2 {
        for cell in [&mut cell, &mut elsewhere, &mut fresh] {
            let running = cell.observation(&lost, InstanceState::Running);
            cell.report(vec![running]).await;
            cell.acked().await;
        }
        // A purge comes right after the acknowledgement: once the new cell has its own, the others would have theirs.
        slipway_test_support::eventually("purge", crate::harness::LIMIT, || async {
            fresh.seen.lock().expect("lock").purged.contains(&lost).then_some(()).ok_or(())
        })
        .await;
        assert!(cell.seen.lock().expect("lock").purged.is_empty());
        assert!(elsewhere.seen.lock().expect("lock").purged.is_empty());
        let counter = cell.counter;
        drop(cell);
        let hello = v1::Hello { version: Some(version), ..cell_hello(&harness, id, "z1") };
        cell = SimCell::with_hello(&harness, id, hello).await;
        cell.counter = counter;
        cell.assigned(Intent::Run, 1).await;
    }
    assert_eq!(harness.count("select epoch from store_identity").await, 4, "risen once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_reads_only_its_own_specs() {
    let harness = Harness::start().await;
    let (mine, other) = (Uuid::new_v4(), Uuid::new_v4());
    let cell = SimCell::connect(&harness, mine, "z1").await;
    harness.app("secretive", 1, 128).await;
    let assigned = cell.assigned(Intent::Run, 1).await;
    let digest = assigned[0].spec_digest.clone();
    let ask = |id| {
        let channel = harness.channel(&harness.credentials(Role::Cell, id));
        let digests = vec![digest.clone(), Bytes::from_static(b"garbage")];
        async move {
            CellControlClient::new(channel)
                .get_specs(v1::SpecRequest { digests })
                .await
                .expect("reply")
                .into_inner()
                .specs
        }
    };
    let specs = ask(mine).await;
    assert_eq!(specs.len(), 1);
    assert_eq!(slipway_protocol::digest::sha256(&specs[0].body)[..], digest[..]);
    assert!(ask(other).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_go_both_ways_and_a_cut_upload_leaves_nothing() {
    let harness = Harness::start().await;
    let channel = harness.channel(&harness.credentials(Role::Cell, Uuid::new_v4()));
    let mut client = BlobsClient::new(channel);
    let chunk = |text: &'static str| v1::BlobChunk { data: Bytes::from_static(text.as_bytes()) };
    let info = client.put(futures::stream::iter([chunk("hel"), chunk("lo")])).await.expect("put").into_inner();
    assert_eq!(info.digest[..], slipway_protocol::digest::sha256(b"hello"));
    let request = v1::BlobRequest { digest: info.digest.clone(), offset: 3 };
    let mut stream = client.get(request).await.expect("get").into_inner();
    assert_eq!(stream.message().await.expect("chunk").expect("data").data, "lo");
    for digest in [Bytes::from_static(b"x"), Bytes::from(vec![0; 32])] {
        let status = client.get(v1::BlobRequest { digest, offset: 0 }).await.expect_err("refused");
        assert!(matches!(status.code(), Code::InvalidArgument | Code::NotFound), "{status:?}");
    }

    let (out, receiver) = tokio::sync::mpsc::channel(4);
    out.send(chunk("half")).await.expect("send");
    let upload = tokio::spawn({
        let mut client = client.clone();
        async move { client.put(tokio_stream::wrappers::ReceiverStream::new(receiver)).await }
    });
    let files = || std::fs::read_dir(harness.blobs()).expect("dir").count();
    slipway_test_support::eventually("the upload", crate::harness::LIMIT, || async {
        if files() == 2 { Ok(()) } else { Err(files()) }
    })
    .await;
    upload.abort();
    slipway_test_support::eventually("its removal", crate::harness::LIMIT, || async {
        if files() == 1 { Ok(()) } else { Err(files()) }
    })
    .await;
    drop(out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_gets_only_blobs_of_what_is_placed_on_it() {
    let harness = Harness::start().await;
    let (app, _) = harness.app("shop", 1, 64).await;
    let id = Uuid::new_v4();
    let mut own = BlobsClient::new(harness.channel(&harness.credentials(Role::Cell, id)));
    let mut other = BlobsClient::new(harness.channel(&harness.credentials(Role::Cell, Uuid::new_v4())));
    let chunk = v1::BlobChunk { data: Bytes::from_static(b"a droplet") };
    let digest = own.put(futures::stream::iter([chunk])).await.expect("put").into_inner().digest;
    let request = || v1::BlobRequest { digest: digest.clone(), offset: 0 };
    assert!(other.get(request()).await.is_ok(), "it is nobody's yet");

    sqlx::query("insert into droplet (guid, app_guid, state, blob) values ($1, $2, 'STAGED', $3)")
        .bind(Uuid::new_v4())
        .bind(app)
        .bind(&digest[..])
        .execute(harness.pool())
        .await
        .expect("a droplet");
    for client in [&mut own, &mut other] {
        let refused = client.get(request()).await.expect_err("nothing of the app is on these cells");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }

    let cell = SimCell::connect(&harness, id, "z1").await;
    cell.assigned(Intent::Run, 1).await;
    sqlx::query("update spec set blobs = array[$1::bytea]")
        .bind(&digest[..])
        .execute(harness.pool())
        .await
        .expect("named");
    assert!(own.get(request()).await.is_ok(), "the assignment names it");
    assert_eq!(other.get(request()).await.expect_err("not on this one").code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_elsewhere_is_refused() {
    let harness = Harness::start().await;
    harness.app("shop", 1, 64).await;
    let id = Uuid::new_v4();
    for (host, port) in [("10.9.8.7", 61_000), ("127.0.0.1", 5432), ("metadata.test", 61_000)] {
        let cell = SimCell::connect(&harness, id, "z1").await;
        let assignment = cell.assigned(Intent::Run, 1).await.remove(0);
        let observation = v1::Observation {
            counter: 1,
            assignment_id: assignment.id,
            state: InstanceState::Running.into(),
            ready: true,
            endpoint: Some(v1::Endpoint { host: host.into(), port }),
            ..v1::Observation::default()
        };
        cell.send(Message::Observations(v1::Observations { observations: vec![observation] })).await;
        let status = cell.ended().await;
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert!(status.message().contains(host), "{status:?}");
    }
    let routed: i64 = sqlx::query_scalar("select count(*) from assignment where host is not null")
        .fetch_one(harness.pool())
        .await
        .expect("counted");
    assert_eq!(routed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_after_the_hello_ends_the_session_only() {
    let harness = Harness::start().await;
    let id = Uuid::new_v4();
    let cell = SimCell::connect(&harness, id, "z1").await;
    cell.send(Message::Applied(v1::Applied { version: None, digest: Bytes::from_static(b"garbage") })).await;
    assert_eq!(cell.ended().await.code(), Code::InvalidArgument);
    SimCell::connect(&harness, id, "z1").await.assigned(Intent::Run, 0).await;
}
