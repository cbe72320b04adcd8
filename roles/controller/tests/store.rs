//! The store keeps batches as a whole, survives being closed and reopened, and shows tampering.

use std::future::{Future as _, poll_fn};
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use control_proto::{
    Actor, AuditAction, AuditEntry, Change, Counters, EventRecord, ItemKey, SecurityEvent,
    Settings, SettingsChange, Stored, StoredItem,
};
use controller::store::{Page, SqliteStore, Store, StoreError};
use identity::{NetworkKey, NetworkName, UnixTime};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use sqlx::Executor as _;
use tokio::time::timeout;

const ALL: Page = Page { before: None, limit: 100 };

fn settings(name: &str) -> Settings {
    let key = NetworkKey::generate(&mut ChaCha20Rng::seed_from_u64(7));
    Settings::new(key.id(), name.parse::<NetworkName>().expect("a name"))
}

fn item(number: u64, version: u64) -> Change {
    Change::Item(ItemKey::Revocation(number), StoredItem { version, bytes: Box::new([1, 2, 3]) })
}

fn event(at: u64) -> Change {
    Change::Event(EventRecord { at, reporter: None, event: SecurityEvent::Replayed })
}

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("controller.db")).await.expect("the store opens")
}

#[tokio::test]
async fn a_new_store_holds_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(open(folder.path()).await.load().await.expect("loads"), None);
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let counters = Counters { map: 9, record: 4, serial: 2, forgotten: 1 };
    let changes = [
        Change::Settings(settings("home")),
        Change::Counters(counters),
        item(1, 8),
        item(2, 9),
        item(1, 10),
    ];
    let mut expected = Stored::new(settings("home"));
    for change in &changes {
        expected.apply(change);
    }
    let store = open(folder.path()).await;
    store.commit(&changes).await.expect("keeps");
    store.close().await;

    assert_eq!(open(folder.path()).await.load().await.expect("loads"), Some(expected));
}

#[tokio::test]
async fn a_batch_that_cannot_be_kept_whole_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    store.commit(&[Change::Settings(settings("home")), item(1, 5)]).await.expect("keeps");

    let same_version = [Change::Settings(settings("other")), item(2, 5)];
    assert!(matches!(store.commit(&same_version).await, Err(StoreError::Database(_))));
    let kept = store.load().await.expect("loads").expect("there are settings");
    assert_eq!(kept.settings, settings("home"));
    assert_eq!(kept.items.len(), 1);
}

#[tokio::test]
async fn logs_are_read_newest_first_and_page_by_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    let audit = AuditEntry {
        at: 3,
        actor: Actor::Administrator,
        action: AuditAction::SettingsChanged { change: SettingsChange::default() },
    };
    store.commit(&[event(1), event(2), Change::Audit(audit.clone())]).await.expect("keeps");
    store.commit(&[event(4)]).await.expect("keeps");

    let newest = store.events(Page { before: None, limit: 2 }).await.expect("reads");
    assert_eq!(
        newest.iter().map(|row| (row.sequence, row.entry.at)).collect::<Vec<_>>(),
        [(3, 4), (2, 2)]
    );
    let older = store.events(Page { before: Some(2), limit: 2 }).await.expect("reads");
    assert_eq!(older.iter().map(|row| row.sequence).collect::<Vec<_>>(), [1]);
    assert_eq!(store.audit(ALL).await.expect("reads")[0].entry, audit);
    store.verify_logs().await.expect("nobody changed them");
}

#[tokio::test]
async fn a_changed_or_removed_row_of_a_log_shows() {
    for tampering in [
        "UPDATE security_events SET body = replace(body, 'replayed', 'suppressed') WHERE sequence = 2",
        "DELETE FROM security_events WHERE sequence = 2",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path()).await;
        store.commit(&[event(1), event(2), event(3)]).await.expect("keeps");
        store.close().await;
        let url = format!("sqlite://{}", folder.path().join("controller.db").display());
        let pool = sqlx::SqlitePool::connect(&url).await.expect("opens");
        pool.execute(tampering).await.expect("changes");
        pool.close().await;

        let found = open(folder.path()).await.verify_logs().await;
        assert!(
            matches!(found, Err(StoreError::ChainBroken { table: "security_events", .. })),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn a_batch_does_not_wait_for_logs_that_are_being_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    let events: Vec<_> = (0..5_000).map(event).collect();
    store.commit(&events).await.expect("keeps");

    // Begun, and not driven on before the batch is kept.
    let mut verified = Box::pin(store.verify_logs());
    let begun = poll_fn(|cx| Poll::Ready(verified.as_mut().poll(cx).is_pending())).await;
    assert!(begun, "it takes more than a moment");
    let kept = timeout(Duration::from_secs(20), store.commit(&[event(1)])).await;
    kept.expect("it does not wait").expect("keeps");
    verified.await.expect("nobody changed them");
}

fn prune(entries: u64, before: u64) -> Change {
    Change::PruneLogs { entries, before: UnixTime(before) }
}

async fn sequences(store: &SqliteStore) -> Vec<u64> {
    store.events(ALL).await.expect("reads").iter().map(|row| row.sequence).collect()
}

#[tokio::test]
async fn a_log_loses_its_oldest_rows_and_still_verifies() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    store.commit(&[prune(2, 0)]).await.expect("an empty log stays empty");
    let events = [event(10), event(20), event(5), event(30), event(40)];
    store.commit(&events).await.expect("keeps");
    store.commit(&[prune(100, 15)]).await.expect("keeps");
    assert_eq!(sequences(&store).await, [5, 4, 3, 2], "a clock that went back cuts no hole");
    store.commit(&[prune(3, 0)]).await.expect("keeps");
    assert_eq!(sequences(&store).await, [5, 4, 3]);
    store.verify_logs().await.expect("the rest follows from its anchor");

    store.commit(&[prune(3, 1_000), event(50)]).await.expect("keeps");
    assert_eq!(sequences(&store).await, [6], "numbers go on after all rows went");
    store.close().await;
    let store = open(folder.path()).await;
    store.commit(&[event(60)]).await.expect("keeps");
    store.verify_logs().await.expect("the rest follows from its anchor");
}

#[tokio::test]
async fn rows_that_go_without_an_anchor_show() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    store.commit(&[event(1), event(2), event(3), prune(2, 0)]).await.expect("keeps");
    store.verify_logs().await.expect("nobody changed them");
    store.close().await;
    let url = format!("sqlite://{}", folder.path().join("controller.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.expect("opens");
    pool.execute("DELETE FROM security_events WHERE sequence = 2").await.expect("changes");
    pool.close().await;
    let found = open(folder.path()).await.verify_logs().await;
    assert!(matches!(found, Err(StoreError::ChainBroken { sequence: 3, .. })), "{found:?}");
}

#[tokio::test]
async fn the_file_is_readable_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let _store = open(folder.path()).await;
    let mode = std::fs::metadata(folder.path().join("controller.db"))
        .expect("the file is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_migrations_lead_to_the_schema_that_is_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let schema = open(folder.path()).await.schema().await.expect("reads");
    let written = include_str!("../schema.sql");
    assert_eq!(schema, written, "schema.sql is what the migrations make");
}
