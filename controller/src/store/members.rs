//! The members of the cluster by their addresses.

use super::Store;

/// What the rows of cells, controllers and routers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRows {
    /// `host:port` of services of members.
    pub addresses: Vec<String>,
    /// Hosts whose ports lead to instances, with how many.
    pub host_ports: Vec<(String, u32)>,
    /// Addresses of each router; none of one that has had no session since they are kept.
    pub routers: Vec<Vec<String>>,
}

impl Store {
    /// All members that are registered.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn members(&self) -> sqlx::Result<MemberRows> {
        let cells = sqlx::query!("select query_address, advertise_mode, advertise_host, slots from cell order by id");
        let cells = cells.fetch_all(self.pool()).await?;
        let controllers = sqlx::query_scalar!("select cluster_address from controller order by id");
        let controllers = controllers.fetch_all(self.pool()).await?;
        let routers = sqlx::query!("select query_address, addresses from router order by id");
        let routers = routers.fetch_all(self.pool()).await?;
        let mut rows = MemberRows { addresses: controllers, ..MemberRows::default() };
        for cell in cells {
            rows.addresses.push(cell.query_address);
            if cell.advertise_mode == "host-port" {
                rows.host_ports.push((cell.advertise_host, u32::try_from(cell.slots).unwrap_or(0)));
            }
        }
        for router in routers {
            rows.addresses.push(router.query_address);
            rows.routers.push(router.addresses);
        }
        Ok(rows)
    }
}
