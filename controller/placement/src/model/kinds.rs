//! What is stored as one word: kinds, roles, intents and states.

/// An enum that is stored as text.
macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// As stored.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::PlacementError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(crate::PlacementError::Unknown { what: stringify!($name), value: other.to_owned() }),
                }
            }
        }
    };
}

stored_enum! {
    /// Why an instance has no place.
    UnplacedReason {
        /// No connected cell is of the kind that is wanted, however much room there were: only an operator can help.
        NoCompatibleCell = "no_compatible_cell",
        /// Cells of the kind that is wanted are connected and none has room: it is placed when something else ends, so
        /// whoever asked for it may wait.
        NoRoom = "no_room",
        /// Anything else, such as that no cell is connected.
        Other = "other",
    }
}

stored_enum! {
    /// What a workload is.
    Kind {
        /// Long-running: instances are at-least-once.
        Lrp = "lrp",
        /// Runs once per attempt.
        Task = "task",
        /// Runs once per attempt.
        Build = "build",
    }
}

stored_enum! {
    /// What an assignment is to its (group, index).
    Role {
        /// The one place of an instance.
        Primary = "primary",
        /// On a lost cell: still routable, with a replacement beside it.
        Suspect = "suspect",
        /// On its way out.
        Extra = "extra",
    }
}

stored_enum! {
    /// What the cell is told.
    Intent {
        /// Run it.
        Run = "run",
        /// Keep it running; it is out of the table.
        Drain = "drain",
        /// Stop it.
        Stop = "stop",
    }
}

stored_enum! {
    /// What the cell last said.
    Observed {
        /// Nothing yet.
        Unknown = "unknown",
        /// Fetching layers, making the sandbox.
        Preparing = "preparing",
        /// The process runs, health has not passed.
        Starting = "starting",
        /// Health has passed.
        Running = "running",
        /// Will be restarted by the cell.
        Crashed = "crashed",
        /// Will not be restarted by the cell.
        GivenUp = "given_up",
        /// Nothing of it is left.
        Stopped = "stopped",
        /// A task or build that ended by itself.
        Completed = "completed",
        /// The cell cannot run it; nothing of it is left.
        Refused = "refused",
    }
}

impl Observed {
    /// Nothing of it is left on the cell.
    #[must_use]
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Refused)
    }
}

stored_enum! {
    /// What the controllers' sessions say of a cell.
    CellState {
        /// It has a session.
        Connected = "connected",
        /// It has none, for less than the limit: nothing new goes there.
        Suspect = "suspect",
        /// It has none for longer than the limit.
        Lost = "lost",
        /// An operator has cut it off.
        Fenced = "fenced",
    }
}

stored_enum! {
    /// Whose fault an exit was.
    Fault {
        /// Nobody's: a clean end.
        None = "none",
        /// The app's.
        App = "app",
        /// The cell's: the planner may move the instance.
        Cell = "cell",
        /// The platform's.
        Platform = "platform",
    }
}
