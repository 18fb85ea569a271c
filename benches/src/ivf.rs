//! Inverted lists in this process beside those of Faiss, of equally many lists: recall against queries a second, build time,
//! memory, and how many lists a question reads, each of which is one range of a file.
//!
//! As `ann` does it: one run, the same vectors, rounds that alternate, medians with the least and the most. Ours is swept
//! twice: by numbers of lists, as Faiss is, and by how many a search looks into at most, in percent of what was measured when
//! the lists were made, so that 100 is what a question gets that says nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, ensure};
use cairn_engine::schema::Quantization;
use cairn_engine::vector::{Allow, IvfLayout, ivf};

use crate::ann::cases::{self, Case};
use crate::ann::ours::helpers;
use crate::ann::peer::Peer;
use crate::ann::{Built, Contestant, K, compare, tell};
use crate::place;
use crate::report::{Report, Table, Verdict};

/// What the default is promised to find.
const RECALL_MIN: f64 = 0.95;

/// Options of `cairn-bench ivf`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure: wordnet, wordnet-heldout, fashion, glove, clustered1m.
    #[arg(long = "case", value_delimiter = ',', default_value = "wordnet,fashion")]
    cases: Vec<String>,
    /// Other libraries: faiss-ivfsq8, faiss-ivfpq (fast scan, and measured again), faiss-ivfflat.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "faiss-ivfsq8,faiss-ivfpq,faiss-ivfflat"
    )]
    peers: Vec<String>,
    /// Lists of everybody; 0: as many as ours has unless told.
    #[arg(long, default_value_t = 0)]
    lists: usize,
    /// Rounds of all settings.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Queries.
    #[arg(long, default_value_t = 1_000)]
    queries: usize,
    /// Threads that build.
    #[arg(long, default_value_t = 2)]
    build_threads: usize,
    /// Python with the other libraries (`scripts/peers.sh` makes one; CAIRN_BENCH_PYTHON names another).
    #[arg(long, default_value_t = place::python())]
    python: String,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            cases: vec!["wordnet".into()],
            peers: vec!["faiss-ivfsq8".into()],
            lists: 0,
            rounds: 1,
            queries: 500,
            build_threads: 2,
            python: place::python(),
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    tokio::task::spawn_blocking(move || measure(&args)).await?
}

fn measure(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(args.rounds > 0, "at least one round");
    let mut report = Report::begin("ivf")?;
    let mut broken = Vec::new();
    let verdict = cases::each(&args.cases, args.queries, |case| {
        one_case(args, case, &mut report, &mut broken)
    })?;
    Ok(match verdict {
        Verdict::Held => Verdict::of(broken),
        skipped => skipped,
    })
}

fn one_case(args: &Args, case: &Case, report: &mut Report, broken: &mut Vec<String>) -> anyhow::Result<()> {
    let lists = match args.lists {
        0 => ivf::default_lists(case.rows()),
        lists => lists,
    };
    println!(
        "\n{}: {} x {}, {:?}, {lists} lists, {} queries, {} rounds",
        case.name,
        case.rows(),
        case.dim,
        case.metric,
        case.query_count(),
        args.rounds
    );
    let place = tempfile::tempdir()?;
    case.write(place.path())?;
    let (mut contestants, mut reads) = (Vec::<Box<dyn Contestant + '_>>::new(), Vec::new());
    for (codes, quantization) in [("int8", Quantization::Int8), ("int4", Quantization::Int4)] {
        let made = Rc::new(RefCell::new(None));
        for by in [By::Lists, By::Effort] {
            let ours = Ours {
                name: format!("cairn-ivf-{codes}-by-{}", by.name()),
                case,
                lists,
                quantization,
                by,
                made: Rc::clone(&made),
                reads: Rc::default(),
            };
            reads.push((ours.name.clone(), by, Rc::clone(&ours.reads)));
            contestants.push(Box::new(ours));
        }
    }
    for name in &args.peers {
        match Peer::start(
            &args.python,
            name,
            place.path(),
            case.metric,
            case.query_count(),
            Some(lists),
        )? {
            Ok(peer) => contestants.push(Box::new(peer)),
            Err(why) => println!("\n******** SKIPPED: peer {name}: {why} ********\n"),
        }
    }
    let all = compare(contestants, case, args.build_threads, args.rounds)?;
    tell(case, &all, report)?;
    let mut table = Table::new(["who", "setting", "recall@10", "ranges read"]);
    for (name, by, reads) in &reads {
        for (value, read) in reads.borrow().iter() {
            let setting = match by {
                By::Lists => format!("nprobe {value}"),
                By::Effort if *value == DEFAULT => "default".to_owned(),
                By::Effort => format!("effort {value} %"),
            };
            let case_name = format!("{}/{name}/{setting}", case.name);
            report.record(&case_name, "recall@10", read.recall, "share")?;
            report.record(&case_name, "range_reads", read.lists, "ranges")?;
            if *by == By::Effort && *value == DEFAULT && read.recall < RECALL_MIN {
                broken.push(format!(
                    "{case_name}: recall@10 {:.4} is below {RECALL_MIN}",
                    read.recall
                ));
            }
            table.row(vec![
                name.clone(),
                setting,
                format!("{:.4}", read.recall),
                format!("{:.1}", read.lists),
            ]);
        }
    }
    table.print();
    Ok(())
}

/// What a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Lists,
    Effort,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Lists => "nprobe",
            Self::Effort => "effort",
        }
    }
}

/// What was measured, in percent of itself.
const DEFAULT: usize = 100;

/// What a setting finds, and how many lists it reads for that.
struct Read {
    recall: f64,
    lists: f64,
}

/// Lists over their own bytes.
pub(crate) struct Made {
    layout: IvfLayout,
    index: Vec<u8>,
    records: Vec<u8>,
    packs: Vec<u8>,
    pub(crate) built: Built,
}

impl Made {
    /// So many lists, or as many as a segment gets that was told no number.
    pub(crate) fn of(
        case: &Case,
        lists: Option<u32>,
        quantization: Quantization,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let vectors = case.vectors();
        let wanted = ivf::Wanted {
            lists,
            bits: quantization.bits(case.metric),
            seed: 1,
        };
        let workers = helpers(threads);
        let lists = ivf::build(&vectors, wanted, &workers, &mut |_| true)?;
        let index = lists.index(&workers, &|| false)?;
        let mut records = Vec::new();
        lists.records(&workers, &|| false, &mut |bytes| {
            records.extend_from_slice(bytes);
            Ok(())
        })?;
        let mut packs = Vec::new();
        lists.packs(&workers, &|| false, &mut |bytes| {
            packs.extend_from_slice(bytes);
            Ok(())
        })?;
        let seconds = started.elapsed().as_secs_f64();
        // Computed, not resident: in this process other things live, too. A sealed file holds the same bytes.
        let bytes = vectors.data.bytes().len() + index.len() + records.len() + packs.len();
        let mib = bytes as f64 / f64::from(1 << 20);
        Ok(Self {
            layout: IvfLayout::parse(&index)?,
            index,
            records,
            packs,
            built: Built {
                seconds,
                memory_mib: mib,
                disk_mib: Some(mib),
            },
        })
    }

    pub(crate) fn view(&self) -> ivf::Ivf<'_> {
        self.layout.view(&self.index, &self.records, &self.packs, None)
    }
}

struct Ours<'a> {
    name: String,
    case: &'a Case,
    lists: usize,
    quantization: Quantization,
    by: By,
    /// Made once for both ways to sweep.
    made: Rc<RefCell<Option<Made>>>,
    reads: Rc<RefCell<BTreeMap<usize, Read>>>,
}

impl Contestant for Ours<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> &[usize] {
        &[1, 2]
    }

    fn values(&self) -> &[usize] {
        match self.by {
            By::Lists => &[2, 4, 8, 16, 32, 64, 128, 256],
            By::Effort => &[15, 25, 40, 60, 80, DEFAULT, 150, 220],
        }
    }

    fn build(&mut self, threads: usize) -> anyhow::Result<Built> {
        if let Some(made) = &*self.made.borrow() {
            return Ok(made.built);
        }
        let made = Made::of(self.case, Some(u32::try_from(self.lists)?), self.quantization, threads)?;
        let built = made.built;
        *self.made.borrow_mut() = Some(made);
        Ok(built)
    }

    fn search(&mut self, value: usize, threads: usize) -> anyhow::Result<(f64, Vec<i32>)> {
        let made = self.made.borrow();
        let lists = made.as_ref().context("not built")?.view();
        let (lists, nprobe) = match self.by {
            By::Lists => (lists, Some(value)),
            By::Effort => (lists.with_effort(value as f32 / DEFAULT as f32), None),
        };
        let (vectors, case) = (self.case.vectors(), self.case);
        let mut ids = vec![-1; case.query_count() * K];
        let share = case.query_count().div_ceil(threads);
        let started = Instant::now();
        let read: anyhow::Result<Vec<usize>> = std::thread::scope(|scope| {
            let workers: Vec<_> = ids
                .chunks_mut(share * K)
                .enumerate()
                .map(|(part, ids)| {
                    scope.spawn(move || -> anyhow::Result<usize> {
                        let mut read = 0;
                        for (i, ids) in ids.chunks_exact_mut(K).enumerate() {
                            let query = case.query(part * share + i);
                            let probed = lists.probe(&vectors, query, K, nprobe, &Allow::All, &|| false)?;
                            read += probed.lists;
                            for (id, hit) in ids.iter_mut().zip(probed.found.hits) {
                                *id = i32::try_from(hit.ordinal)?;
                            }
                        }
                        Ok(read)
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|w| w.join().expect("a search does not panic"))
                .collect()
        });
        let seconds = started.elapsed().as_secs_f64();
        let read: usize = read?.into_iter().sum();
        self.reads.borrow_mut().entry(value).or_insert_with(|| Read {
            recall: case.recall(&ids),
            lists: read as f64 / case.query_count() as f64,
        });
        Ok((seconds, ids))
    }
}
