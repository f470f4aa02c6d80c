//! Everything the host remembers: the journal with jobs, compositions and results in one file (`journal.db`), and what
//! workers log and print in another (`diagnostics.db`). One writer each, readers beside it, one trait per store. Beside
//! them lies what only saves time: hashes of input files (`input_hashes`); what users set: `secrets`
//! and `configs`; and what was measured: `empirical`.
//!
//! It decides nothing: which job runs, or whether one may run again, is told to it. It must hold what the traits
//! [`Journal`] and [`Diagnostics`] promise, whatever is killed at whatever instant.

mod apply;
pub mod archive;
mod archives;
mod blocking;
mod by_command;
pub mod commit;
pub mod configs;
pub mod diagnostics;
pub mod diagnostics_reader;
mod diagnostics_writer;
pub mod empirical;
pub mod ends;
mod error;
pub mod events;
pub mod fault;
mod filters;
mod holders;
mod identity;
pub mod input_hashes;
pub mod journal;
pub mod keeping;
mod lent_reserve;
pub mod lookup;
mod no_diagnostics;
mod not_ours;
pub mod owners;
pub mod payload;
mod place;
mod query;
pub mod reader;
pub mod records;
mod recover;
pub mod retention;
pub mod room;
pub mod rows;
pub mod schema;
pub mod secrets;
mod side_files;
pub mod wedge;
pub mod work_dirs;
mod writer;

pub use archive::{Archived, archive_journal, archives};
pub use by_command::note_command;
pub use commit::{Commit, Receipt, SMALL_COMMIT_BYTES, WhenClosed, Write};
pub use configs::{Configs, InstanceConfig, SqliteConfigs};
pub use diagnostics::{DIAGNOSTICS_MB_MAX_DEFAULT, Diagnostics, DroppedCounts, SqliteDiagnostics};
pub use diagnostics_reader::{DiagnosticsFilter, DiagnosticsReader};
pub use empirical::{Empirical, Experience, Measured, Sample, SqliteEmpirical};
pub use ends::{end_without_result, is_too_large_to_keep};
pub use error::StoreError;
pub use events::{Event, Gate, Subscription};
pub use filters::{ENDED_BY_HOST, JobFilter, JournalFilter};
pub use input_hashes::InputHashes;
pub use journal::{Committing, Journal, JournalOptions, SqliteJournal};
pub use keeping::{ForgottenJobs, JOBS_DAYS_DEFAULT, forget_jobs};
pub use lookup::{IdKind, ResolvedId, SHOWN_CHARS_MIN, StoredOutcome};
pub use no_diagnostics::NoDiagnostics;
pub use payload::{INLINE_BYTES_MAX, Payloads};
pub use reader::JournalReader;
pub use records::{
    Body, CompositionBody, CompositionEnd, CompositionRecord, DiagnosticRecord, HostRecord, JobEnd,
    JobRecord, JobStart, SeqChunk, SeqJob, SeqRecord, SeqRow, StreamChunk, WorkerRecord,
};
pub use recover::{HOST_RESTARTED, Recovered, begin_host, end_dead_workers, host_restarted, never_begun};
pub use retention::{Forgotten, Retention, apply_retention};
pub use schema::{DIAGNOSTICS_FILE, Durability, JOURNAL_FILE};
pub use secrets::{FileSecrets, Secrets, SecretsError};
pub use wedge::{BACKOFF_MS_MAX, BACKOFF_MS_MIN, CLOSING_ATTEMPTS_MAX, COMMIT_WAIT_MAX};
pub use writer::{BATCH_BYTES_MAX, BATCH_COMMITS_MAX};
