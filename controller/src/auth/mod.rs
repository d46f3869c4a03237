//! Tokens, users and roles.

pub mod bootstrap;
pub mod guard;
pub mod guesses;
pub mod keys;
pub mod login;
pub mod password;
pub mod tokens;

pub use bootstrap::{bootstrap, waiting_password};
