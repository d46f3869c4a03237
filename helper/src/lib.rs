//! What the agent and the program inside the sandbox share: the order to start something ([`spec`]) and the few netlink
//! messages both send ([`netlink`]).

pub mod netlink;
pub mod spec;
