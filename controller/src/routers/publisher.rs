//! Computes the table at each version of the store and keeps the last few, so that routers get deltas.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slipway_chassis::chain;
use slipway_chassis::driver::{BackgroundTask, Definition, Next};
use slipway_protocol::v1::Version;
use tokio::sync::watch;

use crate::domain::services::bindings::credentials_place;
use crate::vault::Vault;
use slipway_placement::routing_table::{self, RoutingInput, Table};
use slipway_placement::{PlacementError, PlacementStore};

/// Versions kept for routers that come back. They share what did not change; a router that missed more gets a
/// snapshot.
const HISTORY: usize = 256;
/// Routes and pools in all kept versions together: the keys of each version are its own. Some 200 MB.
const HISTORY_ENTRIES: usize = 2_000_000;

/// The last tables.
#[derive(Debug)]
pub struct Tables {
    history: Mutex<VecDeque<Arc<Table>>>,
    newest: watch::Sender<Option<Arc<Table>>>,
}

impl Default for Tables {
    fn default() -> Self {
        Self { history: Mutex::default(), newest: watch::Sender::new(None) }
    }
}

impl Tables {
    /// The newest table and all later ones; `None` until the store has answered once.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Table>>> {
        self.newest.subscribe()
    }

    /// The newest table.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Table>> {
        self.newest.borrow().clone()
    }

    /// The table at exactly this version, when it is still kept.
    #[must_use]
    pub fn at(&self, version: Version) -> Option<Arc<Table>> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.iter().rev().find(|table| table.version == version).cloned()
    }

    fn publish(&self, table: Arc<Table>) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push_back(Arc::clone(&table));
        trim(&mut history, HISTORY, HISTORY_ENTRIES);
        drop(history);
        self.newest.send_replace(Some(table));
    }

    /// Reads the store and publishes what it stands at, when that is newer.
    async fn refresh(
        &self,
        placement: &dyn PlacementStore,
        vault: &Vault,
        system_domain: &str,
    ) -> slipway_placement::Result<()> {
        let mut input = placement.routing_input().await?;
        open_secrets(vault, &mut input);
        let previous = self.newest();
        if previous.as_ref().is_some_and(|previous| input.version <= previous.version) {
            return Ok(());
        }
        let empty = Table::default();
        let table = routing_table::build(&input, system_domain, previous.as_deref().unwrap_or(&empty));
        self.publish(Arc::new(table));
        Ok(())
    }
}

/// Forgets the oldest tables until the others are within the limits. The newest stays, whatever its size.
fn trim(history: &mut VecDeque<Arc<Table>>, tables: usize, entries: usize) {
    let mut retained: usize = history.iter().map(|table| table.entries()).sum();
    while history.len() > 1 && (history.len() > tables || retained > entries) {
        let Some(oldest) = history.pop_front() else { return };
        retained -= oldest.entries();
    }
}

/// Opens the secrets of route services. One that cannot be opened becomes none: routers refuse requests of such a route
/// rather than let them pass by its service.
pub fn open_secrets(vault: &Vault, input: &mut RoutingInput) {
    for route in &mut input.routes {
        let (Some(binding), Some(sealed)) = (route.service_binding, route.route_service_secret.take()) else {
            continue;
        };
        match vault.open(&credentials_place(binding), &sealed) {
            Ok(secret) => route.route_service_secret = Some(secret),
            Err(error) => {
                tracing::error!(route.guid = %route.id, error = %chain(&error), "a route's service cannot be used");
            }
        }
    }
}

/// The publisher, as a task.
pub const PUBLISH: Definition = Definition {
    name: "publish",
    description: "Makes the routing table of each version and gives it to the routers",
    period: Duration::from_secs(5),
    woken_by: "every change",
};

/// Publishes the table. While the store is away the last one stands.
pub struct Publisher {
    /// What is published.
    pub tables: Arc<Tables>,
    /// What it is made of.
    pub placement: Arc<dyn PlacementStore>,
    /// Opens the credentials of route services.
    pub vault: Vault,
    /// The platform's own domain.
    pub system_domain: String,
}

impl BackgroundTask for Publisher {
    type Error = PlacementError;

    async fn run(&mut self) -> Result<Next, PlacementError> {
        self.tables.refresh(self.placement.as_ref(), &self.vault, &self.system_domain).await?;
        Ok(Next::AfterPeriod)
    }
}
