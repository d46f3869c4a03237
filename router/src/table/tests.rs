//! What a table must do, as tables; and that any way to a version gives the same table.

use proptest::prelude::*;
use slipway_protocol::v1::{Pool, PoolEndpoint, Route, TableDelta, WeightedPool};

use super::*;

fn route(id: &str, host: &str, path: &str) -> Route {
    let targets = vec![WeightedPool { pool: "p".into(), weight: 0 }];
    Route { id: id.into(), host: host.into(), path: path.into(), targets, ..Route::default() }
}

fn endpoint(id: &str, port: u32) -> PoolEndpoint {
    PoolEndpoint { assignment_id: id.into(), host: "10.0.0.1".into(), port, ..PoolEndpoint::default() }
}

fn pool(id: &str, endpoints: &[PoolEndpoint]) -> Pool {
    Pool { id: id.into(), app_id: "app".into(), endpoints: endpoints.to_vec(), ..Pool::default() }
}

fn snapshot(seq: u64, routes: Vec<Route>, pools: Vec<Pool>) -> TableSnapshot {
    let digest = SetDigest::of_table(&routes, &pools).to_bytes();
    TableSnapshot { version: Some(Version::new(1, seq)), digest, routes, pools }
}

fn table(seq: u64, routes: Vec<Route>, pools: Vec<Pool>) -> Table {
    changed(Table::default().with_snapshot(&snapshot(seq, routes, pools)).expect("applies"))
}

fn changed(applied: Applied) -> Table {
    match applied {
        Applied::Changed(table) => table,
        Applied::Same => panic!("nothing changed"),
    }
}

#[test]
fn the_most_specific_route_wins() {
    let table = table(
        1,
        vec![
            route("exact", "app.example.com", ""),
            route("v1", "app.example.com", "/v1"),
            route("v1-deep", "app.example.com", "/v1/deep"),
            route("only-path", "paths.example.com", "/x"),
            route("wild", "*.example.com", ""),
            route("wild-path", "*.example.com", "/w"),
            route("wilder", "*.com", ""),
        ],
        vec![],
    );
    for (host, path, expected) in [
        ("app.example.com", "/", Some("exact")),
        ("app.example.com", "/v1", Some("v1")),
        ("app.example.com", "/v1/deeper", Some("v1")),
        ("app.example.com", "/v1/deep/x", Some("v1-deep")),
        ("app.example.com", "/v10", Some("exact")),
        ("other.example.com", "/", Some("wild")),
        ("a.b.example.com", "/w/x", Some("wild-path")),
        ("paths.example.com", "/x/y", Some("only-path")),
        ("paths.example.com", "/y", Some("wild")),
        ("example.com", "/", Some("wilder")),
        ("com", "/", None),
        ("app.example.org", "/", None),
        ("", "/", None),
    ] {
        let found = table.find(host, path).map(|entry| entry.route.id.as_str());
        assert_eq!(found, expected, "{host}{path}");
    }
}

#[test]
fn two_routes_for_one_place_are_decided_by_id() {
    for order in [["b", "a"], ["a", "b"]] {
        let table = table(1, order.iter().map(|id| route(id, "x.test", "")).collect(), vec![]);
        assert_eq!(table.find("x.test", "/").expect("found").route.id, "a");
    }
}

#[test]
fn the_platforms_own_routes_come_before_all_others() {
    let system = Route { system: true, ..route("system:api", "api.x.test", "") };
    for id in ["0b9c", "system:a", "z"] {
        for path in ["", "/v3", "/v3/apps"] {
            let table = table(1, vec![route(id, "api.x.test", path), system.clone()], vec![]);
            assert_eq!(table.find("api.x.test", "/v3/apps").expect("found").route.id, "system:api", "{id} {path}");
        }
    }
}

#[test]
fn an_endpoint_keeps_its_key_until_it_leaves() {
    let first = table(1, vec![], vec![pool("p", &[endpoint("a", 1), endpoint("b", 2)])]);
    let upsert = pool("p", &[endpoint("b", 2), endpoint("a", 3)]);
    let delta = TableDelta {
        from: Some(Version::new(1, 1)),
        to: Some(Version::new(1, 2)),
        digest: SetDigest::of_table([], [&upsert]).to_bytes(),
        upsert_pools: vec![upsert],
        ..TableDelta::default()
    };
    let second = changed(first.with_delta(&delta).expect("applies"));
    let (old, new) = (first.pool("p").expect("old"), second.pool("p").expect("new"));
    assert_eq!(new.endpoints[0].key, old.endpoints[1].key);
    assert!(new.endpoints[1].key > old.endpoints[1].key, "the same assignment at another address is another endpoint");
    assert!(!second.holds(&old.endpoints[0]) && second.holds(&old.endpoints[1]));
}

#[test]
fn hostile_messages_change_nothing() {
    let held = table(5, vec![route("r", "x.test", "")], vec![]);
    let from = Some(Version::new(1, 5));
    let digest = held.digest().to_bytes();
    let good = TableDelta { from, to: Some(Version::new(1, 6)), digest, ..TableDelta::default() };
    assert_eq!(
        held.with_delta(&TableDelta { digest: vec![0; 32].into(), ..good.clone() }).expect_err("refused"),
        ApplyError::WrongDigest {
            version: Version::new(1, 6),
            found: hex::encode(held.digest().0),
            said: hex::encode([0; 32])
        }
    );
    let refused = |delta: TableDelta| held.with_delta(&delta).expect_err("refused");
    assert!(matches!(refused(TableDelta { digest: vec![1].into(), ..good.clone() }), ApplyError::WrongDigest { .. }));
    assert!(matches!(
        refused(TableDelta { from: Some(Version::new(1, 4)), ..good.clone() }),
        ApplyError::WrongFrom { .. }
    ));
    assert!(matches!(refused(TableDelta { from: None, ..good.clone() }), ApplyError::Missing { .. }));
    assert!(matches!(refused(TableDelta { to: None, ..good.clone() }), ApplyError::Missing { .. }));
    assert!(matches!(refused(TableDelta { to: Some(Version::new(1, 4)), ..good.clone() }), ApplyError::Older { .. }));
    // Removing what is not there is no change; the digest decides.
    let harmless = TableDelta { remove_pools: vec!["gone".into()], remove_routes: vec!["gone".into()], ..good };
    assert!(matches!(held.with_delta(&harmless), Ok(Applied::Changed(_))));

    assert!(matches!(held.with_snapshot(&snapshot(4, vec![], vec![])), Err(ApplyError::Older { .. })));
    assert!(matches!(held.with_snapshot(&snapshot(5, vec![], vec![])), Err(ApplyError::Conflict { .. })));
    assert!(matches!(held.with_snapshot(&held.to_snapshot()), Ok(Applied::Same)));
    let liar = TableSnapshot { digest: vec![7; 32].into(), ..snapshot(6, vec![], vec![]) };
    assert!(matches!(held.with_snapshot(&liar), Err(ApplyError::WrongDigest { .. })));
    assert_eq!(held.find("x.test", "/").expect("still there").route.id, "r");
}

#[test]
fn malformed_endpoints_stay_in_the_table_but_are_not_dialled() {
    let bad = [("", 80), ("name.test", 80), ("10.0.0.1", 0), ("10.0.0.1", 65_536), ("10.0.0.1:80", 80)]
        .map(|(host, port)| PoolEndpoint { host: host.into(), port, ..PoolEndpoint::default() });
    let mut odd = route("r", "x.test", "");
    odd.load_balancing = "by-phase-of-moon".into();
    odd.targets.push(WeightedPool { pool: "no-such-pool".into(), weight: 3 });
    let mut headerless = route("h", "y.test", "");
    headerless.load_balancing = "hash".into();
    headerless.hash_header = "not a header".into();
    let table = table(1, vec![odd.clone(), headerless], vec![pool("p", &bad)]);
    let entry = table.pool("p").expect("pool");
    assert_eq!((entry.endpoints.len(), entry.unusable), (0, 5));
    let found = table.find("x.test", "/").expect("route");
    assert_eq!(found.route, odd, "kept as it came");
    assert_eq!(found.balance, Balance::TwoChoices);
    assert_eq!(table.find("y.test", "/").expect("route").balance, Balance::TwoChoices);
    assert!(table.pool("no-such-pool").is_none());
}

#[derive(Clone, Debug)]
enum Step {
    PutRoute(Route),
    TakeRoute(String),
    PutPool(Pool),
    TakePool(String),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || (0..6_u32).prop_map(|number| format!("i{number}"));
    let host = prop::sample::select(vec!["a.test", "b.test", "*.test", "*.a.test"]);
    let path = prop::sample::select(vec!["", "/x", "/x/y"]);
    prop_oneof![
        (id(), host, path).prop_map(|(id, host, path)| Step::PutRoute(route(&id, host, path))),
        id().prop_map(Step::TakeRoute),
        (id(), prop::collection::vec(0..5_u32, 0..4)).prop_map(|(id, ports)| {
            let endpoints: Vec<_> = ports.iter().map(|port| endpoint(&format!("e{port}"), port + 1)).collect();
            Step::PutPool(pool(&id, &endpoints))
        }),
        id().prop_map(Step::TakePool),
    ]
}

proptest! {
    /// Deltas lead to the table that a snapshot of the same content describes, with the same digest and answers.
    #[test]
    fn deltas_equal_a_snapshot(rounds in prop::collection::vec(prop::collection::vec(step(), 0..4), 1..12)) {
        use std::collections::BTreeMap;
        let mut routes: BTreeMap<String, Route> = BTreeMap::new();
        let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
        let mut held = table(0, vec![], vec![]);
        for (round, steps) in rounds.into_iter().enumerate() {
            let (old_routes, old_pools) = (routes.clone(), pools.clone());
            for step in steps {
                match step {
                    Step::PutRoute(route) => drop(routes.insert(route.id.clone(), route)),
                    Step::TakeRoute(id) => drop(routes.remove(&id)),
                    Step::PutPool(pool) => drop(pools.insert(pool.id.clone(), pool)),
                    Step::TakePool(id) => drop(pools.remove(&id)),
                }
            }
            let delta = TableDelta {
                from: Some(Version::new(1, round as u64)),
                to: Some(Version::new(1, round as u64 + 1)),
                digest: SetDigest::of_table(routes.values(), pools.values()).to_bytes(),
                upsert_routes: routes.values().filter(|route| old_routes.get(&route.id) != Some(route)).cloned().collect(),
                remove_routes: old_routes.keys().filter(|id| !routes.contains_key(*id)).cloned().collect(),
                upsert_pools: pools.values().filter(|pool| old_pools.get(&pool.id) != Some(pool)).cloned().collect(),
                remove_pools: old_pools.keys().filter(|id| !pools.contains_key(*id)).cloned().collect(),
            };
            held = changed(held.with_delta(&delta).expect("applies"));
        }
        let whole = table(99, routes.values().cloned().collect(), pools.values().cloned().collect());
        prop_assert_eq!(held.digest(), whole.digest());
        prop_assert_eq!(held.digest(), held.digest_anew());
        for host in ["a.test", "b.test", "c.test", "x.a.test", "test"] {
            for path in ["/", "/x", "/x/y", "/xy"] {
                let of = |table: &Table| table.find(host, path).map(|entry| entry.route.clone());
                prop_assert_eq!(of(&held), of(&whole), "{}{}", host, path);
            }
        }
        let ids = |table: &Table| {
            let mut all: Vec<_> = table.pools().map(|entry| entry.pool.clone()).collect();
            all.sort_by(|a, b| a.id.cmp(&b.id));
            all
        };
        prop_assert_eq!(ids(&held), ids(&whole));
    }
}
