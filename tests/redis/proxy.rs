//! A wire that can be made slow, silent, or cut.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

struct State {
    fault: AtomicU8,
    accepted: AtomicU32,
    cut: watch::Sender<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
pub(crate) enum Fault {
    None,
    /// Answers take 20 ms more.
    Delay,
    /// Nothing passes.
    Stall,
    /// What is asked passes, and the connection is cut instead of the answer.
    DropReplies,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state =
            Arc::new(State { fault: AtomicU8::new(0), accepted: AtomicU32::new(0), cut: watch::Sender::new(0) });
        let proxy = Self { port, state };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepting.state.accepted.fetch_add(1, Ordering::Relaxed);
                let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), upstream.into_split());
                let (there, back) = (accepting.clone(), accepting.clone());
                tokio::spawn(async move {
                    let mut cut = there.state.cut.subscribe();
                    tokio::select! {
                        () = there.pump(from_client, to_server, false) => {}
                        () = back.pump(from_server, to_client, true) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// How many connections there have been.
    pub(crate) fn accepted(&self) -> u32 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.state.cut.send_modify(|cuts| *cuts += 1);
    }

    fn is(&self, fault: Fault) -> bool {
        self.state.fault.load(Ordering::Relaxed) == fault as u8
    }

    async fn pump(self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, is_answer: bool) {
        let mut bytes = [0; 16_384];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if is_answer && self.is(Fault::DropReplies) {
                return;
            }
            if is_answer && self.is(Fault::Delay) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while self.is(Fault::Stall) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    }
}

/// A server that says the same bytes to whatever it hears.
pub(crate) async fn scripted(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut heard = [0; 4096];
                while let Ok(1..) = client.read(&mut heard).await {
                    if client.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("redis://127.0.0.1:{port}/")
}
