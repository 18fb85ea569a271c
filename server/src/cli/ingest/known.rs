//! What is known of the files that are followed: which were there, and which folders cannot be read. Says of a change what
//! is to be read, and what is gone.
//!
//! Gone is only a file that was there before, so that no document is deleted that no watched file made. And what is below
//! a folder that cannot be read is not taken for gone, nor what is below a named folder that is away: a generator removes
//! its whole output and writes it again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::find::{Found, Now, Source, Unread, find_again, is_gone, look};
use super::watch::Changes;

/// Why a named folder cannot be read that is not there.
const AWAY: &str = "it is not there; what is stored of it stays until it is back";

#[derive(Debug)]
pub(super) struct Known {
    /// What was named, and is followed.
    roots: Vec<PathBuf>,
    /// Those of them that are folders.
    folders: BTreeSet<PathBuf>,
    prefix: String,
    /// Files that are one document each, and its id. Kept if what is gone is to be deleted.
    files: Option<BTreeMap<PathBuf, String>>,
    /// Folders that cannot be read, and why.
    unread: BTreeMap<PathBuf, String>,
}

/// What a change means.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Files to read, in order of their paths.
    pub(super) files: Vec<Source>,
    /// Paths of which nothing is there any more, and the known files that were below them.
    pub(super) gone: BTreeSet<PathBuf>,
    /// Folders that cannot be read, which is news.
    pub(super) unread: Vec<Unread>,
    /// Folders that can be read again.
    pub(super) readable: Vec<PathBuf>,
}

impl Known {
    /// What was named must be there.
    pub(super) fn new(roots: &[PathBuf], prefix: &str, delete_missing: bool) -> Self {
        Self {
            roots: roots.to_vec(),
            folders: roots.iter().filter(|root| root.is_dir()).cloned().collect(),
            prefix: prefix.to_owned(),
            files: delete_missing.then(BTreeMap::new),
            unread: BTreeMap::new(),
        }
    }

    /// What was found at first.
    pub(super) fn first(&mut self, found: Found) -> Look {
        self.keep(found, BTreeSet::new(), &BTreeMap::new())
    }

    /// Looks at what changed.
    pub(super) fn look(&mut self, changes: &Changes) -> Look {
        let (mut found, mut gone, mut before) = (Found::default(), BTreeSet::new(), BTreeMap::new());
        match changes {
            // Events of what is gone may be among those that were lost.
            Changes::Anything => {
                // A file that was named is gone when it is not there; a folder is away.
                let there = |root: &&PathBuf| self.folders.contains(*root) || !is_gone(root);
                let there: Vec<PathBuf> = self.roots.iter().filter(there).cloned().collect();
                found = find_again(&there, &self.prefix);
                gone.extend(self.files.iter().flat_map(BTreeMap::keys).cloned());
                before = std::mem::take(&mut self.unread);
            }
            Changes::Paths(paths) => {
                for path in paths {
                    match look(&self.roots, path, &self.prefix) {
                        Now::There(now) => found.extend(now),
                        Now::Gone if self.folders.contains(path) => found.unread.push(Unread {
                            path: path.clone(),
                            why: AWAY.to_owned(),
                        }),
                        Now::Gone => {
                            gone.insert(path.clone());
                            gone.extend(self.files.iter().flat_map(|files| below(files, path)).cloned());
                        }
                        Now::Nothing => continue,
                    }
                    let again: Vec<PathBuf> = below(&self.unread, path).cloned().collect();
                    before.extend(again.iter().filter_map(|path| self.unread.remove_entry(path)));
                }
            }
        }
        self.keep(found, gone, &before)
    }

    /// `before` are the folders among what was looked at that could not be read the last time.
    fn keep(&mut self, found: Found, mut gone: BTreeSet<PathBuf>, before: &BTreeMap<PathBuf, String>) -> Look {
        let mut unread = Vec::new();
        for Unread { path, mut why } in found.unread {
            if self.folders.contains(&path) && is_gone(&path) {
                AWAY.clone_into(&mut why);
            }
            let told = [before, &self.unread].iter().any(|of| of.get(&path) == Some(&why));
            self.unread.insert(path.clone(), why.clone());
            if !told {
                unread.push(Unread { path, why });
            }
        }
        // A new folder is found by its own event and by those of its files.
        let mut files = found.sources;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        for file in &files {
            gone.remove(&file.path);
        }
        gone.retain(|path| !path.ancestors().any(|above| self.unread.contains_key(above)));
        if let Some(known) = &mut self.files {
            let whole = files.iter().filter(|file| file.kind.is_whole());
            known.extend(whole.map(|file| (file.path.clone(), file.id.clone())));
        }
        let read = |path: &&PathBuf| !self.unread.contains_key(*path) && !self.folders.contains(*path) && path.is_dir();
        Look {
            readable: before.keys().filter(read).cloned().collect(),
            files,
            gone,
            unread,
        }
    }

    /// Folders that cannot be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = Unread> {
        self.unread.iter().map(|(path, why)| Unread {
            path: path.clone(),
            why: why.clone(),
        })
    }

    /// The documents of files that are gone, but for those that another file has now.
    pub(super) fn documents(&self, gone: &BTreeSet<PathBuf>) -> BTreeSet<String> {
        let Some(files) = &self.files else {
            return BTreeSet::new();
        };
        let mut ids: BTreeSet<String> = gone.iter().filter_map(|path| files.get(path)).cloned().collect();
        if !ids.is_empty() {
            for (_, id) in files.iter().filter(|(path, _)| !gone.contains(*path)) {
                ids.remove(id);
            }
        }
        ids
    }

    /// Their documents are deleted.
    pub(super) fn forget(&mut self, gone: &BTreeSet<PathBuf>) {
        if let Some(files) = &mut self.files {
            for path in gone {
                files.remove(path);
            }
        }
    }
}

/// Paths at or below this one.
fn below<'a>(paths: &'a BTreeMap<PathBuf, String>, path: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
    // Paths are in the order of their parts, so that those below follow at once.
    let from: (Bound<&Path>, Bound<&Path>) = (Bound::Included(path), Bound::Unbounded);
    let from = paths.range::<Path, _>(from).map(|(known, _)| known);
    from.take_while(move |known| known.starts_with(path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::find::{find, unreadable};
    use super::*;

    struct Tree {
        dir: tempfile::TempDir,
        known: Known,
    }

    impl Tree {
        /// Follows these of the files.
        fn new(files: &[&str], roots: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                write(&dir.path().join(file));
            }
            let roots: Vec<PathBuf> = roots.iter().map(|root| dir.path().join(root)).collect();
            let mut known = Known::new(&roots, "p/", true);
            known.first(find(&roots, "p/").unwrap());
            Self { dir, known }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn changes(&self, changed: &[&str]) -> Changes {
            Changes::Paths(changed.iter().map(|path| self.path(path)).collect())
        }

        /// What is to be read, which documents are gone, and how many folders are news.
        fn look(&mut self, changes: &Changes) -> (String, String, usize) {
            let look = self.known.look(changes);
            let gone: Vec<String> = self.known.documents(&look.gone).into_iter().collect();
            self.known.forget(&look.gone);
            let files: Vec<String> = look.files.into_iter().map(|file| file.id).collect();
            (files.join(" "), gone.join(" "), look.unread.len())
        }
    }

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "text").unwrap();
    }

    fn is(files: &str, gone: &str, news: usize) -> (String, String, usize) {
        (files.to_owned(), gone.to_owned(), news)
    }

    #[test]
    fn gone_is_only_what_was_there() {
        let mut tree = Tree::new(
            &[
                "docs/a.md",
                "docs/b/x.md",
                "docs/b/rows.jsonl",
                "docs/b-c/y.md",
                "one.md",
            ],
            &["docs", "one.md"],
        );
        fs::remove_dir_all(tree.path("docs/b")).unwrap();
        let changes = tree.changes(&["docs/b", "docs/never.md", "docs/never", "docs/b/rows.jsonl"]);
        assert_eq!(tree.look(&changes), is("", "p/b/x.md", 0));
        assert_eq!(tree.look(&changes), is("", "", 0), "once");
        fs::remove_file(tree.path("docs/a.md")).unwrap();
        assert_eq!(tree.look(&Changes::Anything), is("p/b-c/y.md p/one.md", "p/a.md", 0));
        fs::remove_file(tree.path("one.md")).unwrap();
        let changes = tree.changes(&["one.md"]);
        let look = tree.known.look(&changes);
        assert_eq!(tree.known.documents(&look.gone), ["p/one.md".to_owned()].into());
        // It could not be deleted just now.
        assert_eq!(tree.look(&Changes::Anything), is("p/b-c/y.md", "p/one.md", 0));
    }

    #[test]
    fn a_document_stays_that_another_file_has() {
        let mut tree = Tree::new(&["a/x.md", "b/y.md"], &["a", "b"]);
        fs::rename(tree.path("a/x.md"), tree.path("b/x.md")).unwrap();
        let changes = tree.changes(&["a/x.md", "b/x.md"]);
        assert_eq!(tree.look(&changes), is("p/x.md", "", 0));
        fs::remove_file(tree.path("b/x.md")).unwrap();
        assert_eq!(tree.look(&changes), is("", "p/x.md", 0));
    }

    #[test]
    fn nothing_is_gone_from_a_named_folder_that_is_away() {
        let mut tree = Tree::new(&["docs/a.md", "docs/b/x.md", "more/y.md"], &["docs", "more"]);
        fs::rename(tree.path("docs"), tree.path("parked")).unwrap();
        let changes = tree.changes(&["docs", "docs/a.md", "docs/b", "more/y.md"]);
        assert_eq!(tree.look(&changes), is("p/y.md", "", 1));
        assert_eq!(tree.look(&changes), is("p/y.md", "", 0), "told once");
        assert_eq!(tree.look(&Changes::Anything), is("p/y.md", "", 0));
        assert_eq!(tree.known.unread().count(), 1);
        write(&tree.path("docs/a.md"));
        assert_eq!(tree.look(&Changes::Anything), is("p/a.md p/y.md", "p/b/x.md", 0));
        assert_eq!(tree.known.unread().count(), 0);
    }

    #[test]
    fn nothing_is_gone_from_a_folder_that_cannot_be_read() {
        let mut tree = Tree::new(&["docs/a.md", "docs/b.md"], &["docs"]);
        let wrong = unreadable(&tree.path("docs"));
        let kept = (wrong.join("kept.md"), "p/kept.md".to_owned());
        tree.known.files.as_mut().unwrap().extend([kept]);
        fs::remove_file(tree.path("docs/b.md")).unwrap();
        assert_eq!(tree.look(&Changes::Anything), is("p/a.md", "p/b.md", 1));
        let changes = tree.changes(&["docs/a.md"]);
        assert_eq!(tree.look(&changes), is("p/a.md", "", 0));
        assert_eq!(tree.known.unread().next().unwrap().path, wrong);
        fs::remove_dir_all(tree.path("docs/upper")).unwrap();
        let changes = tree.changes(&["docs/upper"]);
        assert_eq!(tree.look(&changes), is("", "p/kept.md", 0));
        assert_eq!(tree.known.unread().count(), 0);
    }

    #[test]
    fn a_folder_that_can_be_read_again_is_told() {
        let mut tree = Tree::new(&["docs/a/x.md"], &["docs"]);
        let folder = tree.path("docs/a");
        tree.known.unread.insert(folder.clone(), "not just now".to_owned());
        let changes = tree.changes(&["docs/a"]);
        let look = tree.known.look(&changes);
        assert_eq!((look.readable, look.files.len()), (vec![folder], 1));
    }
}
