//! What is stored of a stream that says more than anybody reads, lines or records: a bounded number of bytes a second, and
//! no more than the store has room for.
//!
//! What must hold: the middle is dropped and counted, never the end, because what a tool says last is why it failed.

use cjm_wire::held_back::{HELD_BACK_MAX, HeldBack, Word};
use futures_util::future::BoxFuture;
use std::time::{Duration, Instant};

/// Lines kept for error messages, as many as are held back of a flood.
pub(crate) const TAIL_LINES_MAX: usize = HELD_BACK_MAX;
/// Bytes a second that are stored of one stream; what is above is dropped and counted.
pub(crate) const STORED_BYTES_PER_SECOND_MAX: usize = 1024 * 1024;
const METER_PERIOD: Duration = Duration::from_secs(1);
/// How long the last words of a flood wait for what was stored before them.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// Where what one stream says is kept.
pub(crate) trait FloodStore: Send {
    /// A line, or a record.
    type Item: Word;
    /// What is stored of it in a second.
    const BYTES_PER_SECOND_MAX: usize;
    /// Whether there is room for items that can wait. Last words are kept also where there is none.
    fn has_room(&self) -> bool;
    /// What an item counts of that.
    fn bytes(item: &Self::Item) -> usize;
    /// Keeps an item.
    fn keep(&mut self, item: Self::Item);
    /// Keeps a word of so many dropped items.
    fn keep_dropped(&mut self, items: u64, job_id: Option<String>);
    /// Waits until the items before are stored.
    fn settled(&self) -> BoxFuture<'static, ()>;
}

/// Lets a bounded number of bytes a second through. Of what is above, and of what the store has no room for, the last
/// items are held back and come when the flood is over.
pub(crate) struct Meter<S: FloodStore> {
    second: Instant,
    spent: usize,
    held: HeldBack<S::Item>,
}

impl<S: FloodStore> Meter<S> {
    pub(crate) fn new() -> Self {
        Self { second: Instant::now(), spent: 0, held: HeldBack::default() }
    }

    pub(crate) fn take(&mut self, item: S::Item, store: &mut S) {
        if self.second.elapsed() >= METER_PERIOD {
            self.release(store);
        }
        self.spent += S::bytes(&item);
        if !self.holds() && self.spent <= S::BYTES_PER_SECOND_MAX && store.has_room() {
            return store.keep(item);
        }
        self.held.push(item);
    }

    /// Items were dropped before they came here.
    pub(crate) fn count(&mut self, items: u64, job_id: Option<&str>, store: &mut S) {
        self.held.count(job_id, items);
        if !self.holds() {
            self.let_go(store);
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.held.holds()
    }

    pub(crate) fn release_at(&self) -> Instant {
        self.second + METER_PERIOD
    }

    /// Another second begins: what was held back is kept now, if there is room.
    pub(crate) fn release(&mut self, store: &mut S) {
        self.second = Instant::now();
        self.spent = 0;
        if store.has_room() {
            self.let_go(store);
        }
    }

    /// The stream has ended: what is held back is what matters most.
    pub(crate) async fn end(mut self, store: &mut S) {
        if self.holds() {
            let _ = tokio::time::timeout(SETTLE_MAX, store.settled()).await;
            self.let_go(store);
        }
    }

    /// Says how many were dropped, then those that were held back.
    fn let_go(&mut self, store: &mut S) {
        while let Some((job_id, items)) = self.held.next_dropped() {
            store.keep_dropped(items, job_id);
        }
        self.held.let_go().for_each(|item| store.keep(item));
    }
}

/// What stands where lines are missing.
pub(crate) fn dropped_lines(lines: u64) -> String {
    format!("[{lines} lines dropped here: printed faster than they could be stored]")
}

#[cfg(test)]
pub(crate) use tests::Kept;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    /// Keeps lines in memory; has room for so many until it is asked to settle, and drops what is above.
    #[derive(Clone)]
    pub(crate) struct Kept {
        lines: Arc<Mutex<Vec<String>>>,
        room: Arc<AtomicUsize>,
    }

    impl Default for Kept {
        fn default() -> Self {
            Self::with_room(usize::MAX)
        }
    }

    impl Kept {
        fn with_room(lines: usize) -> Self {
            Self { lines: Arc::default(), room: Arc::new(AtomicUsize::new(lines)) }
        }

        pub(crate) fn lines(&self) -> Vec<String> {
            self.lines.lock().expect("lock").clone()
        }
    }

    impl FloodStore for Kept {
        type Item = String;
        const BYTES_PER_SECOND_MAX: usize = STORED_BYTES_PER_SECOND_MAX;

        fn has_room(&self) -> bool {
            self.lines.lock().expect("lock").len() < self.room.load(Ordering::Relaxed)
        }

        fn bytes(line: &String) -> usize {
            line.len()
        }

        fn keep(&mut self, line: String) {
            if self.has_room() {
                self.lines.lock().expect("lock").push(line);
            }
        }

        fn keep_dropped(&mut self, lines: u64, _: Option<String>) {
            self.keep(dropped_lines(lines));
        }

        fn settled(&self) -> BoxFuture<'static, ()> {
            let room = Arc::clone(&self.room);
            Box::pin(async move { room.store(usize::MAX, Ordering::Relaxed) })
        }
    }

    /// The end is there, and what is shown and what is told as dropped is all there was.
    fn assert_whole(kept: &[String], count: u64) {
        assert_eq!(kept.last().map(String::as_str), Some("last words"));
        let told: u64 = kept
            .iter()
            .filter_map(|line| line.strip_prefix('[')?.split(' ').next()?.parse::<u64>().ok())
            .sum();
        let shown = kept.iter().filter(|line| !line.starts_with('[')).count() as u64;
        assert_eq!(told + shown, count, "what is dropped is counted");
    }

    #[tokio::test]
    async fn of_a_flood_the_middle_is_dropped_and_the_end_comes() {
        let (mut meter, mut kept) = (Meter::new(), Kept::default());
        let line = "x".repeat(1000);
        let count = 10 * STORED_BYTES_PER_SECOND_MAX / line.len();
        for _ in 0..count {
            meter.take(line.clone(), &mut kept);
        }
        meter.take("last words".to_owned(), &mut kept);
        assert!(meter.holds());
        meter.end(&mut kept).await;
        assert_whole(&kept.lines(), count as u64 + 1);
    }

    #[tokio::test]
    async fn each_second_has_its_own_room_and_no_more() {
        let (mut meter, mut kept) = (Meter::new(), Kept::default());
        let line = "x".repeat(STORED_BYTES_PER_SECOND_MAX / 4);
        for held_before in [0, 4, 4] {
            let before = kept.lines().len();
            for _ in 0..8 {
                meter.take(line.clone(), &mut kept);
            }
            assert_eq!(kept.lines().len() - before, held_before + 4);
            assert!(meter.holds());
            meter.second -= METER_PERIOD;
        }
    }

    #[tokio::test]
    async fn a_loss_that_is_told_in_a_flood_lets_nothing_past_it() {
        let (mut meter, mut kept) = (Meter::new(), Kept::default());
        meter.count(2, None, &mut kept);
        assert_eq!(kept.lines(), [dropped_lines(2)], "there is no flood");
        meter.spent = STORED_BYTES_PER_SECOND_MAX;
        meter.take("held".to_owned(), &mut kept);
        meter.count(5, None, &mut kept);
        assert_eq!(kept.lines().len(), 1);
        meter.end(&mut kept).await;
        assert_eq!(kept.lines()[1..], [dropped_lines(5), "held".to_owned()]);
    }

    #[tokio::test]
    async fn what_was_told_as_dropped_is_not_told_again() {
        let (mut meter, mut kept) = (Meter::new(), Kept::default());
        for flood in 0..2 {
            meter.spent = STORED_BYTES_PER_SECOND_MAX;
            for _ in 0..TAIL_LINES_MAX + 1 + flood {
                meter.take("x".to_owned(), &mut kept);
            }
            meter.release(&mut kept);
        }
        let told: Vec<String> = kept.lines().into_iter().filter(|line| line.starts_with('[')).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("[1 lines") && told[1].starts_with("[2 lines"), "{told:?}");
    }

    #[tokio::test]
    async fn last_words_wait_for_a_store_that_has_no_room() {
        let (mut meter, mut kept) = (Meter::new(), Kept::with_room(10));
        for _ in 0..100 {
            meter.take("short".to_owned(), &mut kept);
        }
        meter.take("last words".to_owned(), &mut kept);
        assert_eq!(kept.lines().len(), 10);
        meter.release(&mut kept);
        assert_eq!(kept.lines().len(), 10, "another second brings no room");
        meter.end(&mut kept).await;
        assert_whole(&kept.lines(), 101);
        assert_eq!(kept.lines().len(), 10 + 1 + TAIL_LINES_MAX);
    }
}
