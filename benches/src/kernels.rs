//! The inner loops of vector search: nanoseconds a distance, with rows in the nearest cache and far out, beside what the
//! memory of the machine they were first measured on allows.

use std::hint::black_box;
use std::time::Instant;

use cairn_engine::vector::kernels::{self, LINE};

use crate::report::{Report, Table, Verdict};

/// Options of `cairn-bench kernels`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Dimensions.
    #[arg(long, default_value_t = 384)]
    dim: usize,
    /// Distances of a measurement.
    #[arg(long, default_value_t = 4_000_000)]
    distances: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            dim: 384,
            distances: 400_000,
        }
    }
}

/// Bytes of a set: in the second cache, in the last one.
const SETS: [(&str, usize); 2] = [("256 KiB", 256 << 10), ("64 MiB", 64 << 20)];
/// How many groups of four are asked for ahead of the one that is measured.
const AHEAD: usize = 2;
/// Hand-written loops of 384 dimensions on a Xeon with AVX-512 VNNI (ns a distance, in both sets): not of this machine.
const FLOORS: [(&str, [f64; 2]); 3] = [("f32", [17.0, 87.0]), ("8 bits", [5.0, 24.0]), ("4 bits", [5.4, 20.0])];

pub(crate) fn run(args: Args) -> anyhow::Result<Verdict> {
    let mut report = Report::begin("kernels")?;
    let mut table = Table::new(["kernel", "set", "ns", "floor ns at 384"]);
    let mut tell = |what: &str, name: &str, set: usize, ns: f64| -> anyhow::Result<()> {
        let floor = FLOORS.iter().find(|(kind, _)| what.starts_with(kind));
        table.row(vec![
            format!("{what} {name}"),
            SETS[set].0.to_owned(),
            format!("{ns:.1}"),
            floor.map_or(String::new(), |(_, ns)| format!("{:.1}", ns[set])),
        ]);
        report.record(&format!("{what}/{name}/{}", SETS[set].0), "ns", ns, "ns")
    };
    for (set, (_, bytes)) in SETS.iter().enumerate() {
        let row_bytes = args.dim * size_of::<f32>();
        let rows = (bytes / row_bytes).max(8);
        let data: Vec<f32> = (0..rows * args.dim).map(|i| (i % 251) as f32 - 125.0).collect();
        let query: Vec<f32> = (0..args.dim).map(|i| (i % 127) as f32).collect();
        let row = |i: usize| &data[i * args.dim..(i + 1) * args.dim];
        for kernels in kernels::available() {
            for (what, kernel) in [
                ("f32 dot", kernels.dot),
                ("f32 l2", kernels.l2_squared),
                ("f32 l1", kernels.l1),
            ] {
                let ns = time(
                    rows,
                    args.distances,
                    |at| kernels::prefetch(row(at)),
                    |four| kernel.of_four(&query, four.map(row)).iter().sum::<f32>() as i64,
                );
                tell(what, kernels.name, set, ns)?;
            }
        }
        let halves: Vec<u16> = (0..2 * rows * args.dim).map(|i| 0x3c00 + (i % 251) as u16).collect();
        let row = |i: usize| &halves[i * args.dim..(i + 1) * args.dim];
        for kernels in kernels::available() {
            for (what, kernel) in [("f16 dot", kernels.dot), ("f16 l2", kernels.l2_squared)] {
                let ns = time(
                    2 * rows,
                    args.distances,
                    |at| kernels::prefetch(row(at)),
                    |four| kernel.of_four_halves(&query, four.map(row)).iter().sum::<f32>() as i64,
                );
                tell(what, kernels.name, set, ns)?;
            }
        }
        let row_bytes = args.dim.div_ceil(8);
        let rows = (bytes / row_bytes).max(8);
        let data: Vec<u8> = (0..rows * row_bytes).map(|i| (i % 251) as u8).collect();
        let query: Vec<u8> = (0..row_bytes).map(|i| (i % 127) as u8).collect();
        let row = |i: usize| &data[i * row_bytes..(i + 1) * row_bytes];
        for kernel in kernels::available_for_bits() {
            let ns = time(
                rows,
                args.distances,
                |at| kernels::prefetch(row(at)),
                |four| i64::from(kernel.of_four(&query, four.map(row)).iter().sum::<u32>()),
            );
            tell("bits hamming", kernel.name, set, ns)?;
        }
        for (what, code_bytes, query_bytes) in [
            ("8 bits", args.dim, args.dim.next_multiple_of(LINE)),
            (
                "4 bits",
                args.dim.div_ceil(2),
                2 * args.dim.div_ceil(2).next_multiple_of(LINE),
            ),
        ] {
            let record_bytes = (code_bytes + 12).next_multiple_of(LINE);
            let rows = (bytes / record_bytes).max(8);
            let data: Vec<u8> = (0..rows * record_bytes).map(|i| (i % 251) as u8).collect();
            let query: Vec<i8> = (0..query_bytes).map(|i| (i % 127) as i8).collect();
            let row = |i: usize| &data[i * record_bytes..(i + 1) * record_bytes];
            for kernels in kernels::available_for_codes() {
                let kernel = if what == "8 bits" { kernels.eight } else { kernels.four };
                let ns = time(
                    rows,
                    args.distances,
                    |at| kernels::prefetch(row(at)),
                    |four| {
                        kernel
                            .of_four(&query, four.map(row))
                            .iter()
                            .map(|s| i64::from(*s))
                            .sum()
                    },
                );
                tell(what, kernels.name, set, ns)?;
            }
        }
    }
    table.print();
    Ok(Verdict::Held)
}

/// Nanoseconds a row, of rows at random places, the best of three.
fn time(rows: usize, distances: usize, prefetch: impl Fn(usize), measure: impl Fn([usize; 4]) -> i64) -> f64 {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 32) as usize * rows) >> 32
    };
    let fours: Vec<[usize; 4]> = (0..distances / 4).map(|_| [next(), next(), next(), next()]).collect();
    let mut best = f64::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        let mut sum = 0i64;
        for (i, four) in fours.iter().enumerate() {
            if let Some(later) = fours.get(i + AHEAD) {
                later.iter().for_each(|row| prefetch(*row));
            }
            sum = sum.wrapping_add(measure(*four));
        }
        black_box(sum);
        best = best.min(started.elapsed().as_secs_f64() * 1e9 / (fours.len() * 4) as f64);
    }
    best
}
