//! Our retry beside its peers, in one run: what a call costs that needs none, without a budget and with one. A call that is retried sleeps, so
//! none is timed. What skews it: each reads the clock it comes with (ours is the time stamp counter here, theirs are tokio's and std's),
//! because that is what a user gets; peers that are no tower layers do without a service, and ours is held to their figure all the same.
//! All of them make the same call, whose error is the client's in our wrapping, as in a stack, and so larger; there are rows with the
//! client's alone. And a service of no size and no destructor costs nothing to clone, which is what tower's does with all below it, so
//! there are rows over one that has a destructor.
//!
//! All would make three attempts, after 100 ms and 200 ms before jitter. Budgets are of the defaults that each has: ours and tower's allow a
//! fifth of the calls of the last 10 s, tower-resilience's is a bucket of tokens.
//!
//! ```text
//! cargo bench -p buttress-peers --bench retry [-- [--short] [FILTER]]
//! ```
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and with it slower clocks.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{future::ready, iter::Take, rc::Rc, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use buttress::{
    Classify, Error, ErrorsAreTransient, EveryErrorIsTransient,
    retry::{RetryLayer, RetrySettings},
};
use tokio::{runtime::Runtime, time::Sleep};
use tokio_retry2::{Retry as TokioRetry, RetryError, strategy::ExponentialBackoff};
use tower::{
    Layer, Service,
    retry::{
        Policy, Retry,
        backoff::{Backoff as _, ExponentialBackoff as TowerBackoff, ExponentialBackoffMaker, MakeBackoff},
        budget::{Budget, TpsBudget},
    },
    service_fn,
    util::rng::HasherRng,
};
use tower_resilience_retry as tr;

use harness::{
    Bench, Bound, CaseId,
    drive::{Holding, PendingOnce},
    usage::{Use, runtime},
};

/// The first attempt included.
const ATTEMPTS: u32 = 3;
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Our default.
const LONGEST_DELAY: Duration = Duration::from_secs(20);

/// The client's own error.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

/// What the client below every retry answers with.
type Wrapped = Result<u64, Error<Down>>;
type Bare = Result<u64, Down>;

/// In tokio-retry2's own wrapping, which says whether to try again.
type Marked<E> = Result<u64, RetryError<E>>;

/// What the gates speak of.
struct WithoutBudget {
    buttress: CaseId,
    tokio_retry2: CaseId,
    tower_resilience: CaseId,
}

/// What the gates speak of.
struct WithBudget {
    buttress: CaseId,
    tower: CaseId,
}

fn main() {
    let runtime = Rc::new(runtime());
    // Services are polled by hand where they are polled: inside a runtime.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("retry_peers");

    bench.section("ready at once, without budget");
    let marked = |n| ready(Marked::<Error<Down>>::Ok(n));
    let without = without_budget(&mut bench, None, ErrorsAreTransient, |n| ready(Wrapped::Ok(n)), marked);
    bench.section("ready at once, without budget, the client's error alone");
    let marked = |n| ready(Marked::<Down>::Ok(n));
    without_budget(&mut bench, None, EveryErrorIsTransient, |n| ready(Bare::Ok(n)), marked);
    bench.section("ready at once, with a budget");
    let client = service_fn(|n| ready(Wrapped::Ok(n)));
    let with = with_budget(&mut bench, None, &client);
    bench.section("ready at once, with a budget, over a destructor");
    with_budget(&mut bench, None, &Holding::new(client));

    bench.section("pending once, without budget");
    let call = |n| PendingOnce::new(Wrapped::Ok(n));
    let marked = |n| PendingOnce::new(Marked::<Error<Down>>::Ok(n));
    without_budget(&mut bench, Some(&runtime), ErrorsAreTransient, call, marked);
    bench.section("pending once, with a budget");
    with_budget(&mut bench, Some(&runtime), &service_fn(call));

    let WithoutBudget { buttress, tokio_retry2, tower_resilience } = without;
    bench.gate("without budget: of tokio-retry2's", buttress, tokio_retry2, Bound::AtMost(1.0));
    bench.gate("without budget: of tower-resilience's", buttress, tower_resilience, Bound::AtMost(1.0 / 8.0));
    let WithBudget { buttress, tower } = with;
    bench.gate("with a budget: of tower's with TpsBudget", buttress, tower, Bound::AtMost(0.5));
    bench.gate_two_threads("with a budget: two threads of one", buttress, Bound::AtLeast(1.5));
    bench.gate_allocations();
    bench.run();
}

/// The cases of a section, over a service without a destructor.
fn without_budget<E, F, M>(
    bench: &mut Bench,
    runtime: Option<&Rc<Runtime>>,
    classify: impl Classify<u64, E> + Clone + Send + 'static,
    call: impl Fn(u64) -> F + Copy + Send + 'static,
    marked: impl Fn(u64) -> M + Copy + 'static,
) -> WithoutBudget
where
    E: Send + 'static,
    F: Future<Output = Result<u64, E>> + Send + 'static,
    M: Future<Output = Marked<E>> + 'static,
{
    let [long_lived, cloned] = both_ways(runtime);
    let client = service_fn(call);
    let service = RetryLayer::new(settings().without_budget()).classify(classify).layer(client);
    long_lived.case(bench, "buttress", &service).ours().on_two_threads(long_lived.batch(&service));
    let buttress = bench.last();
    cloned.case(bench, "buttress, a clone per call", &service).ours();

    // The bare service shares nothing: with two threads it is the control, and what it lacks to 2.00 is the machine's doing.
    long_lived.case(bench, "bare service", &client).on_two_threads(long_lived.batch(&client));

    let service = Retry::new(TowerPolicy::new(()), client);
    long_lived.case(bench, "tower Retry", &service).on_two_threads(long_lived.batch(&service));
    cloned.case(bench, "tower Retry, a clone per call", &service);

    // The two that are no services, and so have nothing to clone. Each call begins with a strategy of its own.
    let strategy = tokio_retry2_strategy();
    long_lived.futures(bench, "tokio-retry2", move |n| TokioRetry::spawn(strategy.clone(), move || marked(n)));
    let tokio_retry2 = bench.last();
    let builder = backon_builder();
    long_lived.futures(bench, "backon", move |n| (move || call(n)).retry(builder));

    let service = tower_resilience().build().layer(client);
    long_lived.case(bench, "tower-resilience", &service).on_two_threads(long_lived.batch(&service));
    let tower_resilience = bench.last();
    cloned.case(bench, "tower-resilience, a clone per call", &service);

    WithoutBudget { buttress, tokio_retry2, tower_resilience }
}

/// The cases of a section: those that have a budget.
fn with_budget<S>(bench: &mut Bench, runtime: Option<&Rc<Runtime>>, client: &S) -> WithBudget
where
    S: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
{
    let [long_lived, cloned] = both_ways(runtime);
    let service = RetryLayer::new(settings()).layer(client.clone());
    long_lived.case(bench, "buttress", &service).ours().on_two_threads(long_lived.batch(&service));
    let buttress = bench.last();
    cloned.case(bench, "buttress, a clone per call", &service).ours().on_two_threads(cloned.batch(&service));

    long_lived.case(bench, "bare service", client).on_two_threads(long_lived.batch(client));

    let service = Retry::new(TowerPolicy::new(Arc::new(TpsBudget::default())), client.clone());
    long_lived.case(bench, "tower Retry, TpsBudget", &service).on_two_threads(long_lived.batch(&service));
    let tower = bench.last();
    cloned.case(bench, "tower Retry, TpsBudget, a clone per call", &service).on_two_threads(cloned.batch(&service));

    let budget = tr::RetryBudgetBuilder::new().token_bucket().build().expect("a budget");
    let service = tower_resilience().budget(budget).build().layer(client.clone());
    long_lived.case(bench, "tower-resilience, token bucket", &service).on_two_threads(long_lived.batch(&service));
    cloned.case(bench, "tower-resilience, token bucket, a clone per call", &service);

    WithBudget { buttress, tower }
}

fn both_ways(runtime: Option<&Rc<Runtime>>) -> [Use; 2] {
    [false, true].map(|a_clone_per_call| Use { a_clone_per_call, runtime: runtime.cloned() })
}

// ===== the settings, alike =====

/// Its default delays are these.
fn settings() -> RetrySettings {
    RetrySettings::new().attempts(ATTEMPTS)
}

/// Twice as long each time, from 2 × 50 ms: its base is what it multiplies by as well.
fn tokio_retry2_strategy() -> Take<ExponentialBackoff> {
    ExponentialBackoff::from_millis(2).factor(50).max_delay(LONGEST_DELAY).take(ATTEMPTS as usize - 1)
}

/// Jitter is its own choice, and costs nothing before a call fails.
fn backon_builder() -> ExponentialBuilder {
    let builder = ExponentialBuilder::new().with_min_delay(FIRST_DELAY).with_max_delay(LONGEST_DELAY);
    builder.with_max_times(ATTEMPTS as usize - 1).with_jitter()
}

fn tower_resilience<E>() -> tr::RetryConfigBuilder<u64, u64, E> {
    tr::RetryLayer::builder().max_attempts(ATTEMPTS as usize).exponential_backoff(FIRST_DELAY)
}

/// tower leaves all of it to a policy of one's own: this is the one of its docs with attempts and its own delays.
#[derive(Clone)]
struct TowerPolicy<B> {
    attempts_left: u32,
    delays: TowerBackoff,
    budget: B,
}

/// A budget, or none.
trait Pays {
    fn deposit(&self);
    fn withdraw(&self) -> bool;
}

impl Pays for () {
    #[inline]
    fn deposit(&self) {}

    #[inline]
    fn withdraw(&self) -> bool {
        true
    }
}

impl Pays for Arc<TpsBudget> {
    #[inline]
    fn deposit(&self) {
        Budget::deposit(&**self);
    }

    #[inline]
    fn withdraw(&self) -> bool {
        Budget::withdraw(&**self)
    }
}

impl<B> TowerPolicy<B> {
    fn new(budget: B) -> Self {
        let delays = ExponentialBackoffMaker::new(FIRST_DELAY, LONGEST_DELAY, 0.99, HasherRng::default());
        let delays = delays.expect("they are in order").make_backoff();
        Self { attempts_left: ATTEMPTS - 1, delays, budget }
    }
}

impl<B: Pays, E> Policy<u64, u64, E> for TowerPolicy<B> {
    type Future = Sleep;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, E>) -> Option<Sleep> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        if self.attempts_left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.attempts_left -= 1;
        Some(self.delays.next_backoff())
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}
