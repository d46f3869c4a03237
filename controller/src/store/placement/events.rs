//! Writes events about instances.

use serde_json::Value;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::Result;
use crate::values::instance_events::{APP_CRASH, InstanceEvent};

/// Writes events about instances; those of assignments that the cell does not have, or whose app is gone, are left out.
pub(super) async fn write(tx: &mut Transaction<'_, Postgres>, new_events: &[InstanceEvent]) -> Result<()> {
    if new_events.is_empty() {
        return Ok(());
    }
    let guids: Vec<Uuid> = new_events.iter().map(|event| event.guid).collect();
    let kinds: Vec<String> = new_events.iter().map(|event| event.kind.to_owned()).collect();
    let ids: Vec<Uuid> = new_events.iter().map(|event| event.assignment.0).collect();
    let cells: Vec<Uuid> = new_events.iter().map(|event| event.cell.0).collect();
    let data: Vec<Value> = new_events.iter().map(|event| event.data.clone()).collect();
    sqlx::query!(
        "insert into event (guid, type, actor_guid, actor_type, actor_name, target_guid, target_type, target_name,
                            data, space_guid, org_guid)
         select t.guid, t.kind, case t.kind when $6 then a.guid else p.guid end::text,
                case t.kind when $6 then 'app' else 'process' end, case t.kind when $6 then a.name else p.type end,
                a.guid::text, 'app', a.name,
                t.data || jsonb_build_object('index', i.index, 'version', p.version), s.guid, s.org_guid
         from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::jsonb[])
              with ordinality as t (guid, kind, id, cell, data, place)
         join assignment i on i.id = t.id and i.cell = t.cell
         join process p on p.guid = i.group_id
         join app a on a.guid = p.app_guid
         join space s on s.guid = a.space_guid
         order by t.place
         on conflict (guid) do nothing",
        &guids,
        &kinds,
        &ids,
        &cells,
        &data,
        APP_CRASH
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
