//! Which calls the tool was given. A worker says so with its last words: a call that it had not given, the host may send
//! to another one.
//!
//! What must hold: a call counts as given before the tool can see any of it, and stays so until its answer is long out;
//! after the last words nothing is given any more. Who cannot tell says nothing, and then every call counts as given.

use std::collections::{BTreeMap, VecDeque};

/// Answered calls that are remembered: their answers may still be on their way.
const ANSWERED_MAX: usize = 256;
/// Bytes of ids that the last words may have; more are not told.
const TOLD_BYTES_MAX: usize = 128 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Given {
    unanswered: BTreeMap<u64, String>,
    answered: VecDeque<String>,
    sealed: bool,
}

impl Given {
    /// A call is about to be given; false: it must not be.
    pub(crate) fn give(&mut self, id: u64, job_id: Option<&str>) -> bool {
        if let Some(job_id) = job_id.filter(|_| !self.sealed) {
            self.unanswered.insert(id, job_id.to_owned());
        }
        !self.sealed
    }

    /// The tool has not got the whole of it, and never will.
    pub(crate) fn take_back(&mut self, id: u64) {
        self.unanswered.remove(&id);
    }

    /// A call is over.
    pub(crate) fn answered(&mut self, id: u64) {
        let Some(job_id) = self.unanswered.remove(&id) else { return };
        if self.answered.len() == ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(job_id);
    }

    /// The jobs whose calls were given. Nothing is given any more.
    pub(crate) fn seal(&mut self) -> Option<Vec<String>> {
        self.sealed = true;
        let given: Vec<String> = self.unanswered.values().chain(&self.answered).cloned().collect();
        (given.iter().map(String::len).sum::<usize>() <= TOLD_BYTES_MAX).then_some(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_told_and_what_was_taken_back_is_not() {
        let mut given = Given::default();
        for (id, job) in [(1, "a"), (2, "b"), (3, "c")] {
            assert!(given.give(id, Some(job)));
        }
        assert!(given.give(4, None), "a call of no job is nobody's to send again");
        given.answered(1);
        given.take_back(2);
        assert_eq!(given.seal(), Some(vec!["c".to_owned(), "a".to_owned()]));
        assert!(!given.give(5, Some("late")) && !given.give(6, None));
        assert_eq!(given.seal().map(|told| told.len()), Some(2), "nothing is given after the last words");
    }

    #[test]
    fn what_cannot_be_told_whole_is_not_told_in_part() {
        let mut given = Given::default();
        for id in 0..2 * ANSWERED_MAX as u64 {
            given.give(id, Some("job"));
            given.answered(id);
        }
        assert_eq!(given.seal().map(|told| told.len()), Some(ANSWERED_MAX));
        let mut given = Given::default();
        given.give(1, Some(&"x".repeat(TOLD_BYTES_MAX + 1)));
        assert_eq!(given.seal(), None);
    }
}
