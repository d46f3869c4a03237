//! Rows beside the placement store: controllers, the catalogue of layers, what is old enough to go.

use slipway_api_types::AssignmentId;
use slipway_layers::meta::LayerEntry;
use uuid::Uuid;

use super::Store;
use super::change_log::ChangeKind;
use slipway_placement::{Kind, OneShot};

/// A controller as routers reach it.
#[derive(Clone, Debug)]
pub struct ControllerRow {
    /// Its id.
    pub id: Uuid,
    /// `host:port` for cells and routers, where routers find the API too.
    pub cluster_address: String,
}

impl Store {
    /// Registers a controller; a change of its address changes the routing table.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn controller_put(&self, row: &ControllerRow) -> sqlx::Result<()> {
        let mut tx = self.begin().await?;
        let changed = sqlx::query!(
            "insert into controller (id, api_address, api_tls, cluster_address) values ($1, $2, true, $2)
             on conflict (id) do update set api_address = excluded.api_address, api_tls = excluded.api_tls,
                 cluster_address = excluded.cluster_address, seen_at = now()
             where (controller.api_address, controller.api_tls, controller.cluster_address)
                   is distinct from (excluded.api_address, excluded.api_tls, excluded.cluster_address)",
            row.id,
            row.cluster_address
        )
        .execute(&mut *tx)
        .await?;
        if changed.rows_affected() == 0 {
            return tx.rollback().await;
        }
        self.commit(tx, &[(ChangeKind::Controller, row.id)]).await?;
        Ok(())
    }

    /// Says that a controller lives, and deregisters those that were not seen for ten minutes: routers would go on
    /// sending API requests there. One that another has deregistered meanwhile (the database was away for long, and the
    /// other came back first) is there again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn controller_seen(&self, row: &ControllerRow) -> sqlx::Result<()> {
        let seen = sqlx::query!("update controller set seen_at = now() where id = $1", row.id);
        if seen.execute(self.pool()).await?.rows_affected() == 0 {
            self.controller_put(row).await?;
        }
        let mut tx = self.begin().await?;
        let gone =
            sqlx::query_scalar!("delete from controller where seen_at < now() - interval '10 minutes' returning id")
                .fetch_all(&mut *tx)
                .await?;
        if gone.is_empty() {
            return tx.rollback().await;
        }
        let log: Vec<_> = gone.into_iter().map(|id| (ChangeKind::Controller, id)).collect();
        self.commit(tx, &log).await?;
        Ok(())
    }

    /// Builds and tasks on lost cells that have not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn one_shots_lost(&self) -> sqlx::Result<Vec<OneShot>> {
        let rows = sqlx::query!(
            "select a.id, a.group_id, a.kind, a.attempt from assignment a join cell c on c.id = a.cell
             where a.tombstone_at is null and a.kind <> 'lrp' and a.intent = 'run' and c.state in ('lost', 'fenced')
               and a.observed not in ('stopped', 'completed', 'refused')"
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| OneShot {
                assignment: AssignmentId(row.id),
                group: row.group_id,
                kind: if row.kind == "build" { Kind::Build } else { Kind::Task },
                attempt: row.attempt.unsigned_abs(),
            })
            .collect())
    }

    /// Whether the catalogue has this layer with this blob.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn layer_exists(&self, digest: &[u8], blob: &[u8]) -> sqlx::Result<bool> {
        sqlx::query_scalar!(
            r#"select exists (select 1 from layer where digest = $1 and blob = $2) as "exists!""#,
            digest,
            blob
        )
        .fetch_one(self.pool())
        .await
    }

    /// Adds a layer to the catalogue. Its blob is in the object store already.
    ///
    /// # Errors
    /// When the database fails, or the kind of the layer is not one that the catalogue knows.
    pub async fn layer_put(&self, entry: &LayerEntry) -> sqlx::Result<()> {
        let meta = &entry.meta;
        let manifest = serde_json::to_value(entry).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut tx = self.begin().await?;
        sqlx::query!(
            "insert into layer (digest, blob, blob_size, size, kind, name, line, version, architecture, built_over,
                                manifest)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             on conflict (digest) do update set blob = excluded.blob, blob_size = excluded.blob_size,
                 manifest = excluded.manifest",
            meta.digest.as_bytes().as_slice(),
            meta.blob.as_bytes().as_slice(),
            size(meta.blob_size),
            size(meta.size),
            meta.kind,
            meta.name,
            meta.line,
            meta.version,
            meta.architecture,
            meta.built_over.last().map(|digest| digest.as_bytes().to_vec()),
            manifest
        )
        .execute(&mut *tx)
        .await?;
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, meta.digest.as_bytes());
        self.commit(tx, &[(ChangeKind::Build, id)]).await?;
        Ok(())
    }
}
