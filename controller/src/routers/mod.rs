//! The routing table and its way to the routers.
//!
//! * [`table`]: the table as a pure function of the store.
//! * [`publisher`]: computes it at each version and keeps the last few, for deltas.
//! * [`hub`]: which routers have a session, what they have acknowledged, and the proof made of it.
//! * [`session`], [`service`]: one router's session, and the gRPC service.

pub mod hub;
pub mod publisher;
pub mod service;
pub mod session;
pub mod table;
