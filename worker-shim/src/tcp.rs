//! Serving on a port, which the ancestor's host has its workers do: like the socket in a private directory, with a check
//! of who asks and a limit for heads that never end.

use crate::surface::only_this_machine;
use crate::unwritten::{Answering, Unwritten};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the head of a request may take to come, and a connection without one to stay. The ancestor's worker closes
/// a connection that is not used after as long.
pub(crate) const HEAD_MAX: Duration = Duration::from_secs(5);
/// How long accepting rests when it failed, as for want of descriptors.
const REST: Duration = Duration::from_millis(50);

/// Serves until `stop`, then until the connections have ended.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    stop: CancellationToken,
    unwritten: Unwritten,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let router = router.layer(axum::middleware::from_fn(only_this_machine));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it small answers wait for the client's acknowledgement.
                    let _ = stream.set_nodelay(true);
                    let stream = Answering::new(stream, unwritten.clone());
                    connections.spawn(converse(stream, router.clone(), stop.clone()));
                }
                Err(_) => tokio::time::sleep(REST).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn converse(stream: Answering<TcpStream>, router: Router, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        // A client that breaks off is its own business.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
