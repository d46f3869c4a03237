//! Streams to cells: sets out, observations in.
//!
//! * [`hub`]: which cells have a session with this controller, and what they last used.
//! * [`session`]: one cell's session.
//! * [`observation`]: observations from the wire, checked.
//! * [`recorder`]: observations of all cells, a transaction at a time.
//! * [`service`]: the gRPC service.
//! * [`blobs`]: blobs for cells, which have no credentials of the object store.
//! * [`queries`]: questions that only cells and routers can answer.

mod asking;
pub mod blobs;
pub mod hub;
pub(crate) mod members;
pub mod observation;
pub mod queries;
pub mod recorder;
pub mod service;
pub mod session;
