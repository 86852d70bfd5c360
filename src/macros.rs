//! What every service of the crate has in common.

/// `get_ref`, `get_mut`, `into_inner` and tower's [`Load`](tower::load::Load) for a service with a field `inner`.
macro_rules! inner_accessors {
    ($service:ident<S $(, $param:ident)*>) => {
        impl<S $(, $param)*> $service<S $(, $param)*> {
            /// The inner service.
            pub const fn get_ref(&self) -> &S {
                &self.inner
            }

            /// The inner service, to change it.
            pub const fn get_mut(&mut self) -> &mut S {
                &mut self.inner
            }

            /// Gives the inner service back.
            pub fn into_inner(self) -> S {
                self.inner
            }
        }

        impl<S: tower::load::Load $(, $param)*> tower::load::Load for $service<S $(, $param)*> {
            type Metric = S::Metric;

            fn load(&self) -> S::Metric {
                self.inner.load()
            }
        }
    };
}

pub(crate) use inner_accessors;
