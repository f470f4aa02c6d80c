//! How the small databases beside the journal are opened: files of the ancestor's, in its journal mode, and ours to
//! share. It knows none of their tables.

use crate::error::StoreError;
use crate::schema::{BUSY_TIMEOUT_MS, create_private};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Opens a file that must be there; None when it is not, or holds nothing yet.
pub(crate) fn open_existing(
    data_dir: &Path,
    file: &str,
    table: &str,
) -> Result<Option<Connection>, StoreError> {
    match crate::schema::open_reader(data_dir, file) {
        Ok(connection) => Ok(crate::schema::has_table(&connection, table)?.then_some(connection)),
        Err(StoreError::NothingYet { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a file for writing; creates directory (0700) and file (0600) as needed, and the table if there is none.
pub(crate) fn open_writer(data_dir: &Path, file: &str, table_sql: &str) -> Result<Connection, StoreError> {
    let path = data_dir.join(file);
    create_private(data_dir, &path)?;
    let failed = |error: rusqlite::Error| StoreError::database_at("open", &path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS)).map_err(failed)?;
    connection.execute_batch(table_sql).map_err(failed)?;
    Ok(connection)
}

/// Names of a table's columns.
pub(crate) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}
