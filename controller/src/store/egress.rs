//! Egress policies: which security groups hold where, as cells are told.

use std::collections::BTreeMap;

use serde_json::Value;
use slipway_protocol::v1::EgressPolicyBody;
use sqlx::PgConnection;
use uuid::Uuid;

use slipway_placement::egress;

/// The policies of these spaces, each `running` (false) or `staging` (true).
///
/// # Errors
/// When the database fails.
pub async fn egress_policies_tx(
    tx: &mut PgConnection,
    places: &[(Uuid, bool)],
) -> sqlx::Result<BTreeMap<(Uuid, bool), EgressPolicyBody>> {
    let (spaces, staging): (Vec<Uuid>, Vec<bool>) = places.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"select p.space as "space!", p.staging as "staging!", g.rules as "rules?"
           from unnest($1::uuid[], $2::boolean[]) as p (space, staging)
           left join security_group g on case when p.staging then g.globally_staging else g.globally_running end
               or exists (select 1 from security_group_space x
                          where x.security_group_guid = g.guid and x.space_guid = p.space
                            and x.phase = case when p.staging then 'staging' else 'running' end)
           order by p.space, p.staging, g.name"#,
        &spaces,
        &staging
    )
    .fetch_all(tx)
    .await?;
    let mut groups: BTreeMap<(Uuid, bool), Vec<Value>> = BTreeMap::new();
    for row in rows {
        groups.entry((row.space, row.staging)).or_default().extend(row.rules);
    }
    Ok(groups.into_iter().map(|(place, rules)| (place, egress::policy(&rules))).collect())
}
