//! Our graph in this process: over the vectors themselves, and over codes of each kind, with packs and without; in memory
//! as `engine.graphs_in_memory` has them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context;
use cairn_engine::config::Workers;
use cairn_engine::schema::{IndexSpec, Metric, Quantization};
use cairn_engine::storage::Resident;
use cairn_engine::vector::{
    Allow, CodesLayout, HnswLayout, PacksLayout, SignsLayout, VectorIndex, VectorsRef, codes, hnsw, packs, signs,
};

use super::{Built, Case, Contestant, EFS, K, answer_all};

pub(crate) struct Ours<'a> {
    name: String,
    case: &'a Case,
    quantization: Quantization,
    with_packs: bool,
    codes: Option<(CodesLayout, Resident)>,
    signs: Option<(SignsLayout, Resident)>,
    graph: Option<(HnswLayout, Resident)>,
    packs: Option<(PacksLayout, Resident)>,
}

impl<'a> Ours<'a> {
    pub(crate) fn all(case: &'a Case) -> Vec<Self> {
        let kinds = [
            ("cairn-int4-packs", Quantization::Int4, true),
            ("cairn-int8-packs", Quantization::Int8, true),
            ("cairn-int4", Quantization::Int4, false),
            ("cairn-int8", Quantization::Int8, false),
            ("cairn-f32", Quantization::None, false),
            ("cairn-bits", Quantization::None, false),
        ];
        let one = |(name, quantization, with_packs): (&str, Quantization, bool)| Self {
            name: name.to_owned(),
            case,
            quantization,
            with_packs,
            codes: None,
            signs: None,
            graph: None,
            packs: None,
        };
        let of_bits = case.metric == Metric::Hamming;
        let fits = |(name, ..): &(&str, Quantization, bool)| (*name == "cairn-bits") == of_bits;
        kinds.into_iter().filter(fits).map(one).collect()
    }

    /// What a search measures by.
    pub(crate) fn vectors(&self) -> VectorsRef<'_> {
        VectorsRef {
            codes: self.codes.as_ref().map(|(layout, bytes)| layout.view(bytes.part(0))),
            signs: self.signs.as_ref().map(|(layout, bytes)| layout.view(bytes.part(0))),
            packs: self.packs.as_ref().map(|(layout, bytes)| layout.view(bytes.part(0))),
            ..self.case.vectors()
        }
    }
}

impl Ours<'_> {
    /// The graph, once it was built.
    pub(crate) fn graph(&self) -> anyhow::Result<hnsw::Hnsw<'_>> {
        let (layout, bytes) = self.graph.as_ref().context("not built")?;
        Ok(layout.view(bytes.part(0)))
    }
}

/// Helpers for a build, as a server gives them.
pub(crate) fn helpers(threads: usize) -> Workers {
    Workers::new(move |shares, work| {
        let next = AtomicUsize::new(0);
        let help = || {
            loop {
                let share = next.fetch_add(1, Ordering::Relaxed);
                if share >= shares {
                    break;
                }
                work(share);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(shares) {
                scope.spawn(help);
            }
            help();
        });
    })
}

impl Contestant for Ours<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> &[usize] {
        &[1, 2]
    }

    fn values(&self) -> &[usize] {
        &EFS
    }

    fn build(&mut self, threads: usize) -> anyhow::Result<Built> {
        let started = Instant::now();
        if let Some(bits) = self.quantization.bits(self.case.metric) {
            let mut bytes = Vec::new();
            codes::encode(&self.case.vectors(), bits, &mut |some| {
                bytes.extend_from_slice(some);
                Ok(())
            })?;
            self.codes = Some((CodesLayout::parse(&bytes)?, Resident::copy(&[&bytes])?));
        }
        if signs::are_worth_it(&self.vectors()) {
            let mut bytes = Vec::new();
            signs::encode(&self.case.vectors(), &mut |some| {
                bytes.extend_from_slice(some);
                Ok(())
            })?;
            self.signs = Some((SignsLayout::parse(&bytes)?, Resident::copy(&[&bytes])?));
        }
        let IndexSpec::Hnsw { m, ef_construction } = IndexSpec::default() else {
            anyhow::bail!("the default index is no graph");
        };
        let graph = hnsw::build(&self.vectors(), m, ef_construction, 1, &helpers(threads), &mut |_| true)?;
        if self.with_packs {
            let view = HnswLayout::parse(&graph)?.view(&graph);
            let mut bytes = Vec::new();
            packs::encode(&self.vectors(), &view, &helpers(threads), &|| false, &mut |some| {
                bytes.extend_from_slice(some);
                Ok(())
            })?;
            self.packs = Some((PacksLayout::parse(&bytes, &view)?, Resident::copy(&[&bytes])?));
        }
        let seconds = started.elapsed().as_secs_f64();
        // Computed, not resident: in this process other things live, too. A sealed file holds the same bytes.
        let codes = self.codes.as_ref().map_or(0, |(_, bytes)| bytes.bytes());
        let signs = self.signs.as_ref().map_or(0, |(_, bytes)| bytes.bytes());
        let packs = self.packs.as_ref().map_or(0, |(_, bytes)| bytes.bytes());
        let bytes = self.case.vectors().data.bytes().len() + codes + signs + graph.len() + packs;
        self.graph = Some((HnswLayout::parse(&graph)?, Resident::copy(&[&graph])?));
        let mib = bytes as f64 / f64::from(1 << 20);
        Ok(Built {
            seconds,
            memory_mib: mib,
            disk_mib: Some(mib),
        })
    }

    fn search(&mut self, ef: usize, threads: usize) -> anyhow::Result<(f64, Vec<i32>)> {
        let (graph, vectors, case) = (self.graph()?, self.vectors(), self.case);
        answer_all(case, threads, |i, ids| {
            let found = graph.search(&vectors, case.query(i), K, ef, &Allow::All, &|| false)?;
            for (id, hit) in ids.iter_mut().zip(found.hits) {
                *id = i32::try_from(hit.ordinal)?;
            }
            Ok(())
        })
    }
}
