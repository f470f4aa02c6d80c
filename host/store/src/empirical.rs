//! What calls were measured to need, folded into one row for each instance and configuration
//! (`empirical_resources.db`, the ancestor's): means of what was seen, and the highest peaks.

use crate::error::StoreError;
use crate::side_files;
use cjm_wire::Timestamp;
use cjm_wire::python_json::{self, Style};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file.
pub const EMPIRICAL_FILE: &str = "empirical_resources.db";
const TABLE: &str = "empirical_resources";
const TABLE_SQL: &str = "
CREATE TABLE IF NOT EXISTS empirical_resources (
    instance_id TEXT NOT NULL,
    capability_name TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    sample_count INTEGER NOT NULL DEFAULT 0,
    success_count INTEGER NOT NULL DEFAULT 0,
    cpu_percent_mean REAL NOT NULL DEFAULT 0.0,
    memory_mb_peak_max REAL NOT NULL DEFAULT 0.0,
    memory_mb_peak_mean REAL NOT NULL DEFAULT 0.0,
    gpu_memory_mb_peak_max REAL NOT NULL DEFAULT 0.0,
    gpu_memory_mb_peak_mean REAL NOT NULL DEFAULT 0.0,
    duration_seconds_mean REAL NOT NULL DEFAULT 0.0,
    last_observed TEXT NOT NULL,
    api_usage_totals TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (instance_id, config_hash)
)";
/// Files from before this column are the ancestor's too.
const USAGE_SQL: &str =
    "ALTER TABLE empirical_resources ADD COLUMN api_usage_totals TEXT NOT NULL DEFAULT '{}'";
const COLUMNS: &str = "instance_id, capability_name, config_hash, sample_count, success_count, cpu_percent_mean, \
                       memory_mb_peak_max, memory_mb_peak_mean, gpu_memory_mb_peak_max, gpu_memory_mb_peak_mean, \
                       duration_seconds_mean, last_observed, api_usage_totals";

/// Who was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The instance.
    pub instance: String,
    /// Its capability.
    pub capability: String,
    /// Canonical hash of its configuration.
    pub config_hash: String,
}

/// What one call took.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Processor time, in per cent of one core.
    pub cpu_percent: f64,
    /// Highest resident memory, in MB.
    pub memory_mb: f64,
    /// Highest memory of the GPU, in MB.
    pub gpu_memory_mb: f64,
    /// From request to result.
    pub duration_s: f64,
    /// Whether it ended well.
    pub success: bool,
    /// When.
    pub observed_at: Timestamp,
    /// Units that the tool reported: tokens, pages.
    pub usage: BTreeMap<String, f64>,
}

/// What all calls of one instance with one configuration took.
#[derive(Debug, Clone, PartialEq)]
pub struct Experience {
    /// Whose.
    pub of: Measured,
    /// How many calls.
    pub samples: u64,
    /// How many of them ended well.
    pub successes: u64,
    /// Mean, in per cent of one core.
    pub cpu_percent_mean: f64,
    /// Highest peak of all, in MB.
    pub memory_mb_max: f64,
    /// Mean of the peaks, in MB.
    pub memory_mb_mean: f64,
    /// Highest peak of the GPU's memory, in MB.
    pub gpu_memory_mb_max: f64,
    /// Mean of these peaks, in MB.
    pub gpu_memory_mb_mean: f64,
    /// Mean, in seconds.
    pub duration_s_mean: f64,
    /// When the newest was made.
    pub last_observed: Timestamp,
    /// Units, summed up.
    pub usage: BTreeMap<String, f64>,
}

/// Keeps what was measured.
///
/// Promises: a sample is in the row of its instance and configuration for every later reader; two writers lose
/// nothing of each other's.
pub trait Empirical: Send + Sync + std::fmt::Debug {
    /// Folds a sample in.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn record(&self, of: &Measured, sample: &Sample) -> Result<(), StoreError>;
    /// What is known of an instance with a configuration.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, instance: &str, config_hash: &str) -> Result<Option<Experience>, StoreError>;
    /// All that is known, of one capability or of all.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn all(&self, capability: Option<&str>) -> Result<Vec<Experience>, StoreError>;
    /// Forgets. False when nothing was known.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn remove(&self, instance: &str, config_hash: &str) -> Result<bool, StoreError>;
}

/// The file of one data directory. It is made with the first sample.
#[derive(Debug, Clone)]
pub struct SqliteEmpirical {
    data_dir: PathBuf,
}

impl SqliteEmpirical {
    /// The measurements of `data_dir`; touches nothing.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    fn writer(&self) -> Result<Connection, StoreError> {
        let connection = side_files::open_writer(&self.data_dir, EMPIRICAL_FILE, TABLE_SQL)?;
        let add = || {
            let columns = side_files::columns(&connection, TABLE)?;
            if !columns.iter().any(|column| column == "api_usage_totals") {
                connection.execute_batch(USAGE_SQL)?;
            }
            Ok(())
        };
        add().map_err(|error| StoreError::database("bring the measurements up to date", &error))?;
        Ok(connection)
    }

    fn query(&self, rest: &str, values: &[&str]) -> Result<Vec<Experience>, StoreError> {
        let Some(connection) = side_files::open_existing(&self.data_dir, EMPIRICAL_FILE, TABLE)? else {
            return Ok(Vec::new());
        };
        let read = || -> rusqlite::Result<Vec<Experience>> {
            let columns = side_files::columns(&connection, TABLE)?;
            let known = columns.iter().any(|column| column == "api_usage_totals");
            let list = if known { COLUMNS.to_owned() } else { COLUMNS.replace("api_usage_totals", "'{}'") };
            let mut statement = connection.prepare(&format!("SELECT {list} FROM {TABLE} {rest}"))?;
            let rows = statement.query_map(rusqlite::params_from_iter(values), from_row)?;
            rows.collect()
        };
        read().map_err(|error| StoreError::database_of("read", &connection, &error))
    }
}

impl Empirical for SqliteEmpirical {
    fn record(&self, of: &Measured, sample: &Sample) -> Result<(), StoreError> {
        let mut connection = self.writer()?;
        let mut write = || {
            // Reading and writing are one step, or two writers would both fold into the same old row.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let sql = format!("SELECT {COLUMNS} FROM {TABLE} WHERE instance_id = ?1 AND config_hash = ?2");
            let known = transaction.query_row(&sql, [&of.instance, &of.config_hash], from_row).optional()?;
            let folded = match known {
                Some(known) => known.with(sample),
                None => Experience::first(of, sample),
            };
            replace(&transaction, of, &folded)?;
            transaction.commit()
        };
        write().map_err(|error| StoreError::database("keep a measurement", &error))
    }

    fn get(&self, instance: &str, config_hash: &str) -> Result<Option<Experience>, StoreError> {
        let rows = self.query("WHERE instance_id = ?1 AND config_hash = ?2", &[instance, config_hash])?;
        Ok(rows.into_iter().next())
    }

    fn all(&self, capability: Option<&str>) -> Result<Vec<Experience>, StoreError> {
        match capability {
            Some(name) => self.query("WHERE capability_name = ?1 ORDER BY instance_id, config_hash", &[name]),
            None => self.query("ORDER BY instance_id, config_hash", &[]),
        }
    }

    fn remove(&self, instance: &str, config_hash: &str) -> Result<bool, StoreError> {
        if side_files::open_existing(&self.data_dir, EMPIRICAL_FILE, TABLE)?.is_none() {
            return Ok(false);
        }
        let sql = format!("DELETE FROM {TABLE} WHERE instance_id = ?1 AND config_hash = ?2");
        let removed = self.writer()?.execute(&sql, [instance, config_hash]);
        removed.map(|rows| rows > 0).map_err(|error| StoreError::database("forget a measurement", &error))
    }
}

impl Experience {
    /// Of the first sample.
    #[must_use]
    pub fn first(of: &Measured, sample: &Sample) -> Self {
        Self {
            of: of.clone(),
            samples: 1,
            successes: u64::from(sample.success),
            cpu_percent_mean: sample.cpu_percent,
            memory_mb_max: sample.memory_mb,
            memory_mb_mean: sample.memory_mb,
            gpu_memory_mb_max: sample.gpu_memory_mb,
            gpu_memory_mb_mean: sample.gpu_memory_mb,
            duration_s_mean: sample.duration_s,
            last_observed: sample.observed_at.clone(),
            usage: sample.usage.clone(),
        }
    }

    /// With one more sample. The means move by the same arithmetic as the ancestor's, so that both write the same bits.
    #[must_use]
    pub fn with(mut self, sample: &Sample) -> Self {
        self.samples += 1;
        self.successes += u64::from(sample.success);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 calls")]
        let count = self.samples as f64;
        let fold = |mean: &mut f64, value: f64| *mean += (value - *mean) / count;
        fold(&mut self.cpu_percent_mean, sample.cpu_percent);
        fold(&mut self.memory_mb_mean, sample.memory_mb);
        fold(&mut self.gpu_memory_mb_mean, sample.gpu_memory_mb);
        fold(&mut self.duration_s_mean, sample.duration_s);
        self.memory_mb_max = self.memory_mb_max.max(sample.memory_mb);
        self.gpu_memory_mb_max = self.gpu_memory_mb_max.max(sample.gpu_memory_mb);
        self.last_observed.clone_from(&sample.observed_at);
        for (unit, amount) in &sample.usage {
            *self.usage.entry(unit.clone()).or_default() += amount;
        }
        self
    }
}

fn replace(connection: &Connection, of: &Measured, row: &Experience) -> rusqlite::Result<usize> {
    let usage: Map<String, Value> =
        row.usage.iter().map(|(unit, amount)| (unit.clone(), Value::from(*amount))).collect();
    connection.execute(
        &format!(
            "INSERT OR REPLACE INTO {TABLE} ({COLUMNS}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
        ),
        params![
            of.instance,
            of.capability,
            of.config_hash,
            i64::try_from(row.samples).unwrap_or(i64::MAX),
            i64::try_from(row.successes).unwrap_or(i64::MAX),
            row.cpu_percent_mean,
            row.memory_mb_max,
            row.memory_mb_mean,
            row.gpu_memory_mb_max,
            row.gpu_memory_mb_mean,
            row.duration_s_mean,
            row.last_observed.as_str(),
            python_json::to_string(&Value::Object(usage), Style::Payload),
        ],
    )
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Experience> {
    let usage: String = row.get(12)?;
    let usage: Map<String, Value> = serde_json::from_str(&usage).unwrap_or_default();
    let count = |index| row.get::<_, i64>(index).map(|count| u64::try_from(count).unwrap_or_default());
    Ok(Experience {
        of: Measured { instance: row.get(0)?, capability: row.get(1)?, config_hash: row.get(2)? },
        samples: count(3)?,
        successes: count(4)?,
        cpu_percent_mean: row.get(5)?,
        memory_mb_max: row.get(6)?,
        memory_mb_mean: row.get(7)?,
        gpu_memory_mb_max: row.get(8)?,
        gpu_memory_mb_mean: row.get(9)?,
        duration_s_mean: row.get(10)?,
        last_observed: Timestamp::from_text(row.get::<_, String>(11)?),
        usage: usage.into_iter().filter_map(|(unit, amount)| Some((unit, amount.as_f64()?))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(memory_mb: f64, success: bool, usage: &[(&str, f64)]) -> Sample {
        Sample {
            cpu_percent: 10.0,
            memory_mb,
            gpu_memory_mb: memory_mb / 2.0,
            duration_s: 0.1,
            success,
            observed_at: Timestamp::from_text("2026-11-20T20:27:12+00:00"),
            usage: usage.iter().map(|(unit, amount)| ((*unit).to_owned(), *amount)).collect(),
        }
    }

    fn measured(instance: &str) -> Measured {
        Measured { instance: instance.into(), capability: "lab".into(), config_hash: "sha256:0".into() }
    }

    #[test]
    fn samples_fold_into_means_and_peaks() {
        let folder = tempfile::tempdir().expect("tempdir");
        let store = SqliteEmpirical::of(folder.path());
        assert!(store.all(None).expect("all").is_empty() && !store.remove("lab", "x").expect("remove"));
        assert!(!folder.path().join(EMPIRICAL_FILE).exists(), "reading makes nothing");
        for (memory, success, usage) in [
            (100.0, true, &[("tokens", 5.0)][..]),
            (400.0, false, &[]),
            (100.0, true, &[("tokens", 2.5), ("pages", 1.0)]),
        ] {
            store.record(&measured("lab"), &sample(memory, success, usage)).expect("record");
        }
        store.record(&measured("lab-2"), &sample(1.0, true, &[])).expect("record");
        let known = store.get("lab", "sha256:0").expect("get").expect("known");
        assert_eq!((known.samples, known.successes), (3, 2));
        assert_eq!((known.memory_mb_max, known.gpu_memory_mb_max), (400.0, 200.0));
        assert!((known.memory_mb_mean - 200.0).abs() < 1e-9, "{known:?}");
        assert_eq!(known.usage, BTreeMap::from([("pages".to_owned(), 1.0), ("tokens".to_owned(), 7.5)]));
        assert_eq!(store.all(Some("lab")).expect("all").len(), 2);
        assert_eq!(store.all(Some("other")).expect("all").len(), 0);
        assert!(store.remove("lab", "sha256:0").expect("remove"));
        assert_eq!(store.get("lab", "sha256:0").expect("get"), None);
    }

    #[test]
    fn a_file_from_before_usage_is_read_and_grows_when_written() {
        let folder = tempfile::tempdir().expect("tempdir");
        let connection = Connection::open(folder.path().join(EMPIRICAL_FILE)).expect("opens");
        let before = TABLE_SQL.replace("    api_usage_totals TEXT NOT NULL DEFAULT '{}',\n", "");
        connection.execute_batch(&before).expect("table");
        connection
            .execute("INSERT INTO empirical_resources (instance_id, capability_name, config_hash, sample_count, last_observed) VALUES ('lab', 'lab', 'sha256:0', 1, 'then')", [])
            .expect("a row");
        let store = SqliteEmpirical::of(folder.path());
        assert_eq!(store.get("lab", "sha256:0").expect("get").expect("known").samples, 1);
        store.record(&measured("lab"), &sample(1.0, true, &[("tokens", 1.0)])).expect("record");
        let known = store.get("lab", "sha256:0").expect("get").expect("known");
        assert_eq!((known.samples, known.usage.len()), (2, 1));
    }

    #[test]
    fn writers_side_by_side_lose_nothing() {
        let folder = tempfile::tempdir().expect("tempdir");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = SqliteEmpirical::of(folder.path());
                    for _ in 0..10 {
                        store.record(&measured("lab"), &sample(1.0, true, &[("n", 1.0)])).expect("record");
                    }
                });
            }
        });
        let known = SqliteEmpirical::of(folder.path()).get("lab", "sha256:0").expect("get").expect("known");
        assert_eq!((known.samples, known.usage["n"]), (40, 40.0));
    }
}
