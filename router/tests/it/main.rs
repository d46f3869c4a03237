//! The router with real sockets: a fake controller, backends in the same process, and clients that misbehave.

mod access_lines;
mod cut;
mod early;
mod failures;
mod heads;
mod hostile;
mod http2;
mod http2_apps;
mod http2_life;
mod life;
mod limits;
mod route_services;
mod sockets;
mod stalls;
mod support;
mod system;
mod traffic;
