//! The ways to use a service, and the cases and batches that follow from them.

use std::rc::Rc;

use tokio::runtime::{Builder, Runtime};
use tower::Service;

use super::{
    Batch, Bench, Case,
    drive::{
        awaited, batch_awaited, batch_by_hand, batch_of_clones_awaited, batch_of_clones_by_hand, by_hand,
        clones_awaited, clones_by_hand, futures_awaited, futures_by_hand,
    },
};

/// How a service is used, and so what its rows mean.
pub(crate) struct Use {
    pub(crate) a_clone_per_call: bool,
    /// An answer that is pending at first needs a runtime that comes back to it; one that is ready is polled by hand.
    pub(crate) runtime: Option<Rc<Runtime>>,
}

impl Use {
    /// Adds this service as a case.
    pub(crate) fn case<'a, S>(&self, bench: &'a mut Bench, name: &str, service: &S) -> &'a mut Case
    where
        S: Service<u64> + Clone + 'static,
    {
        self.case_with(bench, name, service, || ())
    }

    /// Adds this service as a case, with something to do before each batch.
    pub(crate) fn case_with<'a, S>(
        &self,
        bench: &'a mut Bench,
        name: &str,
        service: &S,
        prepare: impl FnMut() + 'static,
    ) -> &'a mut Case
    where
        S: Service<u64> + Clone + 'static,
    {
        let mut service = service.clone();
        match (self.runtime.clone(), self.a_clone_per_call) {
            (None, false) => bench.case_with(name, prepare, move |(), calls| by_hand(&mut service, calls)),
            (None, true) => bench.case_with(name, prepare, move |(), calls| clones_by_hand(&service, calls)),
            (Some(runtime), false) => {
                bench.case_with(name, prepare, move |(), calls| runtime.block_on(awaited(&mut service, calls)))
            }
            (Some(runtime), true) => {
                bench.case_with(name, prepare, move |(), calls| runtime.block_on(clones_awaited(&service, calls)))
            }
        }
    }

    /// Adds as a case what makes a future per call and is no service, so that there is nothing to clone.
    pub(crate) fn futures<'a, F: Future>(
        &self,
        bench: &'a mut Bench,
        name: &str,
        mut call: impl FnMut(u64) -> F + 'static,
    ) -> &'a mut Case {
        match self.runtime.clone() {
            None => bench.case(name, move |calls| futures_by_hand(calls, &mut call)),
            Some(runtime) => bench.case(name, move |calls| runtime.block_on(futures_awaited(calls, &mut call))),
        }
    }

    /// Batches on a clone of this service, for threads of their own. Each has a runtime of its own and is inside it, as the main thread is.
    pub(crate) fn batch<S>(&self, service: &S) -> impl FnMut() -> Batch
    where
        S: Service<u64, Future: Send> + Clone + Send + 'static,
    {
        move || {
            let service = service.clone();
            match (self.runtime.is_some(), self.a_clone_per_call) {
                (false, false) => inside(runtime(), batch_by_hand(service)),
                (false, true) => inside(runtime(), batch_of_clones_by_hand(service)),
                (true, false) => batch_awaited(runtime(), service),
                (true, true) => batch_of_clones_awaited(runtime(), service),
            }
        }
    }
}

/// A runtime of one thread.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The same batch inside a runtime that nobody drives: for who makes a timer before anything is pending.
fn inside(runtime: Runtime, mut batch: Batch) -> Batch {
    Box::new(move |calls| {
        let _entered = runtime.enter();
        batch(calls);
    })
}
