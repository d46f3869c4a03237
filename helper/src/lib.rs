//! What the agent and the program inside the sandbox share: the order to start something ([`spec`]), the guards by name
//! ([`guards`]) and the few netlink messages both send ([`netlink`]).

pub mod guards;
pub mod netlink;
pub mod spec;
