//! A script that is asked by its hash.

use deadpool_redis::redis::{
    Cmd, ErrorKind, FromRedisValue, RedisResult, Script, ServerErrorKind, ToRedisArgs, Value, cmd,
};

use super::{lanes::Question, source::Shared};

pub(super) struct Code {
    hash: String,
    /// How it is made known to a server that does not know it.
    load: Cmd,
}

/// A question to a script: its keys, and then its arguments.
pub(super) struct Call<'a> {
    call: Cmd,
    load: &'a Cmd,
}

impl Code {
    pub(super) fn new(code: &str) -> Self {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(code);
        Self { hash: Script::new(code).get_hash().to_owned(), load }
    }

    pub(super) fn call(&self, keys: impl ExactSizeIterator<Item = String>) -> Call<'_> {
        let mut call = cmd("EVALSHA");
        call.arg(&self.hash).arg(keys.len());
        for key in keys {
            call.arg(key);
        }
        Call { call, load: &self.load }
    }
}

impl Call<'_> {
    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.call.arg(argument);
        self
    }
}

impl<T: FromRedisValue + Send> Question<T> for Call<'_> {
    async fn ask(&self, mut lane: Shared) -> RedisResult<T> {
        match self.call.query_async(&mut lane).await {
            // So it has not run.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.load.query_async::<Value>(&mut lane).await?;
                self.call.query_async(&mut lane).await
            }
            result => result,
        }
    }
}
