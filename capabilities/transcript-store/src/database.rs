//! The SQLite file: its schema, and every statement on it.
//!
//! What must hold: the full-text index always speaks of exactly the rows of `documents` (triggers keep it), and a
//! `store` is one transaction.

use crate::document::{Document, Origin, Segment, content_hash};
use crate::error::StoreError;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use rusqlite_migration::{M, Migrations};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// File below the capability's data directory.
pub(crate) const FILE_NAME: &str = "transcripts.db";
/// Most rows one answer holds.
pub(crate) const ROWS_MAX: u32 = 10_000;
/// How long a statement waits for another instance that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Around a found word while the answer is being made: characters no transcript holds.
const MARK_BEGIN: char = '\u{2}';
const MARK_END: char = '\u{3}';

/// Never changed once released; later versions append.
const MIGRATIONS: &[M<'static>] = &[
    M::up(
        "CREATE TABLE documents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        recording TEXT NOT NULL,
        recording_sha256 TEXT NOT NULL,
        audio TEXT,
        speech INTEGER NOT NULL,
        text TEXT NOT NULL,
        segments TEXT NOT NULL,
        steps TEXT NOT NULL,
        run_id TEXT, composition_id TEXT, node_id TEXT, job_id TEXT, actor TEXT,
        stored_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')),
        UNIQUE (recording_sha256, text)
    ) STRICT;
    CREATE INDEX documents_recording ON documents (recording);
    CREATE VIRTUAL TABLE documents_text USING fts5 (
        text, content = 'documents', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
    );
    CREATE TRIGGER documents_added AFTER INSERT ON documents BEGIN
        INSERT INTO documents_text (rowid, text) VALUES (new.id, new.text);
    END;
    CREATE TRIGGER documents_removed AFTER DELETE ON documents BEGIN
        INSERT INTO documents_text (documents_text, rowid, text) VALUES ('delete', old.id, old.text);
    END;
    CREATE TRIGGER documents_changed AFTER UPDATE OF text ON documents BEGIN
        INSERT INTO documents_text (documents_text, rowid, text) VALUES ('delete', old.id, old.text);
        INSERT INTO documents_text (rowid, text) VALUES (new.id, new.text);
    END;",
    ),
    M::up(
        "ALTER TABLE documents ADD COLUMN kind TEXT NOT NULL DEFAULT 'sound' CHECK (kind IN ('sound', 'page'));",
    ),
];

/// The open file.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens the file in `folder`, and makes or updates it.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| StoreError::File { path: folder.to_owned(), source })?;
        let path = folder.join(FILE_NAME);
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Migrations::from_slice(MIGRATIONS).to_latest(&mut connection)?;
        Ok(Self { connection, path })
    }

    /// Stores those of `documents` that are not there yet. All or none.
    pub(crate) fn store(
        &mut self,
        documents: &[Document],
        origin: &Origin,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Value, StoreError> {
        // Hashing takes as long as the files are large; no other instance waits for the database meanwhile.
        let mut hashes = Vec::with_capacity(documents.len());
        for (index, document) in documents.iter().enumerate() {
            document.check(index)?;
            hashes.push(content_hash(index, document.recording(index)?, is_cancelled)?);
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut answers = Vec::with_capacity(documents.len());
        let mut stored = 0;
        for (index, (document, hash)) in documents.iter().zip(&hashes).enumerate() {
            if is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            let recording = document.recording(index)?;
            let (id, is_new) = insert(&transaction, document, recording, hash, origin)?;
            stored += usize::from(is_new);
            answers.push(json!({
                "id": id, "kind": document.kind, "recording": recording, "speech": document.has_speech(),
                "text": document.text, "new": is_new,
            }));
        }
        transaction.commit()?;
        Ok(json!({"stored": stored, "already_there": documents.len() - stored, "documents": answers}))
    }

    /// Documents that match a full-text query, best first, with the times at which the words were said, or the
    /// sentences in which they stand.
    pub(crate) fn search(&self, query: &str, limit: u32) -> Result<Value, StoreError> {
        let bad_query = |error: rusqlite::Error| match error {
            // In these two statements only the query can be wrong.
            rusqlite::Error::SqliteFailure(ref code, ref message)
                if code.extended_code == rusqlite::ffi::SQLITE_ERROR =>
            {
                let fault = message.clone().unwrap_or_else(|| code.to_string());
                let fault = fault.trim_start_matches("fts5: ").to_owned();
                StoreError::BadQuery { query: query.to_owned(), fault }
            }
            other => StoreError::Database(other),
        };
        let total: i64 = self
            .connection
            .query_row("SELECT count(*) FROM documents_text WHERE documents_text MATCH ?1", [query], |row| {
                row.get(0)
            })
            .map_err(bad_query)?;
        let mut statement = self.connection.prepare_cached(
            "SELECT d.id, d.recording, d.audio, d.text, d.segments, d.run_id, d.job_id, d.stored_at,
                    highlight(documents_text, 0, ?3, ?4), d.kind
             FROM documents_text JOIN documents d ON d.id = documents_text.rowid
             WHERE documents_text MATCH ?1 ORDER BY documents_text.rank, d.id LIMIT ?2",
        )?;
        let rows = statement
            .query_map(params![query, limit, MARK_BEGIN.to_string(), MARK_END.to_string()], |row| {
                Ok((hit(row)?, row.get::<_, String>(4)?, row.get::<_, String>(8)?))
            })?;
        let mut hits = Vec::new();
        for row in rows {
            let (mut hit, segments, marked) = row.map_err(bad_query)?;
            let segments: Vec<Segment> = serde_json::from_str(&segments)?;
            let words = marked_words(&marked);
            let found = segments.iter().filter(|segment| has_word(&segment.text, &words));
            let (times, sentences): (Vec<&Segment>, Vec<&Segment>) =
                found.partition(|segment| segment.start.is_some());
            hit["highlighted"] = marked.replace(MARK_BEGIN, "[").replace(MARK_END, "]").into();
            hit["times"] = times
                .iter()
                .map(|segment| json!({"start": segment.start, "end": segment.end, "text": segment.text}))
                .collect();
            hit["sentences"] = serde_json::to_value(sentences)?;
            hits.push(hit);
        }
        Ok(json!({"query": query, "total": total, "hits": hits}))
    }

    /// Documents, newest first.
    pub(crate) fn list(&self, limit: u32, offset: u32) -> Result<Value, StoreError> {
        let total: i64 = self.connection.query_row("SELECT count(*) FROM documents", [], |row| row.get(0))?;
        let mut statement = self.connection.prepare_cached(
            "SELECT id, recording, speech, text, stored_at, kind FROM documents ORDER BY id DESC LIMIT ?1 OFFSET ?2",
        )?;
        let rows = statement.query_map([limit, offset], |row| {
            Ok(json!({
                "id": row.get::<_, i64>(0)?, "kind": row.get::<_, String>(5)?,
                "recording": row.get::<_, String>(1)?, "speech": row.get::<_, bool>(2)?, "text": row.get::<_, String>(3)?,
                "stored_at": row.get::<_, String>(4)?,
            }))
        })?;
        let documents = rows.collect::<Result<Vec<Value>, _>>()?;
        Ok(json!({"total": total, "documents": documents}))
    }

    /// All that is known of one document.
    pub(crate) fn get(&self, id: i64) -> Result<Value, StoreError> {
        let row = self
            .connection
            .query_row(
                "SELECT id, recording, recording_sha256, audio, speech, text, segments, steps, run_id,
                        composition_id, node_id, job_id, actor, stored_at, kind
                 FROM documents WHERE id = ?1",
                [id],
                |row| {
                    let document = json!({
                        "id": row.get::<_, i64>(0)?, "kind": row.get::<_, String>(14)?,
                        "recording": row.get::<_, String>(1)?,
                        "recording_sha256": row.get::<_, String>(2)?, "audio": row.get::<_, Option<String>>(3)?,
                        "speech": row.get::<_, bool>(4)?, "text": row.get::<_, String>(5)?,
                        "segments": null, "steps": null,
                        "run_id": row.get::<_, Option<String>>(8)?,
                        "composition_id": row.get::<_, Option<String>>(9)?,
                        "node_id": row.get::<_, Option<String>>(10)?, "job_id": row.get::<_, Option<String>>(11)?,
                        "actor": row.get::<_, Option<String>>(12)?, "stored_at": row.get::<_, String>(13)?,
                    });
                    Ok((document, row.get::<_, String>(6)?, row.get::<_, String>(7)?))
                },
            )
            .optional()?;
        let (mut document, segments, steps) = row.ok_or(StoreError::NoSuchDocument(id))?;
        document["segments"] = serde_json::from_str(&segments)?;
        document["steps"] = serde_json::from_str(&steps)?;
        Ok(document)
    }

    /// How much there is, and where.
    pub(crate) fn stats(&self) -> Result<Value, StoreError> {
        let counts = self.connection.query_row(
            "SELECT count(*), coalesce(sum(speech), 0), count(DISTINCT recording_sha256), max(stored_at),
                    count(*) FILTER (WHERE kind = 'page') FROM documents",
            [],
            |row| {
                Ok(json!({
                    "documents": row.get::<_, i64>(0)?, "pages": row.get::<_, i64>(4)?, "with_speech": row.get::<_, i64>(1)?,
                    "recordings": row.get::<_, i64>(2)?, "last_stored_at": row.get::<_, Option<String>>(3)?,
                }))
            },
        )?;
        let bytes: i64 = self.connection.query_row(
            "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
            [],
            |row| row.get(0),
        )?;
        let mut stats = counts;
        stats["database"] = self.path.display().to_string().into();
        stats["database_bytes"] = bytes.into();
        Ok(stats)
    }
}

/// The id of the document, and whether it was not there before.
fn insert(
    connection: &Connection,
    document: &Document,
    recording: &str,
    hash: &str,
    origin: &Origin,
) -> Result<(i64, bool), StoreError> {
    let mut steps = document.steps.clone();
    steps.push(origin.stored_by.clone());
    let added = connection
        .prepare_cached(
            "INSERT INTO documents (recording, recording_sha256, audio, speech, text, segments, steps,
                                    run_id, composition_id, node_id, job_id, actor, kind)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (recording_sha256, text) DO NOTHING RETURNING id",
        )?
        .query_row(
            params![
                recording,
                hash,
                document.audio,
                document.has_speech(),
                document.text,
                serde_json::to_string(&document.segments)?,
                serde_json::to_string(&steps)?,
                origin.run_id,
                origin.composition_id,
                origin.node_id,
                origin.job_id,
                origin.actor,
                document.kind.as_str(),
            ],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = added {
        return Ok((id, true));
    }
    let id = connection
        .prepare_cached("SELECT id FROM documents WHERE recording_sha256 = ?1 AND text = ?2")?
        .query_row(params![hash, document.text], |row| row.get(0))?;
    Ok((id, false))
}

fn hit(row: &Row<'_>) -> rusqlite::Result<Value> {
    Ok(json!({
        "id": row.get::<_, i64>(0)?, "kind": row.get::<_, String>(9)?, "recording": row.get::<_, String>(1)?,
        "audio": row.get::<_, Option<String>>(2)?, "text": row.get::<_, String>(3)?,
        "highlighted": null, "times": null, "sentences": null,
        "run_id": row.get::<_, Option<String>>(5)?, "job_id": row.get::<_, Option<String>>(6)?,
        "stored_at": row.get::<_, String>(7)?,
    }))
}

/// The words between the marks, in lower case.
fn marked_words(marked: &str) -> BTreeSet<String> {
    marked.split(MARK_BEGIN).skip(1).filter_map(|rest| rest.split(MARK_END).next()).flat_map(words).collect()
}

fn has_word(text: &str, wanted: &BTreeSet<String>) -> bool {
    words(text).any(|word| wanted.contains(&word))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
