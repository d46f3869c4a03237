//! The way of the routing table (`slipway_placement::routing_table`) to the routers.
//!
//! * [`publisher`]: computes it at each version and keeps the last few, for deltas.
//! * [`hub`]: which routers have a session, what they have acknowledged, and the proof made of it.
//! * [`session`], [`service`]: one router's session, and the gRPC service.

pub mod hub;
pub mod publisher;
pub mod service;
pub mod session;
