//! A snapshot followed to any later token or time, against a model kept beside the database; what the log is kept for, and
//! what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::storage::{Effects, LOG, META};
use crate::types::{Epoch, EpochId};

const START: u64 = 1_700_000_000_000;
const MINUTE: u64 = limits::LOG_STRETCH_MS;

/// A clock that is set.
#[derive(Default)]
struct Set(AtomicU64);

impl Clock for Set {
    fn now_ms(&self) -> u64 {
        START + self.0.load(Ordering::Relaxed)
    }
}

fn at(clock: &Arc<Set>) -> Components {
    Components {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        ..components()
    }
}

/// Everything is kept, unless said otherwise.
fn keeping() -> Settings {
    Settings {
        log_retention_ms: 1_000_000 * MINUTE,
        ..small()
    }
}

/// All collections, by name.
type Models = BTreeMap<String, Model>;

/// A moment of the database: what it held after a record, when that record was written, and until when nothing followed it.
struct Moment {
    token: Token,
    at_ms: u64,
    models: Models,
}

/// A database, what it should hold, and what it held after each record.
struct Story {
    clock: Arc<Set>,
    engine: Engine,
    models: Models,
    moments: Vec<Moment>,
    chance: Chance,
    n: u64,
}

impl Story {
    fn begin(dir: &Path, seed: u64) -> Self {
        let clock = Arc::new(Set::default());
        Self {
            engine: Engine::open(dir, keeping(), at(&clock)).unwrap(),
            clock,
            models: Models::new(),
            moments: Vec::new(),
            chance: Chance::new(seed),
            n: 0,
        }
    }

    /// A random operation on a random collection, some time after the one before.
    fn step(&mut self) {
        self.n += 1;
        self.clock
            .0
            .fetch_add(1 + self.chance.below(MINUTE / 4), Ordering::Relaxed);
        let name = ["a", "b", "c"][self.chance.below(3) as usize];
        match (self.chance.below(25), self.models.get_mut(name)) {
            (_, None) => {
                let shards = 1 + self.chance.below(3) as u32;
                self.engine.create_collection(name, schema(shards)).unwrap();
                self.models.insert(name.to_owned(), Model::default());
            }
            (0, Some(_)) => {
                self.engine.drop_collection(name, &WriteOptions::default()).unwrap();
                self.models.remove(name);
            }
            // A request that is made twice is done once: whether it was is part of the state.
            (1, Some(model)) => {
                let options = WriteOptions {
                    request: Some(Request {
                        id: format!("r{}", self.n / 4),
                        ..Request::default()
                    }),
                    ..WriteOptions::default()
                };
                let write = loop {
                    let write = Write::random(&mut self.chance, SPACE, self.n);
                    if matches!(write, Write::Upsert(_)) {
                        break write;
                    }
                };
                if !write.run(&self.engine, name, &options).unwrap().replayed {
                    write.apply(model);
                }
            }
            (_, Some(model)) => {
                let write = Write::random(&mut self.chance, SPACE, self.n);
                write.apply(model);
                write.run(&self.engine, name, &WriteOptions::default()).unwrap();
            }
        }
        if self.chance.below(3) == 0 {
            self.engine.maintain(&|| false).unwrap();
        }
        self.moments.push(Moment {
            token: self.engine.applied(),
            at_ms: self.engine.now_ms(),
            models: self.models.clone(),
        });
    }

    fn steps(&mut self, n: u64) {
        (0..n).for_each(|_| self.step());
    }

    /// A copy of a cut, as a snapshot keeps it.
    fn snapshot(&self, to: &Path) -> Cut {
        let cut = self.engine.cut(&|| false, &mut |_| ()).unwrap();
        crash_image(cut.dir(), to);
        cut
    }

    fn check(&mut self, engine: &Engine, models: &Models) {
        assert!(engine.collection_names().iter().eq(models.keys()));
        for (name, model) in models {
            check(engine, name, model, &mut self.chance);
        }
    }

    /// What stands here, brought to a later moment by the records of `past`, is what it was then.
    fn follow(&mut self, base: &Path, past: &Past, moment: usize) {
        let Moment { token, at_ms, .. } = self.moments[moment];
        let models = self.moments[moment].models.clone();
        let next_ms = self.moments.get(moment + 1).map_or(u64::MAX, |next| next.at_ms);
        let untils = [Until::Token(token), Until::TimeMs(at_ms), Until::TimeMs(next_ms - 1)];
        let until = untils[self.chance.below(3) as usize];
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("0");
        crash_image(base, &dir);
        let engine = Engine::open_as_left(&dir, small(), at(&self.clock)).unwrap();
        let mut told = Vec::new();
        let done = engine
            .replay(past, until, &|| false, &mut |part| told.push(part))
            .unwrap();
        assert_eq!((done.token, engine.applied()), (token, token), "{until:?}");
        assert!(told.is_sorted() && told.last() == Some(&1.0), "{told:?}");
        self.check(&engine, &models);
        // And it stays so, and can be written.
        drop(engine);
        let engine = Engine::open(&dir, small(), at(&self.clock)).unwrap();
        assert_eq!(engine.applied(), token);
        self.check(&engine, &models);
        engine.create_collection("more", schema(1)).unwrap();
        drop(engine);
    }
}

fn moment_of(past: &Story, token: Token) -> usize {
    past.moments
        .iter()
        .rposition(|moment| moment.token.seq <= token.seq)
        .unwrap()
}

#[test]
fn a_snapshot_is_followed_to_any_token_or_time_by_the_log_or_by_a_later_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut past = Story::begin(&dir.path().join("data"), 61);
    past.steps(30);
    let mut snapshots: Vec<(PathBuf, Token)> = Vec::new();
    for i in 0..4 {
        past.steps(40);
        let to = dir.path().join(format!("snapshot-{i}"));
        let cut = past.snapshot(&to);
        assert_eq!(cut.log_from.seq, Seq(1), "everything is kept");
        snapshots.push((to, cut.token));
    }
    past.steps(40);
    let stats = past.engine.stats();
    assert!(stats.seals > 3 && stats.retained_records > 20, "{stats:?}");
    let log = past.engine.past().unwrap();
    for _ in 0..8 {
        let (base, from) = snapshots[past.chance.below(4) as usize].clone();
        let from = moment_of(&past, from);
        let to = from + past.chance.below((past.moments.len() - from) as u64) as usize;
        past.follow(&base, &log, to);
    }
    drop(log);
    // The data directory is lost.
    let (last, end) = snapshots.pop().unwrap();
    let end = moment_of(&past, end);
    for _ in 0..6 {
        let (base, from) = snapshots[past.chance.below(3) as usize].clone();
        let from = moment_of(&past, from);
        let to = from + past.chance.below((end - from + 1) as u64) as usize;
        let log = Past::open(&last.join("db")).unwrap();
        past.follow(&base, &log, to);
    }
}

#[test]
fn a_replay_that_is_cut_off_leaves_a_moment_that_can_be_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut past = Story::begin(&dir.path().join("data"), 62);
    past.steps(20);
    let base = dir.path().join("base");
    past.snapshot(&base);
    past.engine.create_collection("often", schema(1)).unwrap();
    let options = WriteOptions {
        durability: Some(Durability::Async),
        ..WriteOptions::default()
    };
    // More than one group of records.
    for n in 0..3 * limits::GROUP_COMMIT_RECORDS_MAX as u64 {
        let point = vec![simple_point("often", n)];
        past.engine.upsert("often", point, &options).unwrap();
    }
    let end = past.engine.applied();
    let log = past.engine.past().unwrap();
    let engine = Engine::open_as_left(&base, small(), at(&past.clock)).unwrap();
    let before = engine.applied();
    // Stopped in the middle, and killed there.
    let image = dir.path().join("image");
    let stopped = std::cell::Cell::new(false);
    let error = engine
        .replay(&log, Until::Token(end), &|| stopped.get(), &mut |part| {
            if part > 0.5 && !stopped.replace(true) {
                crash_image(&base, &image);
            }
        })
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    drop(engine);
    for dir in [&base, &image] {
        let engine = Engine::open_as_left(dir, small(), at(&past.clock)).unwrap();
        let there = engine.applied();
        assert!(before.seq < there.seq && there.seq < end.seq, "{before} {there} {end}");
        engine.replay(&log, Until::Token(end), &|| false, &mut |_| {}).unwrap();
        assert_eq!(engine.applied(), end);
        let with = With {
            payload: true,
            ..With::default()
        };
        let often = engine.get("often", &ids(&["often".into()]), with).unwrap();
        let expected = past.engine.get("often", &ids(&["often".into()]), with).unwrap();
        assert_eq!(
            (&often[0].payload, often[0].version),
            (&expected[0].payload, expected[0].version)
        );
    }
}

/// Numbers are the same in both, and the records are not.
#[test]
fn a_log_that_parted_is_refused_and_so_is_one_with_a_gap_or_too_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut past = Story::begin(&dir.path().join("data"), 63);
    past.steps(60);
    let (base, other) = (dir.path().join("base"), dir.path().join("other"));
    let cut = past.snapshot(&base);
    crash_image(&base, &other);
    let parted = Engine::open(&other, keeping(), at(&past.clock)).unwrap();
    past.steps(20);
    parted.create_collection("parted", schema(1)).unwrap();
    for n in 0..40 {
        let point = vec![simple_point("p", n)];
        parted.upsert("parted", point, &WriteOptions::default()).unwrap();
    }
    let copies = std::cell::Cell::new(0);
    let open = |base: &Path| {
        let copy = dir.path().join(format!("copy-{}", copies.replace(copies.get() + 1)));
        crash_image(base, &copy);
        Engine::open_as_left(&copy, small(), at(&past.clock)).unwrap()
    };
    let replay = |engine: &Engine, log: &Past, until| {
        let before = engine.applied();
        let done = engine.replay(log, until, &|| false, &mut |_| {});
        if done.is_err() {
            assert_eq!(engine.applied(), before, "nothing was applied");
        }
        done.map(|done| done.token).map_err(|error| error.code)
    };
    let (ours, theirs) = (past.engine.past().unwrap(), parted.past().unwrap());
    let engine = open(&base);
    // Both follow the snapshot.
    assert_eq!(ours.history_at(cut.token.seq).unwrap(), Some(cut.history));
    assert_eq!(theirs.history_at(cut.token.seq).unwrap(), Some(cut.history));
    let first = ours.epochs.token(Seq(cut.token.seq.0 + 1));
    // A token of one of them leads nowhere in the other, though there is a record of its number.
    assert_eq!(replay(&engine, &theirs, Until::Token(first)), Err("token_unknown"));
    assert_eq!(replay(&engine, &ours, Until::Token(theirs.last)), Err("token_unknown"));
    assert_eq!(replay(&engine, &ours, Until::Token(first)), Ok(first));
    // But not each other.
    let second = Until::Token(theirs.epochs.token(Seq(first.seq.0 + 1)));
    assert_eq!(replay(&engine, &theirs, second), Err("history_diverged"));
    assert_eq!(
        replay(&engine, &theirs, Until::TimeMs(u64::MAX)),
        Err("history_diverged")
    );
    let far = Until::Token(ours.epochs.token(Seq(ours.last.seq.0 + 1)));
    let all = replay(&engine, &ours, Until::TimeMs(u64::MAX));
    assert_eq!(all, Ok(ours.last));
    assert_eq!(replay(&engine, &ours, far), Err("token_unknown"));
    // What is there already is no way back.
    assert_eq!(
        replay(&engine, &ours, Until::Token(cut.token)),
        Err("moment_not_restorable")
    );
    drop(engine);

    // Another database, though its numbers fit.
    let stranger = Engine::open(&dir.path().join("stranger"), keeping(), at(&past.clock)).unwrap();
    stranger.create_collection("s", schema(1)).unwrap();
    for n in 0..200 {
        let point = vec![simple_point("p", n)];
        stranger.upsert("s", point, &WriteOptions::default()).unwrap();
    }
    let engine = open(&base);
    assert_eq!(
        replay(&engine, &stranger.past().unwrap(), Until::Token(ours.last)),
        Err("history_diverged")
    );

    // A log without what comes next.
    let forgetful = dir.path().join("forgetful");
    crash_image(&dir.path().join("data"), &forgetful);
    let forgetful = Engine::open(&forgetful, small(), at(&past.clock)).unwrap();
    for name in forgetful.collection_names() {
        forgetful.optimize(&name, &|| false, &mut |_| {}).unwrap();
    }
    let log = forgetful.past().unwrap();
    assert!(log.first > cut.token.seq, "{log:?}");
    for until in [Until::Token(log.last), Until::TimeMs(u64::MAX)] {
        assert_eq!(replay(&engine, &log, until), Err("moment_not_restorable"));
    }
}

/// Writes a record a minute and seals each.
fn minutes(engine: &Engine, clock: &Set, n: u64) {
    for i in 0..n {
        clock.0.fetch_add(MINUTE, Ordering::Relaxed);
        let points = (0..60).map(|p| simple_point(&format!("p{p}"), i)).collect();
        engine.upsert("c", points, &WriteOptions::default()).unwrap();
        while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    }
}

#[test]
fn the_log_is_kept_for_its_time_within_its_bytes_and_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set::default());
    let with = |ms: u64, bytes: u64| {
        let settings = Settings {
            log_retention_ms: ms,
            log_retention_bytes_max: bytes,
            ..small()
        };
        let engine = Engine::open(dir.path(), settings, at(&clock)).unwrap();
        engine.create_collection("c", schema(1)).unwrap();
        engine
    };
    let engine = with(20 * MINUTE, 1 << 30);
    minutes(&engine, &clock, 50);
    let stats = engine.stats();
    let kept = stats.applied_seq + 1 - stats.log_start_seq;
    assert!((20..=24).contains(&kept), "{stats:?}");
    assert!(
        stats.retained_records > 15 && stats.retained_bytes > 15_000,
        "{stats:?}"
    );
    assert!(engine.now_ms() - stats.log_oldest_ms <= 24 * MINUTE, "{stats:?}");
    let per_record = stats.log_bytes / kept;
    drop(engine);

    // A restart knows what there is; time goes on though nothing is written.
    let engine = with(20 * MINUTE, 1 << 30);
    assert_eq!(engine.stats().log_start_seq, stats.log_start_seq);
    clock.0.fetch_add(100 * MINUTE, Ordering::Relaxed);
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    let stats = engine.stats();
    assert_eq!(
        (stats.log_start_seq, stats.retained_bytes),
        (stats.applied_seq + 1, 0),
        "{stats:?}"
    );
    drop(engine);

    let engine = with(1_000 * MINUTE, 10 * per_record);
    minutes(&engine, &clock, 50);
    let stats = engine.stats();
    let kept = stats.applied_seq + 1 - stats.log_start_seq;
    assert!((5..=11).contains(&kept), "{stats:?}");
    drop(engine);

    // Not kept at all: as soon as it is sealed it goes.
    let engine = with(0, 1 << 30);
    minutes(&engine, &clock, 3);
    engine.flush().unwrap();
    let stats = engine.stats();
    assert_eq!(
        (stats.log_start_seq, stats.retained_records),
        (stats.applied_seq + 1, 0),
        "{stats:?}"
    );
}

#[test]
fn a_nearly_full_disk_takes_what_is_only_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set::default());
    let open = |reserve| {
        let settings = Settings {
            disk_reserve_bytes: reserve,
            ..keeping()
        };
        let engine = Engine::open(dir.path(), settings, at(&clock)).unwrap();
        engine.create_collection("c", schema(1)).unwrap();
        engine
    };
    let engine = open(1);
    minutes(&engine, &clock, 30);
    let stats = engine.stats();
    assert_eq!((stats.log_start_seq, stats.retention_cut_bytes), (1, 0), "{stats:?}");
    let free = stats.disk.free;
    drop(engine);

    // Between the reserve and a quarter more: writes go on.
    let engine = open(free / 100 * 89);
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    let after = engine.stats();
    assert_eq!(
        (after.log_start_seq, after.retained_bytes),
        (after.applied_seq + 1, 0),
        "{after:?}"
    );
    assert!(after.retention_cut_bytes >= stats.retained_bytes, "{after:?}");
    engine
        .upsert("c", vec![simple_point("p", 1)], &WriteOptions::default())
        .unwrap();
    drop(engine);
    let engine = open(1);
    assert_eq!(engine.collection("c").unwrap().points, 61);
    assert!(engine.stats().log_start_seq > stats.log_start_seq);
}

/// A token is taken by the history that its write is in, and by no other, for reads as for restores.
#[test]
fn a_token_is_told_from_that_of_another_history_with_the_same_number() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set::default());
    let data = dir.path().join("data");
    let open = |dir: &Path| Engine::open(dir, keeping(), at(&clock)).unwrap();
    let write = |engine: &Engine, id: &str, n| {
        let point = vec![simple_point(id, n)];
        engine.upsert("c", point, &WriteOptions::default()).unwrap().token
    };
    let seen = |engine: &Engine, token| {
        let scroll = Scroll {
            after: Some(token),
            limit: 1,
            ..Scroll::default()
        };
        engine.scroll("c", &scroll).map(drop).map_err(|error| error.code)
    };
    let engine = open(&data);
    let none = engine.applied();
    engine.create_collection("c", schema(1)).unwrap();
    let shared = write(&engine, "p", 0);
    drop(engine);
    // A copy of the directory, or of a moment of it: two go on.
    let copy = dir.path().join("copy");
    crash_image(&data, &copy);
    let (ours, theirs) = (open(&data), open(&copy));
    let of_ours: Vec<Token> = (1..5).map(|n| write(&ours, "p", n)).collect();
    let of_theirs: Vec<Token> = (1..5).map(|n| write(&theirs, "p", 10 * n)).collect();
    for (engine, own, others) in [(&ours, &of_ours, &of_theirs), (&theirs, &of_theirs, &of_ours)] {
        for token in own.iter().chain([&shared, &none, &Token::default()]) {
            assert_eq!(seen(engine, *token), Ok(()), "{token}");
        }
        for token in others {
            assert_eq!(seen(engine, *token), Err("token_unknown"), "{token}");
        }
        let next = Token {
            seq: Seq(own[3].seq.0 + 1),
            ..own[3]
        };
        assert_eq!(seen(engine, next), Err("not_caught_up"));
        // Versions are tokens, also of rows that are sealed and of records that are trimmed.
        engine.optimize("c", &|| false, &mut |_| {}).unwrap();
        let point = &engine.get("c", &ids(&["p".into()]), With::default()).unwrap()[0];
        assert_eq!((point.version, engine.applied()), (own[3], own[3]));
    }
    drop(ours);
    // Opened again nothing is forgotten, and what was never written is nobody's.
    let ours = open(&data);
    let later = Token {
        seq: Seq(of_ours[3].seq.0 + 1),
        ..of_ours[3]
    };
    assert_eq!(
        (seen(&ours, of_ours[3]), seen(&ours, of_theirs[0]), seen(&ours, later)),
        (Ok(()), Err("token_unknown"), Err("token_unknown"))
    );
    let after = write(&ours, "p", 9);
    assert_eq!((after.seq, after.epoch == later.epoch), (later.seq, false));
}

/// Openings that write nothing leave nothing.
#[test]
fn each_opening_that_writes_is_an_epoch_and_is_read_back_from_the_log_or_from_what_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set::default());
    let mut expected = Epochs::default();
    let mut last_ms = 0;
    for n in 0..8 {
        clock.0.fetch_add(MINUTE, Ordering::Relaxed);
        let engine = Engine::open(dir.path(), keeping(), at(&clock)).unwrap();
        assert_eq!(**engine.shared.epochs.load(), expected, "{n}");
        if n % 3 > 0 {
            let opened_ms = engine.now_ms();
            clock.0.fetch_add(MINUTE, Ordering::Relaxed);
            engine.create_collection(&format!("c{n}"), schema(1)).unwrap();
            expected = expected.begin(Epoch {
                id: engine.shared.opening.epoch,
                first: engine.applied().seq,
                silent_from_ms: last_ms,
                opened_ms,
            });
            last_ms = engine.now_ms();
            engine.create_collection(&format!("d{n}"), schema(1)).unwrap();
        }
        if n % 2 == 0 {
            engine.shared.flush("flush").unwrap();
        }
    }
    assert_eq!(expected.all().len(), 6);
}

#[test]
fn a_directory_of_before_there_were_epochs_goes_on_and_keeps_its_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Engine::open(dir.path(), small(), components()).unwrap();
    let engine = open();
    engine.create_collection("c", schema(1)).unwrap();
    let written = engine
        .upsert("c", vec![simple_point("p", 1)], &WriteOptions::default())
        .unwrap();
    engine.optimize("c", &|| false, &mut |_| {}).unwrap();
    assert_eq!(
        engine.stats().log_start_seq,
        written.token.seq.0 + 1,
        "no record is left"
    );
    let storage = &engine.shared.storage;
    let mut effects = Effects::new(storage);
    effects.put(META, b"format", &2u32.to_le_bytes());
    effects.delete(META, b"epochs");
    effects.delete(META, b"applied_ms");
    storage.write_effects(effects).unwrap();
    engine.shared.flush("flush").unwrap();
    drop(engine);
    let engine = open();
    let version = |engine: &Engine| engine.get("c", &ids(&["p".into()]), With::default()).unwrap()[0].version;
    let old: Token = format!("c1-1-0-{:x}", written.token.seq.0).parse().unwrap();
    assert_eq!((version(&engine), engine.applied()), (old, old));
    engine.check_after(Some(old)).unwrap();
    let now = engine.upsert("c", vec![simple_point("q", 1)], &WriteOptions::default());
    assert!(now.unwrap().token.epoch != EpochId::BEFORE);
    drop(engine);
    let engine = open();
    assert_eq!(version(&engine), old);
    engine.check_after(Some(old)).unwrap();
    let format = engine.shared.storage.get(META, b"format").unwrap();
    assert_eq!(format, Some(3u32.to_le_bytes().to_vec()));
}

/// A disk of which so much is kept free that it is nearly full, and writes go on.
fn nearly_full(settings: Settings, free: u64) -> Settings {
    Settings {
        disk_reserve_bytes: free / 100 * 89,
        ..settings
    }
}

#[test]
fn what_a_restore_reads_of_the_log_stays_while_it_does_on_a_nearly_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set::default());
    let data = dir.path().join("data");
    let engine = Engine::open(&data, keeping(), at(&clock)).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    minutes(&engine, &clock, 10);
    let cut = engine.cut(&|| false, &mut |_| ()).unwrap();
    let base = dir.path().join("base");
    crash_image(cut.dir(), &base);
    let snapshot = cut.token;
    drop(cut);
    minutes(&engine, &clock, 10);
    let (last, free) = (engine.applied(), engine.stats().disk.free);
    assert!(engine.shared.space.is_keeping_log());
    drop(engine);

    let engine = Engine::open(&data, nearly_full(keeping(), free), at(&clock)).unwrap();
    let past = engine.past_after(snapshot.seq).unwrap();
    let tidy = || {
        clock.0.fetch_add(MINUTE, Ordering::Relaxed);
        while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
        engine.stats()
    };
    let stats = tidy();
    assert_eq!(
        stats.log_start_seq,
        snapshot.seq.0 + 1,
        "what is before the snapshot went"
    );
    assert!(stats.retention_cut_bytes > 0 && stats.retained_bytes > 0, "{stats:?}");
    let restored = Engine::open_as_left(&base, small(), at(&clock)).unwrap();
    let done = restored
        .replay(&past, Until::Token(last), &|| false, &mut |_| {})
        .unwrap();
    assert_eq!(done.token, last);
    // Two may read it, and the first to end takes nothing from the other.
    let other = engine.past_after(Seq(snapshot.seq.0 + 5)).unwrap();
    drop(past);
    assert_eq!(tidy().log_start_seq, snapshot.seq.0 + 6);
    drop(other);
    let stats = tidy();
    assert_eq!(stats.log_start_seq, last.seq.0 + 1, "{stats:?}");
    assert!(!engine.shared.space.is_keeping_log());
}

/// RocksDB takes a table whole if its last key is the last of the range: that one must be of a record that nobody needs.
#[test]
fn giving_back_room_leaves_the_record_that_a_row_needs_at_the_end_of_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set::default());
    let engine = Engine::open(dir.path(), keeping(), at(&clock)).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    engine.create_collection("d", schema(1)).unwrap();
    minutes(&engine, &clock, 10);
    // Too few to be sealed.
    clock.0.fetch_add(MINUTE, Ordering::Relaxed);
    let needed = engine
        .upsert("d", vec![simple_point("p", 1)], &WriteOptions::default())
        .unwrap()
        .token;
    engine.shared.flush("flush").unwrap();
    // One table, of which the record is the last.
    engine.shared.storage.compact(LOG);
    let free = engine.stats().disk.free;
    drop(engine);

    let engine = Engine::open(dir.path(), nearly_full(keeping(), free), at(&clock)).unwrap();
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    let stats = engine.stats();
    assert_eq!(stats.log_start_seq, needed.seq.0, "{stats:?}");
    assert!(engine.shared.log.bytes(needed.seq).unwrap().is_some());
    drop(engine);
    let engine = Engine::open(dir.path(), keeping(), at(&clock)).unwrap();
    assert_eq!(engine.collection("d").unwrap().points, 1);
    assert_eq!(engine.collection("c").unwrap().points, 60);
}

#[test]
fn time_takes_nothing_of_the_log_while_points_are_in_a_damaged_file() {
    let root = tempfile::tempdir().unwrap();
    let (dir, aside) = (root.path().join("data"), root.path().join("aside"));
    let clock = Arc::new(Set::default());
    let open = || {
        let settings = Settings {
            log_retention_ms: 20 * MINUTE,
            ..small()
        };
        Engine::open(&dir, settings, at(&clock)).unwrap()
    };
    let engine = open();
    engine.create_collection("c", schema(1)).unwrap();
    minutes(&engine, &clock, 10);
    drop(engine);
    std::fs::rename(dir.join("segments"), &aside).unwrap();
    let engine = open();
    let start = engine.stats().log_start_seq;
    clock.0.fetch_add(100 * MINUTE, Ordering::Relaxed);
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    let stats = engine.stats();
    assert_eq!((stats.log_start_seq, stats.damaged_points), (start, 60), "{stats:?}");
    for damaged in engine.wanted() {
        let copy = aside.join(damaged.path.strip_prefix("segments/").unwrap());
        assert!(engine.take_back(damaged.place, &copy, &|| false).unwrap());
    }
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    let stats = engine.stats();
    assert_eq!(stats.log_start_seq, stats.applied_seq + 1, "{stats:?}");
}
