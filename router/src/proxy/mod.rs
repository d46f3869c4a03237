//! Requests, from accept to access line.
//!
//! One runtime on one thread per core, each with its own listeners (`SO_REUSEPORT`), connections, health and counters:
//! nothing on the path of a request is shared between cores but the table, which is read without a lock.
//!
//! A request has named phases, each with its limit and its own answer: **accept** ([`connection`]), **match** and
//! **choose** ([`choose`]), **connect** ([`upstream`]), **send** and **receive** ([`service`], [`body`]), **log**
//! ([`exchange`]). An answer that the router made itself says so in `X-Cf-RouterError` ([`answer`]), and what a failed
//! try was like ([`failure`]).

mod answer;
mod answering;
mod body;
mod choose;
mod connection;
mod core;
mod cut;
mod endpoint;
mod exchange;
mod expect_continue;
mod failure;
mod fair;
pub(crate) mod forwarding;
mod headers;
mod linger;
mod listener;
mod phase;
mod pieces;
mod route_service;
mod service;
mod sticky;
mod streams;
mod target;
mod tunnel;
mod upstream;

pub(crate) use self::core::{Shared, run_core};
