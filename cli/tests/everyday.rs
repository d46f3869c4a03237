//! What a developer and an operator do every day, against the simulated platform: what is sent, what is said, what is asked.

mod support;

use std::collections::VecDeque;

use serde_json::{Value, json};
use slipway_cli::Exit;
use support::{Instead, Platform, api_error, envelope, row};

fn page(items: &[Value]) -> Value {
    json!({ "pagination": { "next": null }, "resources": items })
}

/// A platform with an app, a service, a user, a quota and whatever else the commands look for.
async fn furnished() -> Platform {
    let platform = Platform::logged_in().await;
    let thing = |guid: &str, name: &str| json!({ "guid": guid, "name": name });
    let user = json!({ "guid": "user-2", "username": "ann", "presentation_name": "ann", "origin": "uaa" });
    let role = json!({ "guid": "role-1", "type": "space_developer", "relationships": {
        "user": { "data": { "guid": "user-2" } }, "space": { "data": { "guid": "space-1" } } } });
    let binding = json!({ "guid": "binding-1", "relationships": {
        "app": { "data": { "guid": "app-1" } }, "service_instance": { "data": { "guid": "service-1" } } } });
    let quota = json!({ "guid": "quota-1", "name": "small", "apps": { "total_memory_in_mb": 1024, "total_instances": null },
        "routes": { "total_routes": 10 }, "services": {} });
    let group = json!({ "guid": "group-1", "name": "db", "globally_enabled": { "running": false, "staging": true },
        "rules": [{ "protocol": "tcp", "destination": "10.0.0.0/8", "ports": "5432" }],
        "relationships": { "running_spaces": { "data": [{ "guid": "space-1" }] } } });
    let service = json!({ "guid": "service-1", "name": "db", "type": "user-provided", "tags": ["pg"],
        "syslog_drain_url": null, "route_service_url": null });
    let mut world = platform.lock();
    world.app_exists = true;
    world.answers.extend(
        [
            ("GET /v3/service_instances", page(std::slice::from_ref(&service))),
            ("GET /v3/service_instances/service-1", service),
            ("GET /v3/service_instances/service-1/credentials", json!({ "uri": "postgres://secret" })),
            ("POST /v3/service_instances", thing("service-2", "mine")),
            ("PATCH /v3/service_instances/service-1", json!({})),
            ("DELETE /v3/service_instances/service-1", json!({})),
            ("GET /v3/service_credential_bindings", page(&[binding])),
            ("POST /v3/service_credential_bindings", json!({})),
            ("DELETE /v3/service_credential_bindings/binding-1", json!({})),
            ("POST /v3/service_route_bindings", json!({})),
            ("GET /v3/service_route_bindings", page(&[])),
            ("POST /v3/domains", thing("domain-2", "example.com")),
            ("DELETE /v3/domains/domain-1", json!({})),
            ("POST /v3/domains/domain-1/relationships/shared_organizations", json!({})),
            ("GET /v3/users", page(&[user])),
            ("POST /v3/users", json!({})),
            ("DELETE /v3/users/user-2", json!({})),
            ("POST /Users", json!({ "id": "user-3" })),
            ("DELETE /Users/user-2", json!({})),
            ("PUT /Users/user-1/password", json!({})),
            ("GET /v3/roles", page(std::slice::from_ref(&role))),
            ("POST /v3/roles", role),
            ("DELETE /v3/roles/role-1", json!({})),
            ("GET /v3/organization_quotas", page(&[quota])),
            ("GET /v3/space_quotas", page(&[])),
            ("POST /v3/organization_quotas", json!({})),
            ("PATCH /v3/organization_quotas/quota-1", json!({})),
            ("DELETE /v3/organization_quotas/quota-1", json!({})),
            ("POST /v3/organization_quotas/quota-1/relationships/organizations", json!({})),
            ("GET /v3/security_groups", page(std::slice::from_ref(&group))),
            ("GET /v3/security_groups/group-1", group),
            ("POST /v3/security_groups", json!({})),
            ("PATCH /v3/security_groups/group-1", json!({})),
            ("DELETE /v3/security_groups/group-1", json!({})),
            ("POST /v3/security_groups/group-1/relationships/running_spaces", json!({})),
            ("GET /v3/feature_flags", page(&[json!({ "name": "route_sharing", "enabled": false })])),
            ("GET /v3/feature_flags/route_sharing", json!({ "name": "route_sharing", "enabled": false })),
            ("PATCH /v3/feature_flags/route_sharing", json!({})),
            ("GET /v3/environment_variable_groups/running", json!({ "var": { "ZONE": "a" } })),
            ("PATCH /v3/environment_variable_groups/running", json!({})),
            (
                "GET /v3/organizations/org-1",
                json!({ "guid": "org-1", "name": "main", "suspended": false, "relationships":
                { "quota": { "data": { "guid": "quota-1" } } } }),
            ),
            ("GET /v3/organization_quotas/quota-1", thing("quota-1", "small")),
            ("GET /v3/spaces/space-1", thing("space-1", "dev")),
            ("GET /v3/spaces/space-1/running_security_groups", page(&[thing("group-1", "db")])),
            ("PATCH /v3/spaces/space-1", json!({})),
            ("DELETE /v3/spaces/space-1", json!({})),
            ("PATCH /v3/apps/app-1", json!({})),
            ("GET /v3/apps/app-1/processes/web", json!({ "guid": "process-1", "type": "web" })),
            ("PATCH /v3/processes/process-1", json!({})),
            ("GET /v3/apps/app-1/manifest", json!({ "applications": [] })),
            ("PATCH /v3/buildpacks/b", json!({})),
            ("DELETE /v3/buildpacks/b", json!({})),
        ]
        .map(|(call, answer)| (call.to_owned(), answer)),
    );
    drop(world);
    platform
}

#[tokio::test]
async fn lists_are_tables_for_people_and_json_for_programs() {
    let platform = furnished().await;
    let mut all = String::new();
    for args in [
        &["services"][..],
        &["service", "db"],
        &["users"],
        &["roles"],
        &["quotas"],
        &["security-groups"],
        &["security-group", "db"],
        &["feature-flags"],
        &["env-group", "running"],
        &["org", "main"],
        &["space", "dev"],
        &["version"],
    ] {
        let ran = platform.run(args).await;
        assert_eq!(ran.exit, Exit::Success, "{args:?}: {}", ran.err);
        assert!(!ran.out.contains("secret"), "{args:?} shows no secret: {}", ran.out);
        all.push_str(&format!("$ {}\n{}{}", args.join(" "), ran.out, ran.err));
        let ran = platform.run(&[args, &["--json"]].concat()).await;
        serde_json::from_str::<Value>(&ran.out).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", ran.out));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn changes_say_what_happened_and_what_next() {
    let platform = furnished().await;
    platform.write("rules.json", r#"[{"protocol":"tcp","destination":"10.0.0.0/8","ports":"5432"}]"#);
    let variables = [("SLIPWAY_NEW_PASSWORD", "new-secret"), ("SLIPWAY_PASSWORD", "old-secret")];
    let mut all = String::new();
    for args in [
        &["create-user-provided-service", "mine", "-p", "user=ann", "-p", r#"{"port": 5}"#, "-t", "a,b"][..],
        &["update-user-provided-service", "db", "-l", "syslog://drain.example"],
        &["update-user-provided-service", "db"],
        &["bind-service", "web", "db"],
        &["unbind-service", "web", "db"],
        &["delete-service", "db", "-f"],
        &["bind-route-service", "db", "slipway.localhost", "-n", "web"],
        &["unbind-route-service", "db", "slipway.localhost", "-n", "web"],
        &["create-domain", "example.com"],
        &["create-domain", "example.com", "--shared"],
        &["share-domain", "slipway.localhost", "main"],
        &["delete-domain", "slipway.localhost", "-f"],
        &["create-user", "bob"],
        &["delete-user", "ann", "-f"],
        &["passwd"],
        &["set-role", "ann", "space-developer"],
        &["set-role", "ann", "org-manager", "main"],
        &["unset-role", "ann", "space-developer", "main/dev"],
        &["create-quota", "big", "-m", "10G", "-r", "unlimited"],
        &["update-quota", "small", "-a", "4"],
        &["set-quota", "main", "small"],
        &["delete-quota", "small", "-f"],
        &["create-security-group", "web", "rules.json"],
        &["update-security-group", "db", "rules.json"],
        &["bind-security-group", "db", "main/dev"],
        &["bind-security-group", "db", "--everywhere", "--lifecycle", "staging"],
        &["delete-security-group", "db", "-f"],
        &["set-feature-flag", "route_sharing", "on"],
        &["set-feature-flag", "route_sharing", "off"],
        &["set-env-group", "running", "ZONE=b", "OLD"],
        &["rename-space", "dev", "staging"],
        &["rename", "web", "site"],
        &["set-health-check", "web", "http", "--endpoint", "/health"],
        &["update-buildpack", "nodejs", "-i", "2", "--disable"],
        &["delete-buildpack", "nodejs", "-f"],
        &["set-env", "web", "A=1", "B=2"],
        &["unset-env", "web", "LEVEL", "NOPE"],
        &["delete-space", "dev", "-f"],
    ] {
        platform.lock().bodies.clear();
        let ran = platform.run_with_variables(args, &[], &variables).await;
        assert_eq!(ran.exit, Exit::Success, "{args:?}: {}", ran.err);
        assert!(!ran.err.contains("secret"), "{args:?}: {}", ran.err);
        let sent: String = platform.lock().bodies.iter().map(|(call, body)| format!("  > {call} {body}\n")).collect();
        all.push_str(&format!("$ {}\n{sent}{}", args.join(" "), ran.err));
        if args[0] == "delete-space" {
            assert!(!platform.config().to_string().contains("staging"), "a target that is gone is forgotten");
        }
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn without_a_terminal_consequences_are_named_and_nothing_is_done() {
    let platform = furnished().await;
    platform.lock().app_runs = true;
    for (args, consequence) in [
        (&["scale", "web", "-m", "64M"][..], "This restarts 'web'."),
        (&["delete", "web", "-r"], "This deletes 'web' and its routes."),
        (
            &["delete-route", "slipway.localhost", "-n", "web"],
            "This deletes the route 'web.slipway.localhost', which leads to 1 app.",
        ),
        (&["delete-service", "db"], "This deletes the service 'db' and takes it from 'web'."),
        (&["delete-user", "ann"], "This deletes the user 'ann' with all roles."),
        (&["delete-org", "main"], "This deletes the org 'main' with 1 space and everything in them."),
    ] {
        platform.lock().calls.clear();
        let ran = platform.run(args).await;
        assert_eq!(ran.exit, Exit::Usage, "{args:?}: {}", ran.err);
        let text = format!("Error: {consequence} Add -f to go on; nothing was done.\n");
        assert!(ran.err.starts_with(&text), "{args:?}: {}", ran.err);
        let changes: Vec<String> =
            platform.lock().calls.iter().filter(|call| !call.starts_with("GET")).cloned().collect();
        assert_eq!(changes, Vec::<String>::new(), "{args:?}");
    }
}

/// What is answered about the log of an app that has been deleted.
fn gone() -> Instead {
    let gone = json!({ "errors": [{ "code": 10010, "title": "CF-ResourceNotFound", "detail": "App not found" }] });
    Instead::Status(404, "application/json", gone.to_string())
}

#[tokio::test]
async fn words_of_other_platforms_that_are_taken_for_an_app_are_answered() {
    let platform = Platform::logged_in().await;
    for (args, exit, hint) in [
        (&["scale", "web=2"][..], Exit::Usage, "Write `slipway scale APP -p web -i 2`."),
        (&["rollback", "v12"], Exit::Usage, "Write `slipway rollback APP --revision 12`."),
        (&["push", "."], Exit::Usage, "Write `slipway push -p .`"),
        (&["scale", "mode=fast", "-i", "1"], Exit::NotFound, "`slipway apps` lists"),
        (&["rollback", "v1x"], Exit::NotFound, "`slipway apps` lists"),
    ] {
        let ran = platform.run(args).await;
        assert!(ran.exit == exit && ran.err.contains(hint), "{args:?}: {:?} {}", ran.exit, ran.err);
    }
}

#[tokio::test]
async fn an_app_that_nothing_says_how_to_start_is_not_sent_to_start() {
    let platform = furnished().await;
    for (command, said) in
        [("", "it has no start command: `slipway push web -c COMMAND`"), ("x", "`slipway start web`")]
    {
        let process = json!({ "guid": "process-1", "type": "web", "instances": 1, "command": command });
        platform.lock().answers.insert("GET /v3/processes/process-1".to_owned(), process);
        let ran = platform.run(&["app", "web"]).await;
        assert!(ran.out.contains(said), "{command}: {}", ran.out);
    }
}

#[tokio::test]
async fn commands_that_change_nothing_say_so_and_do_not_ask() {
    let platform = furnished().await;
    platform.lock().app_runs = true;
    for (args, said) in [
        (&["scale", "web", "-m", "256M", "-i", "1"][..], "is scaled like that already; nothing was done"),
        (&["unmap-route", "web", "slipway.localhost", "-n", "web"], "no longer leads to 'web'"),
        (&["delete-user", "nobody", "-f"], ""),
        (&["start", "web"], "is started already"),
    ] {
        platform.lock().answers.insert("DELETE /v3/routes/route-1/destinations/d-1".to_owned(), json!({}));
        platform.lock().stats = VecDeque::from([json!([row("RUNNING", "old")])]);
        let ran = platform.run(args).await;
        assert_eq!(ran.exit, Exit::Success, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{args:?}: {}", ran.err);
    }
    let route = json!({ "guid": "route-1", "url": "web.slipway.localhost", "destinations": [] });
    platform.lock().answers.insert("GET /v3/routes".to_owned(), page(&[route]));
    let ran = platform.run(&["unmap-route", "web", "slipway.localhost", "-n", "web"]).await;
    assert!(ran.err.contains("did not lead to 'web'; nothing was done"), "{}", ran.err);
    platform.lock().app_runs = false;
    let ran = platform.run(&["scale", "web", "-i", "3"]).await;
    assert!(
        ran.err.contains("'web' (web) has 3 instances, from its next start on: `slipway start web`"),
        "{}",
        ran.err
    );
    let ran = platform.run(&["stop", "web"]).await;
    assert!(ran.err.contains("'web' is stopped already."), "{}", ran.err);
    let process = json!({ "guid": "process-1", "type": "web", "instances": 0 });
    platform.lock().answers.insert("GET /v3/apps/app-1/processes".to_owned(), page(&[process]));
    let ran = platform.run(&["restart", "web"]).await;
    assert!(ran.err.contains("wants no instance, so nothing of it runs: `slipway scale web -i 1`"), "{}", ran.err);
    let ran = platform.run(&["push", "web", "-m", "64"]).await;
    assert!(ran.exit == Exit::Usage && ran.err.contains("-m 64: '64' has no unit: write 64M"), "{}", ran.err);
    assert!(ran.err.contains("Correct the flag"), "{}", ran.err);
}

#[tokio::test]
async fn a_command_runs_with_the_app_and_ends_with_its_exit_code() {
    let platform = furnished().await;
    {
        let mut world = platform.lock();
        world.task = VecDeque::from([("RUNNING", ""), ("FAILED", "exited with status 3")]);
        world.logs = vec![envelope(5, "APP/TASK/mine", "of an earlier task")];
        let mut error = envelope(11, "APP/TASK/mine", "oh no");
        error["log"]["type"] = "ERR".into();
        world.task_logs =
            vec![envelope(10, "APP/TASK/mine", "v22.0.0"), error, envelope(12, "APP/PROC/WEB", "not of the task")];
    }
    let ran = platform.run(&["run", "web", "-m", "64M", "--", "node", "-e", "process.exit(3)"]).await;
    assert_eq!(ran.exit, Exit::Task(3), "{}", ran.err);
    assert_eq!(ran.out, "v22.0.0\n");
    assert_eq!(ran.err, "Running task 7 of 'web' …\noh no\n");
    let sent: Value = serde_json::from_str(&platform.lock().bodies["POST /v3/apps/app-1/tasks"]).expect("JSON");
    assert_eq!(sent, json!({ "command": "node -e 'process.exit(3)'", "memory_in_mb": 64 }));

    platform.lock().task = VecDeque::from([("FAILED", "out of memory: limit 64 MiB")]);
    let ran = platform.run(&["run", "web", "--", "ls"]).await;
    assert_eq!(ran.exit, Exit::General);
    assert!(ran.err.contains("Task 7 of 'web' failed: out of memory: limit 64 MiB"), "{}", ran.err);

    platform.lock().task = VecDeque::from([("FAILED", "exited with status 4")]);
    let ran = platform.run(&["run-task", "web", "ls", "--wait"]).await;
    assert_eq!(ran.exit, Exit::Task(4));
    assert!(ran.err.contains("slipway logs web --recent --source task"), "{}", ran.err);
    platform.lock().task = VecDeque::from([("RUNNING", "")]);
    platform.lock().calls.clear();
    let ran = platform.run_interrupted(&["run", "web", "--", "sleep", "100"], "GET /v3/tasks").await;
    assert!(ran.exit == Exit::Interrupted && ran.err.contains("task 7 of 'web' is cancelled"), "{}", ran.err);
    assert_eq!(platform.run(&["run", "web"]).await.exit, Exit::Usage, "a command is needed");
}

#[tokio::test]
async fn logs_are_chosen_by_number_and_source() {
    let platform = furnished().await;
    platform.lock().logs = vec![
        envelope(1_000_000_000, "APP/PROC/WEB", "one"),
        envelope(2_000_000_000, "RTR", "two"),
        envelope(3_000_000_000, "APP/PROC/WEB", "\u{1b}[31mthree"),
    ];
    let ends = async |args: &[&str]| {
        let ran = platform.run(args).await;
        assert_eq!(ran.exit, Exit::Success, "{args:?}: {}", ran.err);
        ran.out.lines().filter_map(|line| line.rsplit(' ').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(ends(&["logs", "web", "-n", "2"]).await, ["two", "three"]);
    assert_eq!(ends(&["logs", "web", "--recent", "--source", "app"]).await, ["one", "three"]);
    assert_eq!(ends(&["logs", "web", "--since", "10m"]).await, Vec::<String>::new());
    for args in [
        &["logs", "web", "--since", "soon"][..],
        &["logs", "web", "--source", "nobody"],
        &["logs", "web", "-n", "1001"],
    ] {
        assert_eq!(platform.run(args).await.exit, Exit::Usage, "{args:?}");
    }
}

#[tokio::test]
async fn names_and_places_have_defaults_and_can_be_given_for_one_command() {
    let platform = furnished().await;
    platform.write("manifest.yml", "applications:\n- name: web\n");
    assert_eq!(platform.run(&["env"]).await.exit, Exit::Success, "the app of the manifest");
    platform.write("manifest.yml", "applications:\n- name: web\n- name: worker\n");
    let ran = platform.run(&["restart"]).await;
    assert!(ran.exit == Exit::Usage && ran.err.contains("several: web, worker"), "{}", ran.err);

    platform.set_config(|config| config["space"] = Value::Null);
    assert_eq!(platform.run(&["apps"]).await.exit, Exit::Denied);
    assert_eq!(platform.run(&["apps", "--target", "main/dev"]).await.exit, Exit::Success);
    let ran = platform.run_with_variables(&["apps"], &[], &[("SLIPWAY_TARGET", "main/dev")]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert_eq!(platform.config()["space"], Value::Null, "for one command only");
    assert_eq!(platform.run(&["apps", "--target", "main/"]).await.exit, Exit::Usage);
    let ran = platform.run(&["target", "main/dev"]).await;
    assert!(ran.exit == Exit::Success && ran.out.contains("dev"), "{}", ran.err);
    assert_eq!(platform.config()["space"]["name"], "dev");
}

#[tokio::test]
async fn a_password_is_typed_twice_and_piped_once() {
    let mut platform = Platform::logged_in().await;
    platform.lock().answers.extend([
        ("POST /Users".to_owned(), json!({ "id": "user-2" })),
        ("POST /v3/users".to_owned(), json!({ "guid": "user-2" })),
        ("PUT /Users/user-1/password".to_owned(), json!({})),
    ]);
    let sent = |platform: &Platform, call: &str| -> serde_json::Value {
        serde_json::from_str(&platform.lock().bodies[call]).expect("JSON")
    };
    let ran = platform.run_answering(&["create-user", "ann"], &["typed", "mistyped"]).await;
    assert!(ran.exit == Exit::Usage && ran.err.contains("not the same"), "{}", ran.err);
    platform.piped = true;
    let ran = platform.run_answering(&["create-user", "ann"], &["piped"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert_eq!(sent(&platform, "POST /Users")["password"], "piped");
    let ran = platform.run_answering(&["passwd"], &["old", "new"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert_eq!(sent(&platform, "PUT /Users/user-1/password"), json!({ "oldPassword": "old", "password": "new" }));
}

#[tokio::test]
async fn what_stays_and_what_is_there_is_named() {
    let platform = furnished().await;
    let ran = platform.run(&["restart-app-instance", "web", "7"]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    assert!(ran.err.contains("Instance '7' not found") && ran.err.contains("there is only 0"), "{}", ran.err);
    let binding = json!({ "guid": "binding-1", "relationships": { "app": { "data": { "guid": "app-1" } },
        "service_instance": { "data": { "guid": "service-1" } } } });
    platform.lock().answers.insert("GET /v3/service_credential_bindings".to_owned(), page(&[binding]));
    let ran = platform.run(&["delete-service", "db"]).await;
    assert!(ran.err.contains("This deletes the service 'db' and takes it from 'web'."), "{}", ran.err);
    let ran = platform.run(&["delete-service", "db", "-f"]).await;
    assert!(ran.err.contains("stay in 'web' until `slipway restart web --strategy rolling`"), "{}", ran.err);
    platform.instead("/api/v1/read", [Instead::Usual, gone()]);
    let ran = platform.run(&["logs", "web", "-f", "-n", "0"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(ran.err.contains("'web' is deleted: there is nothing more to follow."), "{}", ran.err);
    let ran = platform.run(&["logs", "web", "-n", "0"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    let old = (0..25).map(|number| envelope(5, "APP/PROC/WEB", &format!("line {number}")));
    platform.lock().logs = old.collect();
    // To begin with the newest line, and what overlaps with it, are looked up.
    for (args, lookups, shown) in
        [(&["logs", "web"][..], 3, 20), (&["logs", "web", "-f"], 3, 20), (&["logs", "web", "-f", "-n", "0"], 2, 0)]
    {
        platform.instead("/api/v1/read", std::iter::repeat_n(Instead::Usual, lookups).chain([gone()]));
        let ran = platform.run(args).await;
        assert_eq!(ran.out.lines().count(), shown, "{args:?}: {}{}", ran.out, ran.err);
        // All of the same moment: they stay in their order.
        assert!(shown == 0 || ran.out.lines().last().is_some_and(|line| line.ends_with("line 24")), "{}", ran.out);
    }
    let event = |kind: &str| json!({ "guid": kind, "created_at": "2026-01-31T12:00:00Z", "type": kind });
    let both = page(&[event("app.crash"), event("audit.app.process.crash")]);
    platform.lock().answers.insert("GET /v3/audit_events".to_owned(), both);
    let ran = platform.run(&["events", "web"]).await;
    assert!(ran.out.contains("  crash") && !ran.out.contains("process crash"), "{}", ran.out);
    let ran = platform.run(&["events", "web", "--all"]).await;
    assert!(ran.out.contains("process crash"), "{}", ran.out);
    let ran = platform.run(&["run", "web", "node", "-v"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    let answer = |list: &[Value]| Instead::Status(200, "application/json", page(list).to_string());
    let shop = [json!({ "guid": "app-9", "name": "shop", "state": "STARTED" })];
    platform.instead("/v3/apps", [answer(&[]), answer(&shop), answer(&[]), answer(&shop)]);
    let ran = platform.run(&["logs", "shpo"]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    assert!(ran.err.contains("App 'shpo' not found in space 'dev' (did you mean 'shop'?)."), "{}", ran.err);
    platform.write("manifest.yml", "applications:\n- name: shpo\n");
    let ran = platform.run(&["logs"]).await;
    assert!(ran.err.contains("as none was given"), "{}", ran.err);
    let ran = platform.run(&["delete", "web", "-f"]).await;
    assert!(ran.err.contains("Its route stays: 'web.slipway.localhost'"), "{}", ran.err);
}

#[tokio::test]
async fn an_interrupt_before_a_restart_does_not_claim_one() {
    let platform = furnished().await;
    platform.lock().app_runs = true;
    platform.instead("/v3/processes/process-1/stats", [Instead::Hang]);
    let ran =
        platform.run_interrupted(&["scale", "web", "-m", "512M", "-f"], "GET /v3/processes/process-1/stats").await;
    assert_eq!(ran.exit, Exit::Interrupted);
    let said = "the restart of 'web': it has 512M memory from its next start on. `slipway restart web` restarts it";
    assert!(ran.err.contains(said) && !ran.err.contains("goes on starting"), "{}", ran.err);
    for command in ["restart", "start"] {
        platform.lock().app_runs = command == "restart";
        let path = format!("/v3/apps/app-1/actions/{command}");
        platform.instead(&path, [Instead::Hang]);
        let ran = platform.run_interrupted(&[command, "web"], &format!("POST {path}")).await;
        assert_eq!(ran.exit, Exit::Interrupted);
        assert!(ran.err.contains("`slipway app web` shows whether it starts"), "{command}: {}", ran.err);
    }
}

#[tokio::test]
async fn a_change_that_a_deployment_forbids_says_how_to_end_it() {
    let platform = furnished().await;
    platform.lock().app_runs = true;
    let refusal = |detail: &str| {
        let body = support::api_error(390_016, "CF-ScaleDisabledDuringDeployment", detail);
        Instead::Status(422, "application/json", body)
    };
    let detail = "Cannot scale this process while a deployment is in flight.";
    platform.instead("/v3/apps/app-1/processes/web/actions/scale", [refusal(detail)]);
    let ran = platform.run(&["scale", "web", "-i", "3"]).await;
    assert_eq!(ran.exit, Exit::Invalid, "{}", ran.err);
    assert!(ran.err.contains("`slipway cancel-deployment APP` gives it up"), "{}", ran.err);
    platform.write("index.js", "1");
    let detail = format!("For application 'web': {detail}");
    platform.instead("/v3/spaces/space-1/actions/apply_manifest", [refusal(&detail)]);
    let ran = platform.run(&["push", "web", "-i", "3"]).await;
    assert!(ran.err.contains("`slipway continue-deployment web` brings the new version"), "{}", ran.err);
}

#[tokio::test]
async fn what_is_not_there_says_where_to_look_or_how_to_make_it() {
    let platform = Platform::logged_in().await;
    let refused = api_error(10_008, "CF-UnprocessableEntity", "No user exists with the username 'nobody'.");
    platform.instead("/v3/roles", [Instead::Status(422, "application/json", refused)]);
    let ran = platform.run(&["set-role", "nobody", "org-manager", "main"]).await;
    assert_eq!(ran.exit, Exit::NotFound, "{}", ran.err);
    assert!(ran.err.contains("User 'nobody' not found") && ran.err.contains("slipway create-user"), "{}", ran.err);

    platform.lock().answers.insert("GET /v3/spaces".to_owned(), json!({ "resources": [] }));
    let ran = platform.run(&["target", "main/live"]).await;
    assert_eq!(ran.exit, Exit::NotFound, "{}", ran.err);
    assert!(ran.err.contains("`slipway create-space live -o main` makes this one"), "{}", ran.err);

    let ran = platform.run(&["passwd"]).await;
    assert_eq!(ran.exit, Exit::Usage, "{}", ran.err);
    assert!(ran.err.contains("Set SLIPWAY_PASSWORD, give it as a flag"), "{}", ran.err);
}
