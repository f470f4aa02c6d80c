//! The calls of this worker that are running, and what they have said of themselves: cancel flags, progress,
//! usage, accounts. `/progress`, `/stats`, `/cancel` and the accounts header are read from here, so they never
//! wait for the tool.
//!
//! What must hold: a call is in the table exactly as long as its `RunningCall` lives; nothing a tool says is
//! kept beyond named maxima.

use crate::given::Given;
use crate::link::HostLink;
use crate::unwritten::Unwritten;
use cjm_wire::Timestamp;
use cjm_wire::channel::Record;
use cjm_wire::cut;
use cjm_wire::event::EventType;
use cjm_wire::http::{ACCOUNTS_BYTES_MAX, Account, Progress};
use cjm_wire::json::{Json, VALUE_DEPTH_MAX};
use cjm_wire::link::ProgressReport;
use cjm_wire::python_json::{Style, to_string};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Calls in flight at most, waiting ones included; further ones are refused at once.
pub(crate) const CALLS_MAX: usize = 1024;
/// Longest progress message kept, in bytes.
const PROGRESS_MESSAGE_BYTES_MAX: usize = 4096;

/// What a call is to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// Work: execute, stream, task. It resets usage.
    Work,
    /// A hook such as prefetch: it has progress and can be cancelled.
    Hook,
    /// Something asked in between, such as the configuration: it leaves the progress of others alone.
    Question,
}

/// One call, as long as anybody holds it.
#[derive(Debug)]
pub(crate) struct CallState {
    pub(crate) id: u64,
    pub(crate) kind: CallKind,
    pub(crate) job_id: Option<String>,
    pub(crate) cancel: CancellationToken,
    /// The host asked for its end.
    asked: AtomicBool,
    accounts: Mutex<Accounts>,
    calls: Calls,
}

/// All calls of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    next_id: AtomicU64,
    table: Mutex<Table>,
    given: Mutex<Given>,
    /// The worker is ending: no call begins any more.
    closed: AtomicBool,
    /// One came since.
    came_late: AtomicBool,
    /// A call ended.
    ended: Notify,
    unwritten: Unwritten,
    link: HostLink,
}

#[derive(Debug, Default)]
struct Table {
    running: BTreeMap<u64, Arc<CallState>>,
    /// The newest call that began, and what it said last; stays after its end.
    newest: u64,
    progress: Progress,
    usage: Option<Map<String, Value>>,
}

/// A call that runs; dropping it ends it.
#[derive(Debug)]
pub(crate) struct RunningCall {
    state: Arc<CallState>,
}

#[derive(Debug, Default)]
struct Accounts {
    items: Vec<Value>,
    bytes: usize,
    dropped: u64,
}

/// Why a call does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotBegun {
    /// There are [`CALLS_MAX`] calls already.
    TooMany,
    /// The worker is ending. There is no answer to that: the end of the connection says it, after the last words.
    Ending,
}

impl Calls {
    pub(crate) fn new(link: HostLink) -> Self {
        let shared = Shared {
            next_id: AtomicU64::new(1),
            table: Mutex::default(),
            given: Mutex::default(),
            closed: AtomicBool::new(false),
            came_late: AtomicBool::new(false),
            ended: Notify::new(),
            unwritten: Unwritten::default(),
            link,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins a call.
    pub(crate) fn begin(&self, kind: CallKind, job_id: Option<String>) -> Result<RunningCall, NotBegun> {
        let mut table = self.lock();
        if self.shared.closed.load(Ordering::Acquire) {
            self.shared.came_late.store(true, Ordering::Release);
            return Err(NotBegun::Ending);
        }
        if table.running.len() >= CALLS_MAX {
            return Err(NotBegun::TooMany);
        }
        let state = Arc::new(CallState {
            id: self.shared.next_id.fetch_add(1, Ordering::Relaxed),
            kind,
            job_id,
            cancel: CancellationToken::new(),
            asked: AtomicBool::new(false),
            accounts: Mutex::default(),
            calls: self.clone(),
        });
        table.running.insert(state.id, Arc::clone(&state));
        if kind != CallKind::Question {
            table.newest = state.id;
            table.progress = Progress::default();
        }
        if kind == CallKind::Work {
            table.usage = None;
        }
        Ok(RunningCall { state })
    }

    /// The host asks for the end of `job_id`'s calls, or of all when it is None: raises their cancel flags and returns
    /// them. Questions go on.
    pub(crate) fn cancel(&self, job_id: Option<&str>) -> Vec<Arc<CallState>> {
        let chosen = self.chosen(job_id);
        for call in &chosen {
            call.asked.store(true, Ordering::Release);
            call.cancel.cancel();
        }
        chosen
    }

    /// The worker ends, and nobody asked these calls to: raises the cancel flags of all, and returns them.
    pub(crate) fn interrupt(&self) -> Vec<Arc<CallState>> {
        let chosen = self.chosen(None);
        chosen.iter().for_each(|call| call.cancel.cancel());
        chosen
    }

    /// No call begins any more.
    pub(crate) fn close(&self) {
        let _table = self.lock();
        self.shared.closed.store(true, Ordering::Release);
    }

    /// Whether a failure of this call is withheld: the worker is ending, the host has not asked the call to, and so the
    /// failure may be no more than what the end of the worker brought. The last words say more.
    pub(crate) fn withholds_failure(&self, call: &CallState) -> bool {
        self.shared.closed.load(Ordering::Acquire) && !call.asked.load(Ordering::Acquire)
    }

    /// The tool has not got the whole of a call, and never will.
    pub(crate) fn take_back(&self, call_id: u64) {
        self.given().take_back(call_id);
    }

    /// The jobs whose calls the tool was given, where that can be told; it is given none any more.
    pub(crate) fn seal(&self) -> Option<Vec<String>> {
        self.given().seal()
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.shared.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chosen(&self, job_id: Option<&str>) -> Vec<Arc<CallState>> {
        let table = self.lock();
        let meant = |call: &&Arc<CallState>| {
            call.kind != CallKind::Question && (job_id.is_none() || call.job_id.as_deref() == job_id)
        };
        table.running.values().filter(meant).cloned().collect()
    }

    /// How many run, questions not counted.
    pub(crate) fn running(&self) -> usize {
        self.lock().running.values().filter(|call| call.kind != CallKind::Question).count()
    }

    /// Whether somebody has no answer, and gets none but the end of a worker that is ending.
    pub(crate) fn wait_for_end(&self) -> bool {
        self.shared.came_late.load(Ordering::Acquire) || self.running() > 0
    }

    /// Waits until nothing runs, questions included.
    pub(crate) async fn wait_until_idle(&self) {
        loop {
            let ended = self.shared.ended.notified();
            if self.lock().running.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Answers that were given and have not reached their clients.
    pub(crate) fn unwritten(&self) -> &Unwritten {
        &self.shared.unwritten
    }

    /// What the newest call said last.
    pub(crate) fn progress(&self) -> Progress {
        self.lock().progress.clone()
    }

    /// The newest usage of the newest call that reported any.
    pub(crate) fn usage(&self) -> Option<Map<String, Value>> {
        self.lock().usage.clone()
    }

    /// Progress that belongs to no call, as while a tool loads a model on its own account.
    pub(crate) fn report_tool_progress(&self, progress: f64, message: &str) {
        self.store_progress(0, None, progress, message);
    }

    fn store_progress(&self, call_id: u64, job_id: Option<&str>, progress: f64, message: &str) {
        // Finite or nothing: NaN never reaches the wire.
        let progress = if progress.is_finite() { progress.clamp(-1.0, 1.0) } else { -1.0 };
        let message = cut::beginning(message, PROGRESS_MESSAGE_BYTES_MAX).into_owned();
        let mut table = self.lock();
        if call_id == 0 || call_id >= table.newest {
            table.progress = Progress { progress, message: message.clone() };
        }
        drop(table);
        let report = ProgressReport { job_id: job_id.map(str::to_owned), progress, message };
        self.shared.link.progress(call_id, report);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningCall {
    /// What the call has said, for those who outlive it.
    pub(crate) fn state(&self) -> &Arc<CallState> {
        &self.state
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.state.calls.given().answered(self.state.id);
        self.state.calls.lock().running.remove(&self.state.id);
        self.state.calls.shared.ended.notify_waiters();
    }
}

impl CallState {
    /// The tool is about to be given the call; false: the worker has said its last words, and it must not be.
    #[must_use]
    pub(crate) fn give(&self) -> bool {
        self.calls.given().give(self.id, self.job_id.as_deref())
    }

    /// Keeps progress for `/progress` and sends it to the host.
    pub(crate) fn report_progress(&self, progress: f64, message: &str) {
        self.calls.store_progress(self.id, self.job_id.as_deref(), progress, message);
    }

    /// Keeps usage for `/stats`.
    pub(crate) fn report_usage(&self, usage: Map<String, Value>) {
        self.calls.lock().usage = Some(usage);
    }

    /// Counts an account that cannot be read.
    pub(crate) fn drop_account(&self) {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).dropped += 1;
    }

    /// Keeps an account for the header; false when its type is not a worker's to report, it is nested too deeply for who reads
    /// the header, or the header is full.
    pub(crate) fn account(&self, account: &Account) -> bool {
        let allowed = EventType::parse(&account.event_type).is_some_and(EventType::is_worker_account);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let item = serde_json::json!({"event_type": account.event_type, "payload": account.payload});
        // `, ` between the items and the brackets around them.
        let bytes = to_string(&item, Style::Default).len() + 2;
        // In the header it stands in a list.
        let is_too_deep = Json::from(&item).depth() + 1 > VALUE_DEPTH_MAX;
        if !allowed || is_too_deep || accounts.bytes + bytes > ACCOUNTS_BYTES_MAX - 2 {
            accounts.dropped += 1;
            return false;
        }
        accounts.bytes += bytes;
        accounts.items.push(item);
        true
    }

    /// The accounts header, or None when there is nothing to say.
    pub(crate) fn accounts_header(&self) -> Option<String> {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.dropped > 0 {
            let message = format!(
                "{} account(s) of this call were dropped: not a worker's to report, no object, nested more than {} levels deep, or \
                 above {ACCOUNTS_BYTES_MAX} bytes",
                accounts.dropped,
                // Of its payload.
                VALUE_DEPTH_MAX - 2
            );
            self.calls.shared.link.record(&Record {
                ts: Some(Timestamp::now()),
                level: "WARNING".to_owned(),
                logger_name: "cjm_worker.calls".to_owned(),
                message,
                exc_text: None,
                job_id: self.job_id.clone(),
            });
        }
        if accounts.items.is_empty() {
            return None;
        }
        Some(to_string(&Value::Array(accounts.items.clone()), Style::Default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(event_type: &str, text: &str) -> Account {
        let payload = Map::from_iter([("k".to_owned(), Value::from(text))]);
        Account { event_type: event_type.to_owned(), payload }
    }

    #[test]
    fn a_call_is_known_while_it_runs_and_cancel_is_per_call() {
        let calls = Calls::new(HostLink::default());
        let first = calls.begin(CallKind::Work, Some("a".into())).unwrap();
        let second = calls.begin(CallKind::Work, Some("b".into())).unwrap();
        assert_eq!(calls.cancel(Some("a")).len(), 1);
        assert!(first.state().cancel.is_cancelled() && !second.state().cancel.is_cancelled());
        assert_eq!(calls.cancel(Some("nobody")).len(), 0);
        assert_eq!(calls.cancel(None).len(), 2);
        drop(first);
        assert_eq!(calls.running(), 1);
        let new = calls.begin(CallKind::Work, None).unwrap();
        assert!(!new.state().cancel.is_cancelled(), "an old cancel does not reach a new call");
    }

    #[test]
    fn the_newest_call_owns_progress_and_nan_is_kept_off_the_wire() {
        let calls = Calls::new(HostLink::default());
        let old = calls.begin(CallKind::Work, None).unwrap();
        old.state().report_progress(0.5, "half");
        assert_eq!(calls.progress().progress, 0.5);
        old.state().report_usage(Map::new());
        let new = calls.begin(CallKind::Work, None).unwrap();
        assert_eq!(calls.usage(), None, "usage is reset by a new call");
        assert_eq!(calls.progress(), Progress::default());
        old.state().report_progress(0.9, "late");
        assert_eq!(calls.progress(), Progress::default());
        for (given, kept) in [(f64::NAN, -1.0), (f64::INFINITY, -1.0), (7.0, 1.0), (-3.0, -1.0), (0.25, 0.25)]
        {
            new.state().report_progress(given, "é".repeat(PROGRESS_MESSAGE_BYTES_MAX).as_str());
            assert_eq!(calls.progress().progress, kept, "{given}");
            assert!(calls.progress().message.len() <= PROGRESS_MESSAGE_BYTES_MAX + cut::MARK_BYTES_MAX);
        }
    }

    #[test]
    fn accounts_are_filtered_bounded_and_written_as_python_does() {
        let calls = Calls::new(HostLink::default());
        let call = calls.begin(CallKind::Work, None).unwrap();
        assert_eq!(call.state().accounts_header(), None);
        assert!(!call.state().account(&account("state_transition", "forged")));
        assert!(call.state().account(&account("cache_hit", "é")));
        assert_eq!(
            call.state().accounts_header().unwrap(),
            r#"[{"event_type": "cache_hit", "payload": {"k": "\u00e9"}}]"#
        );
        // As deep as whoever reads the header takes, and one level more.
        for (lists, is_kept) in [(VALUE_DEPTH_MAX - 3, true), (VALUE_DEPTH_MAX - 2, false)] {
            let deep = (0..lists).fold(Value::Null, |inner, _| Value::from(vec![inner]));
            let deep =
                Account { payload: Map::from_iter([("k".to_owned(), deep)]), ..account("cache_hit", "") };
            assert_eq!(call.state().account(&deep), is_kept);
            let header = call.state().accounts_header().unwrap();
            assert!(serde_json::from_str::<Vec<Account>>(&header).is_ok());
        }
        let filler = "x".repeat(1000);
        let taken = (0..1000).filter(|_| call.state().account(&account("cache_hit", &filler))).count();
        let header = call.state().accounts_header().unwrap();
        assert!(header.len() <= ACCOUNTS_BYTES_MAX && taken > 50, "{} {taken}", header.len());
        assert!(header.is_ascii());
    }

    #[test]
    fn the_table_has_its_limit() {
        let calls = Calls::new(HostLink::default());
        let held: Vec<_> = (0..CALLS_MAX).map(|_| calls.begin(CallKind::Hook, None).unwrap()).collect();
        assert!(calls.begin(CallKind::Hook, None).is_err());
        drop(held);
        assert_eq!(calls.running(), 0);
    }
}
