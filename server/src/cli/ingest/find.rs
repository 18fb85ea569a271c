//! Which files are there, and what are they? A directory is walked; hidden files and what is of no known kind are left
//! out. A file that is named must be of a known kind.

use std::fs;
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

/// All files below `paths`, in order of their paths. A path that cannot be read, or a file of no known kind that was
/// named, is an error before anything is sent.
pub(in crate::cli) fn find(paths: &[PathBuf], prefix: &str) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        if meta.is_dir() {
            walk(path, path, prefix, &mut sources)?;
        } else {
            let named = || Failure::usage(format!("{}: a file must end in {KNOWN}", path.display()));
            let kind = kind(path).ok_or_else(named)?;
            let name = path.file_name().map_or(path.as_path(), Path::new);
            sources.push(Source {
                id: id_of(prefix, name),
                path: path.clone(),
                kind,
                bytes: meta.len(),
            });
        }
    }
    Ok(sources)
}

/// Refuses to have found nothing.
pub(in crate::cli) fn some(sources: Vec<Source>) -> Result<Vec<Source>, Failure> {
    if sources.is_empty() {
        return Err(Failure::new(format!("no {KNOWN} file there")));
    }
    Ok(sources)
}

/// All files below `below`, with ids as of the directory that was named.
fn walk(root: &Path, below: &Path, prefix: &str, sources: &mut Vec<Source>) -> Result<(), Failure> {
    let visible = |e: &walkdir::DirEntry| e.depth() == 0 || !is_hidden(e.file_name());
    for entry in walkdir::WalkDir::new(below)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(visible)
    {
        let entry = entry.map_err(|e| Failure::new(e.to_string()))?;
        if entry.file_type().is_file()
            && let Some(kind) = kind(entry.path())
        {
            let name = entry.path().strip_prefix(root).unwrap_or(entry.path());
            let bytes = entry.metadata().map_or(0, |m| m.len());
            sources.push(Source {
                id: id_of(prefix, name),
                path: entry.into_path(),
                kind,
                bytes,
            });
        }
    }
    Ok(())
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with('.')
}

/// What one path means to somebody who named `roots`, now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Now {
    /// Files to read.
    There(Vec<Source>),
    /// The file of this document is not there.
    Gone(String),
    /// What was perhaps a directory is not there: ids of documents below it begin so.
    GoneBelow(String),
    /// Hidden, of no known kind, or not below a root.
    Nothing,
}

/// Looks at a path that changed.
pub(super) fn look(roots: &[PathBuf], path: &Path, prefix: &str) -> Now {
    for root in roots {
        let name = if path == root && !root.is_dir() {
            root.file_name().map_or(root.as_path(), Path::new)
        } else if let Ok(name) = path.strip_prefix(root) {
            name
        } else {
            continue;
        };
        if name.components().any(|part| is_hidden(part.as_os_str())) {
            return Now::Nothing;
        }
        // As in a walk: links are not followed, but for a root that is one.
        if path != root && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
            return Now::Nothing;
        }
        let mut sources = Vec::new();
        return match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => match walk(root, path, prefix, &mut sources) {
                Ok(()) => Now::There(sources),
                // It changes while we look; what happens next is another event.
                Err(_) => Now::Nothing,
            },
            Ok(meta) => match kind(path) {
                Some(kind) => Now::There(vec![Source {
                    path: path.to_owned(),
                    id: id_of(prefix, name),
                    kind,
                    bytes: meta.len(),
                }]),
                None => Now::Nothing,
            },
            Err(_) => match kind(path) {
                Some(kind) if kind.is_whole() => Now::Gone(id_of(prefix, name)),
                Some(_) => Now::Nothing,
                // The root itself: then everything of this prefix, which may be everybody's.
                None if name.as_os_str().is_empty() => Now::Nothing,
                None => Now::GoneBelow(format!("{}/", id_of(prefix, name))),
            },
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "text").unwrap();
    }

    fn ids(sources: &[Source]) -> Vec<&str> {
        sources.iter().map(|source| source.id.as_str()).collect()
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
            Now::There(sources) => ids(&sources).join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(there("a/x.md"), "p/a/x.md");
        assert_eq!(there("a"), "p/a/x.md p/a/y.txt");
        for nothing in [".git/z.md", "p.png", "gone.jsonl", ".git"] {
            assert_eq!(there(nothing), "Nothing", "{nothing}");
        }
        assert_eq!(there("gone.pdf"), "Gone(\"p/gone.pdf\")");
        assert_eq!(there("b/gone"), "GoneBelow(\"p/b/gone/\")");
        assert_eq!(look(&roots, dir.path(), ""), Now::Nothing);
        // What a walk leaves out is left out here, too.
        std::os::unix::fs::symlink(root.join("a/x.md"), root.join("link.md")).unwrap();
        std::os::unix::fs::symlink(&root, root.join("loop")).unwrap();
        assert_eq!(
            (there("link.md").as_str(), there("loop").as_str()),
            ("Nothing", "Nothing")
        );
        // A file that was named itself has its name as id.
        let file = root.join("a/x.md");
        let Now::There(sources) = look(std::slice::from_ref(&file), &file, "") else {
            panic!("it is there")
        };
        assert_eq!(ids(&sources), ["x.md"]);
    }
}
