//! Configurations that outlive a host: what an instance was configured with, and whether it is enabled
//! (`capability_configs.db`, the ancestor's).
//!
//! Its key column was `capability_name` up to 0.0.57 and is `instance_id` since, where a column with variables joined
//! it; the default instance is named like its capability, so that the rows mean the same. A file keeps the shape it
//! has; a new one gets the older shape, which both read (the later one re-keys it when it opens it).

use crate::error::StoreError;
use crate::side_files;
use cjm_wire::python_json::{self, Style};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The file.
pub const CONFIGS_FILE: &str = "capability_configs.db";
const TABLE: &str = "capability_configs";
const TABLE_SQL: &str = "
CREATE TABLE IF NOT EXISTS capability_configs (
    capability_name TEXT PRIMARY KEY,
    config_json TEXT NOT NULL,
    enabled INTEGER NOT NULL DEFAULT 1,
    updated_at REAL NOT NULL
)";
/// Ours alone: for which manifest a row was kept, as long as it is that row.
const OWNERS_TABLE: &str = "config_owners";
const OWNERS_SQL: &str = "
CREATE TABLE IF NOT EXISTS config_owners (
    instance TEXT PRIMARY KEY,
    manifest TEXT NOT NULL,
    updated_at REAL NOT NULL
)";
const WORKER_ENV_SQL: &str =
    "ALTER TABLE capability_configs ADD COLUMN worker_env_json TEXT NOT NULL DEFAULT '{}'";

/// What is kept of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceConfig {
    /// Its configuration.
    pub config: Map<String, Value>,
    /// Whether it takes work.
    pub enabled: bool,
    /// Variables its worker gets beyond the manifest's.
    pub worker_env: Map<String, Value>,
    /// Seconds since the Unix epoch. Set when it is kept.
    pub updated_at_s: f64,
}

impl Default for InstanceConfig {
    fn default() -> Self {
        Self { config: Map::new(), enabled: true, worker_env: Map::new(), updated_at_s: 0.0 }
    }
}

/// Keeps configurations.
///
/// Promises: what was kept is there for every later reader, ours or the ancestor's.
pub trait Configs: Send + Sync + std::fmt::Debug {
    /// What is kept of an instance, if anything. A row that is no JSON counts as an empty configuration, with a
    /// warning.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, instance: &str) -> Result<Option<InstanceConfig>, StoreError>;
    /// Keeps it, in place of what was kept.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn set(&self, instance: &str, config: &InstanceConfig) -> Result<(), StoreError>;
    /// Keeps it for the manifest at `owner`, an absolute path, and for no other of the same name.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn set_for(&self, instance: &str, config: &InstanceConfig, owner: &Path) -> Result<(), StoreError>;
    /// The manifest it was kept for. None where nobody said so: it was kept without one, or by the ancestor since; then it
    /// belongs to the data directory's own manifests. [`belongs_to`](crate::owners::belongs_to) answers both.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn owner_of(&self, instance: &str) -> Result<Option<PathBuf>, StoreError>;
    /// Forgets it. False when there was nothing.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn remove(&self, instance: &str) -> Result<bool, StoreError>;
    /// All of them, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn all(&self) -> Result<Vec<(String, InstanceConfig)>, StoreError>;
}

/// The file of one data directory. It is made with the first row.
#[derive(Debug, Clone)]
pub struct SqliteConfigs {
    data_dir: PathBuf,
}

/// The two columns in which files differ.
struct Shape {
    key: &'static str,
    has_worker_env: bool,
}

impl Shape {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let columns = side_files::columns(connection, TABLE)?;
        let has = |name: &str| columns.iter().any(|column| column == name);
        Ok(Self {
            key: if has("instance_id") { "instance_id" } else { "capability_name" },
            has_worker_env: has("worker_env_json"),
        })
    }

    fn select(&self) -> String {
        let worker_env = if self.has_worker_env { "worker_env_json" } else { "'{}'" };
        format!("SELECT {}, config_json, enabled, updated_at, {worker_env} FROM {TABLE}", self.key)
    }
}

impl SqliteConfigs {
    /// The configurations of `data_dir`; touches nothing.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&Connection, &Shape) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let Some(connection) = side_files::open_existing(&self.data_dir, CONFIGS_FILE, TABLE)? else {
            return Ok(None);
        };
        Shape::of(&connection)
            .and_then(|shape| query(&connection, &shape))
            .map(Some)
            .map_err(|error| StoreError::database_of("read", &connection, &error))
    }
}

impl SqliteConfigs {
    fn keep(&self, instance: &str, config: &InstanceConfig, owner: Option<&str>) -> Result<(), StoreError> {
        let connection = side_files::open_writer(&self.data_dir, CONFIGS_FILE, TABLE_SQL)?;
        let write = || {
            let mut shape = Shape::of(&connection)?;
            let transaction = connection.unchecked_transaction()?;
            if !shape.has_worker_env && !config.worker_env.is_empty() {
                transaction.execute(WORKER_ENV_SQL, [])?;
                shape.has_worker_env = true;
            }
            let (text, env) = (json_text(&config.config), json_text(&config.worker_env));
            let Shape { key, has_worker_env } = shape;
            let (column, mark) = if has_worker_env { (", worker_env_json", ", ?5") } else { ("", "") };
            let sql = format!(
                "INSERT OR REPLACE INTO {TABLE} ({key}, config_json, enabled, updated_at{column}) \
                 VALUES (?1, ?2, ?3, ?4{mark})"
            );
            let (enabled, now) = (i64::from(config.enabled), now_s());
            if has_worker_env {
                transaction.execute(&sql, params![instance, text, enabled, now, env])?;
            } else {
                transaction.execute(&sql, params![instance, text, enabled, now])?;
            }
            let owned = side_files::columns(&transaction, OWNERS_TABLE)?;
            if let Some(owner) = owner {
                transaction.execute_batch(OWNERS_SQL)?;
                let sql = format!("INSERT OR REPLACE INTO {OWNERS_TABLE} VALUES (?1, ?2, ?3)");
                transaction.execute(&sql, params![instance, owner, now])?;
            } else if !owned.is_empty() {
                transaction
                    .execute(&format!("DELETE FROM {OWNERS_TABLE} WHERE instance = ?1"), [instance])?;
            }
            transaction.commit()
        };
        write().map_err(|error| StoreError::database("keep a configuration", &error))
    }
}

impl Configs for SqliteConfigs {
    fn get(&self, instance: &str) -> Result<Option<InstanceConfig>, StoreError> {
        let found = self.read(|connection, shape| {
            let sql = format!("{} WHERE {} = ?1", shape.select(), shape.key);
            connection.query_row(&sql, [instance], from_row).optional()
        })?;
        Ok(found.flatten().map(|(_, config)| config))
    }

    fn set(&self, instance: &str, config: &InstanceConfig) -> Result<(), StoreError> {
        self.keep(instance, config, None)
    }

    fn set_for(&self, instance: &str, config: &InstanceConfig, owner: &Path) -> Result<(), StoreError> {
        match owner.to_str().filter(|_| owner.is_absolute()) {
            Some(owner) => self.keep(instance, config, Some(owner)),
            None => Err(StoreError::Refused {
                what: format!("{} cannot be kept as the path of a manifest", owner.display()),
            }),
        }
    }

    fn owner_of(&self, instance: &str) -> Result<Option<PathBuf>, StoreError> {
        let found = self.read(|connection, shape| {
            if side_files::columns(connection, OWNERS_TABLE)?.is_empty() {
                return Ok(None);
            }
            // What the ancestor kept since has another time.
            let sql = format!(
                "SELECT manifest FROM {OWNERS_TABLE} AS o JOIN {TABLE} AS c ON c.{} = o.instance \
                 AND c.updated_at = o.updated_at WHERE o.instance = ?1",
                shape.key
            );
            connection.query_row(&sql, [instance], |row| row.get::<_, String>(0)).optional()
        })?;
        Ok(found.flatten().map(PathBuf::from))
    }

    fn remove(&self, instance: &str) -> Result<bool, StoreError> {
        if self.read(|_, _| Ok(()))?.is_none() {
            return Ok(false);
        }
        let connection = side_files::open_writer(&self.data_dir, CONFIGS_FILE, TABLE_SQL)?;
        let remove = || {
            let key = Shape::of(&connection)?.key;
            connection.execute(&format!("DELETE FROM {TABLE} WHERE {key} = ?1"), [instance])
        };
        remove().map(|rows| rows > 0).map_err(|error| StoreError::database("forget a configuration", &error))
    }

    fn all(&self) -> Result<Vec<(String, InstanceConfig)>, StoreError> {
        let rows = self.read(|connection, shape| {
            let mut statement = connection.prepare(&format!("{} ORDER BY {}", shape.select(), shape.key))?;
            let rows = statement.query_map([], from_row)?;
            rows.collect()
        })?;
        Ok(rows.unwrap_or_default())
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<(String, InstanceConfig)> {
    let instance: String = row.get(0)?;
    let object = |column: usize| -> rusqlite::Result<Map<String, Value>> {
        let text: String = row.get(column)?;
        Ok(serde_json::from_str(&text).unwrap_or_else(|error| {
            if !text.is_empty() {
                tracing::warn!(%instance, %error, "a kept configuration is no JSON object and counts as empty");
            }
            Map::new()
        }))
    };
    let config = InstanceConfig {
        config: object(1)?,
        enabled: row.get::<_, i64>(2)? != 0,
        updated_at_s: row.get(3)?,
        worker_env: object(4)?,
    };
    Ok((instance, config))
}

/// As the ancestor writes it.
fn json_text(object: &Map<String, Value>) -> String {
    python_json::to_string(&Value::Object(object.clone()), Style::Default)
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::Described;
    use serde_json::json;

    /// What the later ancestor makes.
    const LATER_SQL: &str = "CREATE TABLE capability_configs (instance_id TEXT PRIMARY KEY, config_json TEXT NOT NULL, \
                             enabled INTEGER NOT NULL DEFAULT 1, worker_env_json TEXT NOT NULL DEFAULT '{}', \
                             updated_at REAL NOT NULL)";

    fn config(value: &Value, enabled: bool, worker_env: &Value) -> InstanceConfig {
        let object = |value: &Value| value.as_object().cloned().expect("object");
        InstanceConfig { config: object(value), enabled, worker_env: object(worker_env), updated_at_s: 0.0 }
    }

    #[track_caller]
    fn check(data_dir: &Path, columns: &[&str]) {
        let store = SqliteConfigs::of(data_dir);
        let kept = config(&json!({"b": 1, "a": "é"}), false, &json!({}));
        store.set("lab", &kept).expect("set");
        store.set("lab-2", &config(&json!({}), true, &json!({}))).expect("set");
        let found = store.get("lab").expect("get").expect("there");
        assert!(found.updated_at_s > 1.7e9);
        assert_eq!(InstanceConfig { updated_at_s: 0.0, ..found }, kept);
        assert_eq!(store.all().expect("all").len(), 2);
        assert!(store.remove("lab").expect("remove") && !store.remove("lab").expect("remove"));
        assert_eq!(store.get("lab").expect("get"), None);
        let connection = Connection::open(data_dir.join(CONFIGS_FILE)).expect("opens");
        assert_eq!(side_files::columns(&connection, TABLE).expect("columns"), columns);
    }

    #[test]
    fn a_new_file_has_the_older_shape_and_grows_only_for_variables() {
        let folder = tempfile::tempdir().expect("tempdir");
        let store = SqliteConfigs::of(folder.path());
        assert_eq!((store.get("lab").expect("get"), store.all().expect("all")), (None, Vec::new()));
        assert!(!store.remove("lab").expect("remove"));
        assert!(!folder.path().join(CONFIGS_FILE).exists(), "reading makes nothing");
        let older = ["capability_name", "config_json", "enabled", "updated_at"];
        check(folder.path(), &older);
        let kept = config(&json!({}), true, &json!({"V": "1"}));
        store.set("lab", &kept).expect("set");
        assert_eq!(store.get("lab").expect("get").expect("there").worker_env, kept.worker_env);
        check(folder.path(), &[&older[..], &["worker_env_json"]].concat());
    }

    #[test]
    fn a_configuration_belongs_to_the_manifest_it_was_kept_for_until_others_keep_another() {
        let folder = tempfile::tempdir().expect("tempdir");
        let store = SqliteConfigs::of(folder.path());
        let mine = Path::new("/p/.cjm/manifests/lab.json");
        let kept = config(&json!({"a": 1}), true, &json!({}));
        let owner = || store.owner_of("lab").expect("reads");
        assert_eq!(owner(), None);
        store.set("lab", &kept).expect("kept");
        assert_eq!(owner(), None);
        store.set_for("lab", &kept, mine).expect("kept");
        assert_eq!(owner().as_deref(), Some(mine));
        let own = folder.path().join("manifests/lab.json");
        assert!(crate::owners::belongs_to(folder.path(), owner().as_deref(), mine));
        assert!(!crate::owners::belongs_to(folder.path(), owner().as_deref(), &own));
        let connection = Connection::open(folder.path().join(CONFIGS_FILE)).expect("opens");
        connection.execute("UPDATE capability_configs SET updated_at = 7.5", []).expect("as the ancestor");
        assert_eq!(owner(), None);
        store.set_for("lab", &kept, mine).expect("kept");
        store.set("lab", &kept).expect("kept for the directory's own");
        assert_eq!(owner(), None);
        assert_eq!(
            store.set_for("lab", &kept, Path::new("lab.json")).expect_err("relative").code(),
            "store.refused"
        );
    }

    #[test]
    fn a_later_file_keeps_its_shape_and_broken_rows_count_as_empty() {
        let folder = tempfile::tempdir().expect("tempdir");
        let connection = Connection::open(folder.path().join(CONFIGS_FILE)).expect("opens");
        connection.execute_batch(LATER_SQL).expect("table");
        check(folder.path(), &["instance_id", "config_json", "enabled", "worker_env_json", "updated_at"]);
        connection
            .execute("INSERT INTO capability_configs VALUES ('odd', '{', 1, '[]', 7.5)", [])
            .expect("a row");
        let odd = SqliteConfigs::of(folder.path()).get("odd").expect("get").expect("there");
        assert_eq!(odd, InstanceConfig { updated_at_s: 7.5, ..InstanceConfig::default() });
    }
}
