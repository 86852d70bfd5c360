//! What it takes to send a request a second time.

/// Copies a request for another attempt, if it may be sent twice.
///
/// A call that failed may have been executed, and only who knows the request can say whether it may be executed again. So this is asked, and
/// not the classifier.
///
/// [`CloneRequest`] copies every request that is `Clone`. A closure `Fn(&Req) -> Option<Req>` copies those that it answers with `Some`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not know how to send a `{Req}` twice",
    note = "the default asks for `Clone`: for a request that has none, give the layer a function, `.resend(|request: &Req| -> Option<Req> {{ .. }})`"
)]
pub trait Resend<Req> {
    /// A copy for the next attempt, or `None` if this request is to be sent once only. It is taken before each attempt but the last.
    fn copy(&self, request: &Req) -> Option<Req>;

    /// Whether the copy can still be sent: asked when the attempt has failed, and again when the next is about to begin. A body that was too long to be kept is an example of one that
    /// cannot. Defaults to `true`.
    fn can_resend(&self, _copy: &Req) -> bool {
        true
    }

    /// Changes the copy before it is sent as this attempt, the second or a later one. Defaults to nothing.
    fn prepare(&self, _copy: &mut Req, _attempt: u32) {}
}

/// Copies every request: for those whose repetition does no harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneRequest;

/// Another [`Resend`], and a function that changes the copy: an attempt header, another endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Prepared<R, F> {
    resend: R,
    prepare: F,
}

impl<R, F> Prepared<R, F> {
    pub(super) const fn new(resend: R, prepare: F) -> Self {
        Self { resend, prepare }
    }
}

impl<Req: Clone> Resend<Req> for CloneRequest {
    #[inline]
    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

impl<Req, F: Fn(&Req) -> Option<Req>> Resend<Req> for F {
    #[inline]
    fn copy(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}

impl<Req, R: Resend<Req>, F: Fn(&mut Req, u32)> Resend<Req> for Prepared<R, F> {
    #[inline]
    fn copy(&self, request: &Req) -> Option<Req> {
        self.resend.copy(request)
    }

    fn can_resend(&self, copy: &Req) -> bool {
        self.resend.can_resend(copy)
    }

    fn prepare(&self, copy: &mut Req, attempt: u32) {
        self.resend.prepare(copy, attempt);
        (self.prepare)(copy, attempt);
    }
}
