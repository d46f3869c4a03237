//! What makes the dependencies known to the app when it starts: scripts in `/home/vcap/profile.d`, which the launcher sources.

use std::fs;
use std::io;
use std::path::Path;

/// Writes a script that puts `bin` and `lib` of every buildpack's directory on the paths (the last buildpack wins), and
/// copies the buildpacks' own scripts beside it, in order.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_profile(deps: &Path, profile: &Path, count: usize) -> io::Result<()> {
    fs::create_dir_all(profile)?;
    let mut script = String::from("export DEPS_DIR=${DEPS_DIR:-/home/vcap/deps}\n");
    for (variable, directory) in [("PATH", "bin"), ("LD_LIBRARY_PATH", "lib"), ("LIBRARY_PATH", "lib")] {
        for index in 0..count {
            if deps.join(index.to_string()).join(directory).is_dir() {
                script +=
                    &format!("export {variable}=\"$DEPS_DIR/{index}/{directory}${{{variable}:+:${variable}}}\"\n");
            }
        }
    }
    fs::write(profile.join("000_multi-supply.sh"), script)?;
    for index in 0..count {
        let scripts = deps.join(index.to_string()).join("profile.d");
        if !scripts.is_dir() {
            continue;
        }
        for entry in fs::read_dir(scripts)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), profile.join(format!("{index}_{}", entry.file_name().to_string_lossy())))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_buildpack_comes_first_on_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let deps = directory.path().join("deps");
        for path in ["0/bin", "1/bin", "1/lib", "1/profile.d"] {
            fs::create_dir_all(deps.join(path)).unwrap();
        }
        fs::write(deps.join("1/profile.d/x.sh"), "export X=1\n").unwrap();
        let profile = directory.path().join("profile.d");
        write_profile(&deps, &profile, 2).unwrap();
        let script = format!(
            "unset LD_LIBRARY_PATH; PATH=/usr/bin; for f in {}/*; do . $f; done; echo $PATH $LD_LIBRARY_PATH $X",
            profile.display()
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).env_remove("DEPS_DIR").output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap().trim(),
            "/home/vcap/deps/1/bin:/home/vcap/deps/0/bin:/usr/bin /home/vcap/deps/1/lib 1"
        );
    }
}
