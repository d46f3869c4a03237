//! Tries from inside a sandbox what must not be had there, and prints what happened: a line for each attempt, its name and
//! `ok`, the name of the kernel's error, or what was found. What is expected is known to the tests alone. Nothing here does
//! harm when it goes through.

mod calls;
mod sockets;
mod surroundings;

use nix::errno::Errno;

/// One attempt and what came of it.
type Line = (String, String);

pub(crate) fn main(arguments: &[String]) -> i32 {
    if let [what, process] = arguments
        && what == "peer"
    {
        println!("{}", surroundings::peer(process));
        return 0;
    }
    for (name, value) in surroundings::all().into_iter().chain(sockets::all()).chain(calls::all()) {
        println!("{name} {value}");
    }
    println!("end yes");
    // Until it is stopped: what is seen from the host is looked at meanwhile.
    loop {
        nix::unistd::pause();
    }
}

fn line(name: impl Into<String>, value: impl ToString) -> Line {
    (name.into(), value.to_string())
}

/// The name of an error of this kernel.
fn error(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number)))
}

fn result<T, E: Into<std::io::Error>>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(failed) => error(&failed.into()),
    }
}

/// A system call that answers a number.
fn call(number: libc::c_long, arguments: [libc::c_long; 6]) -> Result<libc::c_long, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the callers pass addresses that live, or none that could be written to.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}
