//! Writes that wait their turn, in a task of their own.

use std::pin::Pin;

use tokio::{
    runtime::Handle,
    sync::mpsc::{self, Sender},
};

use crate::sync::Mutex;

/// A queue with so many places, and the task that empties it, which begins with the first write and ends with the queue.
pub(super) struct Behind {
    places: usize,
    sender: Mutex<Option<Sender<Job>>>,
}

pub(super) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Behind {
    pub(super) fn new(places: usize) -> Self {
        Self { places, sender: Mutex::new(None) }
    }

    /// Whether there was a place.
    pub(super) fn enqueue(&self, job: Job) -> bool {
        let Some(sender) = self.sender() else { return false };
        // What finds no place is dropped here, under no lock.
        sender.try_send(job).is_ok()
    }

    fn sender(&self) -> Option<Sender<Job>> {
        let mut sender = self.sender.lock();
        if let Some(sender) = sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Some(sender.clone());
        }
        // The first, or its runtime has ended.
        let runtime = Handle::try_current().ok()?;
        let (made, mut jobs) = mpsc::channel::<Job>(self.places);
        runtime.spawn(async move {
            while let Some(job) = jobs.recv().await {
                job.await;
            }
        });
        *sender = Some(made.clone());
        Some(made)
    }
}
