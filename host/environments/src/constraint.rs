//! `python_version` of an entry: which interpreters satisfy it. Pure text and numbers; nothing is executed here.

use std::fmt;

/// Versions are looked at up to these numbers, where it is asked whether there can be one: more were never given.
const MINOR_MAX: u32 = 99;
const PATCH_MAX: u32 = 99;
/// Most clauses of one constraint.
const CLAUSES_MAX: usize = 16;

/// A version of an interpreter: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PythonVersion(pub u32, pub u32, pub u32);

/// The oldest interpreter that the SDK runs on.
pub(crate) const SDK_NEEDS: PythonVersion = PythonVersion(3, 9, 0);

impl fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A parsed `python_version`: all clauses must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint(Vec<Clause>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    relation: Relation,
    /// The numbers as written: `3.11` leaves the patch open.
    numbers: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// `3.11`, `==3.11`, `=3.11`, `==3.11.*`: equal as far as written.
    Matches,
    Differs,
    AtLeast,
    Above,
    AtMost,
    Below,
    /// `~=3.11`: at least that, the number before the last equal.
    Compatible,
}

impl Constraint {
    /// Reads `3.11`, `==3.11.*`, `>=3.9,<3.14`, `~=3.10`; `None` when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let clauses: Vec<Clause> = text
            .split(',')
            .take(CLAUSES_MAX)
            .map(|part| Clause::parse(part.trim()))
            .collect::<Option<_>>()?;
        Some(Self(clauses))
    }

    /// Whether `version` satisfies every clause.
    #[must_use]
    pub fn accepts(&self, version: PythonVersion) -> bool {
        self.0.iter().all(|clause| clause.accepts(version))
    }

    /// Whether it can be satisfied by a version from this one on.
    pub(crate) fn accepts_some_from(&self, least: PythonVersion) -> bool {
        (least.1..=MINOR_MAX)
            .flat_map(|minor| (0..=PATCH_MAX).map(move |patch| PythonVersion(least.0, minor, patch)))
            .any(|version| version >= least && self.accepts(version))
    }

    /// Whether it can be satisfied by a version before this one.
    fn accepts_some_before(&self, end: PythonVersion) -> bool {
        let minors = (0..=end.0).flat_map(|major| (0..=MINOR_MAX).map(move |minor| (major, minor)));
        minors
            .flat_map(|(major, minor)| (0..=PATCH_MAX).map(move |patch| PythonVersion(major, minor, patch)))
            .any(|version| version < end && self.accepts(version))
    }
}

/// What an entry asks of its interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What it says.
    pub(crate) constraint: Constraint,
    /// The oldest that what is loaded into it runs on.
    pub(crate) least: PythonVersion,
}

impl Wanted {
    /// Of an entry whose worker is ours, or the ancestor's own, which brings a library of its own.
    pub(crate) fn new(constraint: Constraint, is_ours: bool) -> Self {
        Self { constraint, least: if is_ours { SDK_NEEDS } else { PythonVersion(0, 0, 0) } }
    }

    /// Whether what it says takes versions that are too old, and no other.
    pub(crate) fn takes_old_ones_alone(&self) -> bool {
        self.least == SDK_NEEDS
            && self.constraint.accepts_some_before(SDK_NEEDS)
            && !self.constraint.accepts_some_from(SDK_NEEDS)
    }

    /// Whether `version` is one that it can use.
    pub(crate) fn is_met_by(&self, version: PythonVersion) -> bool {
        version >= self.least && self.constraint.accepts(version)
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        const RELATIONS: [(&str, Relation); 8] = [
            ("==", Relation::Matches),
            ("!=", Relation::Differs),
            (">=", Relation::AtLeast),
            ("<=", Relation::AtMost),
            ("~=", Relation::Compatible),
            (">", Relation::Above),
            ("<", Relation::Below),
            ("=", Relation::Matches),
        ];
        let (relation, rest) = RELATIONS
            .iter()
            .find_map(|(sign, relation)| text.strip_prefix(sign).map(|rest| (*relation, rest)))
            .unwrap_or((Relation::Matches, text));
        let rest = rest.trim();
        let rest = rest.strip_suffix(".*").unwrap_or(rest);
        let numbers: Vec<u32> = rest.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let enough = if relation == Relation::Compatible { 2 } else { 1 };
        (enough..=3).contains(&numbers.len()).then_some(Self { relation, numbers })
    }

    fn accepts(&self, version: PythonVersion) -> bool {
        let whole = [version.0, version.1, version.2];
        let as_written = &whole[..self.numbers.len()];
        let padded: Vec<u32> = self.numbers.iter().copied().chain([0, 0]).take(3).collect();
        match self.relation {
            Relation::Matches => as_written == self.numbers,
            Relation::Differs => as_written != self.numbers,
            Relation::AtLeast => whole.as_slice() >= padded.as_slice(),
            // `>3.11` and `<=3.11` speak of 3.11.0, as they do for installers; `<3.14` of everything before it.
            Relation::Above => whole.as_slice() > padded.as_slice(),
            Relation::AtMost => whole.as_slice() <= padded.as_slice(),
            Relation::Below => whole.as_slice() < padded.as_slice(),
            Relation::Compatible => {
                let fixed = self.numbers.len() - 1;
                whole.as_slice() >= padded.as_slice() && whole[..fixed] == self.numbers[..fixed]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_accept_what_they_say() {
        for (text, yes, no) in [
            ("3.11", vec![(3, 11, 0), (3, 11, 9)], vec![(3, 1, 1), (3, 12, 0), (3, 10, 9)]),
            ("3", vec![(3, 6, 0), (3, 13, 1)], vec![(2, 7, 18)]),
            ("3.11.7", vec![(3, 11, 7)], vec![(3, 11, 8)]),
            ("==3.11.*", vec![(3, 11, 4)], vec![(3, 12, 0)]),
            ("=3.11", vec![(3, 11, 4)], vec![(3, 12, 0)]),
            (">=3.9", vec![(3, 9, 0), (3, 13, 0)], vec![(3, 8, 18)]),
            (">=3.9, <3.13", vec![(3, 12, 9)], vec![(3, 13, 0), (3, 8, 0)]),
            (">=3.9,!=3.11", vec![(3, 12, 9)], vec![(3, 11, 2)]),
            ("~=3.10", vec![(3, 10, 0), (3, 13, 0)], vec![(3, 9, 9), (4, 0, 0)]),
            ("~=3.10.2", vec![(3, 10, 5)], vec![(3, 10, 1), (3, 11, 0)]),
            (">3.11", vec![(3, 11, 1)], vec![(3, 11, 0)]),
            ("<=3.11", vec![(3, 11, 0)], vec![(3, 11, 1)]),
        ] {
            let constraint = Constraint::parse(text).expect(text);
            for (a, b, c) in yes {
                assert!(constraint.accepts(PythonVersion(a, b, c)), "{text} accepts {a}.{b}.{c}");
            }
            for (a, b, c) in no {
                assert!(!constraint.accepts(PythonVersion(a, b, c)), "{text} refuses {a}.{b}.{c}");
            }
        }
        for (text, has_one) in [
            (">=3.8", true),
            ("<3.13", true),
            ("3.8", false),
            ("<3.9", false),
            ("<=3.9", true),
            ("==3.11.7", true),
            ("~=3.8.1", false),
            ("2.7", false),
        ] {
            let constraint = Constraint::parse(text).expect(text);
            assert_eq!(constraint.accepts_some_from(SDK_NEEDS), has_one, "{text}");
        }
        for text in ["", "three", "3.x", ">=", "3.11.1.1", "~=3", ">=3.9,,<4", "^3.9"] {
            assert_eq!(Constraint::parse(text), None, "{text:?}");
        }
    }
}
