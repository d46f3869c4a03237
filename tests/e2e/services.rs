//! User-provided services, as running apps and drains see them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use slipway_tests::script::WORKER;
use slipway_tests::{Api, Platform, ScriptApp};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// Says what it was given, again and again, so that a drain that comes late hears it too.
const SCRIPT: &str = r#"
while true; do
  echo "VARIABLE ${VCAP_SERVICES:-none}"
  echo "ROOT ${SERVICE_BINDING_ROOT:-none} PATH ${VCAP_SERVICES_FILE_PATH:-none}"
  if [ -d /etc/cf-service-bindings ]; then
    for file in $(find /etc/cf-service-bindings -type f | sort); do
      echo "FILE $file $(stat -c '%a %U' "$file") $(cat "$file")"
    done
    if touch /etc/cf-service-bindings/x 2>/dev/null; then echo WRITABLE; fi
  fi
  sleep 1
done
"#;

type Heard = Arc<Mutex<Vec<String>>>;

/// Takes octet-counted messages of any number of connections.
async fn drain() -> anyhow::Result<(u16, Heard, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let heard: Heard = Arc::default();
    let noted = Arc::clone(&heard);
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heard = Arc::clone(&noted);
            tokio::spawn(async move {
                let mut length = 0_usize;
                while let Ok(byte) = stream.read_u8().await {
                    if byte != b' ' {
                        length = length * 10 + usize::from(byte.wrapping_sub(b'0'));
                        continue;
                    }
                    let mut message = vec![0; length];
                    if stream.read_exact(&mut message).await.is_err() {
                        return;
                    }
                    length = 0;
                    let text = String::from_utf8_lossy(&message).into_owned();
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                }
            });
        }
    });
    Ok((port, heard, task))
}

async fn said(platform: &Platform, app: &str, text: &str) -> anyhow::Result<String> {
    Platform::eventually(text, Duration::from_secs(120), || async {
        let logs = platform.ok(&["logs", app, "--recent"])?.stdout;
        ensure!(logs.contains(text), "so far: {logs}");
        Ok(logs)
    })
    .await
}

async fn restart(api: &Api, app: &str) -> anyhow::Result<()> {
    let (status, body) = api.send(Method::POST, &format!("/v3/apps/{app}/actions/restart"), "").await?;
    ensure!(status == 200, "restart: {status} {body}");
    Ok(())
}

async fn instance(api: &Api, space: &str, name: &str, more: Value) -> anyhow::Result<String> {
    let mut body = json!({
        "type": "user-provided", "name": name, "relationships": { "space": { "data": { "guid": space } } },
    });
    for (key, value) in more.as_object().context("an object")? {
        body[key] = value.clone();
    }
    api.make("/v3/service_instances", body).await
}

pub(crate) async fn bindings_reach_the_app_as_variable_and_files(platform: &mut Platform) -> anyhow::Result<()> {
    let api = Api::admin(platform).await?;
    let space = api.find("spaces", "dev").await?;
    let credentials = json!({ "credentials": { "uri": "pg://secret", "port": 5432 }, "tags": ["sql"] });
    let db = instance(&api, &space, "my-db", credentials).await?;
    let manifest = format!("{WORKER}    services: [my-db]\n");
    let pushed = ScriptApp { name: "bound", script: SCRIPT, manifest: &manifest }.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    let logs = said(platform, "bound", "VARIABLE {\"user-provided\"").await?;
    ensure!(logs.contains("\"uri\":\"pg://secret\"") && logs.contains("\"instance_name\":\"my-db\""), "{logs}");

    let app = api.find("apps", "bound").await?;
    let feature = |name: &str| format!("/v3/apps/{app}/features/{name}");
    let (status, body) = api.send(Method::PATCH, &feature("service-binding-k8s"), r#"{"enabled":true}"#).await?;
    ensure!(status == 200, "{body}");
    restart(&api, &app).await?;
    let logs = said(platform, "bound", "FILE /etc/cf-service-bindings/my-db/uri 400 vcap pg://secret").await?;
    for line in [
        "VARIABLE none",
        "ROOT /etc/cf-service-bindings PATH none",
        "my-db/port 400 vcap 5432",
        "my-db/type 400 vcap user-provided",
    ] {
        ensure!(logs.contains(line), "{line}: {logs}");
    }
    api.send(Method::PATCH, &feature("service-binding-k8s"), r#"{"enabled":false}"#).await?;
    api.send(Method::PATCH, &feature("file-based-vcap-services"), r#"{"enabled":true}"#).await?;
    restart(&api, &app).await?;
    let logs =
        said(platform, "bound", "FILE /etc/cf-service-bindings/vcap_services 400 vcap {\"user-provided\"").await?;
    ensure!(!logs.contains("WRITABLE"), "{logs}");
    platform.ok(&["delete", "bound", "-f"])?;
    api.send(Method::DELETE, &format!("/v3/service_instances/{db}"), "").await?;
    Ok(())
}

pub(crate) async fn lines_of_app_and_router_reach_a_syslog_drain(platform: &mut Platform) -> anyhow::Result<()> {
    let api = Api::admin(platform).await?;
    let space = api.find("spaces", "dev").await?;
    // A site that has lines of its own.
    let site = tempfile::tempdir()?;
    std::fs::create_dir_all(site.path().join("nginx/conf"))?;
    std::fs::write(site.path().join("nginx/conf/log.conf"), "access_log /dev/stdout cloudfoundry;\n")?;
    std::fs::write(site.path().join("Staticfile"), "location_include: log.conf\n")?;
    std::fs::write(site.path().join("index.html"), "a site")?;
    platform.ok(&["push", "drained", "-p", &site.path().to_string_lossy()])?;
    let app = api.find("apps", "drained").await?;
    let (port, heard, task) = drain().await?;
    let url = json!({ "syslog_drain_url": format!("syslog://127.0.0.1:{port}") });
    let instance = instance(&api, &space, "logs", url).await?;
    let end = |guid: &str| json!({ "data": { "guid": guid } });
    let relationships = json!({ "app": end(&app), "service_instance": end(&instance) });
    // The app is not restarted for it.
    api.make("/v3/service_credential_bindings", json!({ "type": "app", "relationships": relationships })).await?;
    let all = Platform::eventually("the drain hears the router", Duration::from_secs(120), || async {
        platform.get("drained", "/for-the-drain").await?;
        let all = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure!(all.iter().any(|text| text.contains("[RTR") && text.contains("/for-the-drain")), "so far: {all:?}");
        Ok(all)
    })
    .await?;
    for text in [
        format!(" {app} ["),
        "app_name=\"drained\"".to_owned(),
        "organization_name=\"".to_owned(),
        ".dev.drained ".to_owned(),
    ] {
        ensure!(all.iter().any(|message| message.contains(&text)), "{text}: {all:?}");
    }
    ensure!(all.iter().all(|message| message.starts_with("<14>1 ") || message.starts_with("<11>1 ")), "{all:?}");
    restart(&api, &app).await?;
    Platform::eventually("the drain hears the app", Duration::from_secs(120), || async {
        platform.get("drained", "/").await?;
        let all = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure!(all.iter().any(|text| text.contains("[APP/PROC/WEB")), "so far: {all:?}");
        Ok(())
    })
    .await?;
    task.abort();
    platform.ok(&["delete", "drained", "-f"])?;
    api.send(Method::DELETE, &format!("/v3/service_instances/{instance}"), "").await?;
    Ok(())
}
