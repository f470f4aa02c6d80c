//! The actions of the store: arguments in, one statement or transaction, an answer out.

use crate::database::{Database, ROWS_MAX};
use crate::document::{DOCUMENTS_MAX, Document, Origin};
use crate::error::StoreError;
use cjm_worker::{Action, Call, Capability, Setup, ToolError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};

/// Hits and rows when the caller does not say.
const LIMIT_DEFAULT: u32 = 20;

const ACTIONS: [Action; 5] = [
    Action {
        name: "store",
        description: "Stores `documents` (or one `document`): {kind, recording, audio, text, speech, segments, steps}; \
                      of a page {kind: page, page, text, segments, steps}. A recording or page with the same content \
                      and text is stored once.",
    },
    Action {
        name: "search",
        description: "Documents that match `query` (words, \"phrases\", AND, OR, NOT, begin*), best first, at most \
                      `limit`, with the times at which the words were said, or the sentences in which they stand.",
    },
    Action { name: "list", description: "Documents, newest first: `limit`, `offset`." },
    Action { name: "get", description: "All that is known of the document `id`, provenance included." },
    Action { name: "stats", description: "How much is stored, and where." },
];

/// The capability.
#[derive(Debug)]
pub(crate) struct TranscriptStore {
    // One writer; the answers are short.
    database: Mutex<Database>,
    stored_by: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreArguments {
    #[serde(default)]
    documents: Option<Vec<Document>>,
    #[serde(default)]
    document: Option<Document>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchArguments {
    query: String,
    #[serde(default = "limit_default")]
    limit: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListArguments {
    #[serde(default = "limit_default")]
    limit: u32,
    #[serde(default)]
    offset: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetArguments {
    id: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

impl Capability for TranscriptStore {
    fn load(setup: Setup) -> Result<Self, ToolError> {
        let database = Database::open(setup.data_dir())?;
        let stored_by = json!({
            "capability": setup.capability_name(), "version": setup.capability_version(),
            "instance": setup.instance_id(), "engine": format!("SQLite {}", rusqlite::version()),
        });
        Ok(Self { database: Mutex::new(database), stored_by })
    }

    fn version(&self) -> Option<String> {
        Some(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn actions(&self) -> Vec<Action> {
        ACTIONS.to_vec()
    }

    fn execute(&self, call: Call) -> Result<Value, ToolError> {
        // A panic in between rolled its transaction back, so the connection behind a poisoned lock is good.
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match call.action() {
            Some("store") => {
                let documents = call.parse::<StoreArguments>()?.documents()?;
                database.store(&documents, &self.origin(&call), &|| call.is_cancelled())?
            }
            Some("search") => {
                let SearchArguments { query, limit } = call.parse()?;
                if query.trim().is_empty() {
                    return Err(bad_argument("query", "the query is empty: give at least one word"));
                }
                database.search(&query, rows(limit)?)?
            }
            Some("list") => {
                let ListArguments { limit, offset } = call.parse()?;
                database.list(rows(limit)?, offset)?
            }
            Some("get") => {
                let GetArguments { id } = call.parse()?;
                database.get(id)?
            }
            Some("stats") => {
                let NoArguments {} = call.parse()?;
                database.stats()?
            }
            _ => {
                let names: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
                return Err(bad_argument("action", &format!("name an action: {}", names.join(", "))));
            }
        };
        Ok(answer)
    }
}

impl TranscriptStore {
    fn origin(&self, call: &Call) -> Origin {
        let envelope = call.envelope();
        Origin {
            run_id: envelope.run_id.as_ref().map(ToString::to_string),
            composition_id: envelope.composition_id.as_ref().map(ToString::to_string),
            node_id: envelope.node_id.clone(),
            job_id: envelope.job_id.as_ref().map(ToString::to_string),
            actor: envelope.actor.clone(),
            stored_by: self.stored_by.clone(),
        }
    }
}

impl StoreArguments {
    fn documents(self) -> Result<Vec<Document>, ToolError> {
        let documents = match (self.documents, self.document) {
            (Some(documents), None) => documents,
            (None, Some(document)) => vec![document],
            _ => return Err(bad_argument("documents", "give either `documents` (a list) or one `document`")),
        };
        if documents.len() > DOCUMENTS_MAX {
            let message = format!("{} documents in one call, more than {DOCUMENTS_MAX}", documents.len());
            return Err(bad_argument("documents", &message));
        }
        Ok(documents)
    }
}

fn limit_default() -> u32 {
    LIMIT_DEFAULT
}

fn rows(limit: u32) -> Result<u32, ToolError> {
    if (1..=ROWS_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(bad_argument("limit", &format!("`limit` must be 1 to {ROWS_MAX}")))
}

fn bad_argument(field: &'static str, message: &str) -> ToolError {
    StoreError::BadArgument { field, message: message.to_owned() }.into()
}
