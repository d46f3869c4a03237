//! Rows that are over are removed when they are old, and no others.

use slipway_controller::store::Store;
use sqlx::AssertSqlSafe;

use crate::support::TestController;

#[tokio::test]
async fn what_is_over_is_kept_for_a_while() {
    let controller = TestController::start().await;
    let pool = &controller.database.pool;
    let run = async |sql: &str| sqlx::query(AssertSqlSafe(sql.to_owned())).execute(pool).await.expect(sql);
    for (name, age, spec_age) in [("old", "100 days", "2 days"), ("young", "20 days", "1 hour")] {
        run(&format!(
            "insert into job (guid, operation, state, updated_at)
             select gen_random_uuid(), '{name}.' || s, s, now() - interval '{age}'
             from unnest(array['COMPLETE', 'FAILED']) s"
        ))
        .await;
        run(&format!(
            "insert into event (guid, type, actor_guid, actor_type, actor_name, target_guid, target_type, target_name,
                                created_at)
             values (gen_random_uuid(), '{name}', '', '', '', '', '', '', now() - interval '{age}')"
        ))
        .await;
        run(&format!(
            "insert into spec (digest, kind, body, memory_mb, disk_mb, stack, created_at)
             select sha256(('{name}' || k)::bytea), 'lrp', '', 1, 1, '{name}', now() - interval '{spec_age}'
             from unnest(array['used', 'unused']) k"
        ))
        .await;
    }
    run("insert into job (guid, operation, state, updated_at)
         values (gen_random_uuid(), 'old.open', 'PROCESSING', now() - interval '100 days')")
    .await;
    run("insert into cell (id, zone, memory_mb, disk_mb, slots) values (gen_random_uuid(), 'z', 1, 1, 8)").await;
    run("insert into assignment (id, group_id, index, spec, kind, cell, slot, seq)
         select gen_random_uuid(), gen_random_uuid(), 0, sha256('oldused'), 'lrp', id, 1, 1 from cell limit 1")
    .await;
    Store::new(pool.clone()).trim().await.expect("trimmed");
    let names = async |sql: &str| -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(pool).await.expect(sql)
    };
    let jobs =
        names("select operation from job where operation like 'old%' or operation like 'young%' order by 1").await;
    assert_eq!(jobs, ["old.open", "young.COMPLETE", "young.FAILED"]);
    assert_eq!(names("select type from event where type in ('old', 'young')").await, ["young"]);
    let specs = "select stack from spec where stack in ('old', 'young') order by 1";
    assert_eq!(names(specs).await, ["old", "young", "young"], "the old one that is assigned stays");
    let used = "select stack from spec s join assignment a on a.spec = s.digest";
    assert_eq!(names(used).await, ["old"]);
}
