//! `launcher <app directory> <command> <metadata>`: starts an app as Cloud Foundry does. The working directory is the
//! app's; the platform's, the buildpacks' and the app's own profile scripts are read by the shell that then becomes the
//! command.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Read by the shell; `$1` is the command, `$0` the shell itself. Scripts are read in the order of their names.
const PROFILES: &str = r#"
if [ -d ../profile.d ]; then for script in ../profile.d/*.sh; do [ -r "$script" ] && . "$script"; done; fi
if [ -d .profile.d ]; then for script in .profile.d/*.sh; do [ -r "$script" ] && . "./$script"; done; fi
[ -r .profile ] && . ./.profile
unset script
exec "$0" -c "$1"
"#;

pub(crate) fn main(arguments: &[String]) -> i32 {
    let [directory, command, ..] = arguments else {
        eprintln!("launcher: wants an app directory and a command");
        return 2;
    };
    let directory = std::env::current_dir().unwrap_or_else(|_| "/home/vcap".into()).join(directory);
    if let Err(error) = std::env::set_current_dir(&directory) {
        eprintln!("launcher: app directory {}: {error}", directory.display());
        return 2;
    }
    if command.is_empty() {
        eprintln!("launcher: the process has no start command; give one in the Procfile or the manifest");
        return 2;
    }
    let shell = ["/bin/bash", "/usr/bin/bash", "/bin/sh"].into_iter().find(|shell| Path::new(shell).exists());
    let Some(shell) = shell else {
        eprintln!("launcher: the stack has neither /bin/bash nor /bin/sh");
        return 2;
    };
    // On Cloud Foundry the home of a running app is its app directory.
    let error = Command::new(shell)
        .args(["-c", PROFILES, shell])
        .arg(command)
        .env("HOME", &directory)
        .env("DEPS_DIR", directory.parent().unwrap_or(Path::new("/")).join("deps"))
        .exec();
    eprintln!("launcher: {shell}: {error}");
    2
}
