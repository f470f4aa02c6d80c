//! The life of one instance: which incarnation is the present one, and who may start, use, renew or end it. One value
//! answers all of it, so that two truths about an incarnation cannot be.
//!
//! ```text
//!             enter             started
//!  Announced ────────▶ Starting ────────▶ Living
//!   ▲    │                │                 │
//!   │    │                │ ended           │ ended
//!   │    │ retire         ▼                 ▼
//!   └────┼─────── renewed: another incarnation is announced
//!        ▼
//!     Retired  (from every state; nothing leads out)
//! ```
//!
//! An incarnation has its id before it has a process. Its end is told by whoever finds out first, and told once:
//! [`Lifecycle::ended`] names the incarnation it is about, and says nothing of any other. No worker is ever started under
//! the id of an incarnation that has ended.

use cjm_wire::WorkerSessionId;

/// See the module. `W` is the shell's handle of a worker that takes calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lifecycle<W> {
    /// No process; the next call starts one under this id.
    Announced(WorkerSessionId),
    /// A process is being brought up.
    Starting(WorkerSessionId),
    /// The worker takes calls.
    Living(WorkerSessionId, W),
    /// Unloaded. The last incarnation's id stays for those who ask.
    Retired(WorkerSessionId),
}

/// What whoever needs the worker is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Entry<W> {
    /// Use it.
    Use(W),
    /// Start it under this id, and tell [`Lifecycle::started`] or [`Lifecycle::ended`]. Said to one caller for each
    /// incarnation.
    Start(WorkerSessionId),
    /// Somebody starts it: ask again, for the same incarnation, when the state has changed.
    Wait(WorkerSessionId),
    /// The incarnation that was asked for is not the present one.
    Gone,
    /// The instance was unloaded.
    Retired,
}

/// What the queue is to be told when an incarnation has ended, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Renewal {
    /// It takes no more calls.
    pub removed: WorkerSessionId,
    /// It takes them from now on.
    pub announced: WorkerSessionId,
}

/// What killing one incarnation leaves to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Recycling<W> {
    /// Kill it; its death is told by [`Lifecycle::ended`].
    Kill(W),
    /// Kill what is being brought up; its start fails, which is told by [`Lifecycle::ended`].
    KillStart,
    /// It had no process: another one is announced already.
    Renewed(Renewal),
    /// It is not the present one, so it has ended.
    Gone,
}

/// What unloading leaves to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Retirement<W> {
    /// The queue is told that this incarnation takes no more calls.
    pub removed: WorkerSessionId,
    /// The worker to end.
    pub worker: Option<W>,
    /// A start is under way: whoever brings it up finds [`Lifecycle::started`] false and ends what was started.
    pub starting: bool,
}

impl<W: Clone> Lifecycle<W> {
    /// The id of the worker that lives or is being started, or of the one that would be started now.
    #[must_use]
    pub fn session(&self) -> &WorkerSessionId {
        match self {
            Self::Announced(session)
            | Self::Starting(session)
            | Self::Living(session, _)
            | Self::Retired(session) => session,
        }
    }

    /// The worker, if one takes calls.
    #[must_use]
    pub fn worker(&self) -> Option<&W> {
        match self {
            Self::Living(_, worker) => Some(worker),
            Self::Announced(_) | Self::Starting(_) | Self::Retired(_) => None,
        }
    }

    /// Whether the instance was unloaded.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        matches!(self, Self::Retired(_))
    }

    /// Somebody needs the worker: of the incarnation `asked`, or of the present one.
    pub fn enter(&mut self, asked: Option<&WorkerSessionId>) -> Entry<W> {
        if self.is_retired() {
            return Entry::Retired;
        }
        if asked.is_some_and(|asked| asked != self.session()) {
            return Entry::Gone;
        }
        match self {
            Self::Announced(session) => {
                let session = session.clone();
                *self = Self::Starting(session.clone());
                Entry::Start(session)
            }
            Self::Starting(session) => Entry::Wait(session.clone()),
            Self::Living(_, worker) => Entry::Use(worker.clone()),
            Self::Retired(_) => Entry::Retired,
        }
    }

    /// The start of `session` succeeded. False: it was given up meanwhile, and the worker is to be ended.
    #[must_use]
    pub fn started(&mut self, session: &WorkerSessionId, worker: W) -> bool {
        let awaited = matches!(self, Self::Starting(starting) if starting == session);
        if awaited {
            *self = Self::Living(session.clone(), worker);
        }
        awaited
    }

    /// The incarnation `session` has ended: its worker died, or its start failed. `next` becomes the id of the one after
    /// it. `None`: this is old news, and `next` is not used.
    pub fn ended(&mut self, session: &WorkerSessionId, next: WorkerSessionId) -> Option<Renewal> {
        match self {
            Self::Starting(present) | Self::Living(present, _) if present == session => {
                let removed = std::mem::replace(present, next.clone());
                *self = Self::Announced(next.clone());
                Some(Renewal { removed, announced: next })
            }
            Self::Announced(_) | Self::Starting(_) | Self::Living(..) | Self::Retired(_) => None,
        }
    }

    /// The incarnation `session` is to be killed. However it stands, its end is told: whoever asked waits for that.
    pub fn recycle(&mut self, session: &WorkerSessionId, next: WorkerSessionId) -> Recycling<W> {
        if session != self.session() {
            return Recycling::Gone;
        }
        match self {
            Self::Announced(present) => {
                let removed = std::mem::replace(present, next.clone());
                Recycling::Renewed(Renewal { removed, announced: next })
            }
            Self::Starting(_) => Recycling::KillStart,
            Self::Living(_, worker) => Recycling::Kill(worker.clone()),
            Self::Retired(_) => Recycling::Gone,
        }
    }

    /// The instance is unloaded. `None`: it was already.
    pub fn retire(&mut self) -> Option<Retirement<W>> {
        if self.is_retired() {
            return None;
        }
        let session = self.session().clone();
        let before = std::mem::replace(self, Self::Retired(session.clone()));
        let starting = matches!(before, Self::Starting(_));
        let worker = match before {
            Self::Living(_, worker) => Some(worker),
            Self::Announced(_) | Self::Starting(_) | Self::Retired(_) => None,
        };
        Some(Retirement { removed: session, worker, starting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> WorkerSessionId {
        WorkerSessionId::from_text(text)
    }

    /// What `enter` says, for the incarnation asked for.
    fn enters(life: &Lifecycle<u8>, asked: Option<&str>) -> (Entry<u8>, Lifecycle<u8>) {
        let mut life = life.clone();
        let entry = life.enter(asked.map(id).as_ref());
        (entry, life)
    }

    #[test]
    fn whoever_needs_the_worker_gets_one_answer() {
        let (announced, starting) = (Lifecycle::Announced(id("a")), Lifecycle::Starting(id("a")));
        let (living, retired) = (Lifecycle::Living(id("a"), 7), Lifecycle::Retired(id("a")));
        for asked in [None, Some("a")] {
            assert_eq!(enters(&announced, asked), (Entry::Start(id("a")), starting.clone()));
            assert_eq!(enters(&starting, asked), (Entry::Wait(id("a")), starting.clone()));
            assert_eq!(enters(&living, asked), (Entry::Use(7), living.clone()));
            assert_eq!(enters(&retired, asked), (Entry::Retired, retired.clone()));
        }
        for life in [&announced, &starting, &living] {
            assert_eq!(enters(life, Some("b")), (Entry::Gone, life.clone()));
        }
    }

    #[test]
    fn an_end_is_told_once_and_of_its_own_incarnation_alone() {
        for mut life in [Lifecycle::Starting(id("a")), Lifecycle::Living(id("a"), 7)] {
            assert_eq!(life.ended(&id("z"), id("b")), None, "of another one");
            let renewal = Renewal { removed: id("a"), announced: id("b") };
            assert_eq!(life.ended(&id("a"), id("b")), Some(renewal));
            assert_eq!(life, Lifecycle::Announced(id("b")));
            assert_eq!(life.ended(&id("a"), id("c")), None, "the second to find out");
            assert_eq!(life, Lifecycle::Announced(id("b")));
            assert!(!life.started(&id("a"), 8), "a start that was given up");
        }
        // What has no process cannot end.
        assert_eq!(Lifecycle::<u8>::Announced(id("a")).ended(&id("a"), id("b")), None);
        assert_eq!(Lifecycle::<u8>::Retired(id("a")).ended(&id("a"), id("b")), None);
    }

    #[test]
    fn killing_an_incarnation_ends_it_however_it_stands() {
        let renewal = Renewal { removed: id("a"), announced: id("b") };
        let renewed = Lifecycle::Announced(id("b"));
        for (before, said, after) in [
            (Lifecycle::Announced(id("a")), Recycling::Renewed(renewal), renewed),
            (Lifecycle::Starting(id("a")), Recycling::KillStart, Lifecycle::Starting(id("a"))),
            (Lifecycle::Living(id("a"), 7), Recycling::Kill(7), Lifecycle::Living(id("a"), 7)),
            (Lifecycle::Retired(id("a")), Recycling::Gone, Lifecycle::Retired(id("a"))),
        ] {
            let mut life = before.clone();
            assert_eq!(life.recycle(&id("z"), id("b")), Recycling::Gone, "another one");
            assert_eq!(life, before);
            assert_eq!(life.recycle(&id("a"), id("b")), said);
            assert_eq!(life, after);
        }
    }

    #[test]
    fn nothing_leads_out_of_retirement() {
        let retirement = |worker, starting| Some(Retirement { removed: id("a"), worker, starting });
        for (mut life, expected) in [
            (Lifecycle::Announced(id("a")), retirement(None, false)),
            (Lifecycle::Starting(id("a")), retirement(None, true)),
            (Lifecycle::Living(id("a"), 7), retirement(Some(7), false)),
            (Lifecycle::Retired(id("a")), None),
        ] {
            assert_eq!(life.retire(), expected);
            assert!(!life.started(&id("a"), 8));
            assert_eq!(life.enter(None), Entry::Retired);
            assert_eq!(life.retire(), None);
            assert_eq!((life.session(), life.worker()), (&id("a"), None));
        }
    }
}
