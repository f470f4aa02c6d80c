//! The worker's HTTP surface: any bytes on a connection are answered or the connection ends, in time; nothing panics,
//! and no call is left behind. The first byte says how the bytes are sent: as they are, or as the body of a request
//! whose head is right.
#![no_main]

use cjm_worker::fuzzing::Served;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// A connection that stays open longer hangs.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Silence after which a client that waits for an answer goes away.
const SILENCE: Duration = Duration::from_millis(2);
/// Buffer on the way, each direction; small, so that writes and reads are cut.
const DUPLEX_BYTES: usize = 4096;
/// Everything that takes a body.
const POSTS: [&str; 12] = [
    "/execute",
    "/execute_stream",
    "/task",
    "/cancel",
    "/initialize",
    "/reconfigure",
    "/prefetch",
    "/on_disable",
    "/on_enable",
    "/cleanup",
    "/get_system_status",
    "/list_processes",
];

thread_local! {
    /// One surface for all runs: what one leaves behind, a later one meets.
    static SERVED: RefCell<Option<(Runtime, Served)>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let [how, rest @ ..] = data else { return };
    SERVED.with_borrow_mut(|served| {
        let (runtime, served) = served.get_or_insert_with(|| {
            let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
            let served = runtime.block_on(Served::start()).expect("the capability loads");
            (runtime, served)
        });
        // Every other client goes away without waiting for an answer.
        let patience = match how & 0b101 {
            0b000 => Patience::Silence,
            0b100 => Patience::Answer,
            _ => Patience::None,
        };
        runtime.block_on(converse(served, &request(*how, rest), patience));
    });
});

/// What a client waits for before it goes away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Nothing.
    None,
    /// An answer, or silence: nobody knows whether these bytes ask for anything.
    Silence,
    /// An answer: these bytes are a request.
    Answer,
}

/// The bytes to send.
fn request(how: u8, rest: &[u8]) -> Vec<u8> {
    let path = POSTS[usize::from(how >> 3) % POSTS.len()];
    match how & 0b110 {
        0b100 => {
            let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", rest.len());
            [head.as_bytes(), rest].concat()
        }
        0b110 => {
            let head =
                format!("POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", rest.len());
            [head.as_bytes(), rest, b"\r\n0\r\n\r\n"].concat()
        }
        _ => rest.to_vec(),
    }
}

async fn converse(served: &Served, request: &[u8], patience: Patience) {
    let (mut reading, mut writing) = tokio::io::split(served.connect(DUPLEX_BYTES).await);
    let mut answer = Vec::new();
    let talk = async {
        let (tell, mut sent) = oneshot::channel::<()>();
        let write = async {
            // The server may end the connection before it has read all.
            let _ = writing.write_all(request).await;
            let _ = tell.send(());
        };
        let read = async {
            let mut all_sent = false;
            let mut piece = [0_u8; DUPLEX_BYTES];
            loop {
                tokio::select! {
                    biased;
                    count = reading.read(&mut piece) => match count {
                        Ok(0) | Err(_) => return true,
                        Ok(count) => answer.extend_from_slice(&piece[..count]),
                    },
                    _ = &mut sent, if !all_sent => {
                        if patience == Patience::None {
                            return false;
                        }
                        all_sent = true;
                    }
                    () = tokio::time::sleep(SILENCE), if all_sent => {
                        let owed = patience == Patience::Answer && answer.is_empty();
                        if !owed && served.calls_running() == 0 {
                            return false;
                        }
                    }
                }
            }
        };
        let (ended, ()) = tokio::join!(read, write);
        if !ended {
            let _ = writing.shutdown().await;
            let _ = reading.read_to_end(&mut answer).await;
        }
    };
    let in_time = tokio::time::timeout(ENDS_WITHIN, talk).await.is_ok();
    assert!(in_time, "the connection is still open");
    let text = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || text.starts_with("HTTP/1."), "{text}");
    drop((reading, writing));
    assert!(served.is_idle_within(ENDS_WITHIN).await, "a call is left behind");
}
