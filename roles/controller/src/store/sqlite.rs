//! The embedded store: one file beside the keys.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use control_proto::{
    AuditEntry, Change, Counters, DeviceRecord, EventRecord, InviteRecord, ItemKey, Settings,
    Stored, StoredItem,
};
use futures_util::TryStreamExt as _;
use identity::UnixTime;
use minicbor::{Decode, Encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, Sqlite, SqliteConnection, Transaction};

use super::{Logged, MAX_PAGE, Page, Store, StoreError};

/// Another process that holds the file, such as a backup tool, is waited for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks into the logs at once; write-ahead mode lets them go on beside a batch.
const READERS: u32 = 2;

/// A controller's state in an SQLite file, in write-ahead mode and synchronous at every commit.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    /// For what may take long and must not keep a batch waiting.
    readers: SqlitePool,
}

/// An append-only table.
#[derive(Clone, Copy)]
enum Log {
    Events,
    Audit,
}

impl Log {
    const fn table(self) -> &'static str {
        match self {
            Self::Events => "security_events",
            Self::Audit => "audit",
        }
    }
}

impl SqliteStore {
    /// Opens the file, made readable for its owner alone if it is new, and brings its schema up to date.
    ///
    /// # Errors
    /// If the file cannot be opened, is no database, or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        file.map_err(|source| StoreError::File { path: path.display().to_string(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        // One connection: the machine's batches are kept in their order.
        let pool =
            SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS);
        Ok(Self { pool, readers: readers.connect_lazy_with(options.read_only(true)) })
    }

    /// Waits for what is under way and closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.pool.close().await;
    }

    /// Writes a copy of the whole database to a new file, while it is in use.
    ///
    /// # Errors
    /// If the file exists or cannot be written.
    pub async fn copy_to(&self, file: &Path) -> Result<(), StoreError> {
        sqlx::query("VACUUM INTO ?")
            .bind(file.to_string_lossy().into_owned())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The schema as the database itself tells it, for comparison with `schema.sql`.
    ///
    /// # Errors
    /// If the storage fails.
    pub async fn schema(&self) -> Result<String, StoreError> {
        let statements: Vec<String> = sqlx::query_scalar(
            "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(statements.into_iter().map(|statement| statement + ";\n").collect())
    }

    async fn rows<T: DeserializeOwned>(
        &self,
        log: Log,
        page: Page,
    ) -> Result<Vec<Logged<T>>, StoreError> {
        let table = log.table();
        let sql = format!(
            "SELECT sequence, body FROM {table} WHERE sequence < ? ORDER BY sequence DESC LIMIT ?"
        );
        let before = page.before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(before)
            .bind(page.limit.min(MAX_PAGE))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let sequence = row.try_get::<i64, _>(0)?.cast_unsigned();
                let entry = serde_json::from_str(row.try_get(1)?)
                    .map_err(|_| StoreError::Corrupt { table })?;
                Ok(Logged { sequence, entry })
            })
            .collect()
    }

    async fn verify_log(&self, log: Log) -> Result<(), StoreError> {
        let table = log.table();
        let sql = format!("SELECT sequence, body, hash FROM {table} ORDER BY sequence");
        // Both reads see one moment: rows may be pruned meanwhile.
        let mut transaction = self.readers.begin().await?;
        let mut previous = anchor(&mut transaction, log).await?.unwrap_or_default();
        let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut *transaction);
        while let Some(row) = rows.try_next().await? {
            let sequence: i64 = row.try_get(0)?;
            let hash = chained(&previous.1, row.try_get(1)?);
            if sequence != previous.0 + 1 || row.try_get::<&[u8], _>(2)? != hash {
                let sequence = sequence.cast_unsigned();
                return Err(StoreError::ChainBroken { table, sequence });
            }
            previous = (sequence, hash);
        }
        Ok(())
    }
}

impl Store for SqliteStore {
    async fn load(&self) -> Result<Option<Stored>, StoreError> {
        let settings: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT settings FROM settings").fetch_optional(&self.pool).await?;
        let Some(settings) = settings else { return Ok(None) };
        let mut stored = Stored::new(decoded::<Settings>("settings", &settings)?);
        let counters: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT counters FROM counters").fetch_optional(&self.pool).await?;
        if let Some(counters) = counters {
            stored.counters = decoded::<Counters>("counters", &counters)?;
        }
        let devices: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT record FROM devices").fetch_all(&self.pool).await?;
        for record in devices {
            let record: DeviceRecord = decoded("devices", &record)?;
            stored.devices.insert(record.device, record);
        }
        let invites: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT record FROM invites").fetch_all(&self.pool).await?;
        for record in invites {
            let record: InviteRecord = decoded("invites", &record)?;
            stored.invites.insert(record.key, record);
        }
        for row in
            sqlx::query("SELECT key, version, item FROM map_items").fetch_all(&self.pool).await?
        {
            let key: ItemKey = decoded("map_items", row.try_get(0)?)?;
            let version = row.try_get::<i64, _>(1)?.cast_unsigned();
            let bytes = row.try_get::<Vec<u8>, _>(2)?.into_boxed_slice();
            stored.items.insert(key, StoredItem { version, bytes });
        }
        Ok(Some(stored))
    }

    async fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let result = commit_over(&mut connection, changes).await;
        if result.is_err() {
            // SQLite may have rolled back by itself, or not: only a new connection knows where it stands.
            let _ = connection.close().await;
        }
        result
    }

    async fn events(&self, page: Page) -> Result<Vec<Logged<EventRecord>>, StoreError> {
        self.rows(Log::Events, page).await
    }

    async fn audit(&self, page: Page) -> Result<Vec<Logged<AuditEntry>>, StoreError> {
        self.rows(Log::Audit, page).await
    }

    async fn verify_logs(&self) -> Result<(), StoreError> {
        self.verify_log(Log::Events).await?;
        self.verify_log(Log::Audit).await
    }
}

async fn commit_over(
    connection: &mut SqliteConnection,
    changes: &[Change],
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for change in changes {
        make(&mut transaction, change).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn make(
    transaction: &mut Transaction<'_, Sqlite>,
    change: &Change,
) -> Result<(), StoreError> {
    let connection: &mut SqliteConnection = transaction;
    let query = match change {
        Change::Settings(settings) => {
            sqlx::query("INSERT OR REPLACE INTO settings (only_row, settings) VALUES (1, ?)").bind(encoded(settings))
        }
        Change::Counters(counters) => {
            sqlx::query("INSERT OR REPLACE INTO counters (only_row, counters) VALUES (1, ?)").bind(encoded(counters))
        }
        Change::Device(device) => return put_device(connection, device).await,
        Change::RemoveDevice(device) => {
            sqlx::query("DELETE FROM devices WHERE id = ?").bind(device.as_bytes().to_vec())
        }
        Change::Invite(invite) => sqlx::query(
            "INSERT INTO invites (key, used_by, revoked, record) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
             used_by = excluded.used_by, revoked = excluded.revoked, record = excluded.record",
        )
        .bind(invite.key.as_bytes().to_vec())
        .bind(invite.used_by.map(|device| device.as_bytes().to_vec()))
        .bind(invite.revoked)
        .bind(encoded(invite.as_ref())),
        Change::RemoveInvite(key) => sqlx::query("DELETE FROM invites WHERE key = ?").bind(key.as_bytes().to_vec()),
        Change::Item(key, item) => sqlx::query(
            "INSERT INTO map_items (key, version, item) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET
             version = excluded.version, item = excluded.item",
        )
        .bind(encoded(key))
        .bind(item.version.cast_signed())
        .bind(item.bytes.to_vec()),
        Change::RemoveItem(key) => sqlx::query("DELETE FROM map_items WHERE key = ?").bind(encoded(key)),
        Change::Event(event) => return append(connection, Log::Events, event.at, event).await,
        Change::Audit(entry) => return append(connection, Log::Audit, entry.at, entry).await,
        Change::PruneLogs { entries, before } => {
            prune(connection, Log::Events, *entries, *before).await?;
            return prune(connection, Log::Audit, *entries, *before).await;
        }
    };
    query.execute(connection).await?;
    Ok(())
}

async fn put_device(
    connection: &mut SqliteConnection,
    device: &DeviceRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO devices (id, name, address, ipv4, pending, not_after, record) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, address = excluded.address, ipv4 = excluded.ipv4,
         pending = excluded.pending, not_after = excluded.not_after, record = excluded.record",
    )
    .bind(device.device.as_bytes().to_vec())
    .bind(device.name.as_str())
    .bind(device.address.to_string())
    .bind(device.ipv4.map(|address| address.to_string()))
    .bind(device.pending)
    .bind(device.not_after.0.cast_signed())
    .bind(encoded(device))
    .execute(connection)
    .await?;
    Ok(())
}

async fn append(
    connection: &mut SqliteConnection,
    log: Log,
    at: u64,
    entry: &impl Serialize,
) -> Result<(), StoreError> {
    let table = log.table();
    let body = serde_json::to_string(entry).map_err(|_| StoreError::Corrupt { table })?;
    let sql = format!("SELECT sequence, hash FROM {table} ORDER BY sequence DESC LIMIT 1");
    let last = sqlx::query(AssertSqlSafe(sql)).fetch_optional(&mut *connection).await?;
    let (sequence, previous) = match last {
        Some(row) => (row.try_get(0)?, row.try_get(1)?),
        None => anchor(connection, log).await?.unwrap_or_default(),
    };
    let hash = chained(&previous, &body);
    let sql = format!("INSERT INTO {table} (sequence, at, body, hash) VALUES (?, ?, ?, ?)");
    sqlx::query(AssertSqlSafe(sql))
        .bind(sequence + 1)
        .bind(at.cast_signed())
        .bind(body)
        .bind(hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// The last row of a log that is gone: its number and its hash.
async fn anchor(
    connection: &mut SqliteConnection,
    log: Log,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let row = sqlx::query("SELECT sequence, hash FROM log_anchors WHERE log = ?")
        .bind(log.table())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?)
}

/// Lets go of the oldest rows: all but the newest `entries`, and those before the first that is not
/// older than `before`. Rows count in the order in which they came, whatever the clock said.
async fn prune(
    connection: &mut SqliteConnection,
    log: Log,
    entries: u64,
    before: UnixTime,
) -> Result<(), StoreError> {
    let table = log.table();
    let sql = format!(
        "SELECT max(
            coalesce((SELECT sequence - 1 FROM {table} WHERE at >= ? ORDER BY sequence LIMIT 1), max(sequence)),
            max(sequence) - ?
        ) FROM {table}"
    );
    let last: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(before.0.cast_signed())
        .bind(i64::try_from(entries).unwrap_or(i64::MAX))
        .fetch_one(&mut *connection)
        .await?;
    let sql = format!(
        "INSERT OR REPLACE INTO log_anchors (log, sequence, hash)
         SELECT '{table}', sequence, hash FROM {table} WHERE sequence = ?"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(last).execute(&mut *connection).await?;
    let sql = format!("DELETE FROM {table} WHERE sequence <= ?");
    sqlx::query(AssertSqlSafe(sql)).bind(last).execute(connection).await?;
    Ok(())
}

/// SHA-256 over the hash before and the body.
fn chained(previous: &[u8], body: &str) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(body.as_bytes());
    context.finish().as_ref().to_vec()
}

fn encoded(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory cannot fail")
}

fn decoded<T: for<'b> Decode<'b, ()>>(table: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    minicbor::decode(bytes).map_err(|_| StoreError::Corrupt { table })
}
