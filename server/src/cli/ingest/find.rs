//! Which files are there, and what are they? A directory is walked; hidden files and what is of no known kind are left
//! out. A file that is named must be of a known kind. A folder below it that cannot be read is told, and does not stop the
//! others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::Failure;

/// What a file must be.
const KNOWN: &str = ".md, .markdown, .txt, .html, .htm, .xhtml, .pdf, .jsonl, .ndjson, .csv or .tsv";

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Source {
    pub(super) path: PathBuf,
    /// The id of its document, if it is one document.
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Markdown,
    Text,
    Html,
    Pdf,
    /// One document a line.
    Jsonl,
    /// One document a row.
    Csv {
        delimiter: u8,
    },
}

impl Kind {
    /// One file is one document.
    pub(super) fn is_whole(self) -> bool {
        !matches!(self, Self::Jsonl | Self::Csv { .. })
    }
}

/// What is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Found {
    pub(in crate::cli) sources: Vec<Source>,
    pub(in crate::cli) unread: Vec<Unread>,
}

/// A folder that could not be read: what is in it, nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Unread {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// All files below `paths`, in order of their paths. A path that cannot be read, or a file of no known kind that was
/// named, is an error before anything is sent.
pub(in crate::cli) fn find(paths: &[PathBuf], prefix: &str) -> Result<Found, Failure> {
    let mut found = Found::default();
    for path in paths {
        found
            .add(path, prefix)
            .map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?;
    }
    Ok(found)
}

/// The same of paths that could be read once: one that cannot be read now does not hide the others.
pub(super) fn find_again(paths: &[PathBuf], prefix: &str) -> Found {
    let mut found = Found::default();
    for path in paths {
        if let Err(why) = found.add(path, prefix) {
            let path = path.clone();
            found.unread.push(Unread { path, why });
        }
    }
    found
}

/// Refuses to have found nothing.
pub(in crate::cli) fn some(found: Found) -> Result<Found, Failure> {
    if found.sources.is_empty() && found.unread.is_empty() {
        return Err(Failure::new(format!("no {KNOWN} file there")));
    }
    Ok(found)
}

impl Found {
    /// Adds what is at a path that was named, or says why that cannot be read.
    fn add(&mut self, path: &Path, prefix: &str) -> Result<(), String> {
        let meta = fs::metadata(path).map_err(|e| e.to_string())?;
        if meta.is_dir() {
            self.walk(path, path, prefix);
            let itself = self.unread.iter().position(|unread| unread.path == path);
            return match itself {
                Some(at) => Err(self.unread.swap_remove(at).why),
                None => Ok(()),
            };
        }
        let kind = kind(path).ok_or_else(|| format!("a file must end in {KNOWN}"))?;
        let name = path.file_name().map_or(path, Path::new);
        self.sources.push(Source {
            id: id_of(prefix, name),
            path: path.to_owned(),
            kind,
            bytes: meta.len(),
        });
        Ok(())
    }

    /// Adds all files below `below`, with ids as of the directory that was named.
    fn walk(&mut self, root: &Path, below: &Path, prefix: &str) {
        let visible = |e: &walkdir::DirEntry| e.depth() == 0 || !is_hidden(e.file_name());
        for entry in walkdir::WalkDir::new(below)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(visible)
        {
            let entry = match entry {
                Ok(entry) => entry,
                // It changes while we look.
                Err(e) if e.depth() > 0 && e.io_error().is_some_and(not_there) => continue,
                Err(e) => {
                    self.unread.push(Unread {
                        path: e.path().unwrap_or(below).to_owned(),
                        why: e.io_error().map_or_else(|| e.to_string(), ToString::to_string),
                    });
                    continue;
                }
            };
            if entry.file_type().is_file()
                && let Some(kind) = kind(entry.path())
            {
                let name = entry.path().strip_prefix(root).unwrap_or(entry.path());
                let bytes = entry.metadata().map_or(0, |m| m.len());
                self.sources.push(Source {
                    id: id_of(prefix, name),
                    path: entry.into_path(),
                    kind,
                    bytes,
                });
            }
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.sources.extend(other.sources);
        self.unread.extend(other.unread);
    }
}

/// Nothing is at this path, as opposed to something that cannot be looked at.
pub(super) fn is_gone(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|e| not_there(&e))
}

/// A file is at this path, and not by way of a link.
pub(super) fn is_file(roots: &[PathBuf], path: &Path) -> bool {
    let root = roots.iter().find(|root| path.starts_with(root));
    !root.is_some_and(|root| is_linked(root, path)) && path.is_file()
}

/// A path below a root leads over a link, which a walk does not follow. The root itself may be one.
fn is_linked(root: &Path, path: &Path) -> bool {
    let mut below = path.ancestors().take_while(|above| *above != root);
    below.any(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()))
}

pub(super) fn not_there(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with('.')
}

/// What one path means to somebody who named `roots`, now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Now {
    /// Files to read, or a folder that cannot be read.
    There(Found),
    /// Nothing is there: no file, and no folder.
    Gone,
    /// Hidden, of no known kind, a link, or not below a root.
    Nothing,
}

/// Looks at a path that changed.
pub(super) fn look(roots: &[PathBuf], path: &Path, prefix: &str) -> Now {
    for root in roots {
        let name = if path == root {
            root.file_name().map_or(root.as_path(), Path::new)
        } else if let Ok(name) = path.strip_prefix(root) {
            // As in a walk: nothing hidden, and links are not followed, but for a root that is one.
            if name.components().any(|part| is_hidden(part.as_os_str())) || is_linked(root, path) {
                return Now::Nothing;
            }
            name
        } else {
            continue;
        };
        let mut found = Found::default();
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => found.walk(root, path, prefix),
            Ok(meta) => match kind(path) {
                Some(kind) => found.sources.push(Source {
                    path: path.to_owned(),
                    id: id_of(prefix, name),
                    kind,
                    bytes: meta.len(),
                }),
                None => return Now::Nothing,
            },
            Err(e) if not_there(&e) => return Now::Gone,
            // Its folder does not say whether it is there.
            Err(e) => found.unread.push(Unread {
                path: path.parent().filter(|_| path != root).unwrap_or(path).to_owned(),
                why: e.to_string(),
            }),
        }
        return Now::There(found);
    }
    Now::Nothing
}

pub(super) fn kind(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "md" | "markdown" => Some(Kind::Markdown),
        "txt" => Some(Kind::Text),
        "html" | "htm" | "xhtml" => Some(Kind::Html),
        "pdf" => Some(Kind::Pdf),
        "jsonl" | "ndjson" => Some(Kind::Jsonl),
        "csv" => Some(Kind::Csv { delimiter: b',' }),
        "tsv" => Some(Kind::Csv { delimiter: b'\t' }),
        _ => None,
    }
}

/// Ids are the same on every system: parts are joined with `/`.
fn id_of(prefix: &str, path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|c| c.as_os_str().to_string_lossy()).collect();
    format!("{prefix}{}", parts.join("/"))
}

/// A folder below `root` that nobody can read, not even who may read everything: its path is longer than the system takes.
#[cfg(test)]
pub(super) fn unreadable(root: &Path) -> PathBuf {
    const PATH_BYTES_MAX: usize = 4_095;
    let name = "d".repeat(200);
    let deep = |top: &str| (0..PATH_BYTES_MAX / 300).fold(root.join(top), |path, _| path.join(&name));
    let (upper, lower) = (deep("upper"), root.join("lower"));
    fs::create_dir_all(&upper).unwrap();
    fs::create_dir_all(deep("lower")).unwrap();
    fs::rename(lower, upper.join("lower")).unwrap();
    let mut path = upper.join("lower");
    while path.as_os_str().len() <= PATH_BYTES_MAX {
        path.push(&name);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "text").unwrap();
    }

    fn ids(found: &Found) -> Vec<&str> {
        found.sources.iter().map(|source| source.id.as_str()).collect()
    }

    #[test]
    fn ids_are_paths_below_what_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        for name in [
            "b.txt",
            "a/z.md",
            "a/y.MARKDOWN",
            "a/picture.png",
            ".git/x.md",
            "a/.hidden.md",
            "c.pdf",
            "d/e.HTM",
        ] {
            write(root.join(name));
        }
        assert_eq!(
            ids(&find(std::slice::from_ref(&root), "").unwrap()),
            ["a/y.MARKDOWN", "a/z.md", "b.txt", "c.pdf", "d/e.HTM"]
        );
        assert_eq!(ids(&find(&[root.join("a").join("z.md")], "").unwrap()), ["z.md"]);
        assert_eq!(
            ids(&find(&[root.join("a")], "hand/").unwrap()),
            ["hand/y.MARKDOWN", "hand/z.md"]
        );
    }

    #[test]
    fn what_was_named_must_be_there_and_of_a_known_kind() {
        let dir = tempfile::tempdir().unwrap();
        let png = dir.path().join("x.png");
        write(png.clone());
        for paths in [vec![png], vec![dir.path().join("missing.md")]] {
            assert_eq!(find(&paths, "").err().unwrap().code, Failure::USAGE);
        }
        let found = find(&[dir.path().to_owned()], "").unwrap();
        assert_eq!(some(found).err().unwrap().code, Failure::FAILED);
    }

    #[test]
    fn a_changed_path_is_looked_at_as_if_it_had_been_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("docs");
        for name in ["a/x.md", "a/y.txt", "rows.csv", ".git/z.md", "p.png"] {
            write(root.join(name));
        }
        let roots = [root.clone()];
        let there = |path: &str| match look(&roots, &root.join(path), "p/") {
            Now::There(found) => ids(&found).join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(there("a/x.md"), "p/a/x.md");
        assert_eq!(there("a"), "p/a/x.md p/a/y.txt");
        for nothing in [".git/z.md", "p.png", ".git/gone.md", ".git"] {
            assert_eq!(there(nothing), "Nothing", "{nothing}");
        }
        for gone in ["gone.pdf", "gone.jsonl", "b/gone", "a/x.md/y.md"] {
            assert_eq!(there(gone), "Gone", "{gone}");
        }
        assert_eq!(look(&roots, dir.path(), ""), Now::Nothing);
        // What a walk leaves out is left out here, too.
        std::os::unix::fs::symlink(root.join("a/x.md"), root.join("link.md")).unwrap();
        std::os::unix::fs::symlink(&root, root.join("loop")).unwrap();
        for linked in ["link.md", "loop", "loop/a/x.md", "loop/a"] {
            assert_eq!(there(linked), "Nothing", "{linked}");
            assert!(!is_file(&roots, &root.join(linked)), "{linked}");
        }
        assert!(is_file(&roots, &root.join("a/x.md")) && !is_file(&roots, &root.join("a")));
        // But for a link that was named.
        let named = [root.join("loop")];
        let Now::There(found) = look(&named, &root.join("loop/a/x.md"), "") else {
            panic!("it is there")
        };
        assert_eq!(ids(&found), ["a/x.md"]);
        assert!(is_file(&named, &root.join("loop/a/x.md")));
        // A file that was named itself has its name as id.
        let file = root.join("a/x.md");
        let Now::There(found) = look(std::slice::from_ref(&file), &file, "") else {
            panic!("it is there")
        };
        assert_eq!(ids(&found), ["x.md"]);
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_named_and_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("docs");
        write(root.join("a.md"));
        write(root.join("z/z.md"));
        let wrong = unreadable(&root);
        let paths = |found: &Found| -> Vec<PathBuf> { found.unread.iter().map(|u| u.path.clone()).collect() };
        let found = find(std::slice::from_ref(&root), "").unwrap();
        assert_eq!(
            (ids(&found), paths(&found)),
            (vec!["a.md", "z/z.md"], vec![wrong.clone()])
        );
        assert!(some(found).is_ok());
        // What is in it is neither there nor gone.
        let Now::There(below) = look(std::slice::from_ref(&root), &wrong.join("x.md"), "") else {
            panic!("it is not known")
        };
        assert_eq!((ids(&below), paths(&below)), (vec![""; 0], vec![wrong.clone()]));
        // One that was named is an error at first, and is named later.
        let named = [wrong.clone(), root];
        assert_eq!(find(&named, "").unwrap_err().code, Failure::USAGE);
        let found = find_again(&named, "");
        assert_eq!(
            (ids(&found), paths(&found)),
            (vec!["a.md", "z/z.md"], vec![wrong.clone(), wrong])
        );
    }
}
