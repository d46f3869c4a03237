//! The guards of a sandbox by name, and the way in which tests do without one.
//!
//! A guard that nobody would miss is not known to work. So each has a name here, its place asks [`Guards::hold`], and a
//! test starts a sandbox without it to see which attempt from inside then goes through. A build for release has no such
//! choice: there a guard holds whatever an order says.

use serde::{Deserialize, Serialize};

macro_rules! guards {
    ($($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// One thing that keeps a sandbox in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Guard {
            $($(#[doc = $text])+ $name,)+
        }

        impl Guard {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

guards! {
    /// What the agent inherited is closed before the program starts.
    Descriptors,
    /// Process 1 cannot be looked into by other processes of root that have no power over processes.
    Dumpable,
    /// `init` leaves the agent's session.
    InitSession,
    /// The app has a session of its own.
    AppSession,
    /// Its own System V and POSIX queues, semaphores and memory.
    IpcNamespace,
    /// Its own host name.
    HostName,
    /// It does not see where on the host its groups are.
    CgroupNamespace,
    /// Ids of two slots never meet.
    OwnIds,
    /// Layers are seen with the slot's ids.
    MappedLayers,
    /// Bounds of inotify for each sandbox.
    Inotify,
    /// No IPv6.
    NoIpv6,
    /// Nobody tells it another way to a neighbour than the host's rules.
    NoRedirects,
    /// An address without a network.
    SingleAddress,
    /// Ports of the bridge do not speak to each other.
    IsolatedPort,
    /// The host's tree is detached.
    HostTree,
    /// Paths of layers are resolved within the new root.
    ResolvedInside,
    /// No mount gives privilege by the mode of a file.
    NoSetuid,
    /// No mount has devices but `/dev`.
    NoDevices,
    /// What is lent read only cannot be written.
    ReadOnlyBinds,
    /// `/proc` has nothing of the host but what programs need.
    BlankProc,
    /// `/proc/sys` cannot be written.
    ReadOnlyProc,
    /// Processes of others do not show in `/proc`.
    HiddenProcesses,
    /// Terminals for each sandbox.
    Terminals,
    /// Size of `/dev/shm`.
    SharedMemory,
    /// The program does not run as root of the sandbox.
    User,
    /// No group of the agent's stays.
    Groups,
    /// No capability can ever be had again.
    BoundingSet,
    /// No capability is held.
    Capabilities,
    /// No core is dumped, piped ones included.
    CoreLimit,
    /// Open files for each process.
    OpenFiles,
    /// System call filters as a whole: with them go `no_new_privs` and the refusal of other architectures.
    Filters,
    /// No system call but those of the list.
    ListedCalls,
    /// No `clone3`.
    NoClone3,
    /// The dangerous calls by name.
    DangerousCalls,
    /// `clone` makes no namespace.
    NamespaceFlags,
    /// Families of sockets.
    SocketFamilies,
    /// Types and protocols of sockets, kinds of netlink.
    SocketProtocols,
    /// No protocol on top of TCP in the kernel.
    UpperProtocols,
    /// What `personality` may set.
    Personality,
    /// Nobody types into a terminal.
    Typing,
    /// Nothing that only btrfs answers.
    Subvolumes,
    /// The limit of cores stays as it is.
    CoreLimitStays,
    /// `sync` does not write out the host's disks.
    QuietSync,
    /// The bridge speaks no IPv6, for which there are no rules.
    BridgeNoIpv6,
    /// Instances do not reach each other.
    Neighbours,
    /// Where clouds tell credentials is out of reach.
    Metadata,
    /// The platform's own ports on other hosts are out of reach.
    Platform,
    /// The host's ports are out of reach.
    HostPorts,
    /// Builds alone reach the cell's proxy for registries.
    Registries,
    /// Of the resolvers port 53 alone.
    ResolverPort,
    /// Nobody but the agent's checks reaches an instance whose gate is closed.
    Gate,
    /// Connections that one instance has open.
    Connections,
    /// Connections that one instance begins in a second.
    ConnectionRate,
    /// What its interface carries.
    Bandwidth,
    /// The limit of memory cannot be passed by way of the disk.
    NoSwap,
    /// No huge pages.
    NoHugePages,
    /// All sandboxes together leave the host processes and memory.
    Reserve,
}

/// The guards that hold for a sandbox: all of them, unless a test says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    #[cfg(debug_assertions)]
    #[serde(default)]
    without: Vec<Guard>,
}

impl Guards {
    /// All but these. There is no such thing in a build for release.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn without(guards: &[Guard]) -> Self {
        Self { without: guards.to_vec() }
    }

    /// Whether this one is to be set up.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn hold(&self, guard: Guard) -> bool {
        !self.without.contains(&guard)
    }

    /// Whether this one is to be set up: always.
    #[cfg(not(debug_assertions))]
    #[must_use]
    pub const fn hold(&self, _guard: Guard) -> bool {
        true
    }
}
