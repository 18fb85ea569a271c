//! What a snapshot is: the list of its files, by content, and what is in them.
//!
//! ```text
//! {"sha256":"<of the bytes of the object that follows>","snapshot":{"format":1, ...}}
//! ```
//!
//! The bytes before the inner object are always as many, so the hash is checked before anything is parsed. A manifest may
//! come from anybody who can write to the store: nothing in it is used before [`Manifest::read`] has refused what is not
//! exactly a snapshot of ours. No path is taken from it, only names of a closed grammar; no size is believed, only compared.
//!
//! What is above, `format`, and `sha256` of each of `files` are the same in every format: a build that cannot read a manifest
//! of a later one can still tell which contents it needs ([`contents_named`]).

use std::collections::HashSet;

use cairn_engine::schema::check_name;
use cairn_engine::storage::{FORMAT_VERSION, FORMAT_VERSION_BEFORE};
use cairn_engine::types::{Epoch, Epochs, History, Identity, Token};
use cairn_engine::{Error, ErrorKind, Result, limits};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::store::Content;

/// Version of the layout in the store, manifest included.
const FORMAT: u32 = 1;
/// Bytes of a manifest: ten times what 20,000 files take.
pub(super) const MANIFEST_BYTES_MAX: u64 = 32 << 20;
/// Files of a snapshot: 64 shards of 1,000 collections with a few segments each.
const FILES_MAX: usize = 200_000;
/// Characters of what is only shown.
const SHOWN_CHARS_MAX: usize = 64;

const HEAD: &str = "{\"sha256\":\"";
const MIDDLE: &str = "\",\"snapshot\":";

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// [`FORMAT`].
    format: u32,
    /// Version of Cairn that wrote it.
    pub(crate) cairn: String,
    /// Format of the data directory that its files make.
    pub(crate) data_format: u32,
    /// Its name, which is also the name of the object that it stands in.
    pub(crate) name: String,
    /// When the moment was that it holds, in milliseconds since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// The last write in it.
    pub(crate) token: String,
    /// Which database it is of.
    #[serde(with = "as_text")]
    pub(crate) identity: Identity,
    /// Of the log up to the last write: what follows it says so.
    #[serde(with = "as_text")]
    pub(crate) history: History,
    /// The first record of the log that is in it, or the one that would follow the last write.
    #[serde(with = "as_text")]
    pub(crate) log_from: Token,
    /// Who wrote the records up to the last write; none in what was written before there were epochs.
    #[serde(default)]
    epochs: Vec<EpochEntry>,
    /// What is in it.
    pub(crate) collections: Vec<CollectionEntry>,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// The files, by path.
    pub(crate) files: Vec<FileEntry>,
}

/// Some consecutive records of the log, up to the next entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochEntry {
    #[serde(with = "as_text")]
    first: Token,
    silent_from_ms: u64,
    opened_ms: u64,
}

/// A collection of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectionEntry {
    pub(crate) name: String,
    pub(crate) points: u64,
    pub(crate) documents: u64,
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    /// Where it belongs in a data directory.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: Hash,
}

/// Names and tokens as they are shown.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error>
    where
        T::Err: Display,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What a list tells of a snapshot: the same whatever it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) cairn: String,
    pub(crate) created_at_ms: u64,
    pub(crate) token: Token,
    pub(crate) identity: Identity,
    pub(crate) history: History,
    pub(crate) log_from: Token,
    pub(crate) epochs: Epochs,
    pub(crate) collections: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl From<&Manifest> for Summary {
    fn from(manifest: &Manifest) -> Self {
        Self {
            cairn: manifest.cairn.clone(),
            created_at_ms: manifest.created_at_ms,
            token: manifest.token.parse().expect("a manifest is checked when it is read"),
            identity: manifest.identity,
            history: manifest.history,
            log_from: manifest.log_from,
            epochs: manifest.epochs().expect("a manifest is checked when it is read"),
            collections: manifest.collections.len() as u64,
            files: manifest.files.len() as u64,
            bytes: manifest.bytes,
        }
    }
}

/// SHA-256 of an object's bytes, which is its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Hash([u8; 32]);

impl Hash {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(super) fn end(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// 64 lower-case hexadecimal digits, nothing else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let pairs = text.as_bytes();
        let mut hash = [0; 32];
        if pairs.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(pairs.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a hash is 64 lower-case hexadecimal digits"))
    }
}

/// Whether a path is one that a file of a data directory has: the whole list of what a snapshot may hold.
pub(super) fn is_ours(path: &str) -> bool {
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    // As the engine spells numbers: another spelling would be a second name for the same thing.
    let plain = |text: &str| number(text, 1..=10) && (text == "0" || !text.starts_with('0'));
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["db", "CURRENT"] => true,
        ["db", file] => match (file.strip_prefix("MANIFEST-"), file.rsplit_once('.')) {
            (Some(n), _) => number(n, 1..=20),
            (None, Some((n, "sst" | "log"))) => number(n, 1..=20),
            _ => false,
        },
        ["segments", collection, shard, file] => {
            let segment = file.strip_suffix(".seg");
            plain(collection) && plain(shard) && segment.is_some_and(|n| number(n, 10..=20))
        }
        _ => false,
    }
}

/// The inner object of a manifest whose checksum is right; or why there is none.
pub(super) fn inner(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let inner = bytes
        .strip_prefix(HEAD.as_bytes())
        .and_then(|rest| rest.split_at_checked(64))
        .and_then(|(hash, rest)| Some((hash, rest.strip_prefix(MIDDLE.as_bytes())?.strip_suffix(b"}")?)));
    let Some((hash, inner)) = inner else {
        return Err("its manifest does not begin and end as one does");
    };
    match std::str::from_utf8(hash).ok().and_then(Hash::parse) == Some(Hash::of(inner)) {
        true => Ok(inner),
        false => Err("its manifest's checksum does not match"),
    }
}

/// An inner object with its hash before it.
pub(super) fn framed(inner: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{HEAD}{}{MIDDLE}", Hash::of(inner)).into_bytes();
    bytes.extend_from_slice(inner);
    bytes.push(b'}');
    bytes
}

/// Which contents a manifest needs, of this format or a later one. It promises nothing else: what it names may be missing, and
/// the manifest may be one that cannot be restored.
pub(super) fn contents_named(bytes: &[u8]) -> Result<Vec<Hash>, String> {
    #[derive(Deserialize)]
    struct Stable {
        files: Vec<StableFile>,
    }
    #[derive(Deserialize)]
    struct StableFile {
        sha256: Hash,
    }
    let stable: Stable =
        serde_json::from_slice(inner(bytes)?).map_err(|e| format!("its list of files cannot be read: {e}"))?;
    Ok(stable.files.into_iter().map(|file| file.sha256).collect())
}

/// The files of a list of ours, as far as it can be read. Nothing they say is trusted but what is proved of what they lead to.
pub(super) fn files_named(bytes: &[u8]) -> Option<Vec<FileEntry>> {
    #[derive(Deserialize)]
    struct Listed {
        files: Vec<FileEntry>,
    }
    let listed: Listed = serde_json::from_slice(inner(bytes).ok()?).ok()?;
    Some(listed.files)
}

/// A snapshot that is whole, as far as can be told, and that another build can read.
fn of_another_build(name: &str, cairn: &str, what: &str, found: u32, ours: u32) -> Error {
    let cairn: String = cairn
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_CHARS_MAX)
        .collect();
    let this = env!("CARGO_PKG_VERSION");
    Error::new(
        ErrorKind::Conflict,
        "snapshot_of_another_build",
        format!(
            "snapshot {name:?} has {what} of format {found}, this build ({this}) reads only {ours}: restore it with the build that \
             wrote it ({cairn:?}); nothing was changed"
        ),
    )
}

/// Stored bytes that are not a snapshot of ours.
pub(super) fn damaged(name: &str, why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Damaged,
        "snapshot_damaged",
        format!("snapshot {name:?} is damaged: {why}; nothing was changed"),
    )
}

impl Manifest {
    pub(super) fn new(name: String, about: super::About, files: Vec<FileEntry>) -> Self {
        Self {
            format: FORMAT,
            cairn: env!("CARGO_PKG_VERSION").to_owned(),
            data_format: FORMAT_VERSION,
            name,
            created_at_ms: about.taken_at_ms,
            token: about.token.to_string(),
            identity: about.identity,
            history: about.history,
            log_from: about.log_from,
            epochs: about.epochs.all().iter().map(EpochEntry::from).collect(),
            collections: about.collections,
            bytes: files.iter().map(|file| file.bytes).sum(),
            files,
        }
    }

    /// The bytes to store.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let inner = serde_json::to_vec(self).map_err(|e| Error::internal(format!("a manifest: {e}")))?;
        let bytes = framed(&inner);
        if bytes.len() as u64 > MANIFEST_BYTES_MAX || self.files.len() > FILES_MAX {
            return Err(Error::new(
                ErrorKind::Exhausted,
                "snapshot_too_large",
                format!(
                    "a snapshot has at most {FILES_MAX} files, this one would have {}",
                    self.files.len()
                ),
            ));
        }
        Ok(bytes)
    }

    /// Reads the manifest that stands under a name; anything that could not be a snapshot of ours is refused.
    pub(super) fn read(name: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str| damaged(name, why);
        let inner = inner(bytes).map_err(bad)?;
        #[derive(Deserialize)]
        struct Version {
            format: u32,
            #[serde(default)]
            cairn: String,
            #[serde(default)]
            data_format: u32,
        }
        let Ok(version) = serde_json::from_slice::<Version>(inner) else {
            return Err(bad("its manifest names no format"));
        };
        let other = |what, found, ours| Err(of_another_build(name, &version.cairn, what, found, ours));
        if version.format != FORMAT {
            return other("manifest", version.format, FORMAT);
        }
        if ![FORMAT_VERSION, FORMAT_VERSION_BEFORE].contains(&version.data_format) {
            return other("data", version.data_format, FORMAT_VERSION);
        }
        let manifest: Self =
            serde_json::from_slice(inner).map_err(|e| damaged(name, format!("its manifest cannot be read: {e}")))?;
        manifest.check(name).map_err(|why| bad(&why))?;
        Ok(manifest)
    }

    /// Who wrote the records of its log.
    fn epochs(&self) -> Option<Epochs> {
        match self.epochs.is_empty() {
            true => Some(Epochs::default()),
            false => Epochs::new(self.epochs.iter().map(Epoch::from).collect()),
        }
    }

    fn check(&self, name: &str) -> Result<(), String> {
        if self.name != name {
            return Err("it is called differently inside".to_owned());
        }
        if self.cairn.len() > SHOWN_CHARS_MAX || self.token.parse::<Token>().is_err() {
            return Err("its version or token is not one".to_owned());
        }
        if self.epochs().is_none() {
            return Err("its epochs are not in order".to_owned());
        }
        if self.collections.len() > limits::COLLECTIONS_MAX || self.files.len() > FILES_MAX {
            return Err("it lists more than a snapshot can hold".to_owned());
        }
        if self
            .collections
            .iter()
            .any(|c| check_name("collection", &c.name).is_err())
        {
            return Err("it lists a collection whose name is not one".to_owned());
        }
        let mut paths = HashSet::new();
        let mut bytes = 0u64;
        for file in &self.files {
            if !is_ours(&file.path) || !paths.insert(&file.path) {
                let shown: String = file.path.chars().take(SHOWN_CHARS_MAX).collect();
                return Err(format!("it lists {shown:?}, which no snapshot holds, or holds twice"));
            }
            bytes = bytes.checked_add(file.bytes).ok_or("its sizes are beyond all bounds")?;
        }
        if bytes != self.bytes {
            return Err("its sizes do not add up".to_owned());
        }
        if !paths.iter().any(|path| *path == "db/CURRENT") {
            return Err("it holds no database".to_owned());
        }
        Ok(())
    }

    /// The distinct contents of its files. Two files that give one content two sizes are damage.
    pub(super) fn contents(&self) -> Result<Vec<Content>> {
        let mut sizes = std::collections::BTreeMap::new();
        for file in &self.files {
            if sizes
                .insert(file.sha256, file.bytes)
                .is_some_and(|bytes| bytes != file.bytes)
            {
                return Err(damaged(&self.name, "one content has two sizes"));
            }
        }
        Ok(sizes.into_iter().map(|(hash, bytes)| Content { hash, bytes }).collect())
    }
}

impl From<&Epoch> for EpochEntry {
    fn from(epoch: &Epoch) -> Self {
        Self {
            first: Token {
                epoch: epoch.id,
                group: 0,
                seq: epoch.first,
            },
            silent_from_ms: epoch.silent_from_ms,
            opened_ms: epoch.opened_ms,
        }
    }
}

impl From<&EpochEntry> for Epoch {
    fn from(entry: &EpochEntry) -> Self {
        Self {
            id: entry.first.epoch,
            first: entry.first.seq,
            silent_from_ms: entry.silent_from_ms,
            opened_ms: entry.opened_ms,
        }
    }
}

impl FileEntry {
    pub(super) fn content(&self) -> Content {
        Content {
            hash: self.sha256,
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use cairn_engine::types::{EpochId, Seq};
    use proptest::prelude::*;

    use super::super::About;
    use super::*;

    fn epochs() -> Epochs {
        let epoch = |id, first| Epoch {
            id: EpochId(id),
            first: Seq(first),
            silent_from_ms: 1,
            opened_ms: 2,
        };
        Epochs::new(vec![epoch(0xa1, 1), epoch(0xb2, 5)]).unwrap()
    }

    pub(in super::super) fn some(name: &str, files: &[(&str, &[u8])]) -> Manifest {
        let about = About {
            token: epochs().token(Seq(7)),
            taken_at_ms: 1_700_000_000_000,
            identity: Identity([1; 16]),
            history: History([2; 16]),
            log_from: epochs().token(Seq(3)),
            epochs: epochs(),
            collections: vec![CollectionEntry {
                name: "docs".into(),
                points: 3,
                documents: 1,
            }],
        };
        let entry = |(path, bytes): &(&str, &[u8])| FileEntry {
            path: (*path).to_owned(),
            bytes: bytes.len() as u64,
            sha256: Hash::of(bytes),
        };
        Manifest::new(name.into(), about, files.iter().map(entry).collect())
    }

    fn usual() -> Manifest {
        some(
            "first",
            &[
                ("db/CURRENT", b"MANIFEST-000005\n"),
                ("db/MANIFEST-000005", b"m"),
                ("db/000012.sst", b"table"),
                ("segments/1/0/0000000003.seg", b"rows"),
            ],
        )
    }

    /// The bytes of a manifest with its hash made right, whatever it says.
    pub(in super::super) fn sealed(inner: &[u8]) -> Vec<u8> {
        let mut bytes = format!("{HEAD}{}{MIDDLE}", Hash::of(inner)).into_bytes();
        bytes.extend_from_slice(inner);
        bytes.push(b'}');
        bytes
    }

    #[test]
    fn what_is_written_is_read_and_is_json() {
        let manifest = usual();
        let bytes = manifest.bytes().unwrap();
        assert_eq!(Manifest::read("first", &bytes).unwrap(), manifest);
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["snapshot"]["token"], "c1-b2-0-7");
        assert_eq!(json["snapshot"]["epochs"][1]["first"], "c1-b2-0-5");
        assert_eq!(Summary::from(&manifest).epochs, epochs());
        // One of before there were epochs.
        let mut old = serde_json::to_value(&manifest).unwrap();
        old.as_object_mut().unwrap().remove("epochs");
        old["data_format"] = FORMAT_VERSION_BEFORE.into();
        old["token"] = "c1-1-0-7".into();
        let old = Manifest::read("first", &sealed(&serde_json::to_vec(&old).unwrap())).unwrap();
        assert!(Summary::from(&old).epochs.knows("c1-1-0-7".parse().unwrap(), Seq(7)));
        assert_eq!(json["snapshot"]["bytes"], 16 + 1 + 5 + 4);
    }

    #[test]
    fn only_names_of_files_of_ours_are_taken() {
        for ours in [
            "db/CURRENT",
            "db/MANIFEST-000001",
            "db/000001.sst",
            "db/123456789.log",
            "segments/0/0/0000000000.seg",
            "segments/4294967295/63/18446744073709551615.seg",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            "",
            "/",
            "db",
            "db/",
            "CURRENT",
            "/db/CURRENT",
            "db//CURRENT",
            "./db/CURRENT",
            "db/../db/CURRENT",
            "../db/CURRENT",
            "db/LOCK",
            "db/OPTIONS-000003",
            "db/.sst",
            "db/1.SST",
            "db/-1.sst",
            "db/1 .sst",
            "db/\u{661}.sst",
            "db/1.sst/x",
            "db/MANIFEST-",
            "db/MANIFEST-1\0",
            "db/CURRENT\n",
            "db\\CURRENT",
            "segments/1/0/3.seg",
            "segments/01/0/0000000003.seg",
            "segments/1/00/0000000003.seg",
            "segments/1/0/0000000003.tmp",
            "segments/1/0/../0000000003.seg",
            "segments/1/0000000003.seg",
            "segments/1/0/0/0000000003.seg",
            "LOCK.cairn",
            "segments/1/0/+000000003.seg",
        ] {
            assert!(!is_ours(other), "{other:?}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_and_says_why() {
        let wrong = |change: fn(&mut Manifest)| {
            let mut manifest = usual();
            change(&mut manifest);
            let bytes = sealed(&serde_json::to_vec(&manifest).unwrap());
            let error = Manifest::read("first", &bytes).unwrap_err();
            assert_eq!((error.kind, error.code), (ErrorKind::Damaged, "snapshot_damaged"));
            error.message
        };
        for (change, why) in [
            (
                (|m| m.name = "second".into()) as fn(&mut Manifest),
                "called differently",
            ),
            (|m| m.token = "c1-1-0".into(), "token"),
            (|m| m.epochs.swap(0, 1), "epochs"),
            (|m| m.cairn = "0".repeat(65), "version"),
            (|m| m.collections[0].name = "../docs".into(), "collection"),
            (|m| m.files[1].path = "db/../../x".into(), "which no snapshot holds"),
            (|m| m.files[1].path = "db/CURRENT".into(), "twice"),
            (|m| m.files[2].bytes = u64::MAX, "beyond all bounds"),
            (|m| m.bytes += 1, "do not add up"),
            (|m| m.files.drain(..1).for_each(|f| m.bytes -= f.bytes), "no database"),
        ] {
            let message = wrong(change);
            assert!(message.contains(why), "{message}");
        }
        let mut two = usual();
        two.files[3].sha256 = two.files[2].sha256;
        assert_eq!(two.contents().unwrap_err().code, "snapshot_damaged");
        let unknown = sealed(br#"{"format":1,"data_format":2,"more":true}"#);
        let error = Manifest::read("first", &unknown).unwrap_err();
        assert!(
            error.code == "snapshot_damaged" && error.message.contains("unknown field"),
            "{error}"
        );
    }

    #[test]
    fn what_another_build_wrote_is_told_from_damage_and_says_which_contents_it_needs() {
        let later = |change: fn(&mut serde_json::Value)| {
            let mut json = serde_json::to_value(usual()).unwrap();
            change(&mut json);
            sealed(&serde_json::to_vec(&json).unwrap())
        };
        let hashes: Vec<Hash> = usual().files.iter().map(|file| file.sha256).collect();
        for (bytes, why) in [
            (
                later(|m| {
                    m["format"] = 2.into();
                    m["cairn"] = "9.0\u{7}".into();
                    m["more"] = true.into();
                    m["files"][0]["compressed"] = "zstd".into();
                }),
                "manifest of format 2",
            ),
            (later(|m| m["data_format"] = 99.into()), "data of format 99"),
        ] {
            let error = Manifest::read("first", &bytes).unwrap_err();
            assert_eq!(
                (error.kind, error.code),
                (ErrorKind::Conflict, "snapshot_of_another_build")
            );
            assert!(
                error.message.contains(why) && !error.message.contains('\u{7}'),
                "{error}"
            );
            assert_eq!(contents_named(&bytes).unwrap(), hashes);
        }
        for unknown in [
            sealed(br#"{"format":2}"#),
            sealed(br#"{"format":2,"files":[{"sha256":"00"}]}"#),
            sealed(br#"{"format":2,"files":[{}]}"#),
            b"garbage".to_vec(),
            later(|_| ())[1..].to_vec(),
        ] {
            assert!(contents_named(&unknown).is_err());
        }
        assert_eq!(contents_named(&usual().bytes().unwrap()).unwrap(), hashes);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_and_none_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::read("first", &bytes).is_err());
            prop_assert!(Manifest::read("first", &sealed(&bytes)).is_err());
            let _ = contents_named(&sealed(&bytes));
        }

        #[test]
        fn every_changed_byte_is_noticed(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
            let mut bytes = usual().bytes().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Manifest::read("first", &bytes).is_err());
        }

        /// With its hash made right, a change is either refused or harmless: every path stays one of ours.
        #[test]
        fn a_forged_manifest_names_only_files_of_ours(at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let mut inner = serde_json::to_vec(&usual()).unwrap();
            let at = at.index(inner.len());
            inner[at] = with;
            if let Ok(manifest) = Manifest::read("first", &sealed(&inner)) {
                prop_assert!(manifest.files.iter().all(|file| is_ours(&file.path)));
                prop_assert_eq!(manifest.files.iter().map(|f| f.bytes).sum::<u64>(), manifest.bytes);
            }
        }
    }
}
