//! The content of a file system as a value: copied, changed, compared, taken apart.
//!
//! Files share their bytes between copies, so that an image of every moment of a run costs little. It knows names, bytes and hard
//! links; of owners, modes and times it knows nothing, because nothing here depends on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Number of a file or directory; never given twice.
pub type Ino = u64;

/// The directory that everything is in.
pub(super) const ROOT: Ino = 1;

/// A file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Its bytes.
    File(Arc<Vec<u8>>),
    /// Its names.
    Dir(BTreeMap<String, Ino>),
}

/// Everything that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    nodes: BTreeMap<Ino, Node>,
}

impl Default for Image {
    fn default() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(BTreeMap::new()))]);
        Self { nodes }
    }
}

/// One thing that changed. Names of directories are numbers, because a name may change while a file is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new and empty file or directory.
    Make {
        dir: Ino,
        name: String,
        ino: Ino,
        is_dir: bool,
    },
    /// Another name for a file.
    Link {
        dir: Ino,
        name: String,
        ino: Ino,
    },
    /// A name is gone; what it named may have others, or be open.
    Remove {
        dir: Ino,
        name: String,
    },
    /// What had the new name before loses it, in the same instant.
    Rename {
        from: (Ino, String),
        to: (Ino, String),
    },
    Write {
        ino: Ino,
        at: u64,
        bytes: Arc<[u8]>,
    },
    Resize {
        ino: Ino,
        len: u64,
    },
    /// fsync or fdatasync of a file or directory succeeded.
    Synced {
        ino: Ino,
    },
    /// It failed: of a file, what was not on disk then never will be, whatever a later fsync says.
    SyncFailed {
        ino: Ino,
    },
}

impl Image {
    /// A file or directory.
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    /// What a name in a directory stands for.
    pub fn child(&self, dir: Ino, name: &str) -> Option<Ino> {
        match self.nodes.get(&dir)? {
            Node::Dir(names) => names.get(name).copied(),
            Node::File(_) => None,
        }
    }

    /// Bytes of a file.
    pub fn bytes(&self, ino: Ino) -> Option<&[u8]> {
        match self.nodes.get(&ino)? {
            Node::File(bytes) => Some(bytes),
            Node::Dir(_) => None,
        }
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.nodes.get(&ino), Some(Node::Dir(_)))
    }

    /// The largest number in use.
    pub fn last_ino(&self) -> Ino {
        self.nodes.last_key_value().map_or(ROOT, |(ino, _)| *ino)
    }

    /// Does a change. One that does not fit what is there (a name that is gone, a file that never came to be) does nothing: after
    /// a crash that kept only a part, such changes are expected.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Make { dir, name, ino, is_dir } => {
                self.add_node(*ino, *is_dir);
                self.name(*dir, name, *ino);
            }
            Change::Link { dir, name, ino } => self.name(*dir, name, *ino),
            Change::Remove { dir, name } => {
                if let Some(Node::Dir(names)) = self.nodes.get_mut(dir) {
                    names.remove(name);
                }
            }
            Change::Rename { from, to } => self.rename(from, to),
            Change::Write { ino, at, bytes } => self.write(*ino, *at, bytes),
            Change::Resize { ino, len } => {
                if let Some(Node::File(old)) = self.nodes.get_mut(ino) {
                    Arc::make_mut(old).resize(to_usize(*len), 0);
                }
            }
            Change::Synced { .. } | Change::SyncFailed { .. } => {}
        }
    }

    /// A file or directory without a name yet.
    pub fn add_node(&mut self, ino: Ino, is_dir: bool) {
        let node = if is_dir {
            Node::Dir(BTreeMap::new())
        } else {
            Node::File(Arc::default())
        };
        self.nodes.entry(ino).or_insert(node);
    }

    fn name(&mut self, dir: Ino, name: &str, ino: Ino) {
        if let Some(Node::Dir(names)) = self.nodes.get_mut(&dir) {
            names.insert(name.to_owned(), ino);
        }
    }

    fn rename(&mut self, from: &(Ino, String), to: &(Ino, String)) {
        let Some(Node::Dir(names)) = self.nodes.get_mut(&from.0) else {
            return;
        };
        if let Some(ino) = names.remove(&from.1) {
            self.name(to.0, &to.1, ino);
        }
    }

    fn write(&mut self, ino: Ino, at: u64, new: &[u8]) {
        let Some(Node::File(old)) = self.nodes.get_mut(&ino).filter(|_| !new.is_empty()) else {
            return;
        };
        let (old, at) = (Arc::make_mut(old), to_usize(at));
        if old.len() < at + new.len() {
            old.resize(at + new.len(), 0);
        }
        old[at..at + new.len()].copy_from_slice(new);
    }

    /// Forgets a file that nothing names.
    pub fn forget(&mut self, ino: Ino) {
        self.nodes.remove(&ino);
    }

    /// Forgets all that cannot be reached from the root.
    pub fn prune(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            if let Some(Node::Dir(names)) = self.nodes.get(&dir) {
                open.extend(names.values().filter(|ino| reached.insert(**ino)));
            }
        }
        self.nodes.retain(|ino, _| reached.contains(ino));
    }

    /// Bytes on disk, in whole blocks of 4 KiB.
    pub fn disk_bytes(&self) -> u64 {
        let blocks = self.nodes.values().map(|node| match node {
            Node::File(bytes) => bytes.len().div_ceil(BLOCK),
            Node::Dir(_) => 1,
        });
        (blocks.sum::<usize>() * BLOCK) as u64
    }

    /// The file at a path.
    pub fn at(&self, path: &str) -> Option<Ino> {
        path.split('/').try_fold(ROOT, |dir, name| self.child(dir, name))
    }

    /// Changes a bit of a file.
    pub fn flip(&mut self, path: &str, byte: usize, bit: u8) {
        if let Some(Node::File(bytes)) = self.at(path).and_then(|ino| self.nodes.get_mut(&ino)) {
            Arc::make_mut(bytes)[byte] ^= 1 << bit;
        }
    }

    /// Leaves only the first `len` bytes of a file.
    pub fn cut(&mut self, path: &str, len: usize) {
        if let Some(Node::File(bytes)) = self.at(path).and_then(|ino| self.nodes.get_mut(&ino)) {
            Arc::make_mut(bytes).truncate(len);
        }
    }

    /// Takes a file away.
    pub fn remove(&mut self, path: &str) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = if dir.is_empty() { Some(ROOT) } else { self.at(dir) };
        if let Some(Node::Dir(names)) = dir.and_then(|ino| self.nodes.get_mut(&ino)) {
            names.remove(name);
        }
        self.prune();
    }

    /// Paths of all files, in order, without a slash before them.
    pub fn files(&self) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        self.walk(ROOT, "", &mut found);
        found
    }

    fn walk(&self, dir: Ino, path: &str, found: &mut Vec<(String, Ino)>) {
        let Some(Node::Dir(names)) = self.nodes.get(&dir) else {
            return;
        };
        for (name, ino) in names {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            match self.nodes.get(ino) {
                Some(Node::File(_)) => found.push((path, *ino)),
                Some(Node::Dir(_)) => self.walk(*ino, &path, found),
                None => {}
            }
        }
    }
}

/// The unit that files take on disk.
pub(super) const BLOCK: usize = 4096;

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("a file of a test fits into memory")
}
