//! Sparse vectors: rows come back bit for bit, any bytes are survived, and an answer is exactly what scoring every row gives.

use proptest::prelude::*;

use super::index::{IndexLayout, build};
use super::*;
use crate::types::SparseVector;

/// SplitMix64: a seed is a run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
    /// Terms with a long tail, weights as `weight` says.
    fn vector(&mut self, terms: u64, mut weight: impl FnMut(&mut Self) -> f32) -> SparseVector {
        let mut picked = std::collections::BTreeMap::new();
        for _ in 0..terms {
            let range = 1 + self.below(500);
            let term = self.below(range) as u32 * 7;
            let value = weight(self);
            if value != 0.0 {
                picked.insert(term, value);
            }
        }
        SparseVector {
            indices: picked.keys().copied().collect(),
            values: picked.into_values().collect(),
        }
    }
}

/// A column as a segment would hold it.
struct Held {
    data: Vec<u8>,
    at: Vec<u64>,
    terms: Vec<u8>,
    ids: Vec<String>,
}

impl Held {
    fn of(rows: &[Option<SparseVector>]) -> Self {
        let bytes: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| row.as_ref().map_or_else(Vec::new, row::encode))
            .collect();
        let mut at = vec![0];
        at.extend(bytes.iter().scan(0, |at, row| {
            *at += row.len() as u64;
            Some(*at)
        }));
        let terms = build(rows.len() as u32, &|visit| {
            let present = bytes.iter().enumerate().filter(|(_, row)| !row.is_empty());
            present.into_iter().try_for_each(|(i, row)| visit(i as Ordinal, row))
        })
        .unwrap();
        // Ids whose order is not that of the rows.
        let ids = (0..rows.len() as u32).map(|i| i.reverse_bits().to_string()).collect();
        Self {
            data: bytes.concat(),
            at,
            terms,
            ids,
        }
    }
    fn column(&self) -> Column<'_> {
        let layout = IndexLayout::parse(&self.terms).unwrap();
        Column::new(&self.data, &self.at, Some(layout.view(&self.terms)))
    }
}

/// The product by definition.
fn product(a: &SparseVector, b: &SparseVector) -> Option<f32> {
    let (mut sum, mut any) = (0.0f64, false);
    for (index, value) in a.indices.iter().zip(&a.values) {
        if let Ok(i) = b.indices.binary_search(index) {
            sum += f64::from(*value) * f64::from(b.values[i]);
            any = true;
        }
    }
    any.then_some((sum as f32).clamp(f32::MIN, f32::MAX))
}

/// Searched through postings with and without pruning and row by row: all three give exactly what the definition gives.
fn check(rows: &[Option<SparseVector>], questions: &[SparseVector]) {
    let held = Held::of(rows);
    let column = held.column();
    for (question, k, modulus) in questions
        .iter()
        .flat_map(|q| [(q, 1, 1), (q, 10, 1), (q, 10, 7), (q, 25, 97), (q, 1_000, 2)])
    {
        let allowed = |o: Ordinal| o.is_multiple_of(modulus);
        let mut expected: Vec<(f32, Ordinal)> = rows
            .iter()
            .enumerate()
            .filter(|(o, _)| allowed(*o as Ordinal))
            .filter_map(|(o, row)| Some((product(question, row.as_ref()?)?, o as Ordinal)))
            .collect();
        let id = |o: Ordinal| held.ids[o as usize].as_str();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| id(a.1).cmp(id(b.1))));
        expected.truncate(k);
        let ask = Ask {
            k,
            floor: f32::NEG_INFINITY,
            id_of: &id,
            stop: &|| false,
        };
        let allow = |n: u32| (0..64).fold(0, |word, bit| word | u64::from(allowed(n * 64 + bit)) << bit);
        let asked = Question::from(question);
        for walk in [Walk::Pruned, Walk::All] {
            let top = column.search(&asked, walk, &allow, &ask).unwrap();
            assert_eq!(top.hits, expected, "{walk:?} k={k} modulus={modulus}");
            assert!(top.evaluated <= column.postings(&asked).unwrap());
        }
        let matching = (0..rows.len() as Ordinal).filter(|o| allowed(*o));
        assert_eq!(column.scan(&asked, matching, &ask).unwrap().hits, expected, "scan");
    }
}

#[test]
fn learned_weights_are_searched_exactly() {
    let mut rng = Rng(1);
    let weight = |rng: &mut Rng| (1 + rng.below(3_000)) as f32 / 1_000.0;
    let rows: Vec<_> = (0..3_000)
        .map(|i| (i % 11 != 3).then(|| rng.vector(60, weight)))
        .collect();
    let questions: Vec<_> = (0..20).map(|_| rng.vector(25, weight)).collect();
    check(&rows, &questions);
}

#[test]
fn negative_weights_and_ties_are_searched_exactly() {
    let mut rng = Rng(2);
    // Few distinct weights: products are equal all the time.
    let weight = |rng: &mut Rng| rng.below(7) as f32 - 3.0;
    let rows: Vec<_> = (0..2_000).map(|_| Some(rng.vector(20, weight))).collect();
    let questions: Vec<_> = (0..20).map(|_| rng.vector(12, weight)).collect();
    check(&rows, &questions);
}

#[test]
fn weights_of_all_sizes_are_searched_exactly() {
    let mut rng = Rng(3);
    let weight = |rng: &mut Rng| {
        let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
        let sizes = [f32::MAX, 1e30, 1e10, 1.0, 1e-10, 1e-30, f32::MIN_POSITIVE, 1e-45];
        sign * sizes[rng.below(8) as usize]
    };
    let rows: Vec<_> = (0..700).map(|_| Some(rng.vector(20, weight))).collect();
    let questions: Vec<_> = (0..20).map(|_| rng.vector(12, weight)).collect();
    check(&rows, &questions);
}

#[test]
fn terms_may_be_any_number_and_vectors_empty() {
    let vector = |terms: &[(u32, f32)]| SparseVector {
        indices: terms.iter().map(|t| t.0).collect(),
        values: terms.iter().map(|t| t.1).collect(),
    };
    let rows = [
        Some(vector(&[(0, 1.0), (u32::MAX, 2.0)])),
        Some(vector(&[])),
        None,
        Some(vector(&[(u32::MAX - 1, -1.0)])),
    ];
    check(
        &rows,
        &[
            vector(&[]),
            vector(&[(0, 1.0)]),
            vector(&[(u32::MAX - 1, 1.0), (u32::MAX, 1.0)]),
            vector(&[(5, 1.0)]),
        ],
    );
    let held = Held::of(&rows);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(&held.column().get(i as Ordinal).unwrap(), row);
    }
    assert_eq!(held.column().get(4).unwrap(), None);
}

#[test]
fn a_long_question_reads_few_postings_when_the_best_stand_out() {
    let mut rng = Rng(4);
    let weight = |rng: &mut Rng| (1 + rng.below(300)) as f32 / 1_000.0;
    let mut rows: Vec<_> = (0..20_000).map(|_| Some(rng.vector(40, weight))).collect();
    let question = rng.vector(30, |_| 1.0);
    rows[7_777] = Some(SparseVector {
        indices: question.indices.clone(),
        values: vec![3.0; question.indices.len()],
    });
    let held = Held::of(&rows);
    let ask = Ask {
        k: 1,
        floor: f32::NEG_INFINITY,
        id_of: &|o| held.ids[o as usize].as_str(),
        stop: &|| false,
    };
    let asked = Question::from(&question);
    let column = held.column();
    let top = column.search(&asked, Walk::Pruned, &|_| u64::MAX, &ask).unwrap();
    assert_eq!(top.hits[0].1, 7_777);
    let all = column.postings(&asked).unwrap();
    assert!(top.evaluated * 4 < all, "{} of {all}", top.evaluated);
}

#[test]
fn what_is_no_sparse_vector_is_refused_with_its_place() {
    let check = |indices: &[u32], values: &[f32]| {
        let vector = SparseVector {
            indices: indices.to_vec(),
            values: values.to_vec(),
        };
        vector.check().map_err(|e| (e.code, e.pointer.unwrap()))
    };
    assert_eq!(check(&[], &[]), Ok(()));
    assert_eq!(check(&[0, u32::MAX], &[-1.0, 2.0]), Ok(()));
    let bad = |at: &str| Err(("bad_sparse_vector", at.to_owned()));
    assert_eq!(check(&[1], &[]), bad("/values"));
    assert_eq!(check(&[1, 1], &[1.0, 1.0]), bad("/indices/1"));
    assert_eq!(check(&[1, 3, 2], &[1.0; 3]), bad("/indices/2"));
    assert_eq!(check(&[1, 2], &[1.0, -0.0]), bad("/values/1"));
    assert_eq!(check(&[1], &[f32::NAN]), Err(("not_finite", "/values/0".to_owned())));
    let many: Vec<u32> = (0..4_097).collect();
    assert_eq!(check(&many, &vec![1.0; 4_097]), bad("/indices"));
    assert_eq!(check(&many[1..], &vec![1.0; 4_096]), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn rows_come_back_bit_for_bit(
        terms in proptest::collection::btree_map(any::<u32>(), any::<f32>().prop_filter("a weight", |v| v.is_finite() && *v != 0.0), 0..60),
    ) {
        let vector = SparseVector { indices: terms.keys().copied().collect(), values: terms.into_values().collect() };
        let back = row::decode(&row::encode(&vector)).unwrap();
        prop_assert_eq!(&back.indices, &vector.indices);
        let bits = |v: &SparseVector| v.values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&back), bits(&vector));
    }

    #[test]
    fn any_bytes_of_a_row_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let question = [(1, 1.0), (70, -2.0), (9_000, 0.5)];
        let (decoded, product) = (row::decode(&bytes), row::product(&bytes, &question));
        if let Ok(vector) = decoded {
            prop_assert!(vector.indices.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(product.is_ok());
        }
    }

    #[test]
    fn a_changed_index_is_survived(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), seed in 0u64..20) {
        let mut rng = Rng(seed);
        let rows: Vec<_> = (0..150).map(|_| Some(rng.vector(12, |rng| 1.0 + rng.below(9) as f32))).collect();
        let mut held = Held::of(&rows);
        for (at, byte) in changes {
            let at = at.index(held.terms.len());
            held.terms[at] = byte;
        }
        if let Ok(layout) = IndexLayout::parse(&held.terms) {
            let column = Column::new(&held.data, &held.at, Some(layout.view(&held.terms)));
            let ask = Ask { k: 10, floor: f32::NEG_INFINITY, id_of: &|o| held.ids.get(o as usize).map_or("", String::as_str), stop: &|| false };
            for _ in 0..4 {
                let question = Question::from(&rng.vector(9, |rng| 1.0 + rng.below(9) as f32));
                let _ = column.postings(&question);
                let _ = column.search(&question, Walk::Pruned, &|_| u64::MAX, &ask);
            }
        }
    }
}
