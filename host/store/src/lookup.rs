//! Finds single things in the journal: how a job ended, whatever its age, and whole ids from shortened ones.

use crate::error::StoreError;
use crate::query;
use crate::reader::{JournalReader, collect, limit_value, text};
use crate::records::{JobRecord, SeqRow};
use cjm_wire::ids::{JobId, SHORT_CHARS};
use rusqlite::types::Value as Sql;
use std::collections::BTreeSet;

/// Most ids that are told where a shortened one means several.
pub const CANDIDATES_MAX: usize = 20;
/// Least characters of the beginning of what is shown of an id: fewer would often mean another.
pub const SHOWN_CHARS_MIN: usize = 4;
/// Greater than any character of an id.
const LAST_CHARACTER: char = '\u{10ffff}';

/// A job as the store knows it, with what it gave back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredOutcome {
    /// Status, times, failure and all else.
    pub job: JobRecord,
    /// Its result, whole; None for a job that did not complete, or gave nothing back.
    pub result: Option<Vec<u8>>,
}

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// A job.
    Job,
    /// An incarnation of a worker.
    Session,
    /// A run.
    Run,
    /// A composition.
    Composition,
}

impl IdKind {
    fn column(self) -> &'static str {
        match self {
            Self::Job => "job_id",
            Self::Session => "worker_session_id",
            Self::Run => "run_id",
            Self::Composition => "composition_id",
        }
    }
}

/// What a shortened id means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedId {
    /// This one.
    One(String),
    /// One of these, and whether there are more: it is the first [`CANDIDATES_MAX`] of them.
    Several(Vec<String>, bool),
    /// Nothing that is known.
    Unknown,
}

impl JournalReader {
    /// How a job stands or ended, of whatever age, with its result: three look-ups by key. None for one that is not
    /// known, or was forgotten after its retention.
    ///
    /// # Errors
    /// When the store, or the file of a large result, cannot be read.
    pub fn job_outcome(&self, job: &JobId) -> Result<Option<StoredOutcome>, StoreError> {
        let Some(job) = self.job(job)? else { return Ok(None) };
        let result = self.result(&job.job_id)?.map(|body| self.load(&body)).transpose()?;
        Ok(Some(StoredOutcome { job, result }))
    }

    /// The whole id that `shortened` means: its beginning, its end, or both with `…` or `..` between them. The ids of one
    /// minute begin alike, so that a listing does well to show an end too. Without a beginning, all ids are looked at. Of
    /// the eight characters that people are shown of an id ([`short`](cjm_wire::ids::short)), the first four will do.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn resolve_id(&self, kind: IdKind, shortened: &str) -> Result<ResolvedId, StoreError> {
        let (begin, end) =
            shortened.split_once('…').or_else(|| shortened.split_once("..")).unwrap_or((shortened, ""));
        let mut found = self.ids_between(kind, begin, end)?;
        if found.is_empty() && end.is_empty() && !begin.is_empty() {
            found = self.ids_between(kind, "", begin)?;
            let chars = begin.chars().count();
            if found.is_empty() && (SHOWN_CHARS_MIN..SHORT_CHARS).contains(&chars) {
                found = self.ids_shown_as(kind, begin)?;
            }
        }
        if found.contains(shortened) {
            return Ok(ResolvedId::One(shortened.to_owned()));
        }
        let more = found.len() > CANDIDATES_MAX;
        let mut found: Vec<String> = found.into_iter().take(CANDIDATES_MAX).collect();
        Ok(match (found.len(), found.pop()) {
            (1, Some(one)) => ResolvedId::One(one),
            (_, Some(last)) => {
                found.push(last);
                ResolvedId::Several(found, more)
            }
            (_, None) => ResolvedId::Unknown,
        })
    }

    /// Ids that begin with `prefix`, in order, at most `limit` and [`CANDIDATES_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn ids_with_prefix(
        &self,
        kind: IdKind,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        Ok(self.ids_between(kind, prefix, "")?.into_iter().take(limit.min(CANDIDATES_MAX)).collect())
    }

    /// The incarnations of a capability's workers, so that records and output can be asked for by capability.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sessions_of(&self, capability: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT DISTINCT worker_session_id FROM journal WHERE event_type = 'worker_spawned' \
                   AND capability_name = ?1 AND worker_session_id IS NOT NULL ORDER BY 1";
        Ok(self.ids(sql, &[text(capability)])?.into_iter().collect())
    }

    /// Rows of workers that were spawned and have no row of their death, among the newest `limit` spawns.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn spawned_without_end(&self, limit: usize) -> Result<Vec<SeqRow>, StoreError> {
        let sql = format!(
            "SELECT {} FROM (SELECT * FROM journal WHERE event_type = 'worker_spawned' \
             AND worker_session_id IS NOT NULL ORDER BY ts DESC LIMIT ?1) AS spawned \
             WHERE NOT EXISTS (SELECT 1 FROM journal AS died WHERE died.event_type = 'worker_died' \
             AND died.worker_session_id = spawned.worker_session_id) ORDER BY seq",
            query::ROW_COLUMNS
        );
        collect(self.live(), &sql, &[limit_value(limit)], query::row)
    }

    /// The `worker_spawned` row of a worker, where no row says that it died.
    pub(crate) fn spawned_without_its_end(&self, session: &str) -> Result<Option<SeqRow>, StoreError> {
        let sql = format!(
            "SELECT {} FROM journal WHERE worker_session_id = ?1 AND event_type = 'worker_spawned' \
             AND NOT EXISTS (SELECT 1 FROM journal AS died WHERE died.event_type = 'worker_died' \
             AND died.worker_session_id = ?1) ORDER BY seq LIMIT 1",
            query::ROW_COLUMNS
        );
        Ok(collect(self.live(), &sql, &[text(session)], query::row)?.pop())
    }

    /// At most one more than can be told, as all look-ups of ids.
    fn ids_between(&self, kind: IdKind, begin: &str, end: &str) -> Result<BTreeSet<String>, StoreError> {
        let column = kind.column();
        let sql = format!(
            "SELECT DISTINCT {column} FROM journal WHERE {column} >= ?1 AND {column} < ?2 \
             AND (?3 = '' OR substr({column}, -length(?3)) = ?3) ORDER BY {column} LIMIT ?4"
        );
        self.ids(&sql, &[text(begin), text(&format!("{begin}{LAST_CHARACTER}")), text(end), one_more()])
    }

    /// Ids of which people are shown the end, and this is how that begins: our own, UUIDv7.
    fn ids_shown_as(&self, kind: IdKind, begin: &str) -> Result<BTreeSet<String>, StoreError> {
        let column = kind.column();
        let sql = format!(
            "SELECT DISTINCT {column} FROM journal WHERE length({column}) = 36 AND substr({column}, 15, 1) = '7' \
             AND substr({column}, ?1, length(?2)) = ?2 ORDER BY {column} LIMIT ?3"
        );
        let shown_at = i64::try_from(SHORT_CHARS).map_or(0, i64::wrapping_neg);
        self.ids(&sql, &[Sql::Integer(shown_at), text(begin), one_more()])
    }

    /// What the statement selects in the journal and its archives.
    fn ids(&self, sql: &str, values: &[Sql]) -> Result<BTreeSet<String>, StoreError> {
        let mut found = BTreeSet::new();
        self.ask_each(|file| {
            found.extend(collect(file, sql, values, query::text)?);
            Ok(())
        })?;
        Ok(found)
    }
}

/// One more than can be told, so that the caller sees that there are more.
fn one_more() -> Sql {
    limit_value(CANDIDATES_MAX + 1)
}
