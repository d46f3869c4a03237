//! Kinds of entries of the change log.

/// What a change is about; readers use it to decide what to read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// An app's state, droplet or environment.
    App,
    /// A process's instances, spec or scale.
    Process,
    /// A route, its destinations or options.
    Route,
    /// A build was asked for or has ended.
    Build,
    /// A task was asked for, cancelled or has ended.
    Task,
    /// An assignment's intent or role.
    Assignment,
    /// An instance's observed state, as far as routing or planning depends on it.
    Observation,
    /// A cell came, went, or changed what it offers.
    Cell,
    /// A router came or went.
    Router,
    /// A controller's address.
    Controller,
    /// A security group's rules, or where it holds.
    SecurityGroup,
    /// A space's name, which routers write into access lines, or its isolation segment.
    Space,
    /// An organization's name, or its default isolation segment.
    Organization,
}

impl ChangeKind {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Process => "process",
            Self::Route => "route",
            Self::Build => "build",
            Self::Task => "task",
            Self::Assignment => "assignment",
            Self::Observation => "observation",
            Self::Cell => "cell",
            Self::Router => "router",
            Self::Controller => "controller",
            Self::SecurityGroup => "security_group",
            Self::Space => "space",
            Self::Organization => "organization",
        }
    }

    /// From what is stored; `None` for a kind that a newer program wrote.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        const ALL: [ChangeKind; 13] = [
            ChangeKind::App,
            ChangeKind::Process,
            ChangeKind::Route,
            ChangeKind::Build,
            ChangeKind::Task,
            ChangeKind::Assignment,
            ChangeKind::Observation,
            ChangeKind::Cell,
            ChangeKind::Router,
            ChangeKind::Controller,
            ChangeKind::SecurityGroup,
            ChangeKind::Space,
            ChangeKind::Organization,
        ];
        ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}
