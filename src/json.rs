//! Snapshots as JSON, or whatever else `serde` writes. Durations are milliseconds.

#[cfg(feature = "red")]
mod red {
    use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

    use super::millis;
    use crate::red::{Durations, RedSnapshot, Requests};

    impl Serialize for RedSnapshot {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct("RedSnapshot", 3)?;
            fields.serialize_field("name", self.name)?;
            fields.serialize_field("requests", &self.requests)?;
            fields.serialize_field("duration", &self.duration)?;
            fields.end()
        }
    }

    impl Serialize for Requests {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct("Requests", 12)?;
            fields.serialize_field("total", &self.total)?;
            fields.serialize_field("in_flight", &self.in_flight)?;
            fields.serialize_field("ok", &self.ok)?;
            fields.serialize_field("error", &self.error)?;
            fields.serialize_field("permanent", &self.permanent)?;
            fields.serialize_field("ignored", &self.ignored)?;
            fields.serialize_field("cancelled", &self.cancelled)?;
            fields.serialize_field("rejected", &self.rejected)?;
            fields.serialize_field("rejected_by", &By(self))?;
            fields.serialize_field("last_second", &self.last_second)?;
            fields.serialize_field("per_second", &self.per_second)?;
            fields.serialize_field("error_ratio", &self.error_ratio)?;
            fields.end()
        }
    }

    struct By<'a>(&'a Requests);

    impl Serialize for By<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut reasons = serializer.serialize_map(None)?;
            self.0.rejected_by().try_for_each(|(reason, count)| reasons.serialize_entry(reason, &count))?;
            reasons.end()
        }
    }

    impl Serialize for Durations {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct("Durations", 7)?;
            fields.serialize_field("count", &self.count)?;
            for (name, duration) in [
                ("mean_ms", self.mean),
                ("p50_ms", self.p50),
                ("p95_ms", self.p95),
                ("p99_ms", self.p99),
                ("p999_ms", self.p999),
                ("max_ms", self.max),
            ] {
                fields.serialize_field(name, &millis(duration))?;
            }
            fields.end()
        }
    }
}

#[cfg(feature = "circuit-breaker")]
mod circuit_breaker {
    use serde::ser::{Serialize, SerializeStruct, Serializer};

    use super::millis;
    use crate::circuit_breaker::{CircuitBreakerSnapshot, CircuitMode};

    impl Serialize for CircuitBreakerSnapshot {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mode = match self.mode {
                CircuitMode::Enforced => "enforced",
                CircuitMode::Shadow => "shadow",
                CircuitMode::ForcedOpen => "forced_open",
                CircuitMode::ForcedClosed => "forced_closed",
                CircuitMode::Disabled => "disabled",
            };
            let mut fields = serializer.serialize_struct("CircuitBreakerSnapshot", 9)?;
            fields.serialize_field("state", self.state.as_str())?;
            fields.serialize_field("mode", mode)?;
            fields.serialize_field("generation", &self.generation)?;
            fields.serialize_field("trip", &self.trip.map(|trip| trip.to_string()))?;
            fields.serialize_field("calls", &self.calls)?;
            fields.serialize_field("failed", &self.failed)?;
            fields.serialize_field("slow", &self.slow)?;
            fields.serialize_field("consecutive_failures", &self.consecutive_failures)?;
            fields.serialize_field("time_to_half_open_ms", &self.time_to_half_open.map(millis))?;
            fields.end()
        }
    }
}

#[cfg(any(feature = "circuit-breaker", feature = "red"))]
fn millis(duration: std::time::Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}
