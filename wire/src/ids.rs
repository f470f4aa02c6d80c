//! Names of things that live across processes, as newtypes, so that a job id cannot be passed for a run id.
//! New ids are UUIDv7: the journal's unique index stays fast. Ids read back may be any text, because the
//! ancestor's rows hold uuid4 and free-form run ids.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new, time-ordered id (UUIDv7, hyphenated lower case).
            #[must_use]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7().hyphenated().to_string())
            }

            /// Takes an id somebody else made, as it is.
            #[must_use]
            pub fn from_text(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// See [`short`].
            #[must_use]
            pub fn short(&self) -> &str {
                short(&self.0)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// One accepted job.
    JobId
);
id!(
    /// One run of a program or of a composition: groups jobs in the journal.
    RunId
);
id!(
    /// One composition submitted.
    CompositionId
);
id!(
    /// One row of the journal.
    EventId
);
id!(
    /// One spawn of one worker: its incarnation. A late word from a dead worker carries an old one.
    WorkerSessionId
);
id!(
    /// One loaded instance of a capability; survives the death and reload of its worker. Must match
    /// `[A-Za-z0-9_-]{1,64}`; the default instance is named like its capability.
    InstanceId
);

/// Characters of a shortened id.
pub const SHORT_CHARS: usize = 8;

/// An id as people see it: its first eight characters, as the ancestor has it. The UUIDv7 of one minute begin alike, so
/// of them it is the last eight, which are random.
#[must_use]
pub fn short(id: &str) -> &str {
    if is_uuid_v7(id) {
        return &id[id.len() - SHORT_CHARS..];
    }
    id.char_indices().nth(SHORT_CHARS).map_or(id, |(at, _)| &id[..at])
}

/// Whether an id was made by [`JobId::new`] and its kind.
#[must_use]
pub fn is_uuid_v7(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'7',
            19 => matches!(byte.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'),
            _ => byte.is_ascii_hexdigit(),
        })
}

impl EventId {
    /// The id of the terminal row of `job`: derived from the job alone, so that the journal's UNIQUE
    /// constraint refuses a second one.
    #[must_use]
    pub fn terminal_of(job: &JobId) -> Self {
        Self(format!("{job}:terminal"))
    }
}

/// Longest instance id, in bytes.
pub const INSTANCE_ID_BYTES_MAX: usize = 64;

impl InstanceId {
    /// True when the text is allowed as an explicit instance id.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        !text.is_empty()
            && text.len() <= INSTANCE_ID_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }

    /// One of several instances of a capability, counted from 1: the first is named like the capability, the others by its
    /// name and their number. A name that would be too long with it loses its end.
    #[must_use]
    pub fn numbered(capability: &str, number: u32) -> Self {
        if number == 1 {
            return Self(capability.to_owned());
        }
        let number = format!("-{number}");
        let kept = capability.len().min(INSTANCE_ID_BYTES_MAX - number.len());
        Self(format!("{}{number}", capability.get(..kept).unwrap_or(capability)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_are_ordered_in_time_and_terminal_ids_are_derived() {
        let first = JobId::new();
        let second = JobId::new();
        assert!(first < second, "{first} came before {second}");
        assert_eq!(EventId::terminal_of(&first), EventId::terminal_of(&first));
        assert_ne!(EventId::terminal_of(&first), EventId::terminal_of(&second));
    }

    #[test]
    fn shortened_ids_of_one_second_differ_and_the_ancestors_are_shortened_as_it_does() {
        let ids: Vec<JobId> = (0..500).map(|_| JobId::new()).collect();
        let shortened: std::collections::BTreeSet<&str> = ids.iter().map(JobId::short).collect();
        assert_eq!(shortened.len(), ids.len());
        assert!(ids.iter().all(|id| id.as_str().ends_with(id.short()) && id.short().len() == SHORT_CHARS));
        for (id, expected) in [
            ("11111111-2222-4333-8444-555555555555", "11111111"),
            ("job-1-1234567", "job-1-12"),
            ("99999999-8888-7777-6666-555555555555", "99999999"),
            ("R", "R"),
            ("äöüäöüäöü", "äöüäöüäö"),
            ("01a22132-9352-7117-b7ac-5313fc7ebe7x", "01a22132"),
        ] {
            assert_eq!(short(id), expected);
        }
    }

    #[test]
    fn instance_ids_follow_the_ancestors_rule() {
        for (text, valid) in [
            ("asr", true),
            ("asr-2_x", true),
            ("", false),
            ("a b", false),
            ("ä", false),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(InstanceId::is_valid(text), valid, "{text:?}");
        }
    }

    #[test]
    fn every_instance_of_a_capability_has_an_id_that_is_allowed() {
        for (number, id) in [(1, "asr"), (2, "asr-2"), (10, "asr-10")] {
            assert_eq!(InstanceId::numbered("asr", number).as_str(), id);
        }
        let longest = "x".repeat(INSTANCE_ID_BYTES_MAX);
        let ids = [1, 2, 10, u32::MAX].map(|number| InstanceId::numbered(&longest, number));
        assert!(ids.iter().all(|id| InstanceId::is_valid(id.as_str())), "{ids:?}");
        assert!(ids[1].as_str().ends_with("x-2") && ids[2].as_str().ends_with("x-10"), "{ids:?}");
    }
}
