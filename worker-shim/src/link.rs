//! The host link as this side writes it: what must arrive, progress of which only the newest matters, and
//! records that may be dropped. Reading it is `worker`'s.
//!
//! What must hold: `send` never waits and may be called from any thread; results and exits never stand behind
//! records; a host that does not read costs records, never memory; of a flood of them the middle is dropped.

use crate::frames::{Frame, write_frame};
use bytes::Bytes;
use cjm_wire::Timestamp;
use cjm_wire::channel::Record;
use cjm_wire::cut::{MARK_BYTES_MAX, without_middle};
use cjm_wire::frame::SMALL_PAYLOAD_BYTES_MAX;
use cjm_wire::held_back::{HeldBack, Word};
use cjm_wire::link::{Dropped, ProgressReport, to_host};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of records that wait for the host at most; of later ones the last are held back, the others dropped and counted.
pub(crate) const RECORDS_BYTES_MAX: usize = 1024 * 1024;
/// Shortest time between two rounds of progress frames.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// What a record costs beyond its payload, so that a flood of tiny ones is bounded as well.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Sends to the host. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostLink {
    shared: Arc<Shared>,
}

/// Where the frames go.
#[derive(Debug)]
pub(crate) enum LinkWriter {
    /// To a host of ours.
    Host(OwnedWriteHalf),
    /// There is no such host: records are kept, the rest is for nobody.
    Records(Box<dyn RecordSink>),
}

/// Keeps records where no host of ours takes them.
pub(crate) trait RecordSink: std::fmt::Debug + Send {
    /// Takes a frame that would have gone to a host of ours.
    fn put<'a>(&'a self, frame: &'a Frame) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    /// Waits until what was put is written.
    fn settle<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

#[derive(Debug, Default)]
struct Shared {
    queues: Mutex<Queues>,
    /// Something was queued.
    filled: Notify,
    /// All was written, or nobody will write any more.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    /// Few by nature: one ready or failure, one exit.
    control: VecDeque<Frame>,
    /// The newest of each call; at most as many as calls run.
    progress: BTreeMap<u64, ProgressReport>,
    /// Progress of all calls that reported, being written in one round: no call can starve another.
    round: VecDeque<Frame>,
    records: VecDeque<Bytes>,
    record_bytes: usize,
    held: HeldBack<Waiting>,
    writing: bool,
    closed: bool,
}

/// A record that is held back.
#[derive(Debug)]
struct Waiting {
    payload: Bytes,
    is_grave: bool,
    job_id: Option<String>,
}

impl Word for Waiting {
    fn is_grave(&self) -> bool {
        self.is_grave
    }

    fn job_id(&self) -> Option<&str> {
        self.job_id.as_deref()
    }
}

impl HostLink {
    /// Queues a frame that must arrive.
    pub(crate) fn control(&self, kind: u8, value: &impl serde::Serialize) {
        self.lock().control.push_back(Frame::json(kind, 0, value));
        self.shared.filled.notify_one();
    }

    /// Queues progress of a call in place of what it had queued before.
    pub(crate) fn progress(&self, call_id: u64, report: ProgressReport) {
        self.lock().progress.insert(call_id, report);
        self.shared.filled.notify_one();
    }

    /// Queues a record, or holds it back.
    pub(crate) fn record(&self, record: &Record) {
        match serde_json::to_vec(record) {
            Ok(payload) if payload.len() <= SMALL_PAYLOAD_BYTES_MAX => self.queue(record, payload.into()),
            Ok(_) => {
                let shortened = shorten(record.clone());
                self.queue(&shortened, serde_json::to_vec(&shortened).unwrap_or_default().into());
            }
            Err(_) => self.lock().held.count(record.job_id(), 1),
        }
    }

    /// Counts records that were dropped before they reached this queue.
    pub(crate) fn count_dropped(&self, records: u64) {
        self.lock().held.count(None, records);
        self.shared.filled.notify_one();
    }

    fn queue(&self, record: &Record, payload: Bytes) {
        let mut queues = self.lock();
        if queues.closed {
            return;
        }
        if queues.held.holds() || queues.record_bytes + cost(&payload) > RECORDS_BYTES_MAX {
            let (is_grave, job_id) = (record.is_grave(), record.job_id.clone());
            queues.held.push(Waiting { payload, is_grave, job_id });
            return;
        }
        queues.push_record(payload);
        drop(queues);
        self.shared.filled.notify_one();
    }

    /// Waits until all that is queued was written, at most `limit`; false when the time ran out.
    pub(crate) async fn flush(&self, limit: Duration) -> bool {
        let all_written = async {
            loop {
                let drained = self.shared.drained.notified();
                if self.lock().is_idle() {
                    return;
                }
                drained.await;
            }
        };
        tokio::time::timeout(limit, all_written).await.is_ok()
    }

    /// Writes what is queued until the link breaks.
    pub(crate) async fn run_writer(self, mut writer: LinkWriter) {
        let mut progress_due = Instant::now();
        loop {
            let filled = self.shared.filled.notified();
            let now = Instant::now();
            let next = self.lock().take(now >= progress_due);
            match next {
                Next::Frame(frame) => {
                    if frame.kind == to_host::PROGRESS {
                        progress_due = now + PROGRESS_INTERVAL;
                    }
                    if writer.write(frame).await.is_err() {
                        break;
                    }
                }
                Next::Wait => tokio::select! {
                    () = filled => {}
                    () = tokio::time::sleep_until(progress_due) => {}
                },
                Next::Nothing => {
                    writer.settle().await;
                    self.lock().writing = false;
                    self.shared.drained.notify_waiters();
                    filled.await;
                }
            }
        }
        self.lock().closed = true;
        self.shared.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.shared.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkWriter {
    async fn write(&mut self, frame: Frame) -> std::io::Result<()> {
        match self {
            Self::Host(stream) => write_frame(stream, frame).await,
            Self::Records(recorder) => {
                recorder.put(&frame).await;
                Ok(())
            }
        }
    }

    async fn settle(&mut self) {
        match self {
            // What is written is with the host.
            Self::Host(_) => {}
            Self::Records(recorder) => recorder.settle().await,
        }
    }
}

enum Next {
    Frame(Frame),
    /// Only progress, and it is not due yet.
    Wait,
    Nothing,
}

impl Queues {
    fn is_idle(&self) -> bool {
        let empty = self.control.is_empty() && self.records.is_empty() && self.held.is_empty();
        self.closed || (empty && self.progress.is_empty() && !self.writing)
    }

    fn push_record(&mut self, payload: Bytes) {
        self.record_bytes += cost(&payload);
        self.records.push_back(payload);
    }

    /// What to write next. `writing` stands for the frame taken last, until the writer has settled or must wait.
    fn take(&mut self, progress_is_due: bool) -> Next {
        let next = self.choose(progress_is_due);
        match next {
            Next::Frame(_) => self.writing = true,
            Next::Wait => self.writing = false,
            Next::Nothing => {}
        }
        next
    }

    fn choose(&mut self, progress_is_due: bool) -> Next {
        if let Some(frame) = self.control.pop_front() {
            return Next::Frame(frame);
        }
        if progress_is_due && self.round.is_empty() {
            let newest = std::mem::take(&mut self.progress);
            let frames =
                newest.iter().map(|(call_id, report)| Frame::json(to_host::PROGRESS, *call_id, report));
            self.round.extend(frames);
        }
        if let Some(frame) = self.round.pop_front() {
            return Next::Frame(frame);
        }
        if self.records.is_empty() {
            if let Some((job_id, records)) = self.held.next_dropped() {
                return Next::Frame(Frame::json(to_host::DROPPED, 0, &Dropped { records, job_id }));
            }
            // What finds no room goes when these are written; later ones are held back behind it.
            while let Some(held) = {
                let room = RECORDS_BYTES_MAX - self.record_bytes;
                self.held.let_go_first(|held| cost(&held.payload) <= room)
            } {
                self.push_record(held.payload);
            }
        }
        if let Some(payload) = self.records.pop_front() {
            self.record_bytes = self.record_bytes.saturating_sub(cost(&payload));
            return Next::Frame(Frame { kind: to_host::RECORD, call_id: 0, payload });
        }
        if self.progress.is_empty() { Next::Nothing } else { Next::Wait }
    }
}

fn cost(payload: &Bytes) -> usize {
    payload.len() + RECORD_OVERHEAD_BYTES
}

/// Cuts the middle out of the long texts of a record so that it fits a small frame, whatever escaping adds.
fn shorten(mut record: Record) -> Record {
    // Beside the texts: the names of the fields, and the time.
    const REST_BYTES_MAX: usize = 256;
    // Escaping makes at most six bytes of one.
    const TEXT_BYTES_MAX: usize = (SMALL_PAYLOAD_BYTES_MAX - REST_BYTES_MAX) / 6 / 5 - MARK_BYTES_MAX;
    record.ts = record.ts.is_some().then(|| record.made_at(Timestamp::now()));
    for text in [Some(&mut record.message), record.exc_text.as_mut(), record.job_id.as_mut()]
        .into_iter()
        .flatten()
        .chain([&mut record.logger_name, &mut record.level])
    {
        *text = without_middle(text, TEXT_BYTES_MAX).into_owned();
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::FrameReader;
    use cjm_wire::held_back::HELD_BACK_MAX;
    use tokio::net::UnixStream;

    fn record(message: String) -> Record {
        Record {
            ts: None,
            level: "INFO".into(),
            logger_name: "t".into(),
            message,
            exc_text: None,
            job_id: None,
        }
    }

    fn next_record(link: &HostLink) -> Option<Frame> {
        let next = link.lock().take(true);
        let Next::Frame(frame) = next else { return None };
        (frame.kind == to_host::RECORD).then_some(frame)
    }

    #[test]
    fn every_text_of_a_record_is_shortened_and_all_of_it_fits() {
        // Nothing takes more bytes when it is written.
        let long =
            |name: &str| format!("begin of {name}{}end of {name}", "\u{1}".repeat(SMALL_PAYLOAD_BYTES_MAX));
        let link = HostLink::default();
        link.record(&Record {
            // An instant, however much stands behind it.
            ts: Some(Timestamp::from_text(format!(
                "2020-01-02T03:04:05Z[u-ca={}]",
                "x".repeat(SMALL_PAYLOAD_BYTES_MAX)
            ))),
            level: long("level"),
            logger_name: long("name"),
            message: long("message"),
            exc_text: Some(long("traceback")),
            job_id: Some(long("job")),
        });
        let payload = next_record(&link).expect("a record").payload;
        assert!(payload.len() <= SMALL_PAYLOAD_BYTES_MAX, "{}", payload.len());
        let told: Record = serde_json::from_slice(&payload).expect("reads");
        for (name, text) in [
            ("level", Some(told.level)),
            ("name", Some(told.logger_name)),
            ("message", Some(told.message)),
            ("traceback", told.exc_text),
            ("job", told.job_id),
        ] {
            let text = text.expect(name);
            assert!(text.starts_with(&format!("begin of {name}")), "{text}");
            assert!(
                text.ends_with(&format!("end of {name}")) && text.contains(" bytes dropped here]"),
                "{text}"
            );
        }
    }

    #[test]
    fn texts_that_are_hardly_too_long_for_a_record_are_shortened_too() {
        for length in SMALL_PAYLOAD_BYTES_MAX / 6 / 5 - 100..SMALL_PAYLOAD_BYTES_MAX / 6 / 5 + 100 {
            let text = || "\u{1}".repeat(length);
            let texts = Record { level: text(), logger_name: text(), ..record(text()) };
            let link = HostLink::default();
            link.record(&Record { exc_text: Some(text()), job_id: Some(text()), ..texts });
            let payload = next_record(&link).expect("a record").payload;
            assert!(payload.len() <= SMALL_PAYLOAD_BYTES_MAX, "{} of {length}", payload.len());
        }
    }

    #[test]
    fn what_was_held_back_comes_behind_its_losses_within_the_maximum_and_before_what_is_said_later() {
        let link = HostLink::default();
        let say = |level: &str, job: &str, message: &str| {
            let message = message.to_owned() + &" ".repeat(SMALL_PAYLOAD_BYTES_MAX - 1024);
            link.record(&Record { level: level.into(), job_id: Some(job.into()), ..record(message) });
        };
        let queued = RECORDS_BYTES_MAX / SMALL_PAYLOAD_BYTES_MAX;
        (0..queued).for_each(|number| say("INFO", "a", &format!("queued {number}")));
        (0..3).for_each(|_| say("INFO", "b", "lost"));
        (0..HELD_BACK_MAX).for_each(|number| say("ERROR", "a", &format!("grave {number}")));
        (0..2).for_each(|_| say("INFO", "a", "lost"));
        (0..HELD_BACK_MAX).for_each(|number| say("INFO", "a", &format!("last {number}")));
        let mut told = Vec::new();
        loop {
            let next = link.lock().take(true);
            let Next::Frame(frame) = next else { break };
            assert!(link.lock().record_bytes <= RECORDS_BYTES_MAX, "{}", link.lock().record_bytes);
            told.push(if frame.kind == to_host::DROPPED {
                let Dropped { records, job_id } = serde_json::from_slice(&frame.payload).expect("a loss");
                format!("{records} of {}", job_id.unwrap_or_default())
            } else {
                let told: Record = serde_json::from_slice(&frame.payload).expect("a record");
                told.message.trim_end().to_owned()
            });
            // Not all was let go yet.
            if told.last().is_some_and(|told| told == "last 0") {
                say("INFO", "a", "later");
            }
        }
        let of = |what: &str, count: usize| {
            (0..count).map(|number| format!("{what} {number}")).collect::<Vec<_>>()
        };
        let losses = vec!["2 of a".to_owned(), "3 of b".to_owned()];
        let later = vec!["later".to_owned()];
        let (grave, last) = (of("grave", HELD_BACK_MAX), of("last", HELD_BACK_MAX));
        assert_eq!(told, [of("queued", queued), losses, grave, last, later].concat());
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn who_waits_until_all_is_written_waits_for_losses_too() {
        let link = HostLink::default();
        link.count_dropped(3);
        assert!(!link.flush(Duration::from_secs(5)).await, "nobody writes yet");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_keep, write_half) = ours.into_split();
        let writer = tokio::spawn(link.clone().run_writer(LinkWriter::Host(write_half)));
        assert!(link.flush(Duration::from_secs(5)).await);
        let frame = FrameReader::new(theirs).next().await.unwrap().unwrap();
        assert_eq!(frame.kind, to_host::DROPPED);
        writer.abort();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn results_overtake_records_and_of_a_flood_and_a_long_record_the_middle_is_dropped_and_counted() {
        let link = HostLink::default();
        let sent = 3 * RECORDS_BYTES_MAX / 1024;
        link.record(&record("\u{1}".repeat(SMALL_PAYLOAD_BYTES_MAX) + "THE END"));
        for _ in 0..sent {
            link.record(&record("x".repeat(1024)));
        }
        link.record(&Record {
            level: "ERROR".into(),
            job_id: Some("j".into()),
            ..record("THE CAUSE".into())
        });
        (0..sent).for_each(|_| link.record(&record("x".repeat(1024))));
        link.record(&record("last words".into()));
        link.control(to_host::READY, &serde_json::json!({}));
        for step in 0..1000 {
            link.progress(7, ProgressReport { job_id: None, progress: 0.1, message: step.to_string() });
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_keep, write_half) = ours.into_split();
        let writer = tokio::spawn(link.clone().run_writer(LinkWriter::Host(write_half)));
        let mut reader = FrameReader::new(theirs);
        let mut kinds = Vec::new();
        let mut progress = Vec::new();
        let (mut said, mut dropped) = (Vec::new(), 0);
        while said.last().is_none_or(|last| last != "last words") {
            let next = tokio::time::timeout(Duration::from_secs(20), reader.next()).await;
            let frame = next.expect("the last words come").unwrap().unwrap();
            kinds.push(frame.kind);
            assert!(frame.payload.len() <= SMALL_PAYLOAD_BYTES_MAX && !frame.payload.is_empty());
            match frame.kind {
                to_host::PROGRESS => {
                    progress.push(serde_json::from_slice::<ProgressReport>(&frame.payload).unwrap());
                }
                to_host::DROPPED => {
                    dropped += serde_json::from_slice::<Dropped>(&frame.payload).unwrap().records;
                    said.push("dropped".to_owned());
                }
                to_host::RECORD => {
                    said.push(serde_json::from_slice::<Record>(&frame.payload).unwrap().message);
                }
                _ => {}
            }
        }
        assert_eq!(kinds[0], to_host::READY, "what must arrive comes first");
        let records = kinds.iter().filter(|kind| **kind == to_host::RECORD).count() as u64;
        assert_eq!(records + dropped, 2 * sent as u64 + 3);
        assert!(records > 100);
        assert!(
            said[0].contains(" bytes dropped here]") && said[0].ends_with("THE END"),
            "{}",
            said[0].len()
        );
        let end = &said[said.len() - HELD_BACK_MAX - 2..];
        assert_eq!(
            (end[0].as_str(), end[1].as_str()),
            ("dropped", "THE CAUSE"),
            "the loss is told where it is"
        );
        assert!(link.lock().record_bytes == 0 && link.lock().held.is_empty());
        assert_eq!(progress.len(), 1, "only the newest progress is sent");
        assert_eq!(progress[0].message, "999");
        assert!(link.flush(Duration::from_secs(5)).await);
        drop(reader);
        link.control(to_host::READY, &serde_json::json!({}));
        assert!(link.flush(Duration::from_secs(5)).await, "a broken link does not hold anybody");
        writer.await.unwrap();
    }
}
