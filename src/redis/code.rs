//! A script that is asked by its hash.

use deadpool_redis::redis::{
    Arg, Cmd, ErrorKind, FromRedisValue, RedisResult, Script, ServerErrorKind, ToRedisArgs, cmd,
};

use super::{follow::Followed, lanes::Question};

pub(super) struct Code {
    hash: String,
    text: &'static str,
}

/// A question to a script: its keys, and then its arguments.
pub(super) struct Call<'a> {
    call: Cmd,
    code: &'a Code,
}

impl Code {
    pub(super) fn new(text: &'static str) -> Self {
        Self { hash: Script::new(text).get_hash().to_owned(), text }
    }

    pub(super) fn call(&self, keys: impl ExactSizeIterator<Item = String>) -> Call<'_> {
        let mut call = cmd("EVALSHA");
        call.arg(&self.hash).arg(keys.len());
        for key in keys {
            call.arg(key);
        }
        Call { call, code: self }
    }
}

impl Call<'_> {
    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.call.arg(argument);
        self
    }

    /// The same question, with the whole script instead of its hash.
    fn in_full(&self) -> Cmd {
        let mut call = cmd("EVAL");
        call.arg(self.code.text);
        for argument in self.call.args_iter().skip(2) {
            if let Arg::Simple(bytes) = argument {
                call.arg(bytes);
            }
        }
        call
    }
}

impl<T: FromRedisValue + Send> Question<T> for Call<'_> {
    async fn ask(&self, mut lane: Followed<'_>) -> RedisResult<T> {
        match self.call.query_async(&mut lane).await {
            // So it has not run. It goes to the very node that does not know it, which a `SCRIPT LOAD` in a cluster need not.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.in_full().query_async(&mut lane).await
            }
            result => result,
        }
    }
}
