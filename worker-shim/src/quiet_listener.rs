//! Accepts connections that wake their reader only when there is something to read.

use crate::unwritten::{Answering, Unwritten};
use cjm_quiet_socket::{QuietSocket, register};
use std::io;
use std::os::unix::net::SocketAddr;

/// Accepts connections as `axum::serve` wants them.
#[derive(Debug)]
pub(crate) struct QuietListener {
    pub(crate) listener: tokio::net::UnixListener,
    pub(crate) unwritten: Unwritten,
}

impl axum::serve::Listener for QuietListener {
    type Io = Answering<QuietSocket>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Answering<QuietSocket>, SocketAddr) {
        loop {
            // It waits where accept fails for want of descriptors, and tries again.
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            match stream.into_std().and_then(register) {
                Ok(socket) => return (Answering::new(socket, self.unwritten.clone()), address.into()),
                Err(error) => eprintln!("a connection is lost: {error}"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr().map(Into::into)
    }
}
