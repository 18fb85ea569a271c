//! A moment between snapshots, through a store: the data directory is gone, a later snapshot's log leads there.

use cairn_engine::Engine;
use cairn_engine::types::Seq;

use super::engine::{Oracle, config, of, open, scan, schema, write};
use super::*;
use crate::config::Config;

fn keeping(dir: &FilePath, data: &str) -> Config {
    let mut config = config(dir, data);
    config.engine.log_retention_ms = 3_600_000;
    config
}

async fn snapshot(engine: &Engine, snapshots: &Snapshots, name: &str) -> Manifest {
    let cut = engine.cut(&|| false).unwrap();
    snapshots
        .create(name, Source::from(&cut), &WORK)
        .await
        .unwrap()
        .manifest
}

fn token(seq: Seq) -> PointInTime {
    PointInTime::Token(Token::local(seq))
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_between_two_snapshots_comes_back_though_the_directory_is_lost() {
    const STEPS: u64 = 120;
    let dir = tempfile::tempdir().unwrap();
    let config = keeping(dir.path(), "data");
    let (engine, snapshots) = (open(&config), of(&config));
    engine.create_collection("c", schema(2)).unwrap();
    let mut oracle = Oracle::new();
    // What there was after each write, with a time at which nothing happened.
    let mut history: Vec<(Seq, u64, Oracle)> = Vec::new();
    for n in 0..STEPS {
        write(&engine, &mut oracle, n);
        if n % 10 == 0 {
            engine.optimize("c", &|| false, &mut |_| ()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
        history.push((engine.applied().seq, engine.now_ms(), oracle.clone()));
        std::thread::sleep(Duration::from_millis(2));
        if n == 20 || n == 50 || n == STEPS - 1 {
            snapshot(&engine, &snapshots, &format!("s{n}")).await;
        }
    }
    // Of another use of the same store.
    let other = keeping(dir.path(), "other");
    let stranger = open(&other);
    stranger.create_collection("c", schema(1)).unwrap();
    (0..200).for_each(|n| write(&stranger, &mut Oracle::new(), n));
    drop(engine);
    std::fs::remove_dir_all(&config.data_dir).unwrap();
    for (i, n) in [20, 21, 40, 50, 51, 77, 118, 119].into_iter().enumerate() {
        let (seq, ms, expected) = &history[n];
        for (kind, to) in [("token", token(*seq)), ("time", PointInTime::TimeMs(*ms))] {
            // A snapshot is taken a little later than the time of its last write.
            let is_time = kind == "time";
            let base = match n {
                20 if is_time => continue,
                119 if !is_time => "s119",
                50 if !is_time => "s50",
                51.. => "s50",
                _ => "s20",
            };
            let into = self::config(dir.path(), &format!("restored-{kind}-{i}"));
            let restored = restore_into(&into, None, Some(to), &|_| ()).await.unwrap();
            assert_eq!(
                (restored.snapshot.as_str(), restored.token),
                (base, Token::local(*seq).to_string()),
                "{n} {kind}"
            );
            assert_eq!(restored.points, expected.len() as u64);
            let engine = open(&into);
            assert_eq!(scan(&engine), *expected, "{n} {kind}");
            write(&engine, &mut expected.clone(), 1);
        }
    }

    let target = self::config(dir.path(), "target");
    let restore = |name: Option<&'static str>, to| {
        let target = target.clone();
        async move { restore_into(&target, name, Some(to), &|_| ()).await.map_err(|e| e.code) }
    };
    let last = history[119].0;
    for outside in [
        token(history[19].0),
        token(Seq(last.0 + 1)),
        PointInTime::TimeMs(history[19].1),
        PointInTime::TimeMs(u64::MAX),
    ] {
        assert_eq!(restore(None, outside).await, Err("moment_not_restorable"), "{outside}");
    }
    assert_eq!(
        restore(Some("s50"), token(history[40].0)).await,
        Err("moment_not_restorable")
    );
    assert_eq!(restore(Some("no"), token(last)).await, Err("snapshot_not_found"));
    // With the snapshots of two databases somebody must say which.
    snapshot(&stranger, &snapshots, "stranger").await;
    assert_eq!(restore(None, token(history[60].0)).await, Err("snapshot_ambiguous"));
    assert!(!target.data_dir.join("db").exists());
    assert!(restore(Some("s20"), token(history[60].0)).await.is_ok());
    assert_eq!(scan(&open(&target)), history[60].2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_snapshot_of_a_log_that_parted_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let config = keeping(dir.path(), "data");
    let (engine, snapshots) = (open(&config), of(&config));
    engine.create_collection("c", schema(1)).unwrap();
    let mut oracle = Oracle::new();
    (0..30).for_each(|n| write(&engine, &mut oracle, n));
    let first = snapshot(&engine, &snapshots, "first").await;
    // Two go on from there, under the same numbers.
    let second = keeping(dir.path(), "second");
    restore_into(&second, Some("first"), None, &|_| ()).await.unwrap();
    let (second, mut theirs) = (open(&second), oracle.clone());
    (30..50).for_each(|n| write(&engine, &mut oracle, n));
    let ours = snapshot(&engine, &snapshots, "ours").await;
    (60..90).for_each(|n| write(&second, &mut theirs, n));
    snapshot(&second, &snapshots, "theirs").await;
    let begin = first.token.parse::<Token>().unwrap();
    let after = |n: u64| token(Seq(begin.seq.0 + n));

    // As long as both are there, the one that is nearer is tried first: which of the two is meant, the token does not say.
    let into = self::config(dir.path(), "one");
    restore_into(&into, None, Some(after(20)), &|_| ()).await.unwrap();
    assert_eq!(scan(&open(&into)), oracle);
    // From the snapshot of one the log of the other does not follow, though it has the numbers.
    let into = self::config(dir.path(), "two");
    let refused = restore_into(&into, Some("ours"), Some(after(25)), &|_| ())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.kind, refused.code),
        (ErrorKind::Conflict, "history_diverged"),
        "{refused}"
    );
    assert!(!into.data_dir.join("db").exists());
    assert_eq!(ours.log_from.seq, Seq(1));
    // From what both have, it does.
    restore_into(&into, Some("first"), Some(after(30)), &|_| ())
        .await
        .unwrap();
    assert_eq!(scan(&open(&into)), theirs);
}
