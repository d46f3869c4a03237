//! Manifests and flags: what is sent, and what is refused.

use super::*;

fn prepared(yaml: &str, flags: PushArgs) -> Result<Manifest, ManifestError> {
    let directory = tempfile::tempdir().expect("temporary directory");
    std::fs::write(directory.path().join("manifest.yml"), yaml).expect("written");
    prepare(&flags, directory.path())
}

fn sent(yaml: &str, flags: PushArgs) -> String {
    prepared(yaml, flags).unwrap_or_else(|error| panic!("{error}")).yaml
}

fn named(name: &str) -> PushArgs {
    PushArgs { name: Some(name.into()), ..PushArgs::default() }
}

#[test]
fn flags_win_over_the_manifest() {
    let flags = PushArgs {
        command: Some("run me".into()),
        buildpacks: vec!["nodejs".into()],
        instances: Some(3),
        memory: Some("512M".into()),
        disk: Some("1G".into()),
        stack: Some("debian12".into()),
        health_check_type: Some(crate::args::HealthCheck::Http),
        endpoint: Some("/ok".into()),
        timeout: Some(30),
        ..named("renamed")
    };
    let yaml = "applications:\n- name: a\n  memory: 64M\n  disk_quota: 2G\n  buildpack: old\n  env: {A: 1}\n";
    insta::assert_snapshot!(sent(yaml, flags), @r"
    applications:
    - name: renamed
      memory: 512M
      env:
        A: 1
      default-route: true
      stack: debian12
      buildpacks:
      - nodejs
      command: run me
      instances: 3
      disk-quota: 1G
      health-check-type: http
      health-check-http-endpoint: /ok
      timeout: 30
    ");
}

#[test]
fn process_flags_go_to_the_web_entry() {
    let flags = PushArgs { instances: Some(2), command: Some("null".into()), ..PushArgs::default() };
    let yaml = "applications:\n- name: a\n  routes: [{route: a.test}]\n  processes:\n  - type: worker\n  - type: web\n    memory: 1G\n";
    insta::assert_snapshot!(sent(yaml, flags), @r"
    applications:
    - name: a
      routes:
      - route: a.test
      processes:
      - type: worker
      - type: web
        memory: 1G
        command: null
        instances: 2
    ");
}

#[test]
fn routes_follow_the_flags() {
    for (yaml, flags, part) in [
        ("", PushArgs::default(), "default-route: true"),
        ("  random-route: true\n", PushArgs::default(), "random-route: true\n"),
        ("  no-route: true\n", PushArgs::default(), "no-route: true\n"),
        ("  routes: [{route: x.y}]\n", PushArgs { no_route: true, ..PushArgs::default() }, "no-route: true\n"),
        ("", PushArgs { random_route: true, ..PushArgs::default() }, "random-route: true\n"),
    ] {
        let text = sent(&format!("applications:\n- name: a\n{yaml}"), flags);
        assert!(text.contains(part), "{text}");
        assert_eq!(text.matches("route").count(), 1, "{text}");
    }
}

#[test]
fn anchors_and_variables_are_resolved() {
    let flags = PushArgs { variables: vec!["count=2".into(), "host=web".into()], ..PushArgs::default() };
    let yaml = "defaults: &d\n  memory: 64M\n  env: {LEVEL: info}\napplications:\n- <<: *d\n  name: ((host))-app\n  instances: ((count))\n";
    let manifest = prepared(yaml, flags).expect("valid");
    assert_eq!(manifest.warnings, Vec::<String>::new());
    insta::assert_snapshot!(manifest.yaml, @r"
    applications:
    - instances: 2
      name: web-app
      memory: 64M
      env:
        LEVEL: info
      default-route: true
    ");
}

#[test]
fn later_variable_files_and_flags_win() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
    write("manifest.yml", "applications: [{name: ((a))-((b))-((c))}]");
    write("one.yml", "{a: 1, b: 1, c: 1}");
    write("two.yml", "{b: 2, c: 2}");
    let flags = PushArgs {
        variable_files: vec!["one.yml".into(), "two.yml".into()],
        variables: vec!["c=3".into()],
        ..PushArgs::default()
    };
    assert_eq!(prepare(&flags, directory.path()).expect("valid").apps[0].name, "1-2-3");
}

#[test]
fn every_mistake_is_named_at_once() {
    let yaml = r"
applications:
- name: a
  memory: 512Q
  disk_quota: 100
  instances: -1
  env: [x]
  routes: [plain.test]
  health-check-type: ping
  timeout: 0
  command: [a, b]
  processes: [{type: web, memory: 5}, {type: web}]
- name: a
- memory: 64M
";
    let error = prepared(yaml, PushArgs::default()).expect_err("invalid");
    insta::assert_snapshot!(error, @r"
    manifest.yml has 12 mistakes:
      - app 'a': 'memory': '512Q' is not a size: the unit must be B, K, M, G or T
      - app 'a': 'disk_quota': '100' has no unit: write 100M or 100G
      - app 'a': 'instances' must be a whole number, 0 or more, it is -1
      - app 'a': 'timeout' must be a whole number of seconds, 1 or more, it is 0
      - app 'a': 'health-check-type' must be port, http or process, it is 'ping'
      - app 'a': 'command' must be text, it is a list
      - app 'a': 'routes' must be a list of 'route: HOST.DOMAIN', it is 'plain.test'
      - app 'a': 'env' must be a mapping, it is a list
      - app 'a', process 'web': 'memory': '5' has no unit: write 5M or 5G
      - app 'a': the process 'web' is there more than once
      - app 'a' is there more than once
      - app 3 has no name
    ");
}

#[test]
fn a_wrong_path_is_among_the_mistakes() {
    let yaml = "applications: [{name: a, memory: 5, path: bda}, {name: b, path: manifest.yml}, {name: c}]";
    let error = prepared(yaml, PushArgs::default()).expect_err("wrong").to_string();
    for part in
        ["3 mistakes", "'5' has no unit", "app 'a': 'path' is 'bda': there is nothing at ", "app 'b': 'path' is"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    let elsewhere = PushArgs { path: Some(".".into()), ..named("a") };
    let error = prepared(yaml, elsewhere).expect_err("memory").to_string();
    assert!(!error.contains("'path'"), "-p wins: {error}");
}

#[test]
fn keys_without_effect_or_unreadable_are_warnings() {
    let flags = PushArgs {
        health_check_type: Some(crate::args::HealthCheck::Port),
        endpoint: Some("/x".into()),
        ..PushArgs::default()
    };
    let yaml = "applications: [{name: a, env: {GOOD: 1, BAD NAME: 1}}]";
    let warnings = prepared(yaml, flags).expect("valid").warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("app 'a': the endpoint '/x' has no effect"), "{warnings:?}");
    assert!(warnings[1].contains("the variable 'BAD NAME'"), "{warnings:?}");
    let http = "applications: [{name: a, health-check-type: http, health-check-http-endpoint: /x}]";
    assert_eq!(prepared(http, PushArgs::default()).expect("valid").warnings, Vec::<String>::new());
    // The app may have the check already.
    let flags = PushArgs { endpoint: Some("/x".into()), ..named("a") };
    assert_eq!(prepared("applications: [{name: a}]", flags).expect("valid").warnings, Vec::<String>::new());
}

#[test]
fn unknown_keys_pass_through_and_are_named() {
    let manifest = prepared("colour: red\napplications:\n- name: a\n  memroy: 1G\n  host: b\n", PushArgs::default())
        .expect("valid");
    assert!(manifest.yaml.contains("memroy: 1G"));
    insta::assert_debug_snapshot!(manifest.warnings, @r#"
    [
        "the manifest's key 'colour' is unknown and ignored",
        "app 'a': the key 'memroy' is unknown and ignored; did you mean 'memory'?",
        "app 'a': the key 'host' has no effect any more; use routes",
    ]
    "#);
}

#[test]
fn malformed_manifests_are_refused() {
    for (yaml, part) in [
        ("[1, 2]", "must be a mapping"),
        ("applications: 7", "must be a list, it is 7"),
        ("applications: []", "no app under"),
        ("version: 2\napplications: [{name: a}]", "'version' must be 1, it is 2"),
        ("applications: [text]", "entry 1 of 'applications' must be a mapping, it is 'text'"),
        ("applications: [{name: 7}]", "'name' must be text, it is 7"),
        ("applications: [", "not valid YAML"),
        ("applications: [{name: a, name: b}]", "not valid YAML"),
        ("applications: [{name: ((x)), path: ((y))/((x))}]", "needs values for: x, y"),
    ] {
        let message = prepared(yaml, PushArgs::default()).expect_err(yaml).to_string();
        assert!(message.contains(part), "{yaml}: {message}");
    }
    let large = format!("applications: [{{name: a, env: {{X: \"{}\"}}}}]", "x".repeat(LARGEST));
    assert!(matches!(prepared(&large, PushArgs::default()), Err(ManifestError::TooLarge { .. })));
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        yaml.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 9].join(", ")));
    }
    yaml.push_str("applications: [{name: a, services: *a11}]\n");
    assert!(matches!(prepared(&yaml, PushArgs::default()), Err(ManifestError::Yaml { .. })));
}

#[test]
fn names_choose_among_several_apps() {
    let yaml = "applications: [{name: alpha}, {name: beta, path: ./.}]";
    let manifest = prepared(yaml, named("beta")).expect("valid");
    assert_eq!(manifest.apps.len(), 1);
    assert!(manifest.apps[0].path.to_string_lossy().ends_with("/."));
    let error = prepared(yaml, named("bta")).expect_err("no such app").to_string();
    assert_eq!(error, "There is no app 'bta' in manifest.yml (did you mean 'beta'?)");
    assert!(matches!(prepared(yaml, named("c")), Err(ManifestError::NotInManifest { meant: None, .. })));
    let flags = PushArgs { instances: Some(1), ..PushArgs::default() };
    assert!(matches!(prepared(yaml, flags), Err(ManifestError::SeveralApps)));
}

#[test]
fn without_a_manifest_a_name_is_enough() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let manifest = prepare(&named("solo"), directory.path()).expect("valid");
    assert_eq!(
        manifest.apps,
        [AppEntry { name: "solo".into(), path: directory.path().into(), image: None, no_route: false }]
    );
    assert!(matches!(prepare(&PushArgs::default(), directory.path()), Err(ManifestError::NoName)));
    let flags = PushArgs { manifest: Some("other.yml".into()), ..named("solo") };
    assert!(matches!(prepare(&flags, directory.path()), Err(ManifestError::Missing { .. })));
}

#[test]
fn shell_arithmetic_is_no_variable() {
    let yaml = "applications:\n- name: a\n  command: 'echo $((1 + 2)) ((x))'\n";
    let flags = PushArgs { variables: vec!["x=7".into()], ..PushArgs::default() };
    assert!(sent(yaml, flags).contains("echo $((1 + 2)) 7"));
}
