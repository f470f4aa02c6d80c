//! Accepts connections that wake their reader only when there is something to read.

use cjm_quiet_socket::{QuietSocket, register};
use std::io;
use std::os::unix::net::SocketAddr;

/// Accepts connections as `axum::serve` wants them.
#[derive(Debug)]
pub(crate) struct QuietListener(pub(crate) tokio::net::UnixListener);

impl axum::serve::Listener for QuietListener {
    type Io = QuietSocket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (QuietSocket, SocketAddr) {
        loop {
            // It waits where accept fails for want of descriptors, and tries again.
            let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
            match stream.into_std().and_then(register) {
                Ok(socket) => return (socket, address.into()),
                Err(error) => eprintln!("a connection is lost: {error}"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr().map(Into::into)
    }
}
