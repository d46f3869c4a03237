//! The other commands against the simulated platform, and platforms that answer badly.

mod support;

use serde_json::{Value, json};
use slipway_cli::Exit;
use support::{Instead, Platform, api_error, envelope};

#[tokio::test]
async fn a_login_targets_what_there_is_and_stores_no_password() {
    let platform = Platform::start().await;
    let ran = platform.run_answering(&["login"], &["admin", "wrong", "secret-word"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    insta::assert_snapshot!(ran.out);
    assert!(ran.err.contains("User name or password is wrong."));
    let config = platform.config().to_string();
    assert!(!config.contains("secret-word") && !ran.err.contains("secret-word"));
    assert_eq!(platform.config()["space"]["guid"], "space-1");
    let ran = platform.run(&["target", "--json"]).await;
    assert!(!ran.out.contains("signature"), "no token is printed");
    assert_eq!(platform.run(&["logout"]).await.exit, Exit::Success);
    assert_eq!(platform.config()["access_token"], "");
    assert_eq!(platform.run(&["apps"]).await.exit, Exit::Denied);
}

#[tokio::test]
async fn wrong_passwords_end_after_three() {
    let platform = Platform::start().await;
    let ran = platform.run_answering(&["login", "-u", "admin"], &["a", "b", "c", "secret-word"]).await;
    assert_eq!(ran.exit, Exit::Denied);
    insta::assert_snapshot!(ran.err);
    let nobody = platform.run(&["login", "-u", "admin"]).await;
    assert_eq!(nobody.exit, Exit::Usage, "nobody answers the prompt: {}", nobody.err);
    assert!(
        nobody.err.contains("The password is not given") && nobody.err.contains("SLIPWAY_PASSWORD"),
        "{}",
        nobody.err
    );
    assert_eq!(platform.run(&["login", "-a", "ftp://x"]).await.exit, Exit::Usage);
    let variables = [("SLIPWAY_CA", "missing.pem")];
    let ran = platform.run_with_variables(&["login"], &[], &variables).await;
    assert!(ran.exit == Exit::Usage && ran.err.contains("WORK/missing.pem"), "{}", ran.err);
}

#[tokio::test]
async fn tables_and_json_show_the_same() {
    let platform = Platform::logged_in().await;
    {
        let mut world = platform.lock();
        (world.app_exists, world.app_runs) = (true, true);
    }
    let mut all = String::new();
    for args in [
        &["orgs"][..],
        &["spaces"],
        &["apps"],
        &["app", "web"],
        &["routes"],
        &["domains"],
        &["events", "web"],
        &["tasks", "web"],
        &["stacks"],
        &["buildpacks"],
        &["env", "web"],
    ] {
        let ran = platform.run(args).await;
        assert_eq!(ran.exit, Exit::Success, "{args:?}: {}", ran.err);
        all.push_str(&format!("$ {}\n{}{}", args.join(" "), ran.out, ran.err));
        let mut with_json = args.to_vec();
        with_json.push("--json");
        let ran = platform.run(&with_json).await;
        serde_json::from_str::<Value>(&ran.out).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", ran.out));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn changes_send_what_they_say() {
    let platform = Platform::logged_in().await;
    platform.lock().app_exists = true;
    let succeed = async |args: &[&str]| {
        let ran = platform.run(args).await;
        assert_eq!(ran.exit, Exit::Success, "{args:?}: {}", ran.err);
        ran
    };
    succeed(&["set-env", "web", "KEY", "-value"]).await;
    let sent = |call: &str| serde_json::from_str::<Value>(&platform.lock().bodies[call]).expect("JSON");
    assert_eq!(sent("PATCH /v3/apps/app-1/environment_variables"), json!({ "var": { "KEY": "-value" } }));
    succeed(&["unset-env", "web", "LEVEL"]).await;
    assert_eq!(sent("PATCH /v3/apps/app-1/environment_variables"), json!({ "var": { "LEVEL": null } }));
    assert!(succeed(&["unset-env", "web", "NOPE"]).await.err.contains("is not set"));
    succeed(&["scale", "web", "-i", "3", "-m", "1G", "-f"]).await;
    assert_eq!(
        sent("POST /v3/apps/app-1/processes/web/actions/scale"),
        json!({ "instances": 3, "memory_in_mb": 1024 })
    );
    assert_eq!(succeed(&["restart", "web"]).await.out, "http://web.slipway.localhost:PORT\n");
    succeed(&["restage", "web"]).await;
    succeed(&["stop", "web"]).await;
    platform.lock().calls.clear();
    succeed(&["map-route", "web", "slipway.localhost", "-n", "web"]).await;
    let calls = platform.lock().calls.join("\n");
    assert!(calls.contains("hosts=web&paths=&"), "the empty path is sent: {calls}");
    assert!(!calls.contains("POST") && !calls.contains("PATCH"), "it is mapped already: {calls}");
    succeed(&["map-route", "web", "slipway.localhost", "-n", "web", "--app-protocol", "http2"]).await;
    assert_eq!(sent("PATCH /v3/routes/route-1/destinations/d-1"), json!({ "protocol": "http2" }));
    let refused = platform.run(&["map-route", "web", "slipway.localhost", "--app-protocol", "http3"]).await;
    assert!(refused.err.contains("http1") && refused.err.contains("http2"), "{}", refused.err);
}

#[tokio::test]
async fn an_address_in_place_of_a_domain_is_taken_apart() {
    let platform = Platform::logged_in().await;
    {
        let mut world = platform.lock();
        world.app_exists = true;
        let list = |all: Value| json!({ "pagination": { "next": null }, "resources": all });
        world.answers.insert("GET /v3/domains".into(), list(json!([])));
        world.answers.insert(
            "GET /v3/service_instances".into(),
            list(json!([{ "guid": "s", "name": "guard", "type": "user-provided" }])),
        );
    }
    for (args, advice) in [
        (&["map-route", "web", "good.slipway.localhost"][..], "`slipway map-route web slipway.localhost -n good`"),
        (&["unmap-route", "web", "good.slipway.localhost"], "`slipway unmap-route web slipway.localhost -n good`"),
        (
            &["create-route", "http://good.slipway.localhost/v1"],
            "`slipway create-route slipway.localhost -n good --path /v1`",
        ),
        (&["delete-route", "good.slipway.localhost", "-f"], "`slipway delete-route slipway.localhost -n good`"),
        (
            &["bind-route-service", "guard", "good.slipway.localhost"],
            "`slipway bind-route-service guard slipway.localhost -n good`",
        ),
    ] {
        let ran = platform.run(args).await;
        assert!(ran.exit == Exit::Usage && ran.err.contains(advice), "{args:?}: {}", ran.err);
    }
    for unknown in ["good.example.com", "badslipway.localhost", "a.b.slipway.localhost"] {
        let ran = platform.run(&["map-route", "web", unknown]).await;
        assert_eq!(ran.exit, Exit::NotFound, "{unknown}: {}", ran.err);
    }
}

#[tokio::test]
async fn a_route_of_another_app_is_said_to_lead_to_both() {
    let platform = Platform::logged_in().await;
    platform.lock().app_exists = true;
    let to = |guid: &str| json!({ "guid": guid, "app": { "guid": guid, "process": { "type": "web" } }, "protocol": "http1" });
    let route = json!({ "guid": "route-1", "host": "web", "path": "", "url": "web.slipway.localhost", "protocol": "http",
                        "destinations": [to("app-2")] });
    let list = json!({ "pagination": { "next": null }, "resources": [route] });
    let other = json!({ "pagination": { "next": null }, "resources": [{ "guid": "app-2", "name": "other", "state": "STARTED" }] });
    platform
        .lock()
        .answers
        .extend([("GET /v3/routes".to_owned(), list), ("POST /v3/routes/route-1/destinations".to_owned(), json!({}))]);
    platform.instead("/v3/apps", [Instead::Usual, Instead::Status(200, "application/json", other.to_string())]);
    let ran = platform.run(&["map-route", "web", "slipway.localhost", "-n", "web"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("Warning: web.slipway.localhost leads to 'other' as well"), "{}", ran.err);
}

#[tokio::test]
async fn the_likely_meaning_is_suggested() {
    let platform = Platform::logged_in().await;
    let nothing = || Instead::Status(200, "application/json", json!({ "resources": [] }).to_string());
    platform.instead("/v3/organizations", [nothing()]);
    let ran = platform.run(&["target", "dev"]).await;
    assert!(ran.exit == Exit::Usage && ran.err.contains("`slipway target -s dev`"), "{}", ran.err);
    platform.instead("/v3/organizations", [nothing()]);
    platform.instead("/v3/spaces", [nothing()]);
    assert_eq!(platform.run(&["target", "nope"]).await.exit, Exit::NotFound);
    let bare = platform.url.replace("//api.", "//");
    platform.instead("/", [Instead::Status(404, "text/plain", "no route".to_owned())]);
    let ran = platform.run(&["login", &bare]).await;
    assert!(
        ran.exit == Exit::Usage && ran.err.contains("`slipway login http://api.slipway.localhost:PORT`"),
        "{}",
        ran.err
    );
    platform.write("site.zip", "PK");
    let ran = platform.run(&["push", "site.zip"]).await;
    assert!(ran.exit == Exit::Usage && ran.err.contains("`slipway push NAME -p site.zip`"), "{}", ran.err);
}

#[tokio::test]
async fn arguments_without_effect_are_reported() {
    let platform = Platform::logged_in().await;
    platform.lock().app_exists = true;
    let ran = platform.run(&["set-env", "web", "BAD NAME=1", "1X=2", "GOOD=3"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("variable 'BAD NAME'") && ran.err.contains("variable '1X'"), "{}", ran.err);
    assert!(!ran.err.contains("variable 'GOOD'"), "{}", ran.err);
    let ran = platform.run(&["set-health-check", "web", "port", "--endpoint", "/x"]).await;
    assert!(
        ran.exit == Exit::Usage && ran.err.contains("`slipway set-health-check web http --endpoint /x`"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_manifest_is_json_when_that_is_asked_for() {
    let platform = Platform::logged_in().await;
    platform.lock().app_exists = true;
    let yaml = "applications:\n- name: web\n  instances: 2\n";
    for (args, wanted) in
        [(&["create-app-manifest", "web"][..], None), (&["create-app-manifest", "web", "--json"], Some(2))]
    {
        platform.instead("/v3/apps/app-1/manifest", [Instead::Status(200, "application/x-yaml", yaml.to_owned())]);
        let ran = platform.run(args).await;
        assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
        match wanted {
            None => assert_eq!(ran.out, yaml),
            Some(instances) => {
                let json: Value = serde_json::from_str(&ran.out).expect("JSON");
                assert_eq!(json["applications"][0]["instances"], instances);
            }
        }
    }
}

#[tokio::test]
async fn deleting_asks_first() {
    let platform = Platform::logged_in().await;
    platform.lock().app_exists = true;
    assert_eq!(platform.run_answering(&["delete", "web"], &["n"]).await.exit, Exit::General);
    assert!(platform.lock().app_exists);
    assert_eq!(platform.run_answering(&["delete", "web"], &["y"]).await.exit, Exit::Success);
    assert!(!platform.lock().app_exists);
    assert_eq!(platform.run(&["delete", "web", "-f"]).await.exit, Exit::Success, "a repeated delete is done already");
}

#[tokio::test]
async fn a_delete_whose_answer_was_lost_is_done() {
    let platform = Platform::logged_in().await;
    platform.lock().app_exists = true;
    let lost = Instead::Status(502, "text/plain", "502 Bad Gateway".to_owned());
    let gone = || Instead::Status(404, "application/json", api_error(10010, "CF-ResourceNotFound", "App not found"));
    platform.instead("/v3/apps/app-1", [lost, gone()]);
    let ran = platform.run(&["delete", "web", "-f"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("'web' is deleted."), "{}", ran.err);
    // Of an answer that was not lost, 404 is what it says.
    platform.instead("/v3/apps/app-1", [gone()]);
    assert_eq!(platform.run(&["delete", "web", "-f"]).await.exit, Exit::NotFound);
}

#[tokio::test]
async fn recent_logs_are_in_order() {
    let platform = Platform::logged_in().await;
    {
        let mut world = platform.lock();
        world.app_exists = true;
        world.logs = vec![envelope(2_000_000_000, "APP/PROC/WEB", "two"), envelope(1_000_000_000, "RTR", "one")];
    }
    let ran = platform.run(&["logs", "web", "--recent", "--json"]).await;
    insta::assert_snapshot!(ran.out);
    let ran = platform.run(&["logs", "web", "--recent"]).await;
    assert!(ran.out.ends_with("[APP/PROC/WEB/0] OUT two\n"), "{}", ran.out);
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end_and_once_when_refused() {
    let platform = Platform::start().await;
    platform.lock().token_life = 30;
    platform.run(&["login", "-u", "admin", "-p", "secret-word"]).await;
    platform.lock().token_life = 600;
    platform.lock().token_grants.clear();
    assert_eq!(platform.run(&["orgs"]).await.exit, Exit::Success);
    assert_eq!(platform.run(&["orgs"]).await.exit, Exit::Success);
    assert_eq!(
        platform.lock().token_grants,
        ["grant_type=refresh_token&refresh_token=refresh"],
        "renewed once and stored"
    );
    platform.lock().accepted = Some("another".into());
    assert_eq!(platform.run(&["orgs"]).await.exit, Exit::Success, "refused, renewed, accepted");
    platform.set_config(|config| config["refresh_token"] = "revoked".into());
    platform.lock().accepted = Some("yet another".into());
    let ran = platform.run(&["orgs"]).await;
    assert_eq!(ran.exit, Exit::Denied);
    assert_eq!(ran.err, "Error: The login has expired.\nHint: Log in again with `slipway login`.\n");
}

#[tokio::test]
async fn bad_answers_are_clear_errors() {
    let html = Instead::Status(200, "text/html", "<html>\n<h1>Welcome\u{1b}[31m to the proxy</h1>".into());
    let unwell = Instead::Status(503, "text/html", "<html>unavailable</html>".into());
    let denied =
        Instead::Status(403, "application/json", api_error(10003, "CF-NotAuthorized", "You are not authorized"));
    let invalid = Instead::Status(422, "application/json", api_error(10008, "CF-UnprocessableEntity", "too many"));
    let mut all = String::new();
    for (name, answers, exit) in [
        ("html", vec![html], Exit::Unavailable),
        ("truncated", vec![Instead::Status(200, "application/json", "{\"resources\": [".into())], Exit::Unavailable),
        ("wrong shape", vec![Instead::Status(200, "application/json", "{\"resources\": 7}".into())], Exit::Unavailable),
        ("empty", vec![Instead::Status(200, "application/json", String::new())], Exit::Unavailable),
        ("503 for good", vec![unwell.clone(), unwell.clone(), unwell.clone()], Exit::Unavailable),
        ("503 twice", vec![unwell.clone(), unwell], Exit::Success),
        ("hang-up twice", vec![Instead::HangUp, Instead::HangUp], Exit::Success),
        ("denied", vec![denied], Exit::Denied),
        ("invalid", vec![invalid], Exit::Invalid),
        (
            "500",
            vec![Instead::Status(500, "application/json", api_error(10001, "UnknownError", "oh"))],
            Exit::Unavailable,
        ),
    ] {
        let platform = Platform::logged_in().await;
        platform.instead("/v3/organizations", answers);
        let ran = platform.run(&["orgs"]).await;
        assert_eq!(ran.exit, exit, "{name}: {}", ran.err);
        all.push_str(&format!("{name}: {}{}", ran.out, ran.err));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn an_unreachable_platform_is_named() {
    let platform = Platform::logged_in().await;
    let url = platform.url.clone();
    // A port that nobody listens on, and nobody can: it is taken as long as the socket is there.
    let taken = tokio::net::TcpSocket::new_v4().expect("a socket");
    taken.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let unavailable = format!("http://api.slipway.localhost:{}", taken.local_addr().expect("address").port());
    platform.set_config(|config| config["api"] = unavailable.clone().into());
    let ran = platform.run(&["orgs"]).await;
    assert_eq!(ran.exit, Exit::Unavailable);
    assert!(ran.err.starts_with(&format!("Error: Cannot talk to {unavailable}: ")), "{} {url}", ran.err);
}

#[tokio::test]
async fn failures_are_json_when_asked_for() {
    let platform = Platform::logged_in().await;
    let ran = platform.run(&["app", "nope", "--json"]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    insta::assert_snapshot!(ran.err);
    let ran = platform.run(&["nonsense"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Usage, ""));
    let ran = platform.run(&["--help"]).await;
    assert!(ran.exit == Exit::Success && ran.out.contains("push") && ran.err.is_empty());
}

#[tokio::test]
async fn curl_passes_through() {
    let platform = Platform::logged_in().await;
    let ran = platform.run(&["curl", "v3/stacks", "-i"]).await;
    assert!(ran.out.starts_with("HTTP/1.1 200\n") && ran.out.contains("debian12"), "{}", ran.out);
    let ran = platform.run(&["curl", "/v3/nothing"]).await;
    assert!(ran.exit == Exit::Success && ran.out.contains("Unknown request"));
    assert_eq!(platform.run(&["curl", "/v3/nothing", "--fail"]).await.exit, Exit::NotFound);
    assert_eq!(platform.run(&["curl", "//evil.test/"]).await.exit, Exit::Usage);
    assert_eq!(platform.run(&["curl", "/v3/apps", "-H", "bad"]).await.exit, Exit::Usage);
}

#[tokio::test]
async fn verbose_shows_requests_without_tokens() {
    let platform = Platform::logged_in().await;
    let ran = platform.run(&["orgs", "--verbose"]).await;
    assert!(ran.err.contains("GET /v3/organizations?order_by=name -> 200 in "), "{}", ran.err);
    assert!(!ran.err.contains("signature"));
}
