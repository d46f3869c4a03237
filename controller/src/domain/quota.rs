//! Whether what a developer asks for fits the quotas and the largest cell. Every refusal names its figures.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{DomainError, DomainResult};
use crate::config::Limits;
use crate::store::usage::{LargestCell, QuotaFigures, domain_figures_tx, largest_cell_tx, quota_figures_tx};

/// What asks for room: Cloud Foundry's clients know its refusals by different words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemandKind {
    /// Instances of a process.
    Process,
    /// A task.
    Task,
    /// A build.
    Build,
}

impl DemandKind {
    /// Largest disk of one, MiB. What a build has without being asked is allowed to be asked for.
    fn most_disk(self, limits: &Limits) -> u64 {
        match self {
            Self::Process | Self::Task => limits.maximum_app_disk_mb,
            Self::Build => limits.maximum_app_disk_mb.max(limits.staging_disk_mb),
        }
    }

    fn too_much_disk(self, asked: i64, most: i64) -> String {
        match self {
            Self::Process => {
                format!("disk_quota too much disk requested (requested {asked} MB - must be less than {most} MB)")
            }
            Self::Task => format!("Cannot request disk_in_mb greater than {most}"),
            Self::Build => format!("disk limit exceeded: staging_disk_in_mb {asked} is greater than {most}"),
        }
    }
}

/// One kind of instance that is asked for.
#[derive(Clone, Debug)]
pub struct Demand {
    /// What asks.
    pub kind: DemandKind,
    /// For people: `the process "web"`.
    pub what: String,
    /// How many.
    pub instances: i64,
    /// MiB each.
    pub memory_mb: i64,
    /// MiB each.
    pub disk_mb: i64,
    /// Bytes per second each; negative = no limit, 0 = does not count.
    pub log_rate: i64,
}

/// Checks demands of one app. `running` = they are to run now, so that totals count.
///
/// # Errors
/// [`DomainError::Invalid`] with the figures; or when the database fails.
pub async fn check(
    limits: &Limits,
    tx: &mut PgConnection,
    space: Uuid,
    app: Uuid,
    demands: &[Demand],
    running: bool,
) -> DomainResult<()> {
    let cell = largest_cell_tx(tx, space).await?;
    let figures = quota_figures_tx(tx, space, app).await?;
    match refusal(limits, &figures, &cell, demands, running) {
        Some(detail) => Err(DomainError::Invalid(detail)),
        None => Ok(()),
    }
}

/// Checks one more task of an app.
///
/// # Errors
/// As [`check`].
pub async fn check_extra(
    limits: &Limits,
    tx: &mut PgConnection,
    space: Uuid,
    app: Uuid,
    demand: Demand,
    task: bool,
) -> DomainResult<()> {
    let cell = largest_cell_tx(tx, space).await?;
    // Nothing is replaced, so everything that runs counts.
    let mut figures = quota_figures_tx(tx, space, Uuid::nil()).await?;
    if task {
        let of_app = quota_figures_tx(tx, space, app).await?;
        figures.app_tasks_used = of_app.app_tasks_used;
        for (whose, limit) in [("organization", figures.org_tasks), ("space", figures.space_tasks)] {
            if let Some(limit) = limit.filter(|limit| figures.app_tasks_used >= *limit) {
                return Err(DomainError::Invalid(format!(
                    "The quota of the {whose} allows {limit} tasks of an app at a time, and {} are under way.",
                    figures.app_tasks_used
                )));
            }
        }
    }
    // Tasks and builds are not instances.
    let counted = Demand { instances: 1, ..demand };
    let (org, space_limit) = (figures.org_instances.take(), figures.space_instances.take());
    let refused = refusal(limits, &figures, &cell, std::slice::from_ref(&counted), true);
    (figures.org_instances, figures.space_instances) = (org, space_limit);
    refused.map_or(Ok(()), |detail| Err(DomainError::Invalid(detail)))
}

fn refusal(
    limits: &Limits,
    figures: &QuotaFigures,
    cell: &LargestCell,
    demands: &[Demand],
    running: bool,
) -> Option<String> {
    // What nobody runs is judged when it is scaled up: a droplet may bring a process type that the app never uses.
    for demand in demands.iter().filter(|demand| demand.instances > 0) {
        let what = &demand.what;
        let most = megabytes(demand.kind.most_disk(limits));
        if demand.disk_mb > most {
            return Some(demand.kind.too_much_disk(demand.disk_mb, most));
        }
        for (name, asked, largest) in
            [("memory", demand.memory_mb, cell.memory_mb), ("disk", demand.disk_mb, cell.disk_mb)]
        {
            if let Some(largest) = largest.filter(|largest| asked > *largest) {
                let place = cell.segment.as_ref().map(|name| format!(" of the isolation segment {name:?}"));
                let place = place.unwrap_or_default();
                return Some(format!(
                    "{what} asks for {asked} MiB of {name}, but the largest cell{place} has {largest} MiB (insufficient resources). Ask for less, or add a larger cell."
                ));
            }
        }
        let limits = [
            ("organization", &figures.org_name, figures.org_per_process, figures.org_memory),
            ("space", &figures.space_name, figures.space_per_process, figures.space_memory),
        ];
        for (whose, name, each, total) in limits {
            let limit = match (each, total) {
                (Some(each), Some(total)) => Some(each.min(total)),
                (each, total) => each.or(total),
            };
            if let Some(limit) = limit.filter(|limit| *limit >= 0 && demand.memory_mb > *limit) {
                return Some(format!(
                    "{what} asks for {} MiB of memory, but the quota of the {whose} {name:?} allows {limit} MiB.",
                    demand.memory_mb
                ));
            }
        }
    }
    for demand in demands.iter().filter(|demand| demand.instances > 0 && demand.log_rate < 0) {
        let limits = [
            ("organization", &figures.org_name, figures.org_log_rate),
            ("space", &figures.space_name, figures.space_log_rate),
        ];
        for (whose, name, limit) in limits {
            if let Some(limit) = limit {
                return Some(format!(
                    "{} has no limit of its log rate, but the quota of the {whose} {name:?} allows {limit} bytes per \
                     second. Give it a limit: cf scale -l, or log-rate-limit-per-second in the manifest.",
                    demand.what
                ));
            }
        }
    }
    if !running {
        return None;
    }
    let log_rate: i64 = demands.iter().map(|demand| demand.log_rate.max(0).saturating_mul(demand.instances)).sum();
    let memory: i64 = demands.iter().map(|demand| demand.memory_mb.saturating_mul(demand.instances)).sum();
    let instances: i64 = demands.iter().map(|demand| demand.instances).sum();
    let totals = [
        ("memory", " MiB", memory, "organization", &figures.org_name, figures.org_memory, figures.org_memory_used),
        ("memory", " MiB", memory, "space", &figures.space_name, figures.space_memory, figures.space_memory_used),
        (
            "instances",
            "",
            instances,
            "organization",
            &figures.org_name,
            figures.org_instances,
            figures.org_instances_used,
        ),
        (
            "instances",
            "",
            instances,
            "space",
            &figures.space_name,
            figures.space_instances,
            figures.space_instances_used,
        ),
        (
            "log rate",
            " bytes per second",
            log_rate,
            "organization",
            &figures.org_name,
            figures.org_log_rate,
            figures.org_log_rate_used,
        ),
        (
            "log rate",
            " bytes per second",
            log_rate,
            "space",
            &figures.space_name,
            figures.space_log_rate,
            figures.space_log_rate_used,
        ),
    ];
    for (name, unit, asked, whose, owner, limit, used) in totals {
        let Some(limit) = limit.filter(|limit| *limit >= 0) else { continue };
        if asked.saturating_add(used) > limit && asked > 0 {
            let what = if unit.is_empty() { format!(" {name}") } else { format!("{unit} of {name}") };
            return Some(format!(
                "The quota of the {whose} {owner:?} allows {limit}{what}: {used}{unit} are in use by others, and {asked}{unit} are asked for.",
            ));
        }
    }
    share_refusal(limits, figures, cell, demands)
}

/// One organization must leave room for the others, whatever their quotas are: memory and disk are placed as they are asked
/// for, so that one could otherwise keep everybody from starting anything.
fn share_refusal(limits: &Limits, figures: &QuotaFigures, cell: &LargestCell, demands: &[Demand]) -> Option<String> {
    if !cell.shared {
        return None;
    }
    let percent = megabytes(limits.organization_share_percent);
    let total = |of: fn(&Demand) -> i64| -> i64 {
        demands.iter().map(|demand| of(demand).saturating_mul(demand.instances)).fold(0, i64::saturating_add)
    };
    let (memory, disk) = (total(|demand| demand.memory_mb), total(|demand| demand.disk_mb));
    let overcommit = limits.overcommit();
    for (name, asked, now, used, all, promised_percent) in [
        (
            "memory",
            memory,
            figures.app_memory_now,
            figures.org_memory_used,
            cell.all_memory_mb,
            overcommit.memory_percent,
        ),
        ("disk", disk, figures.app_disk_now, figures.org_disk_used, cell.all_disk_mb, overcommit.disk_percent),
    ] {
        let Some(all) = all else { continue };
        // Of what may be promised: that is what runs out.
        let all = all.saturating_mul(megabytes(promised_percent)) / 100;
        let most = all.saturating_mul(percent) / 100;
        // Whoever was there before the others keeps what it runs.
        if asked > now && percent < 100 && asked.saturating_add(used) > most {
            return Some(format!(
                "The organization {:?} may use {most} MiB of {name}, {percent} % of the {all} MiB of all cells, because others \
                 use them too: {used} MiB are in use, and {asked} MiB are asked for (insufficient resources). Stop what is not \
                 needed, or ask an operator for more (limits.organization_share_percent, or an isolation segment).",
                figures.org_name
            ));
        }
    }
    None
}

fn megabytes(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Checks whether an organization may own one more private domain. Counts under a lock of the organization.
///
/// # Errors
/// [`DomainError::Invalid`] in the words that clients know; or when the database fails.
pub async fn check_domain(tx: &mut PgConnection, org: Uuid) -> DomainResult<()> {
    let Some(figures) = domain_figures_tx(tx, org).await? else { return Ok(()) };
    match figures.limit.filter(|limit| figures.used >= *limit) {
        None => Ok(()),
        Some(_) => Err(DomainError::Invalid(format!(
            "The number of private domains exceeds the quota for organization \"{}\"",
            figures.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { maximum_app_disk_mb: 4096, staging_disk_mb: 8192, organization_share_percent: 75, ..Limits::default() }
    }

    fn demand(instances: i64, memory_mb: i64) -> Demand {
        Demand {
            kind: DemandKind::Process,
            what: "The process \"web\"".to_owned(),
            instances,
            memory_mb,
            disk_mb: 10,
            log_rate: 0,
        }
    }

    #[test]
    fn refusals_name_the_figures() {
        let figures = QuotaFigures {
            org_name: "acme".to_owned(),
            org_memory: Some(1000),
            org_memory_used: 600,
            space_instances: Some(2),
            ..QuotaFigures::default()
        };
        let none = LargestCell::default();
        let cell = LargestCell { memory_mb: Some(512), disk_mb: Some(512), ..LargestCell::default() };
        assert!(refusal(&limits(), &figures, &cell, &[demand(1, 400)], true).is_none());
        let text = refusal(&limits(), &figures, &cell, &[demand(1, 513)], false).expect("beyond any cell");
        assert!(text.contains("513 MiB") && text.contains("512 MiB"), "{text}");
        assert!(text.contains("insufficient"), "the word that scripts look for: {text}");
        let large = Demand { disk_mb: 513, ..demand(1, 1) };
        let text = refusal(&limits(), &figures, &cell, &[large], false).expect("its disk is beyond any cell");
        assert!(text.contains("513 MiB of disk") && text.contains("512 MiB"), "{text}");
        let isolated = LargestCell { segment: Some("secure".to_owned()), ..cell };
        let text =
            refusal(&limits(), &figures, &isolated, &[demand(1, 513)], false).expect("beyond any cell of the segment");
        assert!(text.contains("the largest cell of the isolation segment \"secure\" has 512 MiB"), "{text}");
        let text = refusal(&limits(), &figures, &none, &[demand(2, 201)], true).expect("beyond the quota");
        assert!(text.contains("600 MiB") && text.contains("402 MiB") && text.contains("acme"), "{text}");
        assert!(refusal(&limits(), &figures, &none, &[demand(2, 201)], false).is_none(), "a stopped app uses nothing");
        let text = refusal(&limits(), &figures, &none, &[demand(3, 1)], true).expect("instances");
        assert!(text.contains("2 instances:"), "{text}");
        assert!(
            refusal(&limits(), &figures, &none, &[demand(1, 1001)], false).is_some(),
            "one instance alone is too large"
        );
        assert!(refusal(&limits(), &figures, &none, &[demand(0, 1001)], true).is_none(), "no instance uses nothing");
    }

    #[test]
    fn log_rates_are_limited() {
        let figures = QuotaFigures {
            space_name: "dev".to_owned(),
            space_log_rate: Some(1000),
            space_log_rate_used: 400,
            ..QuotaFigures::default()
        };
        let none = LargestCell::default();
        let ask =
            |log_rate, running| refusal(&limits(), &figures, &none, &[Demand { log_rate, ..demand(2, 1) }], running);
        assert!(ask(300, true).is_none());
        let text = ask(301, true).expect("too much");
        assert!(text.contains("1000 bytes per second") && text.contains("602 bytes"), "{text}");
        assert!(ask(301, false).is_none(), "what does not run uses nothing");
        assert!(ask(-1, false).expect("no limit").contains("has no limit of its log rate"));
    }

    #[test]
    fn one_instance_has_so_much_disk_and_not_more() {
        let (figures, cell) = (QuotaFigures::default(), LargestCell::default());
        let ask =
            |kind, disk_mb| refusal(&limits(), &figures, &cell, &[Demand { kind, disk_mb, ..demand(1, 1) }], true);
        for (kind, most, words) in [
            (DemandKind::Process, 4096, "too much disk requested (requested 4097 MB - must be less than 4096 MB)"),
            (DemandKind::Task, 4096, "Cannot request disk_in_mb greater than 4096"),
            (DemandKind::Build, 8192, "disk limit exceeded"),
        ] {
            assert_eq!(ask(kind, most), None);
            let text = ask(kind, most + 1).expect("too much");
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn one_organization_leaves_room_for_the_others() {
        let figures = QuotaFigures { org_disk_used: 500, org_memory_used: 100, ..QuotaFigures::default() };
        let cell =
            LargestCell { all_memory_mb: Some(1000), all_disk_mb: Some(1000), shared: true, ..LargestCell::default() };
        let ask = |cell: &LargestCell, limits: &Limits, instances, running| {
            refusal(limits, &figures, cell, &[Demand { disk_mb: 125, ..demand(instances, 1) }], running)
        };
        assert_eq!(ask(&cell, &limits(), 2, true), None);
        let text = ask(&cell, &limits(), 3, true).expect("more than its part");
        assert!(text.contains("750 MiB of disk") && text.contains("500 MiB are in use, and 375 MiB"), "{text}");
        assert_eq!(ask(&cell, &limits(), 3, false), None, "what does not run takes nothing");
        let before = QuotaFigures { app_disk_now: 375, app_memory_now: 3, ..figures.clone() };
        let three = [Demand { disk_mb: 125, ..demand(3, 1) }];
        assert_eq!(refusal(&limits(), &before, &cell, &three, true), None, "what runs goes on");
        let alone = LargestCell { shared: false, ..cell.clone() };
        assert_eq!(ask(&alone, &limits(), 3, true), None, "there is nobody else");
        let all = Limits { organization_share_percent: 100, ..limits() };
        assert_eq!(ask(&cell, &all, 3, true), None);
        let large = refusal(&limits(), &figures, &cell, &[demand(1, 651)], true).expect("memory too");
        assert!(large.contains("750 MiB of memory"), "{large}");
    }
}
