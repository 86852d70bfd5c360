//! What is to be there, or not any more.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    codec::Codec,
    envelope::{self, Stamp},
    far::{Far, Note, Version, micros, millis},
    names::{Digest, message},
};
use crate::{
    cache::{Entry, Envelope, Seen},
    error::BoxError,
    event::EventKind,
    time::{self, Instant},
};

impl<V: Send + Sync + 'static, C: Codec<V>> Far<V, C> {
    /// What was decided on at a time, which may be a while ago: what is invalidated since then does not come back.
    pub(super) async fn write(
        &self,
        digest: &Digest,
        entry: &Entry<V>,
        (stamp, decided): (Stamp, Instant),
    ) -> Result<(), BoxError> {
        // What failed for good stays in this process.
        let Some(value) = entry.value() else { return Ok(()) };
        let Envelope { age, ttl, max_stale, cost, tags, seen, .. } = entry.envelope();
        let note = seen.as_ref().and_then(Seen::get::<Note>);
        let front;
        let version: &[u8] = match note.map(|note| note.version) {
            None => b"*",
            Some(Version::Unknown) => {
                self.counts.refused.one();
                return Ok(());
            }
            Some(Version::Nothing) => b"",
            Some(Version::Foreign) => b"x",
            Some(Version::Of(of)) => {
                front = of;
                &front
            }
        };
        let encode = |bytes: &mut Vec<u8>| self.codec.encode(value, bytes);
        let back = match catch_unwind(AssertUnwindSafe(|| envelope::back(&tags, encode))) {
            Ok(Some(Ok(back))) if envelope::size(back.len()) <= self.settings.max_bytes => back,
            Ok(Some(Ok(_)) | None) => {
                self.counts.unfit.one();
                self.events.emit(|| EventKind::EntryTooLarge);
                return Ok(());
            }
            Ok(Some(Err(_))) | Err(_) => {
                self.counts.unfit.one();
                self.events.emit(|| EventKind::StoreFailed { why: "value" });
                return Err("the value has no form in bytes".into());
            }
        };
        let stored = time::now().saturating_sub(age);
        let at = note.map(|note| note.at.to_string()).unwrap_or_default();
        let since = note.map_or(time::now().saturating_since(decided), |note| stored.saturating_since(note.known));
        let longest = self.settings.max_life;
        let ttl = ttl.min(longest);
        let name = self.names.key(digest);
        let message = message(self.origin, &name);
        let mut call = self.code.call([name].into_iter());
        call.arg("write").arg(&envelope::front(false, stamp)[..]).arg(version).arg(at);
        call.arg(micros(since))
            .arg(micros(cost))
            .arg(micros(ttl))
            .arg(micros(max_stale.min(longest.saturating_sub(ttl))));
        call.arg(back).arg(&self.channel).arg(message);
        let written: u8 = self.ask(&call).await?;
        if written != 0 { &self.counts.writes } else { &self.counts.refused }.one();
        Ok(())
    }

    /// Leaves a grave, so that who is loading does not store what there was before.
    pub(super) async fn forget(&self, digest: &Digest, stamp: Stamp) -> Result<(), BoxError> {
        let name = self.names.key(digest);
        let message = message(self.origin, &name);
        let mut call = self.code.call([name].into_iter());
        call.arg("forget").arg(&envelope::front(true, stamp)[..]);
        call.arg(millis(self.settings.longest_load)).arg(&self.channel).arg(message);
        self.ask::<u8>(&call).await?;
        Ok(())
    }

    pub(super) async fn forget_tag(&self, tag: &Digest) -> Result<(), BoxError> {
        Ok(self.mark(self.names.tag(tag)).await?)
    }

    pub(super) async fn forget_all(&self) -> Result<(), BoxError> {
        Ok(self.mark(self.names.all()).await?)
    }
}
