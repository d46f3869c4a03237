//! One instance: its pure life ([`state`]), the task that owns it ([`runner`]), its health checks and crash policy.

mod astray;
pub mod crash;
pub mod health;
pub mod prepare;
pub mod runner;
pub mod state;

#[cfg(test)]
mod health_tests;
#[cfg(test)]
mod state_tests;
