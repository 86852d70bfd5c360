//! What the day has taught, and whether it did: each claim is checked before it is made.

use buttress::{BoxError, cache::CacheStats, circuit_breaker::CircuitState, red::RedSnapshot};

use crate::{
    day::{Health, QUOTA},
    drive::{CALLS_PER_SECOND, Diary, Page},
};

/// The moral of the story, or an error if it did not come out: this example is a test as well.
///
/// The margins are wide: on a busy machine time-outs and retries come late, and some not at all.
pub fn moral(diary: &Diary, sick_hits: [u32; 3], state: CircuitState) -> Result<String, BoxError> {
    for sickness in [Health::Slow, Health::Failing, Health::Hanging] {
        if !diary.opened_while.contains(&sickness) {
            return Err(format!("the circuit did not open while the server was {}", sickness.as_str()).into());
        }
    }
    if state != CircuitState::Closed {
        return Err(format!("the server is healthy, and yet the circuit is {state}").into());
    }
    let ([alone_hits, naive_hits, guarded_hits], [alone, naive, guarded]) = (sick_hits, &diary.pages);
    if 2 * naive_hits < 3 * alone_hits {
        return Err("the naive retry made no outage worse".into());
    }
    if 2 * guarded_hits > alone_hits {
        return Err("the stack did not spare the sick server".into());
    }
    if naive.most_sent <= QUOTA {
        return Err("the naive retry kept to what the server allows".into());
    }
    // Our seconds and the server's are not quite the same ones, so a few may be on the way from one into the other.
    if guarded.most_sent > QUOTA + QUOTA / 5 {
        return Err("the stack sent more than the server allows".into());
    }
    if alone.most_sent < 2 * QUOTA {
        return Err("the rush was none, and so the limiter has proved nothing".into());
    }
    if 2 * guarded.unlucky > alone.unlucky {
        return Err("the retry did not hide what failed by chance".into());
    }
    if guarded.waited_in_vain >= alone.waited_in_vain {
        return Err("the stack saved nobody's time".into());
    }
    Ok(format!(
        "On good seconds a retry pays: of {} calls lost by chance, {} were still lost.\n\
         On bad ones it is a storm: the naive retry sent the sick server {naive_hits} calls in\n\
         place of {alone_hits}, {:.1} times as many. The same retry on a budget, between a cache and\n\
         a breaker, sent {guarded_hits}; callers waited {:.0} s for nothing, not {:.0} s.\n\
         Allowed are {QUOTA} calls a second: the naive retry sent up to {}, the stack {}.",
        alone.unlucky,
        guarded.unlucky,
        f64::from(naive_hits) / f64::from(alone_hits.max(1)),
        guarded.waited_in_vain.as_secs_f64(),
        alone.waited_in_vain.as_secs_f64(),
        naive.most_sent,
        guarded.most_sent,
    ))
}

/// What the cache was good for.
pub fn moral_of_the_cache(diary: &Diary, stats: CacheStats, shared_hits: [u32; 3]) -> Result<String, BoxError> {
    let asked = u64::from(diary.asked_shared);
    if stats.calls() != asked {
        return Err(format!("{asked} calls were for the cache, and it counted others: {stats:?}").into());
    }
    if stats.hit_rate() < 0.5 {
        return Err(format!("most calls for a page waited for the server: {stats:?}").into());
    }
    if stats.calls_saved() != asked - stats.loads || stats.calls_saved() < asked / 2 {
        return Err(format!("the cache saved the server hardly a call: {stats:?}").into());
    }
    let [alone_hits, _, guarded_hits] = shared_hits;
    if 2 * guarded_hits > alone_hits {
        return Err("the server was asked for its pages all the same".into());
    }
    if stats.stale < u64::from(CALLS_PER_SECOND) {
        return Err("no old page stood in for one that was not to be had".into());
    }
    let [alone, _, guarded] = &diary.pages;
    if 10 * guarded.without_page > alone.without_page {
        return Err("callers went without the page that the cache had".into());
    }
    Ok(format!(
        "The cache was asked {asked} times for a page: hit rate {:.0} %, and {} calls saved.\n\
         {} times it had an old one where the server had none: {} callers went without a\n\
         page, {} of those with the client alone.",
        100.0 * stats.hit_rate(),
        stats.calls_saved(),
        stats.stale,
        guarded.without_page,
        alone.without_page,
    ))
}

/// What RED has counted by itself is what the callers have seen.
pub fn moral_of_the_figures(diary: &Diary, figures: &[RedSnapshot; 3]) -> Result<String, BoxError> {
    for (Page { day: seen, .. }, RedSnapshot { name, requests: red, .. }) in diary.pages.iter().zip(figures) {
        let counted = [red.ok, red.error + red.permanent, red.cancelled + red.rejected, red.ignored + red.in_flight];
        if counted != [seen.answered, seen.failed, seen.given_up + seen.refused, 0].map(u64::from) {
            return Err(format!("{name}: callers saw {seen:?}, and RED counted {red:?}").into());
        }
    }
    let [alone, _, guarded] = figures;
    let limited = guarded.requests.rejected_by().find(|(reason, _)| *reason == "rate_limited");
    if limited.is_none_or(|(_, refused)| refused < u64::from(QUOTA / 2)) {
        return Err(format!("the rush was not cut down to what the server allows: {:?}", guarded.requests).into());
    }
    if 2 * guarded.duration.p95 > alone.duration.p95 {
        return Err("callers of the stack waited as long as without it".into());
    }
    if 2 * guarded.requests.error > alone.requests.error {
        return Err("callers of the stack saw the server's failures".into());
    }
    Ok(format!(
        "With the stack {:.1} % of the calls failed or were given up, without it {:.1} %.\n\
         Those that it refused had that answer at once. They are in no duration, because\n\
         a refusal would look like speed.",
        lost_percent(guarded),
        lost_percent(alone),
    ))
}

fn lost_percent(RedSnapshot { requests: red, .. }: &RedSnapshot) -> f64 {
    100.0 * (red.error + red.permanent + red.cancelled) as f64 / red.total.max(1) as f64
}
