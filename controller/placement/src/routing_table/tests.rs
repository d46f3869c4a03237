use super::*;

#[test]
fn the_platforms_names_are_its_own() {
    let mut input = input();
    for (id, host, domain, path) in
        [(21, "API", "sys.test", "/v3"), (22, "", "uaa.Sys.test", ""), (23, "blog", "sys.test", "")]
    {
        let (host, domain, path) = (host.to_owned(), domain.to_owned(), path.to_owned());
        input.routes.push(RouteRow { id: Uuid::from_u128(id), host, domain, path, ..input.routes[1].clone() });
    }
    let table = build(&input, "sys.test", &Table::default());
    let there = |id: u128| table.routes.contains_key(&Uuid::from_u128(id).to_string());
    assert_eq!([21, 22, 23].map(there), [false, false, true]);
    assert!(table.routes["system:api"].system && table.routes["system:uaa"].system);
}

fn input() -> RoutingInput {
    let (route, process) = (Uuid::from_u128(1), Uuid::from_u128(2));
    RoutingInput {
        version: Version::new(1, 7),
        routes: vec![
            RouteRow {
                id: route,
                host: "Shop".into(),
                domain: "apps.test".into(),
                path: "/v1".into(),
                options: Some(serde_json::json!({"loadbalancing": "round-robin"})),
                service_binding: Some(Uuid::from_u128(5)),
                route_service_url: Some("https://service.test/x".into()),
                route_service_secret: Some(vec![7; 32]),
            },
            RouteRow {
                id: Uuid::from_u128(9),
                host: String::new(),
                domain: "apps.test".into(),
                path: String::new(),
                options: None,
                service_binding: None,
                route_service_url: None,
                route_service_secret: Some(vec![8; 32]),
            },
        ],
        destinations: vec![DestinationRow {
            route,
            port: None,
            weight: Some(3),
            http2: false,
            app: Uuid::from_u128(3),
            app_name: "shop".into(),
            space_name: "dev".into(),
            organization_name: "acme".into(),
            process,
            process_type: "web".into(),
        }],
        endpoints: vec![EndpointRow {
            assignment: Uuid::from_u128(4),
            process,
            index: 0,
            host: "10.0.0.5".into(),
            port: 61_003,
            cell: Uuid::from_u128(5),
            zone: "z1".into(),
            direct: false,
        }],
        controllers: vec![(Uuid::from_u128(6), "[::1]:8181".into(), false)],
    }
}

#[test]
fn rows_become_routes_and_pools() {
    let table = build(&input(), "Slipway.test", &Table::default());
    let shop = &table.routes[&Uuid::from_u128(1).to_string()];
    assert_eq!((shop.host.as_str(), shop.path.as_str()), ("shop.apps.test", "/v1"));
    assert_eq!(shop.load_balancing, "round-robin");
    assert_eq!(shop.targets, [v1::WeightedPool { pool: format!("{}:8080", Uuid::from_u128(2)), weight: 3 }]);
    let pool = &table.pools[&shop.targets[0].pool];
    assert_eq!((pool.endpoints[0].host.as_str(), pool.endpoints[0].port), ("10.0.0.5", 61_003));
    let bare = &table.routes[&Uuid::from_u128(9).to_string()];
    assert_eq!((bare.host.as_str(), bare.targets.len()), ("apps.test", 0));
    assert_eq!(table.routes["system:api"].host, "api.slipway.test");
    assert_eq!(table.pools[SYSTEM_POOL].endpoints[0].host, "::1");
}

#[test]
fn two_processes_of_a_type_share_by_their_instances() {
    let mut rows = input();
    let (old, new, other) = (Uuid::from_u128(2), Uuid::from_u128(20), Uuid::from_u128(30));
    let destination = rows.destinations[0].clone();
    rows.destinations.push(DestinationRow { process: new, ..destination.clone() });
    rows.destinations.push(DestinationRow { app: other, process: other, weight: Some(1), ..destination });
    for (assignment, process) in [(41, old), (42, new)] {
        let endpoint = rows.endpoints[0].clone();
        rows.endpoints.push(EndpointRow { assignment: Uuid::from_u128(assignment), process, ..endpoint });
    }
    let table = build(&rows, "s.test", &Table::default());
    let targets = &table.routes[&Uuid::from_u128(1).to_string()].targets;
    let weight = |process: Uuid| targets.iter().find(|t| t.pool == format!("{process}:8080")).expect("pool").weight;
    assert_eq!((weight(old), weight(new), weight(other)), (20_000, 10_000, 10_000));
    rows.destinations.remove(1);
    let table = build(&rows, "s.test", &table);
    let weights: Vec<u32> = table.routes[&Uuid::from_u128(1).to_string()].targets.iter().map(|t| t.weight).collect();
    assert_eq!(weights, [3, 1], "as the developer said them");
}

#[test]
fn a_process_is_reached_in_both_ways_by_pools_of_their_own() {
    let mut rows = input();
    let destination = rows.destinations[0].clone();
    let second = Uuid::from_u128(9);
    rows.destinations.push(DestinationRow { route: second, http2: true, ..destination.clone() });
    let table = build(&rows, "s.test", &Table::default());
    let plain = format!("{}:8080", Uuid::from_u128(2));
    let http2 = format!("{plain}:http2");
    let pool = |route: Uuid| table.routes[&route.to_string()].targets[0].pool.clone();
    assert_eq!((pool(Uuid::from_u128(1)), pool(second)), (plain.clone(), http2.clone()));
    assert!(!table.pools[&plain].http2 && table.pools[&http2].http2);
    assert_eq!(table.pools[&plain].endpoints, table.pools[&http2].endpoints, "the same instances");

    // When it changes, routers get the new pool and the route to it in one delta, and lose the old one.
    rows.destinations.remove(0);
    rows.destinations.push(DestinationRow { http2: true, ..destination });
    let delta = table.delta(&build(&rows, "s.test", &table));
    assert_eq!(delta.remove_pools, [plain]);
    assert_eq!(delta.upsert_routes.iter().map(|route| &route.targets[0].pool).collect::<Vec<_>>(), [&http2]);
    rows.destinations[0].port = Some(9000);
    assert!(build(&rows, "s.test", &table).pools.contains_key(&format!("{}:9000:http2", Uuid::from_u128(2))));
}

#[test]
fn a_deployment_shares_within_what_speaks_one_protocol() {
    let mut rows = input();
    let (old, new) = (Uuid::from_u128(2), Uuid::from_u128(20));
    let endpoint = rows.endpoints[0].clone();
    rows.endpoints.push(EndpointRow { assignment: Uuid::from_u128(42), process: new, ..endpoint });
    let first = rows.destinations[0].clone();
    rows.destinations = [false, true]
        .into_iter()
        .flat_map(|http2| [old, new].map(|process| DestinationRow { process, http2, ..first.clone() }))
        .collect();
    let table = build(&rows, "s.test", &Table::default());
    let targets = &table.routes[&Uuid::from_u128(1).to_string()].targets;
    let weights: Vec<u32> = targets.iter().map(|target| target.weight).collect();
    assert_eq!(weights, [15_000; 4], "three of each destination, halved between two processes");
}

#[test]
fn another_port_is_reached_only_directly() {
    let mut rows = input();
    rows.destinations[0].port = Some(9000);
    let id = format!("{}:9000", Uuid::from_u128(2));
    assert!(build(&rows, "s.test", &Table::default()).pools[&id].endpoints.is_empty());
    rows.endpoints[0].direct = true;
    assert_eq!(build(&rows, "s.test", &Table::default()).pools[&id].endpoints[0].port, 9000);
}

#[test]
fn a_delta_leads_from_one_table_to_the_next() {
    let first = build(&input(), "s.test", &Table::default());
    let mut rows = input();
    rows.version = Version::new(1, 8);
    rows.endpoints.clear();
    rows.routes.pop();
    let second = build(&rows, "s.test", &first);
    assert_eq!(second.digest, build(&rows, "s.test", &Table::default()).digest, "independent of the previous one");
    let delta = first.delta(&second);
    assert_eq!(delta.remove_routes, [Uuid::from_u128(9).to_string()]);
    assert_eq!(delta.upsert_pools.len(), 1);
    assert!(delta.upsert_routes.is_empty() && delta.remove_pools.is_empty());
    let whole = SetDigest::of_table(second.routes.values().map(|r| &**r), second.pools.values().map(|p| &**p));
    assert_eq!(whole, second.digest);
}
