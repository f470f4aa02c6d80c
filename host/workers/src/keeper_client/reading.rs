//! What the host hears of its keeper, and what it does about workers of whom it hears nothing: the keeper stands still, or
//! is gone.

use super::held::{Ended, Ending, Held, end_orphans_of, look_at_all};
use super::table::{Outgoing, Running, SpawnRefusal, SpawnedWorker, Table, WorkerEnd, lock};
use cjm_platform::Pid;
use cjm_platform::poll::{self, Interest};
use cjm_platform::seqpacket::{Received, SeqPacket};
use cjm_platform::tree::is_stopped;
use cjm_wire::keeper::{ExitWord, HostToKeeper, KeeperToHost};
use cjm_wire::link::ExitStatus;
use std::cell::LazyCell;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a worker may have ended before a host whose keeper stands still tells it: one that runs needs milliseconds.
const UNTOLD_MAX: Duration = Duration::from_millis(300);
/// How long a worker may take to clear its tree once its keeper is gone; then the host does it.
const ORPHAN_CLEARS_ITSELF_MAX: Duration = Duration::from_secs(2);
/// How long the ending of one tree by the host may take. What lives on is beyond signals.
pub(super) const END_TREE_MAX: Duration = Duration::from_secs(2);
/// How often workers that are to end are looked at.
const END_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How often the keeper is looked at while it has not told an end.
const UNTOLD_LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn read_until_gone(
    keeper: Pid,
    socket: &SeqPacket,
    table: &Mutex<Table>,
    replies: &mpsc::SyncSender<Outgoing>,
) {
    while let Some(Received::Message(message)) = receive(keeper, socket, table) {
        match serde_json::from_slice::<KeeperToHost>(&message.bytes) {
            Ok(event) => {
                if let Some(reply) = note(keeper, table, event) {
                    // It has just said something, so it reads; if its queue is full all the same, its end kills them.
                    let _ = replies.try_send(Outgoing { message: reply, fds: Vec::new() });
                }
            }
            Err(error) => tracing::warn!(%error, "a message of the keeper cannot be read"),
        }
    }
}

/// The keeper's next message; None where it cannot be heard any more. Meanwhile tells the ends of workers that a keeper
/// which stands still does not tell.
fn receive(keeper: Pid, socket: &SeqPacket, table: &Mutex<Table>) -> Option<Received> {
    loop {
        let (living, is_one_untold) = {
            let table = lock(table);
            let living = table.running.values().filter(|running| running.ended.is_none());
            let living: Vec<_> = living.filter_map(|running| running.held.clone()).collect();
            (living, table.running.values().any(|running| running.ended.is_some()))
        };
        let mut watched = vec![(socket.as_fd(), Interest::Read)];
        watched.extend(living.iter().map(|held| (held.fd(), Interest::Read)));
        let ready = poll::wait(&watched, is_one_untold.then_some(UNTOLD_LOOK_INTERVAL)).ok()?;
        if ready[0].readable {
            return socket.recv().ok();
        }
        tell_untold(keeper, table, |living| {
            end_orphans_of(keeper, living, END_TREE_MAX, || is_stopped(keeper))
        });
    }
}

/// Notes which workers have ended, and tells of those that a stopped keeper has not told for a time. What they have left is
/// ended by `end_left`, which is given the workers that live.
fn tell_untold(keeper: Pid, table: &Mutex<Table>, end_left: impl FnOnce(&BTreeSet<Pid>) -> Ended) {
    let Some((over, living)) = take_untold(keeper, &mut lock(table)) else { return };
    // What they have left fell to the keeper, which cannot clear it. Whoever starts a worker does not wait for that.
    let begun = Instant::now();
    let ended = end_left(&living);
    if !ended.all {
        tracing::warn!("processes of a dead worker may live on: its keeper stands still");
    }
    let mut killed = ended.descendants_killed;
    for Running { end, held, .. } in over {
        let status = held.and_then(|held| held.status());
        // Whose it was cannot be told once it fell to the keeper. What may be of several is counted once, as the keeper does.
        let _ = end.send(WorkerEnd::cleared(status, std::mem::take(&mut killed), begun.elapsed()));
    }
}

/// The workers whose ends are to be told, the one that was seen to end first before the others, and those that live; None where there is nothing to tell.
fn take_untold(keeper: Pid, table: &mut Table) -> Option<(Vec<Running>, BTreeSet<Pid>)> {
    let now = Instant::now();
    for running in table.running.values_mut() {
        if running.ended.is_none() && running.held.as_ref().is_some_and(|held| held.has_ended()) {
            running.ended = Some(now);
        }
    }
    let overdue = |running: &Running| running.ended.is_some_and(|at| now - at >= UNTOLD_MAX);
    if !table.running.values().any(overdue) || !is_stopped(keeper) {
        return None;
    }
    let mut over: Vec<Running> =
        table.running.extract_if(|_, running| overdue(running)).map(|(_, one)| one).collect();
    over.sort_by_key(|running| running.ended);
    Some((over, table.living()))
}

/// Takes over what the keeper says; what is to be answered.
fn note(keeper: Pid, table: &Mutex<Table>, event: KeeperToHost) -> Option<HostToKeeper> {
    match event {
        KeeperToHost::Ready { .. } => {}
        KeeperToHost::Spawned { worker, pid } => {
            let (end_sender, end) = oneshot::channel();
            let held = Held::child_of(keeper, pid).map(Arc::new);
            let pending = {
                let mut table = lock(table);
                table.running.insert(worker.clone(), Running::new(end_sender, held));
                table.spawning.remove(&worker)
            };
            let spawned = SpawnedWorker { pid: u32::try_from(pid).unwrap_or_default(), end };
            let taken = pending.is_some_and(|pending| pending.answer.send(Ok(spawned)).is_ok());
            // Its caller has given up meanwhile: it is nobody's.
            return (!taken).then_some(HostToKeeper::Kill { worker });
        }
        KeeperToHost::SpawnFailed { worker, message, next_step, .. } => {
            if let Some(pending) = lock(table).spawning.remove(&worker) {
                let _ = pending.answer.send(Err(SpawnRefusal { message, next_step }));
            }
        }
        KeeperToHost::Exited { worker, status, descendants_killed, clear_ms, survivors, .. } => {
            if !survivors.is_empty() {
                tracing::warn!(?survivors, %worker, "processes of a dead worker outlive SIGKILL");
            }
            let mut table = lock(table);
            let status = (!table.ending).then(|| exit_status(status));
            if let Some(running) = table.running.remove(&worker) {
                let _ = running.end.send(WorkerEnd { status, descendants_killed, clear_ms });
            }
        }
        KeeperToHost::Ending { cause } => {
            tracing::warn!(%cause, "the keeper ends and kills all workers; the next start gets a new one");
            lock(table).ending = true;
        }
        KeeperToHost::Trouble { message } => tracing::warn!(%message, "the keeper reports trouble"),
    }
    None
}

pub(super) fn declare_all_dead(table: &Mutex<Table>) {
    let (spawning, running) = {
        let mut table = lock(table);
        table.gone = true;
        (std::mem::take(&mut table.spawning), std::mem::take(&mut table.running))
    };
    for (_, pending) in spawning {
        let _ = pending.answer.send(Err(SpawnRefusal {
            message: "the keeper died".to_owned(),
            next_step: "try again: the host starts a new keeper".to_owned(),
        }));
    }
    end_orphans(running);
}

/// Sees the workers of a lost keeper end, as each does by itself, and ends those that do not: one that stands still cannot.
/// Those are ended side by side: one that is beyond signals delays no other.
fn end_orphans(mut running: HashMap<String, Running>) {
    let begun = Instant::now();
    let mut ending: Vec<(String, oneshot::Sender<WorkerEnd>, Ending)> = Vec::new();
    loop {
        let is_late = begun.elapsed() >= ORPHAN_CLEARS_ITSELF_MAX;
        let waits = |held: &Arc<Held>| !is_late && !held.has_ended() && !held.is_stopped();
        for (worker, Running { end, held, .. }) in
            running.extract_if(|_, running| !running.held.as_ref().is_some_and(waits))
        {
            match held.filter(|held| !held.has_ended()) {
                Some(held) => ending.push((worker, end, Ending::begin(held, END_TREE_MAX))),
                None => {
                    let _ = end.send(WorkerEnd::cleared(None, 0, begun.elapsed()));
                }
            }
        }
        let all = LazyCell::new(look_at_all);
        for (worker, end, mut tree) in std::mem::take(&mut ending) {
            let Some(ended) = tree.look(&all) else {
                ending.push((worker, end, tree));
                continue;
            };
            if !ended.all {
                tracing::warn!(%worker, "processes of a worker may live on: its keeper is gone");
            }
            let _ = end.send(WorkerEnd::cleared(None, ended.descendants_killed, begun.elapsed()));
        }
        if running.is_empty() && ending.is_empty() {
            return;
        }
        std::thread::sleep(END_LOOK_INTERVAL);
    }
}

fn exit_status(word: ExitWord) -> ExitStatus {
    match word {
        ExitWord::Exited { code } => ExitStatus::Code(code),
        ExitWord::Signaled { signal, .. } => ExitStatus::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper_client::held::tests::Process;

    /// A stopped process in the place of a keeper, and its one worker, which has ended and of which nothing was told since.
    fn untold(since: Instant) -> (Process, Mutex<Table>, oneshot::Receiver<WorkerEnd>) {
        let keeper = Process::sleeper();
        keeper.stop();
        let (end, told) = oneshot::channel();
        let mut table = Table::default();
        table.running.insert("w".to_owned(), Running { ended: Some(since), ..Running::new(end, None) });
        (keeper, Mutex::new(table), told)
    }

    #[test]
    fn nobody_waits_for_the_table_while_what_fell_to_a_stopped_keeper_is_ended() {
        let (keeper, table, mut told) = untold(Instant::now() - UNTOLD_MAX);
        tell_untold(keeper.pid(), &table, |living| {
            assert!(table.try_lock().is_ok(), "starts of other workers need it");
            assert!(living.is_empty());
            Ended { all: true, descendants_killed: 3 }
        });
        assert_eq!(told.try_recv().expect("told").descendants_killed, 3);
        assert!(lock(&table).running.is_empty(), "told once");
    }

    #[test]
    fn what_may_be_of_several_dead_workers_is_counted_once_for_the_first() {
        let now = Instant::now();
        let (keeper, table, first) = untold(now - 2 * UNTOLD_MAX);
        let mut ends = vec![first];
        for number in 1..4 {
            let (end, told) = oneshot::channel();
            let ended = Some(now - 2 * UNTOLD_MAX + Duration::from_millis(number));
            lock(&table).running.insert(number.to_string(), Running { ended, ..Running::new(end, None) });
            ends.push(told);
        }
        tell_untold(keeper.pid(), &table, |_| Ended { all: true, descendants_killed: 3 });
        let told = ends.into_iter().map(|mut told| told.try_recv().expect("told").descendants_killed);
        assert_eq!(told.collect::<Vec<_>>(), [3, 0, 0, 0]);
    }

    #[test]
    fn an_end_that_a_stopped_keeper_may_still_tell_is_left_to_it() {
        // Later than now: no time has passed, however long this takes.
        let (keeper, table, mut told) = untold(Instant::now() + ORPHAN_CLEARS_ITSELF_MAX * 100);
        tell_untold(keeper.pid(), &table, |_| panic!("too early"));
        assert!(told.try_recv().is_err() && lock(&table).running.contains_key("w"));
    }

    #[test]
    fn a_worker_that_nobody_waits_for_is_known_until_it_has_ended() {
        let (worker, table) = (Process::sleeper(), Mutex::default());
        let event = KeeperToHost::Spawned { worker: "w".to_owned(), pid: worker.pid().as_raw() };
        let answer = note(Pid::current(), &table, event);
        assert_eq!(answer, Some(HostToKeeper::Kill { worker: "w".to_owned() }));
        // A keeper that stands still does not hear that: the host ends it, and spares it where it ends others.
        assert_eq!(lock(&table).living(), BTreeSet::from([worker.pid()]));
    }

    #[test]
    fn workers_that_do_not_end_delay_no_other_and_are_given_up_side_by_side() {
        const WORKERS: usize = 4;
        let started = [(); WORKERS + 1].map(|()| Process::sleeper());
        let pids = started.each_ref().map(Process::pid);
        let (mut running, mut ends) = (HashMap::new(), Vec::new());
        for (at, pid) in pids.iter().take(WORKERS).enumerate() {
            // The last one hears signals. Of each other one nothing is ever seen to come.
            let is_last = at + 1 == WORKERS;
            let shown = if is_last { *pid } else { pids[WORKERS] };
            let held = Some(Arc::new(Held::beyond_signals(shown, *pid)));
            let (end, told) = oneshot::channel();
            running.insert(at.to_string(), Running::new(end, held));
            ends.push(told);
        }
        let begun = Instant::now();
        end_orphans(running);
        assert!(begun.elapsed() < ORPHAN_CLEARS_ITSELF_MAX + 2 * END_TREE_MAX, "{:?}", begun.elapsed());
        let took: Vec<_> = ends.into_iter().map(|mut told| told.try_recv().expect("told").clear_ms).collect();
        assert!(took.iter().all(|ms| *ms >= took[WORKERS - 1]), "{took:?}");
    }
}
