//! How to come to a moment between snapshots: from which snapshot, and by whose log.
//!
//! A snapshot is followed by the records after it. A running server has them, as long as it keeps its log; so has a later
//! snapshot of the same database, whose files hold the log of its moment. The choice is a pure function of what the
//! snapshots say of themselves. What it gives are ways to try: whether a log really follows a snapshot is only known from its
//! records, each of which carries the hash of the one before ([`Past`]).
//!
//! After an instance was restored there are two histories: the one that was given up, whose snapshots and their logs may still
//! be there, and the one that goes on. A token says which it is of. A time does not: what is meant is what the database was
//! then. A log tells it, unless the time lies in a pause between two of its epochs, when the other history may have been the
//! one that counted; so logs without such doubt are tried first, and one that a snapshot contradicts is not tried at all.

use std::cmp::Reverse;
use std::path::Path;

use cairn_engine::engine::{Past, Until};
use cairn_engine::types::{Epochs, Identity, Token};
use cairn_engine::{Error, ErrorKind, Result};

use super::restore::is_of_this_machine;
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
            Self::Token(token) => Until::Token(token),
            Self::TimeMs(ms) => Until::TimeMs(ms),
        }
    }

    /// Whether a snapshot holds nothing that came later.
    fn is_after(self, base: &Summary) -> bool {
        match self {
            Self::Token(token) => base.token.seq <= token.seq,
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

/// Snapshots that are there and cannot be read, by name, and why.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unreadable(pub(super) Vec<(String, Error)>);

impl Unreadable {
    /// Why one cannot be read.
    pub(super) fn any(&self) -> Option<&Error> {
        self.0.first().map(|(_, why)| why)
    }

    fn named(&self, name: &str) -> Option<&Error> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, why)| why)
    }
}

/// The log of a running server.
pub(crate) struct Live<'a> {
    pub(crate) identity: Identity,
    pub(crate) epochs: &'a Epochs,
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

impl std::fmt::Display for Records<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("none"),
            Self::Live => f.write_str("the server's log"),
            Self::Of(later) => write!(f, "the log in snapshot {}", later.name),
        }
    }
}

/// The order of logs in which the time lies in a pause.
const IN_DOUBT: u8 = 2;

/// A way to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way<'a> {
    pub(crate) base: &'a Known,
    pub(crate) records: Records<'a>,
    /// The time lies in a pause of its log: nothing says that this history counted then, only that no other is known.
    in_doubt: bool,
}

/// From where to where a snapshot can be followed, each with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restorable {
    /// The snapshot's own moment.
    pub from: (Token, u64),
    /// The last.
    pub to: (Token, u64),
}

/// A log, as it tells of itself.
#[derive(Clone, Copy)]
struct Log<'a> {
    records: Records<'a>,
    epochs: &'a Epochs,
    last: Token,
    /// It has everything that was written until then.
    until_ms: u64,
}

impl<'a> Log<'a> {
    fn live(live: &Live<'a>) -> Self {
        Self {
            records: Records::Live,
            epochs: live.epochs,
            last: live.last,
            until_ms: live.now_ms,
        }
    }

    fn of(known: &'a Known) -> Self {
        Self {
            records: Records::Of(known),
            epochs: &known.summary.epochs,
            last: known.summary.token,
            until_ms: known.summary.created_at_ms,
        }
    }

    fn knows(self, token: Token) -> bool {
        self.epochs.knows(token, self.last.seq)
    }

    fn holds(self, to: PointInTime) -> bool {
        match to {
            PointInTime::Token(token) => self.knows(token),
            PointInTime::TimeMs(ms) => ms <= self.until_ms,
        }
    }

    /// Which logs are tried first: those in which nothing speaks against the time, of them the running server's and then the
    /// nearest; of the others those that go on longest before their pause. None if a snapshot that was taken in the pause is
    /// of another history: then that was the one that counted.
    fn order(self, to: PointInTime, known: &[Known]) -> Option<(u8, Reverse<u64>, u64)> {
        let nearest = match (self.records, to) {
            (Records::Of(later), PointInTime::TimeMs(_)) => later.summary.created_at_ms,
            (Records::Of(later), PointInTime::Token(_)) => later.summary.token.seq.0,
            (Records::Live | Records::Nothing, _) => 0,
        };
        let pause = match to {
            PointInTime::TimeMs(ms) => self.epochs.pause_at(ms),
            PointInTime::Token(_) => None,
        };
        let Some(pause) = pause else {
            return Some((u8::from(self.records != Records::Live), Reverse(0), nearest));
        };
        let is_other = |other: &Known| pause.contains(&other.summary.created_at_ms) && !self.knows(other.summary.token);
        (!known.iter().any(is_other)).then_some((IN_DOUBT, Reverse(pause.start), nearest))
    }
}

/// All ways to a moment, the best first: from the newest snapshot that is not after it, or the named one. There is one, or
/// it is an error that says what can be restored, or which snapshot cannot be read that might have led there.
pub(crate) fn ways<'a>(
    (known, unreadable): (&'a [Known], &Unreadable),
    live: Option<&Live<'a>>,
    named: Option<&str>,
    to: PointInTime,
) -> Result<Vec<Way<'a>>> {
    if let Some(why) = named.and_then(|name| unreadable.named(name)) {
        return Err(why.clone());
    }
    if let (None, None, PointInTime::TimeMs(_), Some(why)) = (named, live, to, unreadable.any()) {
        // It may be of another database, which is then the one that is meant as well. A token says which it is of.
        return Err(unnamed(why));
    }
    let ways = ways_of(known, live, named, to);
    match (&ways, unreadable.any()) {
        (Err(error), Some(why)) if named.is_none() && error.code == "moment_not_restorable" => Err(why.clone()),
        _ => ways,
    }
}

/// What is said when a snapshot that cannot be read may be the one that is meant.
pub(super) fn unnamed(why: &Error) -> Error {
    let message = format!(
        "a snapshot cannot be read, so say which is to be restored: {}",
        why.message
    );
    Error::new(why.kind, why.code, message)
}

fn ways_of<'a>(
    known: &'a [Known],
    live: Option<&Live<'a>>,
    named: Option<&str>,
    to: PointInTime,
) -> Result<Vec<Way<'a>>> {
    let mut bases: Vec<&Known> = match named {
        Some(name) => {
            let found = known.iter().find(|known| known.name == name);
            vec![found.ok_or_else(|| not_found(name))?]
        }
        None => of_one_database(known, live)?,
    };
    let asked = bases.clone();
    bases.retain(|base| to.is_after(&base.summary));
    bases.sort_by_key(|base| {
        let (seq, at_ms) = (base.summary.token.seq.0, base.summary.created_at_ms);
        Reverse(match to {
            PointInTime::Token(_) => (seq, at_ms),
            PointInTime::TimeMs(_) => (at_ms, seq),
        })
    });
    let Some(identity) = bases.first().map(|base| base.summary.identity) else {
        return Err(not_restorable(to, &asked, known, live));
    };
    let all = live.map(Log::live).into_iter().chain(known.iter().map(Log::of));
    let logs = all.filter(|log| log.holds(to));
    // Of other databases none follows, and none contradicts.
    let ours: Vec<Known> = known
        .iter()
        .filter(|k| k.summary.identity == identity)
        .cloned()
        .collect();
    let mut logs: Vec<_> = logs.filter_map(|log| Some((log.order(to, &ours)?, log))).collect();
    logs.sort_by_key(|(order, _)| *order);
    let mut ways = Vec::new();
    for base in bases {
        if to == PointInTime::Token(base.summary.token) {
            let records = Records::Nothing;
            let way = Way {
                base,
                records,
                in_doubt: false,
            };
            ways.push(((0, Reverse(0), 0), way));
            continue;
        }
        let follow = logs.iter().filter(|(_, log)| match log.records {
            Records::Of(later) => covers(&later.summary, &base.summary),
            Records::Live | Records::Nothing => live.is_some_and(|live| (live.follows)(&base.summary)),
        });
        ways.extend(follow.map(|(order, log)| {
            let way = Way {
                base,
                records: log.records,
                in_doubt: order.0 == IN_DOUBT,
            };
            (*order, way)
        }));
    }
    if let PointInTime::TimeMs(_) = to {
        // Which log counts more than how far back its snapshot is.
        ways.sort_by_key(|((doubt, before, _), _)| (*doubt, *before));
    }
    match ways.is_empty() {
        true => Err(not_restorable(to, &asked, known, live)),
        false => Ok(ways.into_iter().map(|(_, way)| way).collect()),
    }
}

/// Where no snapshot is named, those of the database that is asked; without a server, of the only one that there is.
fn of_one_database<'a>(known: &'a [Known], live: Option<&Live<'_>>) -> Result<Vec<&'a Known>> {
    let identity = live.map(|live| live.identity);
    let Some(identity) = identity.or_else(|| known.first().map(|first| first.summary.identity)) else {
        return Ok(Vec::new());
    };
    if live.is_none() && known.iter().any(|other| other.summary.identity != identity) {
        return Err(ambiguous("followed"));
    }
    Ok(known.iter().filter(|base| base.summary.identity == identity).collect())
}

/// What is said when nobody can know of which database a snapshot is meant.
pub(super) fn ambiguous(to_be: &str) -> Error {
    let why = format!("the store holds snapshots of several databases: say which snapshot is to be {to_be}");
    Error::invalid("snapshot_ambiguous", why).at("/snapshot")
}

/// Whether the log that is in `later` has all records after `base`, as far as the two say.
fn covers(later: &Summary, base: &Summary) -> bool {
    later.identity == base.identity
        && later.epochs.knows(base.token, later.token.seq)
        && later.log_from.seq.0 <= base.token.seq.0 + 1
}

/// From where to where a snapshot can be followed.
pub(crate) fn restorable(base: &Summary, known: &[Known], live: Option<&Live<'_>>) -> Restorable {
    let from = (base.token, base.created_at_ms);
    let later = known
        .iter()
        .map(|later| &later.summary)
        .filter(|later| covers(later, base));
    let later = later.map(|later| (later.token, later.created_at_ms));
    let live = live
        .filter(|live| (live.follows)(base))
        .map(|live| (live.last, live.now_ms));
    // Of several histories that follow, the one that goes on longest.
    let to = later.chain(live).max_by_key(|(token, ms)| (*ms, token.seq));
    Restorable {
        from,
        to: to.unwrap_or(from),
    }
}

fn not_restorable(to: PointInTime, asked: &[&Known], known: &[Known], live: Option<&Live<'_>>) -> Error {
    let mut ranges: Vec<Restorable> = asked
        .iter()
        .map(|base| restorable(&base.summary, known, live))
        .collect();
    ranges.sort_by_key(|range| range.from.1);
    let mut joined: Vec<Restorable> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| range.from.1 <= last.to.1) {
            Some(last) if last.to.1 < range.to.1 => last.to = range.to,
            Some(_) => {}
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
    let mut logs = live.map(Log::live).into_iter().chain(known.iter().map(Log::of));
    if let PointInTime::Token(token) = to
        && !logs.any(|log| log.knows(token))
    {
        let why = format!(
            "no log that is left knows {token}: its write was of another database, is gone since a restore or a loss of power, or is \
             newer than the last snapshot: {what}"
        );
        return Error::new(ErrorKind::Conflict, "token_unknown", why).at(at);
    }
    Error::not_found(
        "moment_not_restorable",
        format!("{to} is not within what snapshots and the logs after them hold: {what}"),
    )
    .at(at)
}

/// What came of the ways that were tried.
pub(crate) struct Tried {
    failed: Option<Error>,
    /// Snapshots that may show that another history counted.
    unreadable: Unreadable,
    /// One that was not in doubt may have led there, and is damaged.
    is_unknown: bool,
}

impl Tried {
    /// Before the first.
    pub(crate) fn beginning(unreadable: Unreadable) -> Self {
        Self {
            failed: None,
            unreadable,
            is_unknown: false,
        }
    }

    /// Whether a way is to be tried after those. One that is in doubt would show the state of another history where the right one
    /// is there and cannot be read.
    pub(crate) fn leaves(&self, way: &Way<'_>) -> bool {
        !way.in_doubt || !self.is_unknown && self.unreadable.any().is_none()
    }

    /// Notes that a way failed. What does not only say that this way does not lead there is an error.
    pub(crate) fn note(&mut self, way: &Way<'_>, error: Error) -> Result<()> {
        if !leads_elsewhere(&error) {
            return Err(error);
        }
        let snapshot = &way.base.name;
        tracing::warn!(snapshot, records = %way.records, code = error.code, %error, "this way does not lead to the moment");
        let is_damaged = error.kind == ErrorKind::Damaged;
        self.is_unknown |= is_damaged && !way.in_doubt;
        // Damage is what can be done something about.
        if self
            .failed
            .as_ref()
            .is_none_or(|before| is_damaged && before.kind != ErrorKind::Damaged)
        {
            self.failed = Some(error);
        }
        Ok(())
    }

    /// What is said when none led there.
    pub(crate) fn error(self, ways: &[Way<'_>]) -> Error {
        let in_doubt = ways.iter().any(|way| way.in_doubt);
        let unreadable = self.unreadable.any().filter(|_| in_doubt).cloned();
        self.failed.or(unreadable).unwrap_or_else(|| not_followed(ways))
    }
}

/// Whether an error says that a way does not lead to the moment, so that the next may be tried: the log was trimmed since, or is of
/// another history; the snapshot was removed since; or what the store has of it is damaged, which says nothing of the others.
fn leads_elsewhere(error: &Error) -> bool {
    error.kind == ErrorKind::Damaged
        || matches!(
            error.code,
            "moment_not_restorable" | "history_diverged" | "token_unknown" | "snapshot_not_found"
        )
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
    let manifest = work.unless_stopped(snapshots.describe_known(later)).await?;
    snapshots.download_log(&manifest, dir, space, work).await?;
    let (db, base) = (dir.join("db"), base.summary.clone());
    let opened = blocking(move || Ok(open_past(&db, &base))).await?;
    opened.map_err(|e| match is_of_this_machine(&e) {
        true => e,
        false => damaged(&later.name, e),
    })
}

fn open_past(db: &Path, base: &Summary) -> Result<Option<Past>> {
    let past = Past::open(db)?;
    let follows = past.identity == base.identity && past.history_at(base.token.seq)? == Some(base.history);
    Ok(follows.then_some(past))
}

#[cfg(test)]
mod tests {
    use cairn_engine::types::{Epoch, EpochId, History, Seq};

    use super::{ways_of as ways_to, *};

    /// Each by its number, its first record, and the seconds of the record before and of the opening.
    fn epochs(all: &[(u64, u64, u64, u64)]) -> Epochs {
        let epoch = |&(id, first, silent, opened): &(u64, u64, u64, u64)| Epoch {
            id: EpochId(id),
            first: Seq(first),
            silent_from_ms: silent * 1_000,
            opened_ms: opened * 1_000,
        };
        Epochs::new(all.iter().map(epoch).collect()).unwrap()
    }

    fn ours() -> Epochs {
        epochs(&[(0xe, 1, 0, 1)])
    }

    /// At this place of the log of a database, with the log from there on; a second a record.
    fn known(name: &str, database: u8, seq: u64, log_from: u64) -> Known {
        known_of(name, database, &ours(), (seq, seq), log_from)
    }

    /// At this place and time.
    fn known_of(name: &str, database: u8, epochs: &Epochs, (seq, second): (u64, u64), log_from: u64) -> Known {
        let summary = Summary {
            cairn: "0".into(),
            created_at_ms: second * 1_000,
            token: epochs.token(Seq(seq)),
            identity: Identity([database; 16]),
            history: History::default(),
            log_from: epochs.token(Seq(log_from)),
            epochs: epochs.clone(),
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
        PointInTime::Token(ours().token(Seq(seq)))
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
    fn where_the_right_history_is_damaged_no_other_is_taken_for_it() {
        let base = known("a", 1, 10, 1);
        let way = |in_doubt| Way {
            base: &base,
            records: Records::Live,
            in_doubt,
        };
        let damage = || damaged("a", "a bit");
        let mut tried = Tried::beginning(Unreadable::default());
        tried.note(&way(false), not_followed(&[])).unwrap();
        assert!(tried.leaves(&way(false)) && tried.leaves(&way(true)));
        tried.note(&way(false), damage()).unwrap();
        assert!(tried.leaves(&way(false)) && !tried.leaves(&way(true)));
        tried.note(&way(false), not_followed(&[])).unwrap();
        assert_eq!(tried.error(&[]).code, "snapshot_damaged", "what can be mended is told");
        let mut tried = Tried::beginning(Unreadable::default());
        tried.note(&way(true), damage()).unwrap();
        assert!(tried.leaves(&way(true)));
        assert_eq!(
            tried.note(&way(true), Error::disk_full("full")).unwrap_err().code,
            "disk_full"
        );
        // A manifest that cannot be read may be the one that says so.
        let unreadable = || Unreadable(vec![("b".to_owned(), damage())]);
        let mut tried = Tried::beginning(unreadable());
        assert!(tried.leaves(&way(false)) && !tried.leaves(&way(true)));
        tried.note(&way(false), not_followed(&[])).unwrap();
        assert_eq!(tried.error(&[way(false)]).code, "history_diverged");
        let tried = Tried::beginning(unreadable());
        assert_eq!(tried.error(&[way(true)]).code, "snapshot_damaged");
        // Nor is it passed over as if it were not there.
        let all = [base.clone()];
        let ways = |named, to| ways((&all, &unreadable()), None, named, to).map_err(|error| error.code);
        assert_eq!(ways(Some("b"), token(12)).unwrap_err(), "snapshot_damaged");
        assert_eq!(ways(None, time(12)).unwrap_err(), "snapshot_damaged");
        assert_eq!(ways(Some("a"), time(12)).unwrap_err(), "moment_not_restorable");
        assert!(ways(None, token(10)).is_ok());
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
            epochs: &ours(),
            last: ours().token(Seq(50)),
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
        for outside in [token(9), time(9), time(61)] {
            assert_eq!(ways(outside), Err("moment_not_restorable"));
        }
        assert_eq!(ways(token(51)), Err("token_unknown"));
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
        assert_eq!(offline(Some("c"), token(45)), Err("token_unknown"));
        for other in ["c1-f-0-1e", "c1-1-0-1e", "c1-e-1-1e"] {
            assert_eq!(ways(PointInTime::Token(other.parse().unwrap())), Err("token_unknown"));
        }
    }

    /// What is written to a database until 25 s is given up then: it is restored from what it was at 10 s, and goes on.
    #[test]
    fn after_a_restore_a_token_is_of_one_history_and_a_time_is_what_counted_then() {
        let (before, after) = (epochs(&[(0xa, 1, 0, 1)]), epochs(&[(0xa, 1, 0, 1), (0xb, 11, 10, 25)]));
        let all = [
            known_of("s10", 1, &before, (10, 10), 1),
            known_of("s20", 1, &before, (20, 20), 1),
            known_of("s30", 1, &after, (16, 30), 1),
        ];
        let follows = |base: &Summary| after.knows(base.token, Seq(30));
        let live = Live {
            identity: Identity([1; 16]),
            epochs: &after,
            last: after.token(Seq(30)),
            now_ms: 45_000,
            follows: &follows,
        };
        let ways = |to| told(ways_to(&all, Some(&live), None, to));
        let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let of = |epochs: &Epochs, seq| PointInTime::Token(epochs.token(Seq(seq)));
        // Both have a record 15.
        assert_eq!(ways(of(&before, 15)), names(&["s10+s20"]));
        assert_eq!(ways(of(&after, 15)), names(&["s10+live", "s10+s30"]));
        assert_eq!(ways(of(&after, 25)), names(&["s30+live", "s10+live"]));
        assert_eq!(ways(of(&before, 21)), Err("token_unknown"));
        // Only what was given up was there at 15 s, and only what goes on was at 27 s.
        assert_eq!(ways(time(15)), names(&["s10+s20"]));
        assert_eq!(ways(time(27)), names(&["s10+live", "s10+s30"]));
        assert_eq!(ways(time(40)), names(&["s30+live", "s10+live"]));
        // What was written between 20 s and the restore is gone, and nothing else is said to have been there.
        assert_eq!(ways(time(22)), Err("moment_not_restorable"));
        // Where no snapshot says that there was something else, the pause is one like others.
        let all = [all[0].clone(), all[2].clone()];
        let ways = |to| told(ways_to(&all, Some(&live), None, to));
        assert_eq!(ways(time(15)), names(&["s10+live", "s10+s30"]));
        // Another server that began with the same snapshot keeps its own in the same store.
        let elsewhere = epochs(&[(0xa, 1, 0, 1), (0xc, 17, 30, 32)]);
        let all = [
            all[0].clone(),
            all[1].clone(),
            known_of("x", 1, &elsewhere, (25, 36), 1),
        ];
        let ways = |to| told(ways_to(&all, Some(&live), None, to));
        assert_eq!(ways(time(38)), names(&["s30+live", "s10+live"]));
        assert_eq!(ways(of(&elsewhere, 20)), names(&["s10+x"]));
    }

    #[test]
    fn an_error_says_what_can_be_restored() {
        let all = [known("a", 1, 10, 1), known("b", 1, 20, 5), known("c", 1, 100, 50)];
        let error = ways_to(&all, None, None, token(30)).unwrap_err();
        assert!(
            error.message.contains("c1-e-0-64 to c1-e-0-64") && error.message.contains("c1-e-0-a to c1-e-0-14"),
            "{error}"
        );
        assert_eq!(error.pointer.as_deref(), Some("/to_token"));
        let error = ways_to(&[], None, None, time(30)).unwrap_err();
        assert!(error.message.contains("no snapshot"), "{error}");
        let of_b = restorable(&all[1].summary, &all, None);
        assert_eq!(of_b.from, of_b.to);
        let follows = |_: &Summary| true;
        let live = Live {
            identity: Identity([1; 16]),
            epochs: &ours(),
            last: ours().token(Seq(25)),
            now_ms: 99_000,
            follows: &follows,
        };
        assert_eq!(restorable(&all[1].summary, &all, Some(&live)).to, (live.last, 99_000));
    }
}
