//! Tokens, users and roles.

pub mod bootstrap;
pub mod fair;
pub mod guard;
pub mod guesses;
pub mod keys;
pub mod login;
pub mod password;
pub mod rs256;
pub mod tokens;

pub use bootstrap::{bootstrap, waiting_password};
