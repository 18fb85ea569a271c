//! What is known of the files that are followed: which were there, and which folders cannot be read. Says of a change what
//! is to be read, and what is gone.
//!
//! Gone is only a file that was there before, so that no document is deleted that no watched file made. And what is below
//! a folder that cannot be read is not taken for gone, nor what is below a named folder that is away: a generator removes
//! its whole output and writes it again, and a disk may be unmounted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::find::{Found, Now, Source, Unread, find_again, is_file, is_gone, look, not_there};
use super::watch::Changes;

/// Why a named folder cannot be read that is not there.
const AWAY: &str = "it is not there; what is stored of it stays until it is back";

#[derive(Debug)]
pub(super) struct Known {
    /// What was named, and is followed.
    roots: Vec<PathBuf>,
    /// Those of them that are folders, and the device that each was on when it was last there.
    folders: BTreeMap<PathBuf, u64>,
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
    /// Paths of which nothing is there any more, and known files that were at or below what was looked at and are not there
    /// any more.
    pub(super) gone: BTreeSet<PathBuf>,
    /// Folders that cannot be read, which is news.
    pub(super) unread: Vec<Unread>,
    /// Folders that can be read again.
    pub(super) readable: Vec<PathBuf>,
}

impl Known {
    /// What was named must be there.
    pub(super) fn new(roots: &[PathBuf], prefix: &str, delete_missing: bool) -> Self {
        let folder = |root: &PathBuf| {
            let meta = fs::metadata(root).ok().filter(fs::Metadata::is_dir)?;
            Some((root.clone(), meta.dev()))
        };
        Self {
            roots: roots.to_vec(),
            folders: roots.iter().filter_map(folder).collect(),
            prefix: prefix.to_owned(),
            files: delete_missing.then(BTreeMap::new),
            unread: BTreeMap::new(),
        }
    }

    /// What was found at first.
    pub(super) fn first(&mut self, found: Found) -> Look {
        self.keep(found, BTreeSet::new(), &BTreeMap::new())
    }

    /// A change may be about what is followed.
    pub(super) fn concerns(&self, changes: &Changes) -> bool {
        let near = |path: &PathBuf| self.has(path) || self.roots.iter().any(|root| root.starts_with(path));
        match changes {
            Changes::Anything => true,
            Changes::Paths(paths) => paths.iter().any(near),
        }
    }

    /// What is looked at: everything at or below these.
    pub(super) fn looked_at(&self, changes: &Changes) -> Vec<PathBuf> {
        match changes {
            Changes::Anything => self.roots.clone(),
            Changes::Paths(paths) => paths.iter().filter(|path| self.has(path)).cloned().collect(),
        }
    }

    /// A path is at or below what was named.
    fn has(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
    }

    /// Looks at what changed.
    pub(super) fn look(&mut self, changes: &Changes) -> Look {
        let (mut found, mut gone, mut before) = (Found::default(), BTreeSet::new(), BTreeMap::new());
        match changes {
            // Events of what is gone may be among those that were lost.
            Changes::Anything => {
                // A file that was named is gone when it is not there; a folder is away.
                let there = |root: &&PathBuf| self.folders.contains_key(*root) || !is_gone(root);
                let there: Vec<PathBuf> = self.roots.iter().filter(there).cloned().collect();
                found = find_again(&there, &self.prefix);
                for folder in self.away(|_| true) {
                    found.unread.retain(|unread| unread.path != folder);
                    found.sources.retain(|source| !source.path.starts_with(&folder));
                    found.unread.push(away(folder));
                }
                gone.extend(self.files.iter().flat_map(BTreeMap::keys).cloned());
                before = std::mem::take(&mut self.unread);
            }
            Changes::Paths(paths) => {
                for path in paths {
                    if !self.has(path) {
                        continue;
                    }
                    let now = look(&self.roots, path, &self.prefix);
                    // Asked after that, so that what is missing with its named folder is not taken for gone.
                    let are_away = self.away(|folder| path.starts_with(folder) || folder.starts_with(path));
                    let again: Vec<PathBuf> = below(&self.unread, path).cloned().collect();
                    before.extend(again.iter().filter_map(|path| self.unread.remove_entry(path)));
                    let within_one = are_away.iter().any(|folder| path.starts_with(folder));
                    found.unread.extend(are_away.into_iter().map(away));
                    if within_one {
                        continue;
                    }
                    match now {
                        Now::There(now) => found.extend(now),
                        Now::Gone => {
                            gone.insert(path.clone());
                        }
                        Now::Nothing => {}
                    }
                    // Those that are found, and those that nobody can know of, are taken out again. A folder that was
                    // swapped for another one tells no more than that, nor does a file that became a folder or a link.
                    gone.extend(self.files.iter().flat_map(|files| below(files, path)).cloned());
                }
            }
        }
        self.keep(found, gone, &before)
    }

    /// `before` are the folders among what was looked at that could not be read the last time.
    fn keep(&mut self, found: Found, mut gone: BTreeSet<PathBuf>, before: &BTreeMap<PathBuf, String>) -> Look {
        let mut unread = Vec::new();
        for Unread { path, mut why } in found.unread {
            if self.folders.contains_key(&path) && is_gone(&path) {
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
        let read =
            |path: &&PathBuf| !self.unread.contains_key(*path) && !self.folders.contains_key(*path) && path.is_dir();
        Look {
            readable: before.keys().filter(read).cloned().collect(),
            files,
            gone,
            unread,
        }
    }

    /// Those of the named folders that are away at this moment.
    fn away(&mut self, which: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let folders: Vec<PathBuf> = self.folders.keys().filter(|folder| which(folder)).cloned().collect();
        folders.into_iter().filter(|folder| self.is_away(folder)).collect()
    }

    /// No folder is there. Or an empty one on another device, which is what is left of a mount that went.
    fn is_away(&mut self, folder: &Path) -> bool {
        let Some(device) = self.folders.get_mut(folder) else {
            return false;
        };
        match fs::metadata(folder) {
            Ok(meta) if meta.is_dir() => {
                if meta.dev() == *device {
                    return false;
                }
                let Ok(mut entries) = fs::read_dir(folder) else {
                    return false;
                };
                if entries.next().is_none() {
                    return true;
                }
                *device = meta.dev();
                false
            }
            Ok(_) => true,
            Err(e) => not_there(&e),
        }
    }

    /// What was gone, and is a file again by now.
    pub(super) fn back(&self, gone: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        gone.iter().filter(|path| is_file(&self.roots, path)).cloned().collect()
    }

    /// Folders that cannot be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = Unread> {
        self.unread.iter().map(|(path, why)| Unread {
            path: path.clone(),
            why: why.clone(),
        })
    }

    /// The documents of files that are gone, but for those that another file has now; and these files.
    pub(super) fn documents(&self, gone: &BTreeSet<PathBuf>) -> (BTreeSet<String>, BTreeSet<PathBuf>) {
        let Some(files) = &self.files else {
            return (BTreeSet::new(), BTreeSet::new());
        };
        let mut ids: BTreeSet<String> = gone.iter().filter_map(|path| files.get(path)).cloned().collect();
        if ids.is_empty() {
            return (ids, BTreeSet::new());
        }
        let has_one = |(path, id): &(&PathBuf, &String)| !gone.contains(*path) && ids.contains(*id);
        let others: BTreeMap<&PathBuf, &String> = files.iter().filter(has_one).collect();
        for id in others.values() {
            ids.remove(*id);
        }
        (ids, others.into_keys().cloned().collect())
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

/// A named folder that is away.
fn away(path: PathBuf) -> Unread {
    Unread {
        path,
        why: AWAY.to_owned(),
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
            let gone: Vec<String> = self.known.documents(&look.gone).0.into_iter().collect();
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
        assert_eq!(tree.known.documents(&look.gone).0, ["p/one.md".to_owned()].into());
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
    fn who_has_the_id_of_a_file_that_is_gone_is_told() {
        let mut tree = Tree::new(&["a/x.md", "b/x.md", "b/y.md"], &["a", "b"]);
        fs::remove_file(tree.path("a/x.md")).unwrap();
        let changes = tree.changes(&["a/x.md"]);
        let look = tree.known.look(&changes);
        let heirs = BTreeSet::from([tree.path("b/x.md")]);
        assert_eq!(tree.known.documents(&look.gone), (BTreeSet::new(), heirs));
        // Until it is a file again.
        assert!(tree.known.back(&look.gone).is_empty());
        write(&tree.path("a/x.md"));
        assert_eq!(tree.known.back(&look.gone), look.gone);
    }

    #[test]
    fn what_another_folder_in_the_same_place_lacks_is_gone() {
        let mut tree = Tree::new(&["docs/a/x.md", "docs/a/y.md", "docs/b/z.md"], &["docs"]);
        fs::rename(tree.path("docs/a"), tree.path("parked")).unwrap();
        for file in ["docs/a/y.md", "docs/a/new.md"] {
            write(&tree.path(file));
        }
        let changes = tree.changes(&["docs/a"]);
        assert_eq!(tree.look(&changes), is("p/a/new.md p/a/y.md", "p/a/x.md", 0));
        // By way of a link nothing is looked at, whatever was there.
        fs::remove_dir_all(tree.path("docs/a")).unwrap();
        std::os::unix::fs::symlink(tree.path("parked"), tree.path("docs/a")).unwrap();
        let look = tree.known.look(&changes);
        assert!(tree.known.back(&look.gone).is_empty(), "they are elsewhere");
        assert_eq!(tree.look(&changes), is("", "p/a/new.md p/a/y.md", 0));
        // A file in place of a folder, and a folder in place of a file.
        fs::remove_dir_all(tree.path("docs/b")).unwrap();
        write(&tree.path("docs/b"));
        let changes = tree.changes(&["docs/b"]);
        assert_eq!(tree.look(&changes), is("", "p/b/z.md", 0));
        write(&tree.path("docs/c.md"));
        let changes = tree.changes(&["docs/c.md"]);
        assert_eq!(tree.look(&changes), is("p/c.md", "", 0));
        fs::remove_file(tree.path("docs/c.md")).unwrap();
        write(&tree.path("docs/c.md/d.md"));
        assert_eq!(tree.look(&changes), is("p/c.md/d.md", "p/c.md", 0));
    }

    #[test]
    fn what_is_next_to_what_is_followed_is_no_change() {
        let mut tree = Tree::new(&["docs/a.md", "docs-2/x.md"], &["docs"]);
        let concerns = |tree: &Tree, path: &str| tree.known.concerns(&tree.changes(&[path]));
        assert!(concerns(&tree, "docs/a.md") && concerns(&tree, "docs") && concerns(&tree, ""));
        assert!(!concerns(&tree, "docs-2/x.md") && !concerns(&tree, "docs-2"));
        assert!(tree.known.concerns(&Changes::Anything));
        // Nothing is gone with what is above.
        let changes = tree.changes(&["", "docs-2"]);
        assert_eq!(tree.look(&changes), is("", "", 0));
        assert!(tree.known.looked_at(&changes).is_empty());
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
        // Nobody need say so: a file may be missed before the folder is.
        fs::rename(tree.path("docs"), tree.path("parked-2")).unwrap();
        let changes = tree.changes(&["docs/a.md"]);
        assert_eq!(tree.look(&changes), is("", "", 1));
        // A file in its place is no folder.
        write(&tree.path("docs"));
        assert_eq!(tree.look(&Changes::Anything), is("p/y.md", "", 0));
        let changes = tree.changes(&["docs"]);
        assert_eq!(tree.look(&changes), is("", "", 0));
        assert_eq!(tree.known.unread().next().unwrap().path, tree.path("docs"));
    }

    #[test]
    fn a_named_folder_below_another_one_that_is_away_keeps_its_documents() {
        let mut tree = Tree::new(&["docs/a.md", "docs/sub/x.md"], &["docs", "docs/sub"]);
        fs::rename(tree.path("docs/sub"), tree.path("parked")).unwrap();
        let changes = tree.changes(&["docs"]);
        assert_eq!(tree.look(&changes), is("p/a.md", "", 1));
        assert_eq!(tree.look(&changes), is("p/a.md", "", 0), "told once");
    }

    #[test]
    fn an_empty_folder_of_another_device_is_what_a_mount_leaves_behind() {
        let mut tree = Tree::new(&["docs/a.md", "docs/b.md"], &["docs"]);
        let docs = tree.path("docs");
        for name in ["a.md", "b.md"] {
            fs::remove_file(docs.join(name)).unwrap();
        }
        *tree.known.folders.get_mut(&docs).unwrap() ^= 1;
        let changes = tree.changes(&["docs", "docs/b.md"]);
        assert_eq!(tree.look(&Changes::Anything), is("", "", 1));
        assert_eq!(tree.look(&changes), is("", "", 0));
        // Another disk, with something on it, is there.
        write(&docs.join("a.md"));
        assert_eq!(tree.look(&changes), is("p/a.md", "p/b.md", 0));
        fs::remove_file(docs.join("a.md")).unwrap();
        assert_eq!(
            tree.look(&Changes::Anything),
            is("", "p/a.md", 0),
            "it is a folder as any"
        );
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
