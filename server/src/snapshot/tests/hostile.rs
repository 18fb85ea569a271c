//! Manifests that somebody made who can write to the store, with hashes that are right: whatever they say is refused or
//! harmless, and changes nothing else.

use serde_json::{Value, json};

use super::*;

/// A store with a good snapshot, and a place beside it for others.
struct Attacked {
    store: Arc<InMemory>,
    snapshots: Snapshots,
    files: Files,
    /// As the good one's manifest says it.
    inner: Value,
}

impl Attacked {
    async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let snapshots = over(&store);
        let files = Files::new(&[b"one", b"two"]);
        let good = snapshots.create("good", files.source(), &WORK).await.unwrap();
        let mut inner = serde_json::to_value(&good.manifest).unwrap();
        inner["name"] = "evil".into();
        Self {
            store,
            snapshots,
            files,
            inner,
        }
    }

    /// Puts a manifest there, does everything that can be done with it, and says what restoring it said.
    async fn attack(&self, bytes: Vec<u8>) -> Result<()> {
        let key = Path::from(format!("here/{}", Key::new("evil").object()));
        self.store.put(&key, bytes.into()).await.unwrap();
        let of = &self.snapshots;
        assert_eq!(
            of.list().await.unwrap().len(),
            2,
            "a list shows all, also what is wrong"
        );
        let _ = of.verify("evil", &WORK).await;
        let around = tempfile::tempdir().unwrap();
        let to = around.path().join("to");
        std::fs::create_dir(&to).unwrap();
        let restored = async {
            let manifest = of.describe("evil").await?;
            of.download(&manifest, &to, &Space::new(&to, 1), &WORK).await
        };
        let restored = restored.await;
        let beside: Vec<_> = std::fs::read_dir(around.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(beside, ["to"], "nothing but what is asked for");
        delete(of, "evil").await.unwrap();
        of.verify("good", &WORK).await.unwrap();
        assert_eq!(super::restored(of, "good").await.unwrap(), self.files.files);
        restored
    }

    async fn says(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut inner = self.inner.clone();
        change(&mut inner);
        self.attack(manifest::tests::sealed(&serde_json::to_vec(&inner).unwrap()))
            .await
    }
}

#[tokio::test]
async fn what_a_manifest_says_is_refused_unless_it_could_be_ours() {
    let attacked = Attacked::new().await;
    attacked.says(|_| ()).await.unwrap();
    let path = |path: &'static str| move |m: &mut Value| m["files"][1]["path"] = path.into();
    let refused = async |change: &dyn Fn(&mut Value), code: &str, what: &str| {
        let error = attacked.says(change).await.unwrap_err();
        assert_eq!(error.code, code, "{what}: {error}");
    };
    for traversal in [
        "../../etc/passwd",
        "/etc/passwd",
        "db/../../x",
        "segments/1/0/../../../../0000000001.seg",
        "segments/1/0/0000000001.seg/../../x",
        "segments\\1\\0\\0000000001.seg",
        "segments/1/0/0000000001.seg\0",
        "db/CURRENT",
        "segments/1/0/0000000001.seg",
        "db/LOCK",
        "LOCK.cairn",
        "restoring",
        "",
    ] {
        refused(&path(traversal), "snapshot_damaged", traversal).await;
    }
    let cases: [(&str, fn(&mut Value)); 16] = [
        ("a size beyond all bounds", |m| m["files"][1]["bytes"] = u64::MAX.into()),
        ("a negative size", |m| m["files"][1]["bytes"] = (-1).into()),
        ("a size that is none", |m| m["files"][1]["bytes"] = 1e300.into()),
        ("a size that is not the content's", |m| {
            m["files"][1]["bytes"] = 4.into();
            m["bytes"] = (m["bytes"].as_u64().unwrap() + 1).into();
        }),
        ("a sum that is another", |m| m["bytes"] = 1.into()),
        ("one content of two sizes", |m| {
            m["files"][1]["sha256"] = m["files"][0]["sha256"].clone();
        }),
        ("no such content", |m| m["files"][1]["sha256"] = "0".repeat(64).into()),
        ("a hash in capitals", |m| {
            m["files"][1]["sha256"] = Hash::of(b"one").to_string().to_uppercase().into();
        }),
        ("a hash with a path", |m| {
            m["files"][1]["sha256"] = format!("../{}", "0".repeat(61)).into()
        }),
        ("a hash that is short", |m| m["files"][1]["sha256"] = "00".into()),
        ("a link", |m| m["files"][1]["link"] = "/etc/passwd".into()),
        ("a name that is another", |m| m["name"] = "good".into()),
        ("no files", |m| {
            m["files"] = json!([]);
            m["bytes"] = 0.into();
        }),
        ("itself within itself", |m| m["snapshot"] = m.clone()),
        ("files that are no list", |m| m["files"] = json!({"0": m["files"][0]})),
        ("a list without end", |m| {
            for _ in 0..100 {
                m["files"] = json!([m["files"]]);
            }
        }),
    ];
    for (what, change) in cases {
        refused(&change, "snapshot_damaged", what).await;
    }
    refused(
        &|m| m["format"] = 3.into(),
        "snapshot_of_another_build",
        "a later format",
    )
    .await;
    // A size that could be: the disk is asked before the store is.
    let huge = |m: &mut Value| {
        m["files"][1]["bytes"] = (1u64 << 60).into();
        m["bytes"] = ((1u64 << 60) + 16 + 3).into();
    };
    refused(&huge, "disk_full", "a disk full").await;
}

#[tokio::test]
async fn manifests_without_measure_are_refused_unread() {
    let attacked = Attacked::new().await;
    let many = |m: &mut Value| {
        let file = |i: u32| json!({"path": format!("segments/1/0/{i:010}.seg"), "bytes": 0, "sha256": "0".repeat(64)});
        m["files"].as_array_mut().unwrap().extend((10..200_010).map(file));
    };
    let refused = attacked.says(many).await.unwrap_err();
    assert!(refused.message.contains("more than a snapshot can hold"), "{refused}");
    let crowd = |m: &mut Value| {
        let collection = |i: u32| json!({"name": format!("c{i}"), "points": 0, "documents": 0});
        m["collections"] = (0..=100_000).map(collection).collect();
    };
    let refused = attacked.says(crowd).await.unwrap_err();
    assert!(refused.message.contains("more than a snapshot can hold"), "{refused}");
    let deep = manifest::tests::sealed("[".repeat(1 << 20).as_bytes());
    assert_eq!(attacked.attack(deep).await.unwrap_err().code, "snapshot_damaged");
    let twice = manifest::tests::sealed(br#"{"format":1,"format":1,"data_format":2}"#);
    assert_eq!(attacked.attack(twice).await.unwrap_err().code, "snapshot_damaged");
    let large = vec![b'x'; usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1];
    let refused = attacked.attack(large).await.unwrap_err();
    assert!(refused.message.contains("at most are read"), "{refused}");
}

#[tokio::test]
async fn links_in_a_directory_lead_to_nothing_that_is_used_or_changed() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let config = SnapshotsConfig {
        url: root.to_str().unwrap().to_owned(),
        retry_ms: 0,
        ..SnapshotsConfig::default()
    };
    let snapshots = Snapshots::new(Store::open(&config, dir.path()).unwrap());
    let files = Files::new(&[b"one", b"two"]);
    snapshots.create("good", files.source(), &WORK).await.unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, b"a secret").unwrap();
    // A manifest, and a content, that are somebody's file.
    symlink(&secret, root.join(Key::new("evil").object())).unwrap();
    let hash = Hash::of(b"two").to_string();
    let content = root.join("objects").join(&hash[..2]).join(&hash);
    std::fs::remove_file(&content).unwrap();
    symlink(&secret, &content).unwrap();
    let listed = snapshots.list().await.unwrap();
    let why = listed.iter().find_map(|one| one.found.as_ref().err()).unwrap();
    assert!(
        why.code == "snapshot_damaged" && !why.message.contains("secret"),
        "{why}"
    );
    for name in ["evil", "good"] {
        let refused = restored(&snapshots, name).await.unwrap_err();
        assert_eq!(refused.code, "snapshot_damaged", "{name}: {refused}");
    }
    // A link goes with its snapshot, and what it leads to stays.
    delete(&snapshots, "evil").await.unwrap();
    delete(&snapshots, "good").await.unwrap();
    assert!(!content.exists() && snapshots.list().await.unwrap().is_empty());
    assert_eq!(std::fs::read(&secret).unwrap(), b"a secret");
    // A ring: what cannot be listed is said, and nothing is removed for it.
    snapshots.create("good", files.source(), &WORK).await.unwrap();
    symlink(&root, root.join("objects/ring")).unwrap();
    let failed = delete(&snapshots, "good").await.unwrap_err();
    assert!(failed.message.starts_with("the snapshot is removed"), "{failed}");
    assert!(content.exists());
    std::fs::remove_file(root.join("objects/ring")).unwrap();
    snapshots.create("good", files.source(), &WORK).await.unwrap();
    assert!(matches!(
        delete(&snapshots, "good").await.unwrap(),
        Collected::Removed { objects: 3, .. }
    ));
}

/// A place in a JSON value, and what to put there.
fn change() -> impl Strategy<Value = (Vec<usize>, Value)> {
    let number = prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX / 2), any::<u64>()];
    let text = prop_oneof![
        Just("..".to_owned()),
        Just("/".to_owned()),
        Just("db/CURRENT".to_owned()),
        Just("segments/1/0/0000000000.seg".to_owned()),
        Just("good".to_owned()),
        Just("0".repeat(64)),
        Just(Hash::of(b"two").to_string()),
        "[a-z0-9./\\PC]{0,20}",
    ];
    let value = prop_oneof![
        3 => number.prop_map(Value::from),
        3 => text.prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!([])),
        1 => Just(json!({})),
        1 => Just(json!(-1)),
        1 => Just(json!(0.5)),
        1 => Just(json!([{"path": "db/CURRENT", "bytes": 0, "sha256": "0".repeat(64)}])),
    ];
    (prop::collection::vec(0..12usize, 1..4), value)
}

fn put(into: &mut Value, at: &[usize], value: Value) {
    let (Some((first, rest)), true) = (at.split_first(), into.is_array() || into.is_object()) else {
        *into = value;
        return;
    };
    let inner = match into {
        Value::Array(all) if !all.is_empty() => {
            let n = first % all.len();
            &mut all[n]
        }
        Value::Object(all) if !all.is_empty() => {
            let n = first % all.len();
            all.values_mut().nth(n).unwrap()
        }
        _ => {
            *into = value;
            return;
        }
    };
    put(inner, rest, value);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_change_of_a_manifest_is_refused_or_changes_nothing(changes in prop::collection::vec(change(), 1..4)) {
        runtime().block_on(async {
            let attacked = Attacked::new().await;
            let _ = attacked
                .says(|m| changes.into_iter().for_each(|(at, value)| put(m, &at, value)))
                .await;
        });
    }
}
