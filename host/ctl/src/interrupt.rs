//! Ctrl-C and friends: the first one asks, the second one leaves at once (the keeper then clears what was started). A
//! command that can end its own work at once takes the second one itself; the third then leaves.

use crate::fault::Fault;
use cjm_platform::Signal;
use cjm_platform::signals::is_ignored;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

/// Signals so soon after the first are the same wish: `timeout` sends one to the program and one to its group, within
/// microseconds. Nobody presses two keys twice as fast as this.
const SAME_WISH: Duration = Duration::from_millis(40);

/// Exit code of a program that Ctrl-C ended.
const CTRL_C: u8 = 130;

/// Signals that end the program, with the exit code of each: 128 and the signal's number.
const ENDING_SIGNALS: [(SignalKind, u8); 3] =
    [(SignalKind::interrupt(), CTRL_C), (SignalKind::terminate(), 143), (SignalKind::hangup(), 129)];

/// Tells whether the program was asked to end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupts {
    first: watch::Receiver<Option<u8>>,
    second: Arc<Second>,
}

/// The second one, where a command takes it.
#[derive(Debug, Default)]
struct Second {
    is_wanted: AtomicBool,
    came: Notify,
}

impl Second {
    /// Hands it to whoever wants it, once; false if nobody does.
    fn take(&self) -> bool {
        let is_wanted = self.is_wanted.swap(false, Ordering::AcqRel);
        if is_wanted {
            self.came.notify_one();
        }
        is_wanted
    }
}

/// Wants the second one until this is dropped: who has stopped waiting swallows none.
struct Wanting<'a>(&'a Second);

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.is_wanted.store(false, Ordering::Release);
    }
}

impl Interrupts {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        let first = Arc::new(std::sync::OnceLock::new());
        let second = Arc::new(Second::default());
        // Whoever started it and ignores one means it: `nohup`.
        let is_heard = |kind: SignalKind| !Signal::from_raw(kind.as_raw_value()).is_some_and(is_ignored);
        for (kind, code) in ENDING_SIGNALS.into_iter().filter(|(kind, _)| is_heard(*kind)) {
            let mut signals = signal(kind)?;
            let sender = Arc::clone(&sender);
            let first = Arc::clone(&first);
            let second = Arc::clone(&second);
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    let since = first.get_or_init(Instant::now).elapsed();
                    if sender.borrow().is_none() {
                        sender.send_replace(Some(code));
                    } else if since > SAME_WISH && !second.take() {
                        std::process::exit(i32::from(code));
                    }
                }
            });
        }
        Ok(Self { first: receiver, second })
    }

    /// Returns when the program was asked to end, with its exit code.
    pub(crate) async fn wait(&self) -> u8 {
        let mut receiver = self.first.clone();
        match receiver.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(CTRL_C),
            // Nobody listens any more: nobody will ask.
            Err(_) => std::future::pending().await,
        }
    }

    /// Does this when the program is asked to end: for the first time, or, where it was before this is called, once more.
    /// Who presses twice where once is enough is asked no third time.
    pub(crate) async fn next_for(&self, end_at_once: impl FnOnce()) {
        if !self.was_asked() {
            self.wait().await;
            end_at_once();
            self.second().await;
        } else {
            self.second().await;
            end_at_once();
        }
    }

    /// Whether the program was asked to end.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked().is_some()
    }

    /// The exit code with which the program was asked to end, if it was.
    pub(crate) fn asked(&self) -> Option<u8> {
        *self.first.borrow()
    }

    /// Whether Ctrl-C asked it to.
    pub(crate) fn was_ctrl_c(&self) -> bool {
        self.asked() == Some(CTRL_C)
    }

    /// Returns when the program was asked to end once more. While this is waited for, that does not end the program; the
    /// time after that does.
    pub(crate) async fn second(&self) {
        self.second.is_wanted.store(true, Ordering::Release);
        let _wanting = Wanting(&self.second);
        self.second.came.notified().await;
    }
}

/// What a command that was asked to end fails with.
pub(crate) fn interrupted(code: u8) -> Fault {
    Fault::new("ctl.interrupted", "interrupted", "run it again when it is wanted").with_exit(code)
}
