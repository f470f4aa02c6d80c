//! Reads what a worker prints, always, so that it never blocks on a full pipe: every line goes to the diagnostics
//! store, the last ones are kept for errors. Above a named rate the middle is dropped and counted. After a death it
//! reads what is in the pipe, and on for a moment, never to the end of file: somebody else may hold the pipe, and fill it.

use crate::flood::{FloodStore, Meter, TAIL_LINES_MAX};
use crate::redaction::Redaction;
use cjm_wire::cut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// Longest line that is kept whole; the middle of a longer one is dropped.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long a pipe is read on after the worker's death.
const AFTER_DEATH_MAX: Duration = Duration::from_millis(50);
/// How long an error waits for words printed before it.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(1);
const READ_BYTES: usize = 64 * 1024;

/// Last lines of a stream, newest last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    lines: Arc<Mutex<LastLines>>,
    /// The pipes that feed it. Locked from before bytes leave a pipe until their lines are here, so that whoever
    /// holds the lock and sees an empty pipe has all lines.
    pipes: Arc<Mutex<Vec<Weak<pipe::Receiver>>>>,
}

#[derive(Debug, Default)]
struct LastLines {
    last: VecDeque<String>,
    ever: u64,
}

impl Tail {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).last.iter().cloned().collect()
    }

    /// Waits until all that was printed before is here. An answer can overtake the words printed before it: it
    /// comes by a socket, they come by a pipe. A tool that never stops printing is not waited for.
    pub(crate) async fn caught_up(&self) {
        let give_up = Instant::now() + CATCH_UP_MAX;
        while self.is_behind() && Instant::now() < give_up {
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        }
    }

    fn is_behind(&self) -> bool {
        let pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.iter().filter_map(Weak::upgrade).any(|pipe| {
            let mut question = [PollFd::new(&*pipe, PollFlags::IN)];
            let asked = poll(&mut question, Some(&Timespec::default()));
            asked.is_ok() && question[0].revents().contains(PollFlags::IN)
        })
    }

    /// Lines there have been so far, those included that are not kept.
    pub(crate) fn lines_ever(&self) -> u64 {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).ever
    }

    /// Lines that came after so many, as far as they are kept.
    pub(crate) fn lines_since(&self, lines_before: u64) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let since = usize::try_from(lines.ever.saturating_sub(lines_before)).unwrap_or(usize::MAX);
        lines.last.iter().skip(lines.last.len().saturating_sub(since)).cloned().collect()
    }

    pub(crate) fn push(&self, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.last.len() == TAIL_LINES_MAX {
            lines.last.pop_front();
        }
        lines.last.push_back(line.to_owned());
        lines.ever += 1;
    }
}

/// Reads one pipe until it ends, or until shortly after `dead` turns true.
pub(crate) async fn pump(
    pipe_end: OwnedFd,
    tail: Tail,
    redaction: Arc<Redaction>,
    mut dead: watch::Receiver<bool>,
    mut store: impl FloodStore<Item = String>,
) {
    let Ok(receiver) = pipe::Receiver::from_owned_fd(pipe_end).map(Arc::new) else { return };
    tail.pipes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&receiver));
    let mut lines = Lines { redaction, ..Lines::default() };
    let mut meter = Meter::new();
    let mut buffer = vec![0u8; READ_BYTES];
    let mut stop_at: Option<Instant> = None;
    // Of what the dead have said, still to be read.
    let mut owed_bytes = 0_u64;
    loop {
        // By the clock itself: a timer may be late while there is always something to read.
        if owed_bytes == 0 && stop_at.is_some_and(|at| at <= Instant::now()) {
            break;
        }
        // A pipe that is never empty must keep nothing else from its turn.
        let ready = tokio::select! {
            biased;
            () = until(stop_at), if stop_at.is_some() && owed_bytes == 0 => continue,
            _ = dead.wait_for(|dead| *dead), if stop_at.is_none() => {
                stop_at = Some(Instant::now() + AFTER_DEATH_MAX);
                owed_bytes = rustix::io::ioctl_fionread(&*receiver).unwrap_or(0);
                continue;
            }
            ready = receiver.readable() => ready,
            // A flood is over, and its last words are still held back.
            () = until(Some(meter.release_at())), if meter.holds() => {
                meter.release(&mut store);
                continue;
            }
        };
        if ready.is_err() {
            break;
        }
        {
            let _moving = tail.pipes.lock().unwrap_or_else(PoisonError::into_inner);
            let count = match receiver.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            };
            owed_bytes = owed_bytes.saturating_sub(count as u64);
            lines.feed(&buffer[..count], &mut |line| {
                tail.push(line);
                meter.take(line.to_owned(), &mut store);
            });
        }
        // Other tasks of this thread, and its clocks, have their turn beside a flood.
        tokio::task::yield_now().await;
    }
    lines.end(&mut |line| {
        tail.push(line);
        meter.take(line.to_owned(), &mut store);
    });
    meter.end(&mut store).await;
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Splits bytes into the lines the stores keep: the text after the last `\r`, right-trimmed, empties dropped, without
/// secrets. Of a line that is too long the middle is dropped and counted.
#[derive(Default)]
struct Lines {
    redaction: Arc<Redaction>,
    head: Vec<u8>,
    /// What came after the head, as far as it is kept.
    end: VecDeque<u8>,
    dropped: usize,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], emit: &mut impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (head, rest) = piece.split_at(piece.len().min(LINE_BYTES_MAX / 2 - self.head.len()));
            self.head.extend_from_slice(head);
            self.push_end(rest);
            if piece.ends_with(b"\n") {
                self.finish(emit);
            }
        }
    }

    fn push_end(&mut self, rest: &[u8]) {
        let kept = &rest[rest.len().saturating_sub(LINE_BYTES_MAX / 2)..];
        let room = LINE_BYTES_MAX / 2 - kept.len();
        let gone = self.end.len().saturating_sub(room);
        self.end.drain(..gone);
        self.end.extend(kept);
        self.dropped += gone + rest.len() - kept.len();
    }

    /// Takes as much more out at the end of the beginning, and at the beginning of the end.
    fn take_out(&mut self, head: &mut Vec<u8>, before: usize, behind: usize) {
        head.truncate(head.len() - before);
        self.end.drain(..behind);
        self.dropped += before + behind;
    }

    /// Ends the last line, which has no newline where its writer was killed: it may be cut anywhere.
    fn end(&mut self, emit: &mut impl FnMut(&str)) {
        let last = if self.end.is_empty() { &self.head[..] } else { self.end.make_contiguous() };
        let (before, _) = self.redaction.cut(last, b"");
        if before > 0 {
            let kept = last.len() - before;
            if self.end.is_empty() {
                self.head.truncate(kept);
                self.head.extend_from_slice(cut::mark(before).as_bytes());
            } else {
                self.end.truncate(kept);
                self.end.extend(cut::mark(before).as_bytes());
            }
        }
        self.finish(emit);
    }

    fn finish(&mut self, emit: &mut impl FnMut(&str)) {
        let mut whole = std::mem::take(&mut self.head);
        if self.dropped > 0 {
            // What says of an earlier cut must not be half of it.
            let (before, behind) = cut::halves(&whole, self.end.make_contiguous());
            self.take_out(&mut whole, before, behind);
            let (before, behind) = self.redaction.cut(&whole, self.end.make_contiguous());
            self.take_out(&mut whole, before, behind);
            whole.extend_from_slice(cut::mark(self.dropped).as_bytes());
        }
        whole.extend(self.end.drain(..));
        self.dropped = 0;
        let text = String::from_utf8_lossy(&whole);
        // A value may have a return in it.
        let text = self.redaction.text(text.trim_end());
        let shown = text.rsplit('\r').next().unwrap_or(&text).trim_end();
        if !shown.is_empty() {
            emit(shown);
        }
        whole.clear();
        self.head = whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flood::{Kept, STORED_BYTES_PER_SECOND_MAX};
    use std::io::Write;

    fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        lines_without(Redaction::default(), chunks)
    }

    fn lines_without(redaction: Redaction, chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines { redaction: Arc::new(redaction), ..Lines::default() };
        let mut out = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, &mut |line| out.push(line.to_owned()));
        }
        lines.end(&mut |line| out.push(line.to_owned()));
        out
    }

    #[test]
    fn lines_are_cut_as_the_ancestor_cuts_them() {
        assert_eq!(lines_of(&[b"a\nb", b"c  \n\n10%\r20%\r30%\r\nlast"]), ["a", "bc", "30%", "last"]);
        assert_eq!(lines_of(&[&[b'x'; LINE_BYTES_MAX + 5], b"y\nz\n"])[1], "z");
        assert_eq!(lines_of(&[b"\xff\xfe\n"]), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn of_all_lines_the_last_are_kept_and_all_are_counted() {
        let tail = Tail::default();
        for n in 0..=TAIL_LINES_MAX {
            tail.push(&n.to_string());
        }
        let lines = tail.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (TAIL_LINES_MAX, "1"));
        assert_eq!(tail.lines_ever(), TAIL_LINES_MAX as u64 + 1);
        assert_eq!(tail.lines_since(TAIL_LINES_MAX as u64), [TAIL_LINES_MAX.to_string()]);
    }

    #[test]
    fn of_a_long_line_the_middle_is_dropped_and_counted() {
        let mut long = vec![b'a'; LINE_BYTES_MAX];
        long.extend(vec![b'b'; 3 * LINE_BYTES_MAX]);
        long.extend(b"the reason\n");
        // However it is cut into pieces.
        for piece in [1000, LINE_BYTES_MAX, long.len()] {
            let shown = lines_of(&long.chunks(piece).collect::<Vec<_>>());
            let dropped = long.len() - LINE_BYTES_MAX;
            assert!(shown[0].starts_with("aaaa") && shown[0].ends_with("bbthe reason"), "{}", &shown[0][..9]);
            assert!(shown[0].contains(&format!("a[{dropped} bytes dropped here]b")), "{piece}");
        }
        let progress: Vec<u8> = (0..20_000).flat_map(|n| format!("{n} of 20000\r").into_bytes()).collect();
        assert_eq!(lines_of(&[&progress, b"done\n"]), ["done"]);
    }

    #[test]
    fn no_line_shows_a_secret_also_where_it_is_cut_through_one() {
        let secrets = serde_json::json!({"TOKEN": "tok-123é5678"});
        let redaction = || Redaction::of(secrets.as_object().expect("an object"));
        assert_eq!(
            lines_without(redaction(), &["it is tok-123".as_bytes(), "é5678.\n".as_bytes()]),
            ["it is [secret]."]
        );
        // Its writer was killed, and what it had buffered ended there.
        for (said, shown) in [
            ("it is tok-1", "it is [5 bytes dropped here]"),
            ("it is tok-123é", "it is [9 bytes dropped here]"),
            ("it is tok-1\n", "it is tok-1"),
            ("it is tok", "it is tok"),
        ] {
            assert_eq!(lines_without(redaction(), &[said.as_bytes()]), [shown]);
        }
        let long = format!("{}tok-1", "a".repeat(3 * LINE_BYTES_MAX));
        let shown = lines_without(redaction(), &[long.as_bytes()]).remove(0);
        assert!(shown.ends_with("a[5 bytes dropped here]"), "{}", &shown[shown.len() - 50..]);
        let with_return =
            Redaction::of(serde_json::json!({"T": "AAAAbbbb\rCCCCdddd"}).as_object().expect("an object"));
        assert_eq!(lines_without(with_return, &[b"it is AAAAbbbb\rCCCCdddd.\n"]), ["it is [secret]."]);
        let half = LINE_BYTES_MAX / 2;
        // Both cuts go through its letter of two bytes.
        let mut long = vec![b'a'; half - 8];
        long.extend("tok-123é5678".bytes());
        long.extend(vec![b'b'; half]);
        long.extend("tok-123é5678".bytes());
        long.extend(vec![b'c'; half - 5]);
        let shown = lines_without(redaction(), &[&long]).remove(0);
        let dropped = long.len() - (half - 8) - (half - 5);
        assert!(
            shown.contains(&format!("aa[{dropped} bytes dropped here]cc")),
            "{}",
            &shown[half - 10..half + 50]
        );
    }

    #[tokio::test]
    async fn a_pipe_held_by_somebody_else_does_not_hold_the_pump() {
        let pipe = cjm_platform::fds::pipe_cloexec().expect("pipe");
        let mut writer = std::fs::File::from(pipe.write);
        writer.write_all(b"last words\n").expect("write");
        let (dead_sender, dead) = watch::channel(true);
        let tail = Tail::default();
        let kept = Kept::default();
        // The writer stays open, as a grandchild's copy would.
        tokio::time::timeout(
            Duration::from_secs(5),
            pump(pipe.read, tail.clone(), Arc::default(), dead, kept.clone()),
        )
        .await
        .expect("the pump gives up");
        assert_eq!(kept.lines(), ["last words"]);
        assert_eq!(tail.lines(), ["last words"]);
        drop((writer, dead_sender));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_pipe_flooded_by_somebody_else_does_not_hold_the_pump() {
        let pipe = cjm_platform::fds::pipe_cloexec().expect("pipe");
        let flood = std::thread::spawn(move || {
            let mut writer = std::fs::File::from(pipe.write);
            let block = b"y\n".repeat(32 * 1024);
            // Until the pump closes its end.
            while writer.write_all(&block).is_ok() {}
        });
        let (dead_sender, dead) = watch::channel(false);
        let tail = Tail::default();
        let pumping = tokio::spawn(pump(pipe.read, tail.clone(), Arc::default(), dead, Kept::default()));
        while tail.lines_ever() < 100_000 {
            tokio::task::yield_now().await;
        }
        dead_sender.send(true).expect("it reads");
        let ended = tokio::time::timeout(Duration::from_secs(20), pumping).await;
        ended.expect("the pump gives up").expect("no panic");
        flood.join().expect("flood");
    }

    #[tokio::test]
    async fn what_was_printed_before_a_death_is_read_however_late() {
        let pipe = cjm_platform::fds::pipe_cloexec().expect("pipe");
        // More than one reading takes; a tool may ask for a larger pipe as well.
        rustix::pipe::fcntl_setpipe_size(&pipe.write, 4 * READ_BYTES).expect("set");
        let mut writer = std::fs::File::from(pipe.write);
        let line = [&[b'x'; 63], b"\n".as_slice()].concat();
        for _ in 0..3 * READ_BYTES / line.len() {
            writer.write_all(&line).expect("write");
        }
        writer.write_all(b"last words\n").expect("write");
        let (dead_sender, dead) = watch::channel(true);
        let tail = Tail::default();
        let pumping = pump(pipe.read, tail.clone(), Arc::default(), dead, Slow(Kept::default()));
        tokio::time::timeout(Duration::from_secs(20), pumping).await.expect("the pump gives up");
        assert_eq!(tail.lines_ever(), 3 * READ_BYTES as u64 / 64 + 1);
        assert_eq!(tail.lines().last().map(String::as_str), Some("last words"));
        drop((writer, dead_sender));
    }

    /// A machine so busy that the moment after a death is over with the first reading.
    struct Slow(Kept);

    impl FloodStore for Slow {
        type Item = String;
        const BYTES_PER_SECOND_MAX: usize = Kept::BYTES_PER_SECOND_MAX;

        fn bytes(line: &String) -> usize {
            line.len()
        }

        fn keep_dropped(&mut self, lines: u64, job_id: Option<String>) {
            self.0.keep_dropped(lines, job_id);
        }

        fn has_room(&self) -> bool {
            true
        }

        fn keep(&mut self, line: String) {
            if self.0.lines().is_empty() {
                std::thread::sleep(AFTER_DEATH_MAX);
            }
            self.0.keep(line);
        }

        fn settled(&self) -> futures_util::future::BoxFuture<'static, ()> {
            self.0.settled()
        }
    }

    #[tokio::test]
    async fn who_asks_for_the_tail_gets_what_was_printed_before() {
        let pipe = cjm_platform::fds::pipe_cloexec().expect("pipe");
        let mut writer = std::fs::File::from(pipe.write);
        let (_alive, dead) = watch::channel(false);
        let tail = Tail::default();
        let pumping = tokio::spawn(pump(pipe.read, tail.clone(), Arc::default(), dead, Kept::default()));
        // Known to the tail from the pump's first step on, as in a worker that has been ready for long.
        while tail.pipes.lock().expect("lock").is_empty() {
            tokio::task::yield_now().await;
        }
        for word in ["first", "second", "third"] {
            // One thread, and no step of the pump between the write and the question.
            writeln!(writer, "{word}").expect("write");
            tail.caught_up().await;
            assert_eq!(tail.lines().last().map(String::as_str), Some(word));
        }
        drop(writer);
        pumping.await.expect("ends with its pipe");
        assert!(!tail.is_behind(), "a closed pipe has nothing to say");
    }

    #[tokio::test]
    async fn a_flood_is_cut_in_the_middle_and_counted() {
        let pipe = cjm_platform::fds::pipe_cloexec().expect("pipe");
        let lines = 3 * STORED_BYTES_PER_SECOND_MAX / 100;
        let flood = std::thread::spawn(move || {
            let mut writer = std::io::BufWriter::new(std::fs::File::from(pipe.write));
            for _ in 0..lines {
                writer.write_all(&[b'x'; 99]).and_then(|()| writer.write_all(b"\n")).expect("write");
            }
        });
        let (_alive, dead) = watch::channel(false);
        let kept = Kept::default();
        pump(pipe.read, Tail::default(), Arc::default(), dead, kept.clone()).await;
        flood.join().expect("flood");
        let kept = kept.lines();
        assert!(kept.len() < lines, "{} of {lines}", kept.len());
        assert!(kept.iter().any(|line| line.contains("lines dropped here")));
    }
}
