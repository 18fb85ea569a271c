//! What becomes of one batch of documents. A request of several fails as a whole while some of its documents may be stored;
//! here each gets its own answer.
//!
//! [`next`] decides what is sent after a failure. What may be sent again is: a stored document is answered as unchanged,
//! and nothing is embedded for it. A document is only called wrong when it was refused alone, so that the message is about
//! it and what passes may have passed.

use cairn_client::{Collection, Document, Error, ErrorKind, Format, PutResult};

use super::read::{Item, Origin};
use super::send::Plan;

/// Documents in a row that take too long, each alone, before the rest is not tried: then it is not their size.
const LATE_IN_A_ROW: usize = 2;

/// What became of one document.
pub(super) struct Outcome {
    pub(super) what: Origin,
    pub(super) bytes: u64,
    /// Nothing, if the document is empty.
    pub(super) result: Result<Option<PutResult>, Why>,
}

/// Why a document is not stored.
pub(super) enum Why {
    /// The server said no to it.
    Refused(Error),
    /// It was not tried, after this.
    NotTried(Error),
    /// It cannot be sent.
    Said(String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Which document of its request it was means nothing to who reads the name of a file.
            Self::Refused(e) => write!(f, "{}: {}", e.code(), e.message()),
            Self::NotTried(e) => write!(f, "not tried after {}: {}", e.code(), e.message()),
            Self::Said(text) => f.write_str(text),
        }
    }
}

/// What to do after a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing: none of it is stored.
    GiveUp,
    /// Those before this one are stored, to be asked what became of them. Nobody will store the others now.
    KeepBefore(usize),
    /// All but this one, then this one alone.
    Without(usize),
    /// Each alone.
    Apart,
}

/// `at` is the document that the server points at, of the `sent` ones, which are several.
fn next(kind: ErrorKind, at: Option<usize>, sent: usize) -> Next {
    match (kind, at.filter(|at| *at < sent)) {
        // The client has waited and tried again already.
        (ErrorKind::Unreachable | ErrorKind::Unavailable | ErrorKind::Exhausted, None | Some(0)) => Next::GiveUp,
        (ErrorKind::Unavailable | ErrorKind::Exhausted, Some(at)) => Next::KeepBefore(at),
        // All together take longer than one request may.
        (ErrorKind::Deadline, _) => Next::Apart,
        (_, Some(at)) => Next::Without(at),
        (_, None) => Next::GiveUp,
    }
}

/// Sends one batch, and says what became of each document; those that were not sent because somebody said stop are left out.
pub(super) async fn put(collection: &Collection, batch: Vec<Item>, plan: &Plan) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut good = Vec::new();
    for Item { what, bytes, document } in batch {
        match document {
            Ok(document) => good.push((what, bytes, document)),
            Err(why) => outcomes.push(Outcome {
                what,
                bytes,
                result: Err(Why::Said(why)),
            }),
        }
    }
    let documents: Vec<&Document> = good.iter().map(|(_, _, document)| document).collect();
    let results = put_all(collection, &documents, plan).await;
    let answered = good.into_iter().zip(results);
    outcomes.extend(answered.filter_map(|((what, bytes, _), result)| {
        Some(Outcome {
            what,
            bytes,
            result: result?,
        })
    }));
    outcomes
}

type Put = Result<Option<PutResult>, Why>;

/// In the order of the documents.
async fn put_all(collection: &Collection, documents: &[&Document], plan: &Plan) -> Vec<Option<Put>> {
    let mut results: Vec<Option<Put>> = documents.iter().map(|_| None).collect();
    let mut open = vec![(0..documents.len()).collect::<Vec<_>>()];
    let mut late = 0;
    let mut begun = false;
    while let Some(group) = open.pop() {
        if begun && plan.stop.is_asked() {
            break;
        }
        begun = true;
        let request = group.iter().map(|&i| documents[i].clone());
        let error = match collection.put_documents_unless(request, plan.on_near_duplicate).await {
            Ok(summary) => {
                late = 0;
                for (i, put) in group.into_iter().zip(summary.results) {
                    results[i] = Some(Ok(Some(put)));
                }
                continue;
            }
            Err(e) => e,
        };
        if let [only] = group[..] {
            late = if error.kind() == ErrorKind::Deadline {
                late + 1
            } else {
                0
            };
            if late == LATE_IN_A_ROW {
                for i in open.drain(..).flatten() {
                    results[i] = Some(Err(Why::NotTried(error.clone())));
                }
            }
            results[only] = Some(refused_alone(collection, documents[only], error).await);
            continue;
        }
        match next(error.kind(), place(&error), group.len()) {
            Next::GiveUp => {
                for i in group {
                    results[i] = Some(Err(Why::Refused(error.clone())));
                }
            }
            Next::KeepBefore(at) => {
                let (before, rest) = group.split_at(at);
                for &i in rest {
                    results[i] = Some(Err(Why::NotTried(error.clone())));
                }
                results[rest[0]] = Some(Err(Why::Refused(error)));
                open.push(before.to_vec());
            }
            Next::Without(at) => {
                let mut others = group;
                let one = others.remove(at);
                open.push(vec![one]);
                open.push(others);
            }
            // The first goes first: what was stored before the time was over is answered at once.
            Next::Apart => open.extend(group.into_iter().rev().map(|i| vec![i])),
        }
    }
    results
}

/// A file that holds nothing any more (a folder's index of front matter, say) has nothing to find: what was stored under
/// its id goes, and that is no failure. A file that holds something else than text, scanned pages perhaps, is one, and
/// what was stored stays.
async fn refused_alone(collection: &Collection, document: &Document, error: Error) -> Put {
    if error.code() != "empty_document" || !holds_nothing(document) {
        return Err(Why::Refused(error));
    }
    let deleted = collection.delete_documents([document.id.clone()]).await;
    deleted.map(|_| None).map_err(Why::Refused)
}

/// Of a document without text: nothing else is in it either. Plain text and Markdown are text all over; a page that shows
/// none may be filled by a script, and a PDF may be pictures.
fn holds_nothing(document: &Document) -> bool {
    match document.format {
        Format::Plain | Format::Markdown => true,
        Format::Html | Format::Pdf => document.text.trim().is_empty() && document.data.trim_ascii().is_empty(),
    }
}

/// Which document of the request an error is about.
fn place(error: &Error) -> Option<usize> {
    let at = error.pointer()?.strip_prefix("/documents/")?;
    at.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_takes_no_other_document_with_it() {
        use ErrorKind::{Deadline, Denied, Exhausted, Invalid, NotFound, Server, Unavailable, Unreachable};
        let cases = [
            (Invalid, Some(3), Next::Without(3)),
            (Server, Some(0), Next::Without(0)),
            // About none of them, or about all.
            (Invalid, None, Next::GiveUp),
            (Invalid, Some(8), Next::GiveUp),
            (NotFound, None, Next::GiveUp),
            (Denied, None, Next::GiveUp),
            (Server, None, Next::GiveUp),
            // The model is away: those before it are stored.
            (Unavailable, Some(3), Next::KeepBefore(3)),
            (Unavailable, Some(0), Next::GiveUp),
            (Unavailable, None, Next::GiveUp),
            (Exhausted, None, Next::GiveUp),
            (Unreachable, None, Next::GiveUp),
            (Deadline, Some(3), Next::Apart),
            (Deadline, None, Next::Apart),
        ];
        for (kind, at, expected) in cases {
            assert_eq!(next(kind, at, 8), expected, "{kind:?} at {at:?}");
        }
    }
    #[test]
    fn only_what_holds_nothing_at_all_is_empty() {
        let cases = [
            (Document::plain("a", ""), true),
            (Document::markdown("a", "---\ntitle: A\n---\n"), true),
            (Document::html_file("a", ""), true),
            (Document::html_file("a", " \n"), true),
            (
                Document::html_file("a", "<div id=app></div><script>go()</script>"),
                false,
            ),
            (Document::html("a", "<div></div>"), false),
            (Document::pdf("a", "%PDF-1.7"), false),
        ];
        for (document, expected) in cases {
            assert_eq!(holds_nothing(&document), expected, "{document:?}");
        }
    }
}
