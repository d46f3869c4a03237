use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use url::Url;
use uuid::Uuid;

use super::super::credential::Credential;
use super::super::upstream::Registry;
use super::*;
use crate::staging::host_settings::OutgoingSettings;

/// A registry that writes these pieces, with a moment between them, to whoever connects; the last of them without end.
async fn registry(pieces: &'static [&'static str]) -> (Arc<Registry>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).await.expect("a request");
            assert!(String::from_utf8_lossy(&head[..length]).contains("accept-encoding: identity\r\n"));
            let last = std::iter::repeat(pieces.last().copied().unwrap_or_default());
            for piece in pieces.iter().copied().chain(last) {
                if stream.write_all(piece.as_bytes()).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let registry = Registry {
        name: "npm".to_owned(),
        base: Url::parse(&base).expect("an address"),
        credential: Credential::None,
        file_hosts: Vec::new(),
    };
    (Arc::new(registry), AbortOnDropHandle::new(server))
}

fn order(registry: &Arc<Registry>) -> Order {
    Order {
        key: "x".to_owned(),
        what: "x".to_owned(),
        registry: Arc::clone(registry),
        url: registry.base.join("x").expect("an address"),
        accept: "*/*",
        most: 1 << 20,
        expected: None,
        document: None,
        check: None,
    }
}

fn fetcher(home: &std::path::Path, registry: &Arc<Registry>) -> Fetcher {
    let store = Arc::new(Store::open(home, 64 << 20, false).expect("a store"));
    let upstream = Upstream::new(&OutgoingSettings::default(), &[Arc::clone(registry)]).expect("clients");
    Fetcher::new(store, upstream, false)
}

fn guest() -> Guest {
    Guest::new(Uuid::nil(), Arc::new(Share::new()), Arc::new(|_, _| ()))
}

#[tokio::test]
async fn a_download_without_end_is_given_up() {
    let home = tempfile::tempdir().expect("directory");
    let (registry, _server) = registry(&["HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", "x"]).await;
    let fetcher = fetcher(home.path(), &registry);
    let fetcher = Fetcher { longest: Duration::from_millis(300), ..fetcher };
    let fetcher = Arc::new(fetcher);
    let guest = guest();
    let fault = fetcher.whole(order(&registry), &guest).await.expect_err("without an end");
    assert!(fault.is_unavailable && fault.text.contains("did not send all of x"), "{fault:?}");
    assert!(fetcher.flights.lock().expect("flights").is_empty());
}

#[tokio::test]
async fn downloads_of_different_addresses_are_not_shared() {
    let (registry, _server) = registry(&[]).await;
    let (one, other) =
        (order(&registry), Order { url: registry.base.join("y").expect("an address"), ..order(&registry) });
    assert!(one.key == other.key && one.flight() != other.flight());
}

#[tokio::test]
async fn a_compressed_document_is_refused() {
    let home = tempfile::tempdir().expect("directory");
    let (registry, _server) =
        registry(&["HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", ""]).await;
    let order = Order { check: Some(|_, _| Ok(())), ..order(&registry) };
    let fault = Arc::new(fetcher(home.path(), &registry)).whole(order, &guest()).await.expect_err("packed");
    assert!(fault.text.contains("a coding that nobody has asked for"), "{fault:?}");
}

#[tokio::test]
async fn one_build_s_full_share_does_not_stop_another_build() {
    let home = tempfile::tempdir().expect("directory");
    let (registry, _server) =
        registry(&["HTTP/1.1 200 OK\r\ncontent-length: 20\r\nconnection: close\r\n\r\n", "x"]).await;
    let fetcher = Arc::new(fetcher(home.path(), &registry));
    let order = Order { check: Some(|_, _| Ok(())), ..order(&registry) };
    let full = guest();
    full.share.fetched.store(32 << 20, std::sync::atomic::Ordering::Relaxed);
    let (first, ordered) = (Arc::clone(&fetcher), order.clone());
    let first = tokio::spawn(async move { first.whole(ordered, &full).await });
    while fetcher.flights.lock().expect("flights").is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(fetcher.whole(order, &guest()).await.expect("a document").label.length, 20);
    let fault = first.await.expect("an end").expect_err("no room");
    assert!(fault.text.contains("of this build are under way"), "{fault:?}");
}
