//! How to come to a moment between snapshots: from which snapshot, and by whose log.
//!
//! A snapshot is followed by the records after it. A running server has them, as long as it keeps its log; so has a later
//! snapshot of the same database, whose files hold the log of its moment. The choice is a pure function of what the
//! snapshots say of themselves. What it gives are ways to try: whether a log really follows a snapshot is only known from its
//! records, each of which carries the hash of the one before ([`Past`]).

use std::path::Path;

use cairn_engine::engine::{Past, Until};
use cairn_engine::types::{Identity, Seq, Token};
use cairn_engine::{Error, ErrorKind, Result};

use super::store::blocking;
use super::time::show_time;
use super::{Snapshots, Space, Summary, Work, damaged, not_found};

/// Ranges that a message names.
const RANGES_SHOWN: usize = 5;

/// A moment to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointInTime {
    /// Right after this write.
    Token(Token),
    /// Everything that was written until then, in milliseconds since the Unix epoch.
    TimeMs(u64),
}

impl PointInTime {
    /// Of what a request says: at most one of the two.
    pub(crate) fn one_of(token: Option<Token>, time_ms: Option<u64>) -> Result<Option<Self>> {
        match (token, time_ms) {
            (Some(_), Some(_)) => {
                let why = "to_token and to_time_ms both name a moment: say one of them";
                Err(Error::invalid("bad_restore", why).at("/to_time_ms"))
            }
            (token, time_ms) => Ok(token.map(Self::Token).or(time_ms.map(Self::TimeMs))),
        }
    }

    /// As the engine is told.
    pub(crate) fn until(self) -> Until {
        match self {
            Self::Token(token) => Until::Seq(token.seq),
            Self::TimeMs(ms) => Until::TimeMs(ms),
        }
    }

    /// Whether what ends with this write, and has everything until this time, comes so far.
    fn is_within(self, last: Token, until_ms: u64) -> bool {
        match self {
            Self::Token(token) => token <= last,
            Self::TimeMs(ms) => ms <= until_ms,
        }
    }

    /// Whether a snapshot holds nothing that came later.
    fn is_after(self, base: &Summary) -> bool {
        match self {
            Self::Token(token) => base.token <= token,
            Self::TimeMs(ms) => base.created_at_ms <= ms,
        }
    }
}

impl std::fmt::Display for PointInTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(token) => write!(f, "{token}"),
            Self::TimeMs(ms) => f.write_str(&show_time(*ms)),
        }
    }
}

/// A snapshot that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) summary: Summary,
}

/// The log of a running server.
pub(crate) struct Live<'a> {
    pub(crate) identity: Identity,
    pub(crate) last: Token,
    pub(crate) now_ms: u64,
    /// Whether it has what follows a snapshot.
    pub(crate) follows: &'a dyn Fn(&Summary) -> bool,
}

/// Whose records lead from a snapshot to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records<'a> {
    /// The snapshot is the moment.
    Nothing,
    /// The running server's.
    Live,
    /// A later snapshot's.
    Of(&'a Known),
}

/// A way to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way<'a> {
    pub(crate) base: &'a Known,
    pub(crate) records: Records<'a>,
}

/// From where to where a snapshot can be followed, each with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restorable {
    /// The snapshot's own moment.
    pub from: (Token, u64),
    /// The last.
    pub to: (Token, u64),
}

/// All ways to a moment, the shortest first: from the newest snapshot that is not after it, or the named one. There is one, or
/// it is an error that says what can be restored.
pub(crate) fn ways<'a>(
    known: &'a [Known],
    live: Option<&Live<'_>>,
    named: Option<&str>,
    to: PointInTime,
) -> Result<Vec<Way<'a>>> {
    let here = Token::local(Seq(0));
    if let PointInTime::Token(token) = to
        && (token.epoch, token.group) != (here.epoch, here.group)
    {
        let why = "a token of another epoch or group: no write of this service returned it";
        return Err(Error::invalid("bad_token", why).at("/to_token"));
    }
    let mut bases: Vec<&Known> = match named {
        Some(name) => {
            let found = known.iter().find(|known| known.name == name);
            vec![found.ok_or_else(|| not_found(name))?]
        }
        None => of_one_database(known, live)?,
    };
    let asked = bases.clone();
    bases.retain(|base| to.is_after(&base.summary));
    bases.sort_by_key(|base| std::cmp::Reverse((base.summary.token, base.summary.created_at_ms)));
    let mut ways = Vec::new();
    for base in bases {
        if to == PointInTime::Token(base.summary.token) {
            ways.push(Way {
                base,
                records: Records::Nothing,
            });
            continue;
        }
        let live = live.filter(|live| to.is_within(live.last, live.now_ms) && (live.follows)(&base.summary));
        ways.extend(live.map(|_| Way {
            base,
            records: Records::Live,
        }));
        let mut later: Vec<&Known> = known
            .iter()
            .filter(|later| covers(&later.summary, &base.summary))
            .collect();
        later.retain(|later| to.is_within(later.summary.token, later.summary.created_at_ms));
        later.sort_by_key(|later| later.summary.token);
        ways.extend(later.into_iter().map(|later| Way {
            base,
            records: Records::Of(later),
        }));
    }
    match ways.is_empty() {
        true => Err(not_restorable(to, &asked, known, live)),
        false => Ok(ways),
    }
}

/// Where no snapshot is named, those of the database that is asked; without a server, of the only one that there is.
fn of_one_database<'a>(known: &'a [Known], live: Option<&Live<'_>>) -> Result<Vec<&'a Known>> {
    let identity = live.map(|live| live.identity);
    let Some(identity) = identity.or_else(|| known.first().map(|first| first.summary.identity)) else {
        return Ok(Vec::new());
    };
    if live.is_none() && known.iter().any(|other| other.summary.identity != identity) {
        return Err(Error::invalid(
            "snapshot_ambiguous",
            "the store holds snapshots of several databases: say which snapshot is to be followed",
        )
        .at("/snapshot"));
    }
    Ok(known.iter().filter(|base| base.summary.identity == identity).collect())
}

/// Whether the log that is in `later` has all records after `base`, as far as the two say.
fn covers(later: &Summary, base: &Summary) -> bool {
    later.identity == base.identity && later.token >= base.token && later.log_from.seq.0 <= base.token.seq.0 + 1
}

/// From where to where a snapshot can be followed.
pub(crate) fn restorable(base: &Summary, known: &[Known], live: Option<&Live<'_>>) -> Restorable {
    let from = (base.token, base.created_at_ms);
    let later = known
        .iter()
        .map(|later| &later.summary)
        .filter(|later| covers(later, base));
    let later = later.map(|later| (later.token, later.created_at_ms)).max();
    let live = live
        .filter(|live| (live.follows)(base))
        .map(|live| (live.last, live.now_ms));
    Restorable {
        from,
        to: [later, live]
            .into_iter()
            .flatten()
            .fold(from, |a, b| (a.0.max(b.0), a.1.max(b.1))),
    }
}

fn not_restorable(to: PointInTime, asked: &[&Known], known: &[Known], live: Option<&Live<'_>>) -> Error {
    let mut ranges: Vec<Restorable> = asked
        .iter()
        .map(|base| restorable(&base.summary, known, live))
        .collect();
    ranges.sort_by_key(|range| range.from);
    let mut joined: Vec<Restorable> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| range.from.0 <= last.to.0) {
            Some(last) => last.to = (last.to.0.max(range.to.0), last.to.1.max(range.to.1)),
            None => joined.push(range),
        }
    }
    let shown_range = |r: &Restorable| {
        format!(
            "{} to {} ({} to {})",
            r.from.0,
            r.to.0,
            show_time(r.from.1),
            show_time(r.to.1)
        )
    };
    let newest: Vec<String> = joined.iter().rev().take(RANGES_SHOWN).map(shown_range).collect();
    let what = match (newest.is_empty(), joined.len() > newest.len()) {
        (true, _) => "there is no snapshot to begin with".to_owned(),
        (false, more) => {
            let others = if more { ", and earlier" } else { "" };
            format!("what can be restored is {}{others}", newest.join(", "))
        }
    };
    let at = match to {
        PointInTime::Token(_) => "/to_token",
        PointInTime::TimeMs(_) => "/to_time_ms",
    };
    Error::not_found(
        "moment_not_restorable",
        format!("{to} is not within what snapshots and the logs after them hold: {what}"),
    )
    .at(at)
}

/// What is said when no way led there: the logs are of histories that parted from the snapshots'.
pub(crate) fn not_followed(ways: &[Way<'_>]) -> Error {
    let names: Vec<&str> = ways
        .iter()
        .take(RANGES_SHOWN)
        .map(|way| way.base.name.as_str())
        .collect();
    Error::new(
        ErrorKind::Conflict,
        "history_diverged",
        format!(
            "the logs do not follow the snapshots that lie before ({}): writes were lost after them, or several databases \
             began with them. Restore a snapshot without a point in time, or name another one",
            names.join(", ")
        ),
    )
}

/// The log in a later snapshot, if it follows `base`. Its files are brought into `dir`.
pub(crate) async fn past_of(
    snapshots: &Snapshots,
    later: &Known,
    base: &Known,
    dir: &Path,
    space: &Space,
    work: &Work<'_>,
) -> Result<Option<Past>> {
    let manifest = work.unless_stopped(snapshots.describe(&later.name)).await?;
    snapshots.download_log(&manifest, dir, space, work).await?;
    let (db, base) = (dir.join("db"), base.summary.clone());
    let opened = blocking(move || Ok(open_past(&db, &base))).await?;
    opened.map_err(|e| damaged(&later.name, e))
}

fn open_past(db: &Path, base: &Summary) -> Result<Option<Past>> {
    let past = Past::open(db)?;
    let follows = past.identity == base.identity && past.history_at(base.token)? == Some(base.history);
    Ok(follows.then_some(past))
}

#[cfg(test)]
mod tests {
    use cairn_engine::types::History;

    use super::{ways as ways_to, *};

    /// At this place of the log of a database, with the log from there on; a second a record.
    fn known(name: &str, database: u8, seq: u64, log_from: u64) -> Known {
        let summary = Summary {
            cairn: "0".into(),
            created_at_ms: seq * 1_000,
            token: Token::local(Seq(seq)),
            identity: Identity([database; 16]),
            history: History::default(),
            log_from: Token::local(Seq(log_from)),
            collections: 0,
            files: 0,
            bytes: 0,
        };
        Known {
            name: name.into(),
            summary,
        }
    }

    fn token(seq: u64) -> PointInTime {
        PointInTime::Token(Token::local(Seq(seq)))
    }

    fn time(seconds: u64) -> PointInTime {
        PointInTime::TimeMs(seconds * 1_000)
    }

    /// As `base` or `base+` and whose log, in their order.
    fn told(ways: Result<Vec<Way<'_>>>) -> Result<Vec<String>, &'static str> {
        let one = |way: &Way<'_>| match way.records {
            Records::Nothing => way.base.name.clone(),
            Records::Live => format!("{}+live", way.base.name),
            Records::Of(later) => format!("{}+{}", way.base.name, later.name),
        };
        ways.map(|ways| ways.iter().map(one).collect()).map_err(|e| e.code)
    }

    #[test]
    fn the_newest_snapshot_before_is_followed_by_the_live_log_or_by_the_next_snapshot_that_covers_it() {
        let all = [
            known("a", 1, 10, 1),
            known("b", 1, 20, 5),
            known("c", 1, 30, 21),
            known("d", 1, 40, 28),
            known("x", 2, 25, 1),
        ];
        let follows = |base: &Summary| base.token.seq.0 >= 29;
        let live = Live {
            identity: Identity([1; 16]),
            last: Token::local(Seq(50)),
            now_ms: 60_000,
            follows: &follows,
        };
        let ways = |to| told(ways_to(&all, Some(&live), None, to));
        let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(ways(token(45)), names(&["d+live", "c+live"]));
        assert_eq!(ways(token(35)), names(&["c+live", "c+d"]));
        assert_eq!(ways(token(30)), names(&["c", "b+c"]));
        assert_eq!(ways(token(25)), names(&["b+c"]));
        assert_eq!(ways(token(20)), names(&["b", "a+b"]));
        assert_eq!(ways(time(15)), names(&["a+b"]));
        assert_eq!(ways(time(60)), names(&["d+live", "c+live"]));
        for outside in [token(9), token(51), time(9), time(61)] {
            assert_eq!(ways(outside), Err("moment_not_restorable"));
        }
        // A named one, though others are nearer, or the log does not come so far.
        let named = |name, to| told(ways_to(&all, Some(&live), Some(name), to));
        assert_eq!(named("c", token(45)), names(&["c+live"]));
        assert_eq!(named("a", token(25)), Err("moment_not_restorable"));
        assert_eq!(named("d", token(35)), Err("moment_not_restorable"));
        assert_eq!(named("e", token(35)), Err("snapshot_not_found"));
        // Without a server.
        let offline = |named, to| told(ways_to(&all, None, named, to));
        assert_eq!(offline(None, token(35)), Err("snapshot_ambiguous"));
        assert_eq!(offline(Some("c"), token(35)), names(&["c+d"]));
        assert_eq!(offline(Some("c"), token(45)), Err("moment_not_restorable"));
        let other = "c1-2-0-5".parse().unwrap();
        assert_eq!(ways(PointInTime::Token(other)), Err("bad_token"));
    }

    #[test]
    fn an_error_says_what_can_be_restored() {
        let all = [known("a", 1, 10, 1), known("b", 1, 20, 5), known("c", 1, 100, 50)];
        let error = ways(&all, None, None, token(30)).unwrap_err();
        assert!(
            error.message.contains("c1-1-0-64 to c1-1-0-64") && error.message.contains("c1-1-0-a to c1-1-0-14"),
            "{error}"
        );
        assert_eq!(error.pointer.as_deref(), Some("/to_token"));
        let error = ways(&[], None, None, time(30)).unwrap_err();
        assert!(error.message.contains("no snapshot"), "{error}");
        let of_b = restorable(&all[1].summary, &all, None);
        assert_eq!(of_b.from, of_b.to);
        let follows = |_: &Summary| true;
        let live = Live {
            identity: Identity([1; 16]),
            last: Token::local(Seq(25)),
            now_ms: 99_000,
            follows: &follows,
        };
        assert_eq!(restorable(&all[1].summary, &all, Some(&live)).to, (live.last, 99_000));
    }
}
