//! One platform, many scenarios, in order: starting a platform takes seconds, so the scenarios share it.
//!
//! `cargo test -p slipway-tests --test e2e NAME` runs the scenarios whose names contain NAME.

mod bad_apps;
mod bad_builds;
mod bad_requests;
mod chaos;
mod deployments;
mod examples;
mod hanging;
mod http2;
mod isolation;
mod neighbour;
mod operator;
mod python;
mod registries;
mod services;
mod sidecars;
mod warm;

use std::process::ExitCode;

use futures_boxed::Scenario;
use slipway_tests::Platform;

/// Scenarios as boxed futures, so that they can stand in a table.
mod futures_boxed {
    use std::pin::Pin;

    use slipway_tests::Platform;

    pub(crate) type Outcome<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

    pub(crate) struct Scenario {
        pub(crate) name: &'static str,
        pub(crate) run: for<'a> fn(&'a mut Platform) -> Outcome<'a>,
    }
}

macro_rules! scenarios {
    ($($module:ident :: $name:ident),+ $(,)?) => {
        &[$(Scenario { name: concat!(stringify!($module), "::", stringify!($name)), run: |platform| Box::pin($module::$name(platform)) }),+]
    };
}

const SCENARIOS: &[Scenario] = scenarios![
    examples::node_is_pushed_served_and_scaled,
    examples::python_is_pushed_served_and_scaled,
    examples::a_static_site_is_pushed_served_and_scaled,
    examples::a_download_outlives_the_instance_it_comes_from,
    examples::a_binary_is_pushed_served_and_scaled,
    examples::the_same_push_again_uploads_nothing,
    examples::environment_logs_events_and_routes,
    examples::a_developers_path_holds_and_runtimes_are_found,
    warm::node_modules_of_the_last_build_are_taken,
    warm::python_packages_of_the_last_build_are_taken,
    deployments::a_rolling_deployment_fails_no_request,
    deployments::a_cancelled_deployment_fails_no_request,
    deployments::many_rolling_deployments_fail_no_request,
    deployments::many_canary_deployments_fail_no_request,
    http2::streams_go_both_ways_and_no_call_fails_in_a_deployment,
    services::bindings_reach_the_app_as_variable_and_files,
    services::lines_of_app_and_router_reach_a_syslog_drain,
    sidecars::a_sidecar_shares_the_instance_and_its_end,
    python::the_python_client_does_everything_that_it_knows,
    isolation::an_app_is_contained,
    isolation::limits_hold_and_the_neighbour_does_not_notice,
    bad_apps::apps_that_misbehave_are_named,
    bad_apps::manifests_that_cannot_be_meant,
    bad_requests::uploads_that_are_refused,
    bad_requests::requests_that_are_refused,
    bad_requests::a_route_of_another_space_stays_there,
    bad_builds::buildpacks_that_misbehave_are_named,
    bad_builds::builds_stay_in_their_directories,
    bad_builds::output_and_time_of_a_build_are_limited,
    bad_builds::source_larger_than_the_staging_disk_is_reported,
    operator::security_groups_hold_at_once,
    operator::uploaded_buildpacks_stage,
    operator::parts_show_health_and_metrics,
    registries::private_packages_come_without_a_credential_in_the_build,
    hanging::a_cell_that_hangs_is_reported_and_comes_back,
    chaos::one_instance_is_killed_under_load,
    chaos::the_agent_is_killed_under_load,
    chaos::the_controller_is_killed_under_load,
    chaos::the_router_is_killed_under_load,
    chaos::a_killed_supervisor_is_replaced_under_load,
    chaos::postgres_goes_away_and_comes_back,
    chaos::everything_is_killed_and_comes_back,
    chaos::down_leaves_nothing,
];

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if std::env::args().any(|argument| argument == "--list") {
        for scenario in SCENARIOS {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| filters.is_empty() || filters.iter().any(|filter| scenario.name.contains(filter.as_str())))
        .collect();
    println!("\nrunning {} tests", wanted.len());
    let mut failures = Vec::new();
    if !wanted.is_empty() {
        match run(&wanted) {
            Ok(failed) => failures = failed,
            Err(error) => {
                println!("the platform did not start: {error:#}");
                failures.extend(wanted.iter().map(|scenario| scenario.name));
            }
        }
    }
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    let passed = wanted.len().saturating_sub(failures.len());
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out\n",
        failures.len(),
        SCENARIOS.len() - wanted.len()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(wanted: &[&Scenario]) -> anyhow::Result<Vec<&'static str>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut platform = Platform::start()?;
    let mut failures = Vec::new();
    for scenario in wanted {
        let start = std::time::Instant::now();
        let outcome = runtime.block_on((scenario.run)(&mut platform));
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => println!("test {} ... ok ({seconds:.1} s)", scenario.name),
            Err(error) => {
                println!("test {} ... FAILED ({seconds:.1} s)\n{error:#}", scenario.name);
                failures.push(scenario.name);
            }
        }
    }
    Ok(failures)
}
