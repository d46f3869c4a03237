//! What the host has, and a piece of world behind it, that nothing inside may reach.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The port that everything outside listens on.
pub(crate) const PORT: u16 = 8123;
/// Where the host has what builds alone may reach.
pub(crate) const REGISTRIES: u16 = 8124;
/// Addresses of a network behind the host. Names are those of the attempts.
pub(crate) const WORLD: [(&str, Ipv4Addr); 6] = [
    ("metadata", Ipv4Addr::new(169, 254, 77, 7)),
    ("metadata-alibaba", Ipv4Addr::new(100, 100, 100, 200)),
    ("metadata-azure", Ipv4Addr::new(168, 63, 129, 16)),
    ("metadata-oracle", Ipv4Addr::new(192, 0, 0, 192)),
    ("platform", PLATFORM),
    ("world", Ipv4Addr::new(198, 18, 77, 6)),
];
/// Another host of the platform.
pub(crate) const PLATFORM: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 5);
const HERE: &str = "198.18.77.1";
const THERE: &str = "198.18.77.2";

pub(crate) struct Outside {
    memory: i32,
    pub(crate) key: i32,
    namespace: String,
    link: String,
    server: Option<Child>,
    _host: [TcpListener; 2],
    ended: Arc<AtomicBool>,
}

impl Outside {
    /// Gives this process, as the agent, what a careless one would have: an open directory, a group, no limits. Makes memory
    /// that everybody may use, and a network behind the host in which every address of [`WORLD`] listens.
    pub(crate) fn new() -> Self {
        let flags = rustix::fs::OFlags::DIRECTORY;
        let open = rustix::fs::open("/", flags, rustix::fs::Mode::empty()).unwrap();
        // SAFETY: plain numbers; the copy stays open as long as this process lives, as it must.
        assert_eq!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&open), 200) }, 200);
        nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(12_345)]).unwrap();
        use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
        setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 4096, 4096).unwrap();
        let process = std::process::id();
        let key = 0x5100_0000 + i32::try_from(process).unwrap();
        // SAFETY: plain numbers.
        let memory = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
        assert!(memory >= 0);
        let mut made = Self {
            memory,
            key,
            namespace: format!("outside-{process}"),
            link: format!("out{process}"),
            server: None,
            _host: [PORT, REGISTRIES].map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap()),
            ended: Arc::default(),
        };
        echo(made.ended.clone());
        made.world();
        made
    }

    fn world(&mut self) {
        let (namespace, link) = (self.namespace.as_str(), self.link.as_str());
        let peer = format!("{link}p");
        let inside = |arguments: &[&str]| ip(&[&["-n", namespace], arguments].concat());
        ip(&["netns", "add", namespace]);
        ip(&["link", "add", link, "type", "veth", "peer", "name", &peer, "netns", namespace]);
        ip(&["addr", "add", &format!("{HERE}/30"), "dev", link]);
        ip(&["link", "set", link, "up"]);
        inside(&["addr", "add", &format!("{THERE}/30"), "dev", &peer]);
        inside(&["link", "set", &peer, "up"]);
        inside(&["link", "set", "lo", "up"]);
        for (_, address) in WORLD {
            inside(&["addr", "add", &format!("{address}/32"), "dev", "lo"]);
            ip(&["route", "replace", &format!("{address}/32"), "via", THERE, "dev", link]);
        }
        let port = PORT.to_string();
        let server = ["netns", "exec", namespace, "busybox", "httpd", "-f", "-p", &port, "-h", "/proc/self/fd"];
        self.server = Some(Command::new("ip").args(server).stdin(Stdio::null()).spawn().unwrap());
    }
}

/// Sends back what comes to the host's port.
fn echo(ended: Arc<AtomicBool>) {
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            if let Ok((size, from)) = socket.recv_from(&mut [0]) {
                let _ = socket.send_to(&[0][..size.min(1)], from);
            }
        }
    });
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).status().unwrap();
    assert!(done.success(), "ip {}", arguments.join(" "));
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // SAFETY: the number is that of this test's own memory.
        unsafe { libc::shmctl(self.memory, libc::IPC_RMID, std::ptr::null_mut()) };
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        // The routes go with the link, the other end of it with the namespace.
        for arguments in [["link", "del", &self.link], ["netns", "del", &self.namespace]] {
            let _ = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
        }
    }
}
