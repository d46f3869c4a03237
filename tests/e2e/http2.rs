//! An app that speaks HTTP/2 alone, as gRPC servers do.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Method;
use serde_json::json;
use slipway_tests::{Api, Platform};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const APP: &str = "streams";
const COUNT: usize = 2;
/// Sends back what comes, piece by piece, and the outcome in trailers. No package: HTTP/2 comes with the runtime.
const SERVER: &str = r#"
const server = require("http2").createServer();
server.on("stream", (stream) => {
  stream.on("error", () => {});
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.respond({ ":status": 200, "x-instance": process.env.CF_INSTANCE_GUID }, { waitForTrailers: true });
  stream.pipe(stream);
});
server.listen(process.env.PORT);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
"#;

type Pieces = ReceiverStream<Result<Frame<Bytes>, Infallible>>;
type Client = SendRequest<StreamBody<Pieces>>;

async fn connect(platform: &Platform) -> anyhow::Result<Client> {
    let stream = TcpStream::connect(platform.router_address()).await?;
    stream.set_nodelay(true)?;
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// One call with a stream both ways: each piece must be back before the next one goes. Gives the instance that answered.
async fn call(mut client: Client, host: &str) -> anyhow::Result<String> {
    let (sender, pieces) = mpsc::channel(1);
    let request = Request::post(format!("http://{host}/echo")).header("te", "trailers");
    let sent = client.send_request(request.body(StreamBody::new(ReceiverStream::new(pieces)))?);
    let response = sent.await.context("no answer")?;
    ensure!(response.status() == 200, "{} {:?}", response.status(), response.headers());
    let instance = response.headers().get("x-instance").context("not from the app")?.to_str()?.to_owned();
    let mut body = response.into_body();
    for piece in ["one", "two", "three"] {
        sender.send(Ok(Frame::data(piece.into()))).await?;
        let mut back = Vec::new();
        while back.len() < piece.len() {
            let frame = body.frame().await.context("the answer ends too early")??;
            back.extend_from_slice(frame.data_ref().context("no data")?);
        }
        ensure!(back == piece.as_bytes(), "{piece} came back as {back:?}");
    }
    drop(sender);
    let mut trailers: Option<HeaderMap> = None;
    while let Some(frame) = body.frame().await {
        trailers = frame?.into_trailers().ok().or(trailers);
    }
    ensure!(trailers.context("no trailers")?.get("grpc-status").is_some_and(|status| status == "0"));
    Ok(instance)
}

async fn protocol(api: &Api, route: &str, protocol: &str) -> anyhow::Result<()> {
    let path = format!("/v3/routes/{route}/destinations");
    let (_, destinations) = api.send(Method::GET, &path, "").await?;
    let guid = destinations["destinations"][0]["guid"].as_str().context("no destination")?.to_owned();
    let (status, body) =
        api.send(Method::PATCH, &format!("{path}/{guid}"), json!({ "protocol": protocol }).to_string()).await?;
    ensure!(status == 200 && body["protocol"] == protocol, "{status} {body}");
    Ok(())
}

pub(crate) async fn streams_go_both_ways_and_no_call_fails_in_a_deployment(
    platform: &mut Platform,
) -> anyhow::Result<()> {
    let (host, directory) = (Platform::host(APP), platform.path("apps").join(APP));
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("server.js"), SERVER)?;
    std::fs::write(directory.join("package.json"), json!({ "name": APP, "version": "1.0.0" }).to_string())?;
    let manifest = json!({ "applications": [{
        "name": APP, "memory": "96M", "instances": COUNT, "command": "node server.js", "health-check-type": "port",
        "routes": [{ "route": host, "protocol": "http2" }],
    }] });
    std::fs::write(directory.join("manifest.yml"), manifest.to_string())?;
    let manifest = directory.join("manifest.yml");
    platform.ok(&["push", "-p", &directory.to_string_lossy(), "-f", &manifest.to_string_lossy()])?;
    let client = connect(platform).await?;
    call(client.clone(), &host).await?;
    // Whoever speaks HTTP/1.1 reaches it as well.
    let (status, body) = platform.get(APP, "/").await?;
    ensure!(status == 200 && body.is_empty(), "{status} {body}");

    // The protocol of the destination is what routers go by: spoken to by HTTP/1.1, this app understands nothing.
    let api = Api::admin(platform).await?;
    let (_, routes) = api.send(Method::GET, &format!("/v3/routes?hosts={APP}"), "").await?;
    let route = routes["resources"][0]["guid"].as_str().context("no route")?.to_owned();
    protocol(&api, &route, "http1").await?;
    ensure!(platform.get(APP, "/").await?.0 == 502, "it was spoken to by HTTP/1.1");
    protocol(&api, &route, "http2").await?;
    call(client.clone(), &host).await?;

    let app = api.find("apps", APP).await?;
    let body = json!({ "relationships": { "app": { "data": { "guid": app } } } });
    let deployment = api.make("/v3/deployments", body).await?;
    let mut instances = std::collections::BTreeSet::new();
    let mut calls = 0;
    let limit = tokio::time::Instant::now() + Duration::from_secs(180);
    loop {
        let several = (0..10).map(|_| call(client.clone(), &host));
        for answer in futures::future::join_all(several).await {
            instances.insert(answer.with_context(|| format!("after {calls} calls"))?);
            calls += 1;
        }
        let (_, state) = api.send(Method::GET, &format!("/v3/deployments/{deployment}"), "").await?;
        match (state["status"]["value"].as_str(), state["status"]["reason"].as_str()) {
            (Some("FINALIZED"), Some("DEPLOYED")) => break,
            (Some("ACTIVE"), _) => ensure!(tokio::time::Instant::now() < limit, "not within the limit: {state}"),
            _ => bail!("{state}"),
        }
    }
    println!("    {calls} calls by HTTP/2 during a deployment, none failed; {} instances answered", instances.len());
    ensure!(instances.len() > COUNT, "old and new ones: {instances:?}");
    platform.ok(&["delete", APP, "-f", "-r"])?;
    Ok(())
}
