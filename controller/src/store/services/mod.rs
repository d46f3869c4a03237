//! Service instances, their bindings and the spaces they are shared with.

pub mod bindings;
pub mod files;
pub mod instances;
pub mod shares;

pub use bindings::{NewBinding, ServiceBindingRow};
pub use instances::{NewInstance, ServiceInstanceRow};
