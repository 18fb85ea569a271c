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
    let cut = engine.cut(&|| false, &mut |_| ()).unwrap();
    snapshots
        .create(name, Source::from(&cut), &WORK)
        .await
        .unwrap()
        .manifest
}

fn token(token: Token) -> PointInTime {
    PointInTime::Token(token)
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
    let mut history: Vec<(Token, u64, Oracle)> = Vec::new();
    for n in 0..STEPS {
        write(&engine, &mut oracle, n);
        if n % 10 == 0 {
            engine.optimize("c", &|| false, &mut |_| ()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
        history.push((engine.applied(), engine.now_ms(), oracle.clone()));
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
        let (at, ms, expected) = &history[n];
        for (kind, to) in [("token", token(*at)), ("time", PointInTime::TimeMs(*ms))] {
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
                (base, at.to_string()),
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
        PointInTime::TimeMs(history[19].1),
        PointInTime::TimeMs(u64::MAX),
    ] {
        assert_eq!(restore(None, outside).await, Err("moment_not_restorable"), "{outside}");
    }
    let next = Token {
        seq: Seq(last.seq.0 + 1),
        ..last
    };
    assert_eq!(restore(None, token(next)).await, Err("token_unknown"));
    assert_eq!(
        restore(Some("s50"), token(history[40].0)).await,
        Err("moment_not_restorable")
    );
    assert_eq!(restore(Some("no"), token(last)).await, Err("snapshot_not_found"));
    // With the snapshots of two databases somebody must say which.
    snapshot(&stranger, &snapshots, "stranger").await;
    assert_eq!(restore(None, token(history[60].0)).await, Err("snapshot_ambiguous"));
    let newest = restore_into(&target, None, None, &|_| ()).await;
    assert_eq!(newest.unwrap_err().code, "snapshot_ambiguous");
    assert!(!target.data_dir.join("db").exists());
    assert!(restore(Some("s20"), token(history[60].0)).await.is_ok());
    assert_eq!(scan(&open(&target)), history[60].2);
}

/// Two servers go on from one snapshot, under the same numbers; or one is restored, and what it had written after is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_leads_to_the_state_that_its_write_made_in_whichever_history_that_was() {
    let dir = tempfile::tempdir().unwrap();
    let config = keeping(dir.path(), "data");
    let (engine, snapshots) = (open(&config), of(&config));
    engine.create_collection("c", schema(1)).unwrap();
    let mut oracle = Oracle::new();
    (0..30).for_each(|n| write(&engine, &mut oracle, n));
    let first = snapshot(&engine, &snapshots, "first").await;
    let second = keeping(dir.path(), "second");
    restore_into(&second, Some("first"), None, &|_| ()).await.unwrap();
    let (second, mut theirs) = (open(&second), oracle.clone());
    assert_eq!(second.applied().to_string(), first.token, "nothing was written yet");
    // What each was after each write.
    let mut moments: Vec<(Token, Token, Oracle, Oracle)> = Vec::new();
    for n in 30..50 {
        write(&engine, &mut oracle, n);
        write(&second, &mut theirs, n + 40);
        moments.push((engine.applied(), second.applied(), oracle.clone(), theirs.clone()));
    }
    let (ours_at, theirs_at, ours_then, theirs_then) = moments[10].clone();
    assert!(ours_at.seq == theirs_at.seq && ours_at != theirs_at && ours_then != theirs_then);
    let ours = snapshot(&engine, &snapshots, "ours").await;
    let restored = |name: Option<&'static str>, into: &'static str, to: Token| {
        let into = self::config(dir.path(), into);
        async move {
            restore_into(&into, name, Some(token(to)), &|_| ())
                .await
                .map(|_| scan(&open(&into)))
                .map_err(|e| (e.kind, e.code))
        }
    };
    // Of the second nothing is left but its directory: its tokens lead nowhere, though there are records of their numbers.
    let unknown = Err((ErrorKind::Conflict, "token_unknown"));
    assert_eq!(restored(None, "none", theirs_at).await, unknown);
    assert_eq!(restored(None, "one", ours_at).await, Ok(ours_then.clone()));
    // With a snapshot of both, both lead to what was there.
    snapshot(&second, &snapshots, "theirs").await;
    assert_eq!(restored(None, "two", theirs_at).await, Ok(theirs_then));
    assert_eq!(restored(None, "three", ours_at).await, Ok(ours_then));
    // From a snapshot of the one no token of the other is reached.
    let refused = restored(Some("ours"), "none", second.applied()).await;
    assert_eq!(refused, Err((ErrorKind::NotFound, "moment_not_restorable")));
    assert!(!self::config(dir.path(), "none").data_dir.join("db").exists());
    assert_eq!(ours.log_from.seq, Seq(1));
    assert_eq!(restored(Some("first"), "four", second.applied()).await, Ok(theirs));
}

/// What an instance held at a time is what it held, not what its successor has of that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_of_the_history_that_counted_then() {
    let dir = tempfile::tempdir().unwrap();
    let config = keeping(dir.path(), "data");
    let (engine, snapshots) = (open(&config), of(&config));
    let pause = || std::thread::sleep(Duration::from_millis(3));
    // A time with nothing else in it.
    let now = |engine: &Engine| {
        pause();
        let now = engine.now_ms();
        pause();
        now
    };
    engine.create_collection("c", schema(1)).unwrap();
    let mut oracle = Oracle::new();
    (0..10).for_each(|n| write(&engine, &mut oracle, n));
    snapshot(&engine, &snapshots, "first").await;
    let restored = oracle.clone();
    (10..20).for_each(|n| write(&engine, &mut oracle, n));
    let (then, held_then) = (now(&engine), oracle.clone());
    (20..30).for_each(|n| write(&engine, &mut oracle, n));
    snapshot(&engine, &snapshots, "given-up").await;
    (30..35).for_each(|n| write(&engine, &mut oracle, n));
    let lost = now(&engine);
    drop(engine);
    std::fs::remove_dir_all(&config.data_dir).unwrap();
    restore_into(&config, Some("first"), None, &|_| ()).await.unwrap();
    let (engine, mut oracle) = (open(&config), restored.clone());
    let begun = now(&engine);
    (40..50).for_each(|n| write(&engine, &mut oracle, n));
    let (later, held_later) = (now(&engine), oracle.clone());
    (50..55).for_each(|n| write(&engine, &mut oracle, n));
    snapshot(&engine, &snapshots, "goes-on").await;
    for (into, ms, held) in [
        ("then", then, &held_then),
        ("begun", begun, &restored),
        ("later", later, &held_later),
    ] {
        let into = self::config(dir.path(), into);
        let to = PointInTime::TimeMs(ms);
        restore_into(&into, None, Some(to), &|_| ()).await.unwrap();
        assert_eq!(scan(&open(&into)), *held, "{into:?}");
    }
    let into = self::config(dir.path(), "lost");
    let refused = restore_into(&into, None, Some(PointInTime::TimeMs(lost)), &|_| ()).await;
    assert_eq!(refused.unwrap_err().code, "moment_not_restorable");
}

/// A log that does not hold what its snapshot says is found out when it is followed; then the next is.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_log_has_a_gap_another_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let config = keeping(dir.path(), "data");
    let (engine, snapshots) = (open(&config), of(&config));
    engine.create_collection("c", schema(1)).unwrap();
    let mut oracle = Oracle::new();
    (0..10).for_each(|n| write(&engine, &mut oracle, n));
    let base = snapshot(&engine, &snapshots, "base").await;
    (10..20).for_each(|n| write(&engine, &mut oracle, n));
    let (at, expected) = (engine.applied(), oracle.clone());
    (20..30).for_each(|n| write(&engine, &mut oracle, n));
    snapshot(&engine, &snapshots, "whole").await;
    drop(engine);
    // It keeps nothing any more, and says that it does.
    let engine = open(&self::config(dir.path(), "data"));
    engine.optimize("c", &|| false, &mut |_| ()).unwrap();
    let cut = engine.cut(&|| false, &mut |_| ()).unwrap();
    assert!(cut.log_from.seq > at.seq, "{cut:?}");
    let mut source = Source::from(&cut);
    source.about.log_from = base.log_from;
    snapshots.create("gap", source, &WORK).await.unwrap();
    let into = self::config(dir.path(), "into");
    restore_into(&into, None, Some(token(at)), &|_| ()).await.unwrap();
    assert_eq!(scan(&open(&into)), expected);
    // Without another it is an error, and nothing stays.
    delete(&snapshots, "whole").await.unwrap();
    let into = self::config(dir.path(), "nothing");
    let refused = restore_into(&into, None, Some(token(at)), &|_| ()).await.unwrap_err();
    assert_eq!(refused.code, "history_diverged", "{refused}");
    assert!(!into.data_dir.join("db").exists() && !into.data_dir.join("restoring").exists());
}
