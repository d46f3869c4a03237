//! Match and choose: from host and path to one endpoint.

use std::hash::Hasher as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use siphasher::sip::SipHasher13;

use super::answer::LocalReply;
use super::core::Core;
use super::endpoint::EndpointState;
use crate::table::{Balance, Endpoint, EndpointKey, PoolEntry, RouteEntry, Table};

/// What a request asks for beyond host and path.
#[derive(Default)]
pub(crate) struct RoutingHints {
    /// `X-Cf-App-Instance`: app guid and index. Must be met.
    pub(crate) instance: Option<(String, u32)>,
    /// `X-Cf-Process-Instance`: process guid and perhaps index. Must be met.
    pub(crate) process: Option<(String, Option<u32>)>,
    /// `__VCAP_ID__`: instance that a sticky session belongs to. Met when that instance is there.
    pub(crate) sticky: Option<String>,
}

/// Where a request goes.
pub(crate) struct Decision {
    pub(crate) route: Arc<RouteEntry>,
    pub(crate) state: Rc<EndpointState>,
}

/// Why there is no decision.
pub(crate) enum NoDecision {
    /// The router answers.
    LocalReply(LocalReply),
    /// Every endpoint that would do was tried.
    Exhausted,
}

pub(crate) struct SelectionInput<'a> {
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a http::HeaderMap,
    pub(crate) hints: &'a RoutingHints,
    pub(crate) tried: &'a [EndpointKey],
    pub(crate) now: Instant,
}

/// Decides by the table that is in force now.
pub(crate) fn decide(core: &Core, input: &SelectionInput<'_>) -> Result<Decision, NoDecision> {
    core.with_table(|table| {
        let answer = |answer: LocalReply| NoDecision::LocalReply(answer);
        let route = table.find(input.host, input.path);
        let Some(route) = route.filter(|route| !route.targets.is_empty()) else {
            // "Does not exist" would be a claim that only a table can make; clients and caches may believe it for long.
            return Err(answer(match table.version() {
                Some(_) => LocalReply::UnknownRoute(input.host.to_owned()),
                None => LocalReply::NoTable,
            }));
        };
        // One that takes no more, and was not tried.
        let full = |pool: &PoolEntry, wanted: &dyn Fn(&Endpoint) -> bool| {
            let mut all = pool.endpoints.iter();
            all.any(|one| wanted(one) && core.is_full(one) && !input.tried.contains(&one.key))
        };
        let pools = || route.targets.iter().filter_map(|target| table.pool(&target.pool));
        if let Some((app, index)) = &input.hints.instance {
            let mut all = pools().filter(|pool| pool.pool.app_id == *app).flat_map(|pool| &pool.endpoints);
            let Some(endpoint) = all.find(|one| one.index == *index) else {
                return Err(answer(LocalReply::UnknownInstance(app.clone(), *index, input.host.to_owned())));
            };
            if input.tried.contains(&endpoint.key) {
                return Err(NoDecision::Exhausted);
            }
            if core.is_full(endpoint) {
                return Err(answer(LocalReply::EndpointLimit(input.host.to_owned())));
            }
            return Ok(Decision { route: Arc::clone(route), state: core.state(endpoint) });
        }
        if let Some((process, index)) = &input.hints.process {
            let wanted = |one: &Endpoint| index.is_none_or(|index| one.index == index);
            let mut those = pools().filter(|pool| pool.pool.process_id == *process);
            let Some(pool) = those.find(|pool| pool.endpoints.iter().any(|one| wanted(one))) else {
                return Err(answer(LocalReply::UnknownProcess(process.clone(), *index, input.host.to_owned())));
            };
            let untried = |one: &Endpoint| wanted(one) && !input.tried.contains(&one.key) && !core.is_full(one);
            let fit = |one: &Endpoint| untried(one) && !core.avoided(one.key, input.now);
            let chosen = pick(core, route, &pool.endpoints, input, fit)
                .or_else(|| pick(core, route, &pool.endpoints, input, untried));
            return match chosen {
                Some(endpoint) => Ok(Decision { route: Arc::clone(route), state: core.state(endpoint) }),
                None if full(pool, &wanted) => Err(answer(LocalReply::EndpointLimit(input.host.to_owned()))),
                None => Err(NoDecision::Exhausted),
            };
        }
        if let Some(id) = &input.hints.sticky {
            let mut all = pools().flat_map(|pool| &pool.endpoints);
            let same = |one: &&Arc<Endpoint>| one.assignment_id == *id && !input.tried.contains(&one.key);
            if let Some(endpoint) = all.find(same)
                && !core.avoided(endpoint.key, input.now)
                && !core.is_full(endpoint)
            {
                return Ok(Decision { route: Arc::clone(route), state: core.state(endpoint) });
            }
        }
        let chosen = choose(core, table, route, input, false).or_else(|| choose(core, table, route, input, true));
        match chosen {
            Some(endpoint) => Ok(Decision { route: Arc::clone(route), state: core.state(endpoint) }),
            None if pools().any(|pool| full(pool, &|_| true)) => {
                Err(answer(LocalReply::EndpointLimit(input.host.to_owned())))
            }
            None if input.tried.is_empty() => Err(answer(LocalReply::NoEndpoints(input.host.to_owned()))),
            None => Err(NoDecision::Exhausted),
        }
    })
}

/// The app whose route has this host and path, for the access line of a request that comes to none of its instances.
pub(crate) fn app_of(core: &Core, host: &str, path: &str) -> Option<Arc<str>> {
    core.with_table(|table| {
        let route = table.find(host, path).filter(|route| !route.route.system)?;
        let pool = route.targets.iter().find_map(|target| table.pool(&target.pool))?;
        Some(pool.pool.app_id.as_str().into())
    })
}

/// One endpoint; with `any`, those that failed lately are taken too.
fn choose<'t>(
    core: &Core,
    table: &'t Table,
    route: &RouteEntry,
    input: &SelectionInput<'_>,
    any: bool,
) -> Option<&'t Arc<Endpoint>> {
    let fit = |one: &Endpoint| {
        !input.tried.contains(&one.key) && (any || !core.avoided(one.key, input.now)) && !core.is_full(one)
    };
    let pool = match route.targets.as_slice() {
        [only] => table.pool(&only.pool)?,
        several => {
            let usable = |pool: &&PoolEntry| pool.endpoints.iter().any(|one| fit(one));
            let entry = |id: &str| table.pool(id).map(|pool| &**pool).filter(usable);
            let total: u64 = several
                .iter()
                .filter(|target| entry(&target.pool).is_some())
                .map(|target| u64::from(target.weight))
                .sum();
            let mut draw = (total > 0).then(|| fastrand::u64(..total))?;
            let mut usable = several.iter().filter(|target| entry(&target.pool).is_some());
            let target = usable.find(|target| match draw.checked_sub(u64::from(target.weight)) {
                Some(rest) => {
                    draw = rest;
                    false
                }
                None => true,
            })?;
            table.pool(&target.pool)?
        }
    };
    pick(core, route, &pool.endpoints, input, fit)
}

fn pick<'t>(
    core: &Core,
    route: &RouteEntry,
    all: &'t [Arc<Endpoint>],
    input: &SelectionInput<'_>,
    fit: impl Fn(&Endpoint) -> bool,
) -> Option<&'t Arc<Endpoint>> {
    let fitting = || all.iter().filter(|one| fit(one));
    match &route.balance {
        Balance::RoundRobin => {
            let start = core.turn(route.key) % all.len().max(1);
            all[start..].iter().chain(&all[..start]).find(|one| fit(one))
        }
        Balance::LeastConnection => fitting().min_by_key(|one| core.load(one.key)),
        Balance::Hash { header, factor } => match input.headers.get(header) {
            Some(value) => hashed(core, value.as_bytes(), *factor, fitting),
            None => two_choices(core, all, fit),
        },
        Balance::TwoChoices => two_choices(core, all, fit),
    }
}

/// The less loaded of two random ones. Draws blindly first: nearly always both fit.
fn two_choices<'t>(
    core: &Core,
    all: &'t [Arc<Endpoint>],
    fit: impl Fn(&Endpoint) -> bool,
) -> Option<&'t Arc<Endpoint>> {
    let count = all.len();
    if count < 2 {
        return all.first().filter(|one| fit(one));
    }
    let first = fastrand::usize(..count);
    let second = (first + 1 + fastrand::usize(..count - 1)) % count;
    let (first, second) = (&all[first], &all[second]);
    match (fit(first), fit(second)) {
        (true, true) if core.load(second.key) < core.load(first.key) => Some(second),
        (true, _) => Some(first),
        (false, true) => Some(second),
        (false, false) => {
            let start = fastrand::usize(..count);
            all[start..].iter().chain(&all[..start]).find(|one| fit(one))
        }
    }
}

/// The weight of a value at an instance. Routers of all builds must come to the same, so the algorithm is a named one: that of the
/// standard library may be another with the next compiler.
fn score(value: &[u8], instance: &str) -> u64 {
    let mut hash = SipHasher13::new();
    hash.write(value);
    // Between the two, so that no other pair reads the same.
    hash.write_u8(0xff);
    hash.write(instance.as_bytes());
    hash.finish()
}

/// Highest random weight: a value stays with its endpoint while that one is there, whoever else comes and goes.
fn hashed<'t, I: Iterator<Item = &'t Arc<Endpoint>>>(
    core: &Core,
    value: &[u8],
    factor: f64,
    fitting: impl Fn() -> I,
) -> Option<&'t Arc<Endpoint>> {
    let score = |one: &Endpoint| score(value, &one.assignment_id);
    let best = |bound: f64| fitting().filter(|one| f64::from(core.load(one.key)) <= bound).max_by_key(|one| score(one));
    if factor <= 0.0 {
        return best(f64::INFINITY);
    }
    let (count, sum) = fitting().fold((0_u32, 0_u32), |(count, sum), one| (count + 1, sum + core.load(one.key)));
    let average = f64::from(sum) / f64::from(count.max(1));
    best(average * factor).or_else(|| best(f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::score;

    /// Figures of another implementation of SipHash-1-3 with keys of zero, over the value, 0xff and the instance.
    #[test]
    fn weights_are_the_same_in_every_build() {
        assert_eq!(score(b"ann", "one"), 0xcf4a_1652_4ccf_b6fc);
        assert_eq!(score(b"", ""), 0x3040_6ea5_23c5_3def);
    }
}
