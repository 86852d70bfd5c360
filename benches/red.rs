//! What RED adds to a call: counted and timed, with a label and without, answered and failed, beside the bare service. No recorder is installed:
//! `buttress-peers` has those rows. What skews it: the clock is tokio's with `test-util` in it (31 ns a reading), because the tests of this package
//! need that, and every call reads it twice.
//!
//! ```text
//! cargo bench --bench red [-- [--short] [FILTER]]
//! ```

mod harness;

use std::{future::ready, hint::black_box, rc::Rc};

use buttress::{
    Error, Outcome,
    red::{RedLayer, RedSettings},
};
use tower::{Layer, Service, service_fn};

use harness::{
    Batch, Bench, Bound, CaseId,
    drive::PendingOnce,
    usage::{Use, runtime},
};

/// A foreign client's error, wrapped as a stack wants it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

type Answer = Result<u64, Error<Down>>;

fn main() {
    let runtime = Rc::new(runtime());
    // Polling by hand happens inside a runtime too: that is where tokio's clock costs what it costs.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("red");
    let counted = [false, true].map(|a_clone_per_call| {
        bench.section(if a_clone_per_call { "ready at once, a clone per call" } else { "ready at once, long-lived" });
        let usage = Use { a_clone_per_call, runtime: None };
        rows(
            &mut bench,
            &usage,
            service_fn(|n| ready(Answer::Ok(n))),
            service_fn(|_| ready(Answer::Err(Error::Service(Down)))),
        )
    });
    bench.section("pending once, long-lived");
    let usage = Use { a_clone_per_call: false, runtime: Some(Rc::clone(&runtime)) };
    let answers = service_fn(|n| PendingOnce::new(Answer::Ok(n)));
    rows(&mut bench, &usage, answers, service_fn(|_| PendingOnce::new(Answer::Err(Error::Service(Down)))));

    bench.section("without tower");
    let handle = RedLayer::new("bench").handle();
    let batch = {
        let handle = handle.clone();
        move || {
            let handle = handle.clone();
            Box::new(move |calls: u64| (0..calls).for_each(|_| handle.begin().record(black_box(Outcome::Success))))
                as Batch
        }
    };
    bench.case("begin and record", batch()).ours().on_two_threads(batch);
    bench
        .case("snapshot", move |calls| (0..calls).for_each(|_| _ = black_box(handle.snapshot())))
        .ours()
        .may_allocate();

    for (usage, case) in ["long-lived", "a clone per call"].into_iter().zip(counted) {
        bench.gate_two_threads(&format!("{usage}: two threads of one"), case, Bound::AtLeast(1.8));
    }
    bench.gate_allocations();
    bench.run();
}

fn rows<N, A>(bench: &mut Bench, usage: &Use, answers: N, fails: A) -> CaseId
where
    N: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
    A: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
{
    // The floor, and the control of two threads: it shares nothing, so what it lacks to 2.00 is the machine's doing.
    usage.case(bench, "bare service", &answers).on_two_threads(usage.batch(&answers));
    let service = RedLayer::new("bench").layer(answers.clone());
    usage.case(bench, "counted", &service).ours().on_two_threads(usage.batch(&service));
    let counted = bench.last();
    let settings = RedSettings::new("bench").label("parity", &["even", "odd"]);
    let layer = RedLayer::new(settings).label_by(|n: &u64| if n.is_multiple_of(2) { "even" } else { "odd" });
    usage.case(bench, "counted by a label", &layer.layer(answers)).ours();
    usage.case(bench, "counted, every call fails", &RedLayer::new("bench").layer(fails)).ours();
    counted
}
