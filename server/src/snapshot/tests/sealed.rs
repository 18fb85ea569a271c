//! Sealed files that are sent before a snapshot needs them: sent once, kept while they are wanted, gone after that.

use cairn_engine::Engine;
use cairn_engine::engine::SealedFile;

use super::engine::{Oracle, config, open, scan, schema, write};
use super::*;
use crate::snapshot::sealed::{Looked, Uploads, forget};

const HOUR: u64 = 3_600_000;

/// Looks until there is nothing to send. How many files were sent.
async fn all(uploads: &mut Uploads, sealed: &[SealedFile], now_ms: u64) -> Result<usize> {
    let mut sent = 0;
    while let Looked::Sent(more) = uploads.look(sealed.to_vec(), now_ms, &WORK).await? {
        sent += more;
    }
    Ok(sent)
}

/// Names of contents in a store.
async fn contents(store: &InMemory) -> HashSet<String> {
    let keys = objects(store).await.into_keys();
    keys.filter_map(|key| Some(key.split_once("/objects/")?.1.to_owned()))
        .collect()
}

/// Writes, then seals what grows into a new file.
fn seal(engine: &Engine, oracle: &mut Oracle, n: u64) {
    (0..6).for_each(|i| write(engine, oracle, n * 6 + i));
    while engine.maintain(&|| false).unwrap() == cairn_engine::engine::Maintained::Worked {}
}

/// Where a hash of a file begins in the note.
fn sealed_hash(bytes: &[u8]) -> usize {
    const BEFORE: &[u8] = b"\"sha256\":\"";
    let found = bytes.windows(BEFORE.len()).rposition(|window| window == BEFORE);
    found.unwrap() + BEFORE.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_finds_what_was_sealed_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "data");
    config.engine.seal_rows = 60;
    let engine = open(&config);
    engine.create_collection("c", schema(2)).unwrap();
    let store = Arc::new(InMemory::new());
    let mut uploads = Uploads::open(over(&store), &config.data_dir);
    let mut oracle = Oracle::new();
    let now = engine.now_ms();
    for n in 0..5 {
        seal(&engine, &mut oracle, n);
        all(&mut uploads, &engine.sealed_files(), now).await.unwrap();
    }
    let sealed = engine.sealed_files();
    assert!(sealed.len() > 1, "{sealed:?}");
    let before = contents(&store).await;
    assert_eq!(all(&mut uploads, &sealed, now).await.unwrap(), 0, "each is sent once");

    // A restart knows what is there, also without its own note.
    drop(uploads);
    let mut uploads = Uploads::open(over(&store), &config.data_dir);
    assert_eq!(uploads.look(sealed.clone(), now, &WORK).await.unwrap(), Looked::Idle);
    // One bit of a hash would have it keep what nobody needs, and let go of what it sent.
    let note = config.data_dir.join("uploads.json");
    let mut bytes = std::fs::read(&note).unwrap();
    let hash = sealed_hash(&bytes);
    bytes[hash] = if bytes[hash] == b'0' { b'1' } else { b'0' };
    std::fs::write(&note, bytes).unwrap();
    let mut uploads = Uploads::open(over(&store), &config.data_dir);
    assert_eq!(all(&mut uploads, &sealed, now).await.unwrap(), sealed.len());
    assert_eq!(contents(&store).await, before, "they were looked for, and found");

    let cut = engine.cut(&|| false, &mut |_| ()).unwrap();
    let made = over(&store).create("s", Source::from(&cut), &WORK).await.unwrap();
    let files = made.manifest.files.iter();
    let (sealed, rest): (Vec<&FileEntry>, Vec<&FileEntry>) = files.partition(|file| file.path.ends_with(".seg"));
    assert!(
        sealed
            .iter()
            .all(|file| before.contains(&file.content().key()["objects/".len()..]))
    );
    assert_eq!(made.new_files, rest.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_stays_and_what_is_merged_away_goes_unless_a_snapshot_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "data");
    config.engine.seal_rows = 60;
    let engine = open(&config);
    engine.create_collection("c", schema(1)).unwrap();
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    let mut uploads = Uploads::open(over(&store), &config.data_dir).eager();
    let (mut oracle, now) = (Oracle::new(), engine.now_ms());
    (0..3).for_each(|n| seal(&engine, &mut oracle, n));
    all(&mut uploads, &engine.sealed_files(), now).await.unwrap();
    let first = contents(&store).await;
    assert!(!first.is_empty());

    // A delete removes what nobody names, and these are named by nobody but the server that wants them.
    let files = Files::new(&[b"one"]);
    snapshots.create("passing", files.source(), &WORK).await.unwrap();
    delete(&snapshots, "passing").await.unwrap();
    assert_eq!(contents(&store).await, first);

    // A snapshot names them, then they are merged away.
    let kept = snapshots
        .create(
            "kept",
            Source::from(&engine.cut(&|| false, &mut |_| ()).unwrap()),
            &WORK,
        )
        .await
        .unwrap()
        .manifest;
    seal(&engine, &mut oracle, 4);
    all(&mut uploads, &engine.sealed_files(), now).await.unwrap();
    engine.optimize("c", &|| false, &mut |_| ()).unwrap();
    all(&mut uploads, &engine.sealed_files(), now + 1).await.unwrap();
    assert_eq!(
        uploads.look(engine.sealed_files(), now + 2, &WORK).await.unwrap(),
        Looked::Idle
    );
    let of_snapshot: HashSet<String> = kept
        .files
        .iter()
        .map(|file| file.content().key()["objects/".len()..].to_owned())
        .collect();
    let now_there = contents(&store).await;
    assert!(now_there.is_superset(&of_snapshot));
    assert_eq!(
        now_there.len(),
        of_snapshot.len() + engine.sealed_files().len(),
        "nothing else stays"
    );
    snapshots.verify("kept", &WORK).await.unwrap();
    delete(&snapshots, "kept").await.unwrap();
    assert_eq!(contents(&store).await.len(), engine.sealed_files().len());

    // The list cannot be read: nothing is removed until its server writes it anew.
    let wanted: Vec<String> = objects(&store)
        .await
        .into_keys()
        .filter(|key| key.contains("/wanted/"))
        .collect();
    assert_eq!(wanted.len(), 1);
    store
        .put(&Path::from(wanted[0].as_str()), vec![1, 2, 3].into())
        .await
        .unwrap();
    snapshots.create("passing", files.source(), &WORK).await.unwrap();
    assert_eq!(delete(&snapshots, "passing").await.unwrap(), Collected::Later);
    assert_eq!(
        uploads
            .look(engine.sealed_files(), now + 25 * HOUR, &WORK)
            .await
            .unwrap(),
        Looked::Idle
    );
    snapshots.create("passing", files.source(), &WORK).await.unwrap();
    assert!(matches!(
        delete(&snapshots, "passing").await.unwrap(),
        Collected::Removed { .. }
    ));
    assert_eq!(contents(&store).await.len(), engine.sealed_files().len());

    // Somebody else removed all, and the list was not renewed for so long that this is likely: they are sent again.
    for name in contents(&store).await {
        store.delete(&Path::from(format!("here/objects/{name}"))).await.unwrap();
    }
    let late = now + 20 * 24 * HOUR;
    assert_eq!(
        all(&mut uploads, &engine.sealed_files(), late).await.unwrap(),
        engine.sealed_files().len()
    );
    assert_eq!(contents(&store).await.len(), engine.sealed_files().len());

    // Switched off: what was wanted is not any more.
    drop(uploads);
    forget(&snapshots, &config.data_dir).await.unwrap();
    forget(&snapshots, &config.data_dir).await.unwrap();
    snapshots.create("passing", files.source(), &WORK).await.unwrap();
    delete(&snapshots, "passing").await.unwrap();
    assert!(objects(&store).await.is_empty());
}

/// Whatever fails, and whoever makes and deletes snapshots meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_costs_attempts_and_snapshots_stay_whole() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), "data");
        config.engine.seal_rows = 60;
        let engine = open(&config);
        engine.create_collection("c", schema(1)).unwrap();
        let store = Arc::new(InMemory::new());
        let (mut oracle, now) = (Oracle::new(), engine.now_ms());
        let mut uploads = Uploads::open(
            impatient(Faulty::over(&store, Plan::failing(seed)), Duration::ZERO),
            &config.data_dir,
        );
        let quiet = over(&store);
        let mut failed = 0;
        for n in 0..6 {
            seal(&engine, &mut oracle, n);
            failed += usize::from(all(&mut uploads, &engine.sealed_files(), now + n).await.is_err());
            if n % 2 == 0 {
                let name = format!("s{n}");
                quiet
                    .create(&name, Source::from(&engine.cut(&|| false, &mut |_| ()).unwrap()), &WORK)
                    .await
                    .unwrap();
            }
            if n == 3 {
                delete(&quiet, "s0").await.unwrap();
                engine.optimize("c", &|| false, &mut |_| ()).unwrap();
            }
            for one in quiet.list().await.unwrap() {
                quiet.verify(&one.name, &WORK).await.unwrap();
            }
        }
        // Once it is well, all is there.
        drop(uploads);
        let mut uploads = Uploads::open(over(&store), &config.data_dir);
        all(&mut uploads, &engine.sealed_files(), now + 10).await.unwrap();
        let there = contents(&store).await;
        for file in engine.sealed_files() {
            let bytes = std::fs::read(config.data_dir.join(&file.path)).unwrap();
            let key = Content {
                hash: Hash::of(&bytes),
                bytes: file.bytes,
            }
            .key();
            assert!(
                there.contains(&key["objects/".len()..]),
                "{seed}: {} is missing, {failed} looks failed",
                file.path
            );
        }
        assert_eq!(scan(&engine), oracle);
    }
}

#[tokio::test]
async fn a_file_that_is_merged_away_meanwhile_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(InMemory::new());
    let mut uploads = Uploads::open(over(&store), dir.path());
    std::fs::create_dir_all(dir.path().join("segments/1/0")).unwrap();
    std::fs::write(dir.path().join("segments/1/0/0000000002.seg"), "rows").unwrap();
    let file = |n: u64| SealedFile {
        path: format!("segments/1/0/{n:010}.seg"),
        bytes: 4,
        is_damaged: false,
        original: None,
    };
    assert_eq!(all(&mut uploads, &[file(1), file(2)], HOUR).await.unwrap(), 1);
    assert_eq!(contents(&store).await.len(), 1);
    // Damaged by now: what was sent of it may be all there is, and what was not sent is not the file any more.
    let damaged = |n: u64| SealedFile {
        is_damaged: true,
        ..file(n)
    };
    std::fs::write(dir.path().join("segments/1/0/0000000003.seg"), "rots").unwrap();
    assert_eq!(all(&mut uploads, &[damaged(2), damaged(3)], 2 * HOUR).await.unwrap(), 0);
    assert_eq!(contents(&store).await.len(), 1);
    // It is still said to be there: asked again, and no error.
    assert_eq!(all(&mut uploads, &[file(1), file(2)], HOUR).await.unwrap(), 0);
}
