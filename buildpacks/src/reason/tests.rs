//! Against recorded output of npm and pip.

use super::{of, remedy};

/// The reason and the remedy of a recorded failure.
macro_rules! recorded {
    ($name:literal) => {{
        let reason = of(include_bytes!(concat!("recorded/", $name, ".txt")));
        let remedy = remedy(&reason, "otherwise");
        (reason, remedy)
    }};
}

#[test]
fn npm_names_the_package_and_not_the_place_of_a_log() {
    let (reason, remedy) = recorded!("npm-no-package");
    assert_eq!(
        reason.lines().collect::<Vec<_>>(),
        [
            "npm error code E404",
            "npm error 404 Not Found - GET https://registry.example/no-such-package-slipway-xyz",
            "npm error 404  The requested resource 'no-such-package-slipway-xyz@^1' could not be found or you do not have \
             permission to access it.",
        ]
    );
    assert!(remedy.contains("NPM_TOKEN"), "{remedy}");

    let (reason, remedy) = recorded!("npm-no-version");
    assert_eq!(reason, "npm error code ETARGET\nnpm error notarget No matching version found for left-pad@^99.");
    assert!(remedy.contains("npm view"), "{remedy}");
}

#[test]
fn npm_of_older_releases_is_known_as_well() {
    let old = include_str!("recorded/npm-no-version.txt").replace("npm error", "npm ERR!")
        + "\nnpm ERR! A complete log of this run can be found in: /home/vcap/.npm/_logs/debug-0.log\n";
    assert_eq!(
        of(old.as_bytes()),
        "npm ERR! code ETARGET\nnpm ERR! notarget No matching version found for left-pad@^99."
    );
}

#[test]
fn a_lock_file_out_of_sync_is_reported_without_the_usage_of_npm() {
    let (reason, remedy) = recorded!("npm-other-lock");
    assert!(reason.ends_with("npm error Missing: left-pad@1.3.0 from lock file"), "{reason}");
    assert_eq!(reason.lines().count(), 3, "{reason}");
    assert!(remedy.contains("lock file"), "{remedy}");
}

#[test]
fn versions_that_do_not_go_together_are_named() {
    let (reason, remedy) = recorded!("npm-peers");
    assert!(reason.contains("peer react@\"^18.2.0\" from react-dom@18.2.0"), "{reason}");
    assert!(!reason.contains("--force"), "{reason}");
    assert!(remedy.contains("go together"), "{remedy}");
    let (reason, remedy) = recorded!("pip-conflict");
    for words in ["werkzeug==2.0.0", "    flask 3.0.0 depends on Werkzeug>=3.0.0", "ResolutionImpossible"] {
        assert!(reason.contains(words), "{reason}");
    }
    assert!(!reason.contains("loosen the range"), "{reason}");
    assert!(remedy.contains("go together"), "{remedy}");
}

#[test]
fn a_script_of_npm_tells_the_reason_itself() {
    let (reason, _) = recorded!("npm-run");
    assert!(reason.ends_with("src/a.ts(3,5): error TS2322: Type string is not assignable to type number."), "{reason}");
    let (reason, _) = recorded!("npm-postinstall");
    assert!(reason.contains("Error: Cannot find module '/home/vcap/app/missing.js'"), "{reason}");
    assert!(reason.ends_with("npm error command sh -c node missing.js"), "{reason}");
    assert!(!reason.contains("    at "), "{reason}");
}

#[test]
fn a_compiler_s_message_is_shown_and_its_command_is_not() {
    let (reason, remedy) = recorded!("npm-compiler");
    for words in ["/node_modules/dep", "sh -c node-gyp rebuild", "dep.cc:2:10: fatal error: vips/vips.h"] {
        assert!(reason.contains(words), "{words}: {reason}");
    }
    assert!(
        !reason.contains("gyp info") && !reason.contains("$npm_package") && reason.lines().count() < 12,
        "{reason}"
    );
    assert!(remedy.contains("compiled"), "{remedy}");

    let (reason, remedy) = recorded!("pip-compiler");
    for words in
        ["Building wheel for brokenc", "brokenc.c:2:10: fatal error: libpq-fe.h", "ERROR: Could not build wheels"]
    {
        assert!(reason.contains(words), "{words}: {reason}");
    }
    assert!(!reason.contains("-Wsign-compare") && !reason.contains("note:"), "{reason}");
    assert!(remedy.contains("psycopg2-binary"), "{remedy}");
}

#[test]
fn pip_names_the_package_once() {
    let (reason, remedy) = recorded!("pip-no-package");
    assert_eq!(
        reason,
        "ERROR: Could not find a version that satisfies the requirement no-such-package-slipway-xyz==1 (from versions: \
         none)\nERROR: No matching distribution found for no-such-package-slipway-xyz==1"
    );
    assert!(remedy.contains("pip index versions"), "{remedy}");
    let (reason, remedy) = recorded!("pip-no-version");
    assert!(reason.contains("numpy==9999.0 (from versions: 1.3.0, ") && reason.contains("2.4.5, 2.4.6)\n"), "{reason}");
    assert!(reason.chars().count() < 700 && remedy.contains("pip index versions"), "{reason}");
    let (reason, _) = recorded!("pip-other-hash");
    assert!(reason.contains("DO NOT MATCH THE HASHES") && reason.contains("Got        c6242fc49e35958"), "{reason}");
    let (reason, _) = recorded!("pip-backend");
    assert_eq!(reason.matches("did not run successfully").count(), 1, "{reason}");
    assert!(reason.contains("No matching distribution found for no-such-backend-slipway-xyz"), "{reason}");
}

#[test]
fn a_failed_setup_is_reported_by_its_own_message() {
    let (reason, remedy) = recorded!("pip-setup");
    assert!(reason.contains("RuntimeError: this package needs mysql_config"), "{reason}");
    assert!(reason.starts_with("Processing ./old\n"), "nothing else names it: {reason}");
    assert!(!reason.contains("See above") && reason.lines().count() < 10, "{reason}");
    assert_eq!(remedy, "otherwise");
}

#[test]
fn a_missing_compiler_is_reported() {
    let frame = |line: &str| {
        format!(
            "  ╰─> [1 lines of output]\n      {line}\n      [end of output]\n  ERROR: Failed building wheel for x\n"
        )
    };
    let short = "error: command 'gcc' failed: No such file or directory";
    assert!(of(frame(short).as_bytes()).contains(short));
    let long = format!("error: command 'gcc {}' failed", "-I/usr/include ".repeat(20));
    assert!(!of(frame(&long).as_bytes()).contains("gcc"));
}

#[test]
fn truncated_output_is_shown_as_far_as_it_goes() {
    let cut = "error: subprocess-exited-with-error\n  ╰─> [9 lines of output]\n      building x\n      killed\n";
    assert_eq!(of(cut.as_bytes()), "      building x\n      killed");
}

#[test]
fn other_failures_are_shown_by_their_last_lines() {
    assert_eq!(of(b""), "");
    assert_eq!(of(b"10%\r50%\r\x1b[31m100%\r\n\nwhy\n"), "[31m100%\nwhy");
    let lines: String = (0..20).map(|number| format!("line {number}\n")).collect();
    assert_eq!(of(lines.as_bytes()).lines().count(), 8);
    assert_eq!(remedy("strange", "otherwise"), "otherwise");
    // npm that says nothing of its own is no reason, whatever stands before it.
    assert_eq!(of(b"why\nnpm error\n"), "why\nnpm error");
}

#[test]
fn an_older_failure_is_not_the_reason() {
    let later: String = (0..20).map(|number| format!("step {number}\n")).collect();
    for old in [include_str!("recorded/npm-no-package.txt"), include_str!("recorded/pip-no-package.txt")] {
        let reason = of(format!("{old}{later}no space left\n").as_bytes());
        assert!(reason.ends_with("step 19\nno space left") && !reason.contains("rror"), "{reason}");
        let near = of(format!("{old}make: *** [all] Error 1\n").as_bytes());
        assert!(near.contains("no-such-package-slipway-xyz"), "{near}");
    }
    let other = "ERROR: in ./src/index.js\ncannot resolve left-pad\n";
    assert_eq!(of(other.as_bytes()), other.trim_end(), "others write that as well");
}

#[test]
fn reasons_are_bounded() {
    let endless = format!(
        "npm error code E1\n{}",
        "npm error and so on, with a number: 0123456789\n".repeat(3)
            + &(0..500).map(|number| format!("npm error {number}: {}\n", "x".repeat(number))).collect::<String>()
    );
    let reason = of(endless.as_bytes());
    assert!(reason.starts_with("npm error code E1") && reason.contains("npm error 499"), "{reason}");
    assert!(reason.lines().count() <= 16 && reason.chars().count() <= 1600, "{reason}");
    let wide = of(format!("{}\n", "é".repeat(100_000)).as_bytes());
    assert!(wide.contains(" … ") && wide.chars().count() < 300, "{wide}");
}
