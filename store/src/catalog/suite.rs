//! One suite for every Catalog.

use std::ops::Bound;
use std::sync::Arc;

use super::*;

const COLOURS: Table = Table::new("colours");
/// Its name starts like the other's, so that rows of one would show in the other if the border between them leaked.
const COLOURS_BY: Table = Table::new("colours_by");

async fn put(catalog: &dyn Catalog, table: Table, keys: &[&str]) {
    for key in keys {
        let batch = Batch::new().put(table, *key, format!("value of {key}"));
        catalog.write(batch, Durability::Synced).await.unwrap();
    }
}

async fn keys(catalog: &dyn Catalog, range: KeyRange, direction: Direction, limit: usize) -> Vec<String> {
    let rows = catalog.scan(COLOURS, range, direction, limit).await.unwrap();
    rows.into_iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect()
}

async fn get_put_delete(catalog: Arc<dyn Catalog>) {
    assert_eq!(catalog.get(COLOURS, b"red").await.unwrap(), None);
    put(&*catalog, COLOURS, &["red"]).await;
    assert_eq!(catalog.get(COLOURS, b"red").await.unwrap().unwrap(), "value of red");
    assert_eq!(catalog.get(COLOURS_BY, b"red").await.unwrap(), None);
    catalog.write(Batch::new().put(COLOURS, "red", ""), Durability::Lazy).await.unwrap();
    assert_eq!(catalog.get(COLOURS, b"red").await.unwrap().unwrap(), "");
    catalog.write(Batch::new().delete(COLOURS, "red"), Durability::Lazy).await.unwrap();
    assert_eq!(catalog.get(COLOURS, b"red").await.unwrap(), None);
}

async fn scans(catalog: Arc<dyn Catalog>) {
    use Direction::{Forward, Reverse};
    put(&*catalog, COLOURS, &["a", "b", "ba", "bb", "c"]).await;
    put(&*catalog, COLOURS_BY, &["a", "z"]).await;
    let at = |key: &str| key.as_bytes().to_vec();
    let between = |from, to| KeyRange { from, to };
    let cases = [
        (KeyRange::all(), Forward, 9, vec!["a", "b", "ba", "bb", "c"]),
        (KeyRange::all(), Reverse, 9, vec!["c", "bb", "ba", "b", "a"]),
        (KeyRange::all(), Forward, 2, vec!["a", "b"]),
        (KeyRange::all(), Reverse, 2, vec!["c", "bb"]),
        (KeyRange::all(), Forward, 0, vec![]),
        (KeyRange::prefix("b"), Forward, 9, vec!["b", "ba", "bb"]),
        (KeyRange::prefix("b"), Reverse, 9, vec!["bb", "ba", "b"]),
        (KeyRange::prefix([0xff]), Forward, 9, vec![]),
        (KeyRange::prefix("b").after("ba", Forward), Forward, 9, vec!["bb"]),
        (KeyRange::prefix("b").after("ba", Reverse), Reverse, 9, vec!["b"]),
        (between(Bound::Included(at("b")), Bound::Included(at("bb"))), Forward, 9, vec!["b", "ba", "bb"]),
        (between(Bound::Excluded(at("b")), Bound::Excluded(at("bb"))), Forward, 9, vec!["ba"]),
        (between(Bound::Included(at("c")), Bound::Excluded(at("a"))), Forward, 9, vec![]),
        (between(Bound::Excluded(at("b")), Bound::Excluded(at("b"))), Reverse, 9, vec![]),
        (between(Bound::Included(at("b")), Bound::Included(at("b"))), Reverse, 9, vec!["b"]),
    ];
    for (range, direction, limit, expected) in cases {
        assert_eq!(keys(&*catalog, range.clone(), direction, limit).await, expected, "{range:?} {direction:?}");
    }
}

async fn conditions(catalog: Arc<dyn Catalog>) {
    put(&*catalog, COLOURS, &["a"]).await;
    let refused = [
        (COLOURS, "a", Condition::Absent),
        (COLOURS, "a", Condition::Equals("other".into())),
        (COLOURS, "b", Condition::Equals("value of a".into())),
        (COLOURS_BY, "a", Condition::Equals("value of a".into())),
    ];
    for (table, key, condition) in refused {
        let batch = Batch::new().put(COLOURS, "new", "x").delete(COLOURS, "a").require(table, key, condition);
        let result = catalog.write(batch, Durability::Synced).await;
        assert!(matches!(result, Err(Error::Conflict { .. })));
        assert_eq!(keys(&*catalog, KeyRange::all(), Direction::Forward, 9).await, ["a"]);
    }
    let batch = Batch::new()
        .put(COLOURS, "new", "x")
        .delete(COLOURS, "a")
        .require(COLOURS, "a", Condition::Equals("value of a".into()))
        .require(COLOURS, "new", Condition::Absent);
    catalog.write(batch, Durability::Synced).await.unwrap();
    assert_eq!(keys(&*catalog, KeyRange::all(), Direction::Forward, 9).await, ["new"]);
}

/// Of many writers that each want to be the one to follow value n, exactly one gets its way each time.
async fn races(catalog: Arc<dyn Catalog>) {
    catalog.write(Batch::new().put(COLOURS, "count", "0"), Durability::Synced).await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let catalog = catalog.clone();
            tokio::spawn(async move {
                let mut wins = 0u32;
                while wins < 10 {
                    let read = catalog.get(COLOURS, b"count").await.unwrap().unwrap();
                    let next = std::str::from_utf8(&read).unwrap().parse::<u32>().unwrap() + 1;
                    let batch = Batch::new().put(COLOURS, "count", next.to_string()).require(
                        COLOURS,
                        "count",
                        Condition::Equals(read),
                    );
                    match catalog.write(batch, Durability::Synced).await {
                        Ok(()) => wins += 1,
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(catalog.get(COLOURS, b"count").await.unwrap().unwrap(), "80");
}

async fn bad_keys(catalog: Arc<dyn Catalog>) {
    for key in [String::new(), "k".repeat(KEY_BYTES_MAX + 1)] {
        let result = catalog.write(Batch::new().put(COLOURS, key, "x"), Durability::Synced).await;
        assert!(matches!(result, Err(Error::KeyLength { .. })));
    }
    // Ids and cursors come from clients, who may send anything.
    let endless = "k".repeat(1 << 17);
    assert_eq!(catalog.get(COLOURS, endless.as_bytes()).await.unwrap(), None);
    let range = KeyRange::all().after(endless, Direction::Forward);
    let result = catalog.scan(COLOURS, range, Direction::Forward, 9).await;
    assert!(matches!(result, Err(Error::KeyLength { .. })));
    let longest = "k".repeat(KEY_BYTES_MAX);
    catalog.write(Batch::new().put(COLOURS, longest.as_str(), "x"), Durability::Synced).await.unwrap();
    assert_eq!(catalog.get(COLOURS, longest.as_bytes()).await.unwrap().unwrap(), "x");
}

async fn verifies(catalog: Arc<dyn Catalog>) {
    put(&*catalog, COLOURS, &["a", "b"]).await;
    put(&*catalog, COLOURS_BY, &["a"]).await;
    let report = catalog.verify().await.unwrap();
    let expected = BTreeMap::from([("colours".to_owned(), 2), ("colours_by".to_owned(), 1)]);
    assert_eq!(report, Report { tables: expected, bytes: 3 * (1 + 10), problems: vec![] });
}

macro_rules! suite {
    ($($test:ident),*) => {
        mod on_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(std::sync::Arc::new(crate::MemoryCatalog::new())).await;
            })*
        }
        mod on_fjall {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let folder = tempfile::tempdir().unwrap();
                super::$test(std::sync::Arc::new(crate::FjallCatalog::open(folder.path()).unwrap())).await;
            })*
        }
    };
}

suite!(get_put_delete, scans, conditions, races, bad_keys, verifies);
