//! A write that has to wait where no further descriptor is to be had. In a process of its own, whose limit it lowers.

use cjm_platform::fds::{NofileLimit, nofile_limit, restore_nofile};
use cjm_quiet_socket::register;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// More than a socket's buffers hold, many times over.
const MUCH: usize = 4 * 1024 * 1024;
/// Longest wait for what is to happen.
const WAIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "current_thread")]
async fn what_is_half_written_goes_on_where_no_descriptor_is_to_be_had_and_after() {
    let limit = nofile_limit();
    let (ours, mut theirs) = tokio::net::UnixStream::pair().expect("a pair");
    let mut ours = register(ours.into_std().expect("a stream")).expect("registered");
    let sent: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
    let expected = sent.clone();
    restore_nofile(NofileLimit { soft: Some(0), ..limit }).expect("lowered");
    assert!(std::fs::File::open("/dev/null").is_err(), "there is none");
    let writing = tokio::spawn(async move {
        ours.write_all(&sent).await.expect("written");
        ours
    });
    let mut got = vec![0; MUCH];
    let (half, rest) = got.split_at_mut(MUCH / 2);
    tokio::time::timeout(WAIT, theirs.read_exact(half)).await.expect("it goes on").expect("read");
    restore_nofile(limit).expect("raised");
    tokio::time::timeout(WAIT, theirs.read_exact(rest)).await.expect("it goes on").expect("read");
    assert!(got == expected);
    // The end comes once, and behind all.
    drop(writing.await.expect("ends"));
    assert_eq!(theirs.read(&mut [0]).await.expect("read"), 0);
}
