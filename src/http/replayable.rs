//! Bodies that can be sent twice.

use bytes::Bytes;

/// A body that can be sent twice: what [`Idempotent`](super::Idempotent) asks of a request's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not known to be a body that can be sent twice",
    note = "put a `buttress::http::ReplayLayer` outside the retry: it keeps what an attempt has read of any body",
    note = "or give the retry a function: `|request: &Request<_>| idempotent.allows(request).then(|| request.clone())`"
)]
pub trait Replayable: Sized {
    /// The whole body once more, or `None` if it is already known that it cannot be had.
    fn replay(&self) -> Option<Self>;

    /// Whether this copy can still be sent.
    fn can_replay(&self) -> bool;
}

macro_rules! always {
    ($($body:ty),*) => {$(
        impl Replayable for $body {
            fn replay(&self) -> Option<Self> {
                Some(self.clone())
            }

            fn can_replay(&self) -> bool {
                true
            }
        }
    )*};
}

always!((), Bytes, String, Vec<u8>, &'static str, &'static [u8]);
