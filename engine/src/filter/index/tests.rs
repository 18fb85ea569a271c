//! The bytes: every form of posting, dictionaries of many blocks, merges at size, and damage.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::dict::{Dict, DictBuilder};
use super::*;

fn view(section: &[u8]) -> FilterIndexView<'_> {
    FilterIndexLayout::parse(section).unwrap().view(section)
}

#[test]
fn every_posting_form_reads_back_what_was_written() {
    let rows = 200_000;
    let sets: [Vec<Ordinal>; 8] = [
        vec![],
        vec![rows - 1],
        vec![0, 1, 2, 127, 128, 129],
        (0..rows).collect(),
        (0..rows).filter(|o| o % 2 == 0).collect(),
        (0..rows).step_by(100).collect(),
        (50_000..180_000).collect(),
        (0..rows).filter(|o| o % 65_536 == 7).collect(),
    ];
    let mut forms = Vec::new();
    for ordinals in sets {
        let (mut section, mut cell) = (vec![0; 5], Vec::new());
        posting::write(&ordinals, rows, &mut section, &mut cell);
        let mut reader = Reader::new(&cell);
        forms.push(reader.byte().unwrap() & 3);
        let mut reader = Reader::new(&cell);
        let posting = Posting::read(&mut reader, &section, rows).unwrap();
        reader.finished().unwrap();
        assert_eq!(posting.len(), ordinals.len());
        assert!(posting.bitmap().unwrap().iter().eq(ordinals.iter().copied()));
        let mut read = vec![42];
        posting.ordinals(&mut read).unwrap();
        assert_eq!(read[1..], ordinals);
    }
    assert_eq!(forms, [0, 0, 0, 3, 2, 1, 2, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_dictionary_finds_what_is_in_it_and_nothing_else(
        entries in btree_map(vec(0..4u8, 0..6), vec(any::<u8>(), 0..3), 0..200),
        others in vec(vec(0..4u8, 0..7), 20),
    ) {
        let mut builder = DictBuilder::default();
        entries.iter().for_each(|(key, cell)| builder.insert(key, cell));
        let mut bytes = Vec::new();
        builder.finish(&mut bytes);
        let dict = Dict::new(&bytes, entries.len()).unwrap();
        for key in entries.keys().chain(&others) {
            prop_assert_eq!(dict.get(key).unwrap(), entries.get(key).map(Vec::as_slice));
        }
        let mut cursor = dict.cursor();
        for (key, cell) in &entries {
            prop_assert!(cursor.advance().unwrap());
            prop_assert_eq!((&cursor.key, cursor.cell), (key, cell.as_slice()));
        }
        prop_assert!(!cursor.advance().unwrap());
    }

    #[test]
    fn numbers_sort_by_value_and_come_back(ints in btree_set(any::<i64>(), 0..20), floats in vec(any::<f64>(), 0..20)) {
        let numbers: Vec<Number> = ints.iter().map(|&i| Number::from_int(i)).collect();
        prop_assert!(numbers.is_sorted_by(|a, b| a < b));
        prop_assert!(ints.iter().zip(&numbers).all(|(&i, number)| number.value() == Value::Int(i)));
        for &f in &floats {
            let number = Number::from_float(f).unwrap();
            match number.value() {
                Value::Float(back) => prop_assert_eq!(back, f),
                Value::Int(i) => prop_assert!(i as f64 == f && number == Number::from_int(i)),
                other => prop_assert!(false, "{:?}", other),
            }
            for &g in &floats {
                prop_assert_eq!(number.cmp(&Number::from_float(g).unwrap()), f.partial_cmp(&g).unwrap());
            }
        }
    }
}

/// Small and repeatable: what a value is, is a function of the row.
fn mix(i: u32) -> u32 {
    (u64::from(i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

fn add_row(builder: &mut FilterIndexBuilder, ordinal: Ordinal, row: u32) {
    let mixed = mix(row);
    builder.add(ordinal, "even", Value::Bool(mixed.is_multiple_of(2)));
    builder.add(ordinal, "unique", Value::Str(&format!("row {row:08}")));
    builder.add(ordinal, "group", Value::Str(&format!("group {}", mixed % 50)));
    builder.add(ordinal, "at", Value::Int(i64::from(mixed)));
    builder.add(ordinal, "big", Value::Int((1 << 53) + i64::from(mixed % 3)));
    for tag in 0..mixed % 5 {
        builder.add(ordinal, "tags", Value::Str(&format!("tag {}", (mixed >> 8) % 7 * tag)));
        builder.add(ordinal, "tags", Value::Float(f64::from(tag) / 2.0));
    }
    if mixed.is_multiple_of(1000) {
        builder.add(ordinal, &format!("rare.{}", mixed % 70), Value::Bool(true));
        builder.add(ordinal, "pair", Value::Int(1));
        builder.add(ordinal, "pair", Value::Int(2));
    }
}

#[test]
fn large_parts_merge_to_the_bytes_of_the_whole() {
    // Beyond one Roaring container, and a third of the rows gone.
    let (total, parts) = (150_000u32, 4);
    let keeps = |row: u32| !row.is_multiple_of(3);
    let mut whole = FilterIndexBuilder::new();
    let mut new_ordinals = BTreeMap::new();
    for row in (0..total).filter(|&row| keeps(row)) {
        let ordinal = new_ordinals.len() as Ordinal;
        new_ordinals.insert(row, ordinal);
        add_row(&mut whole, ordinal, row);
    }
    let rows = new_ordinals.len() as u32;

    let part = total / parts;
    let sections: Vec<Vec<u8>> = (0..parts)
        .map(|p| {
            let mut builder = FilterIndexBuilder::new();
            (0..part).for_each(|i| add_row(&mut builder, i, p * part + i));
            builder.finish(part)
        })
        .collect();
    let remaps: Vec<_> = (0..parts)
        .map(|p| {
            let new_ordinals = &new_ordinals;
            move |old: Ordinal| new_ordinals.get(&(p * part + old)).copied()
        })
        .collect();
    let inputs: Vec<(FilterIndexView<'_>, Remap<'_>)> = sections
        .iter()
        .zip(&remaps)
        .map(|(section, remap)| (view(section), remap as Remap<'_>))
        .collect();
    let merged = merge(&inputs, rows).unwrap();
    assert!(merged == whole.finish(rows));

    // And the answers are right, by arithmetic.
    let view = view(&merged);
    let expect = |posting: Posting<'_>, wanted: &dyn Fn(u32) -> bool| {
        let expected = new_ordinals
            .iter()
            .filter(|(row, _)| wanted(**row))
            .map(|(_, ordinal)| *ordinal);
        assert!(posting.bitmap().unwrap().into_iter().eq(expected));
    };
    let field = |path| view.field(path).unwrap().unwrap();
    expect(field("even").equal(Value::Bool(true)).unwrap(), &|row| {
        mix(row).is_multiple_of(2)
    });
    expect(field("unique").equal(Value::Str("row 00077777")).unwrap(), &|row| {
        row == 77_777
    });
    expect(field("group").equal(Value::Str("group 7")).unwrap(), &|row| {
        mix(row) % 50 == 7
    });
    expect(field("big").equal(Value::Int((1 << 53) + 1)).unwrap(), &|row| {
        mix(row) % 3 == 1
    });
    expect(field("tags").present(), &|row| !mix(row).is_multiple_of(5));
    let wide = Range {
        gt: Some(1e9),
        lte: Some(3e9),
        ..Range::default()
    };
    expect(field("at").range(&wide).unwrap(), &|row| {
        (1_000_000_001..=3_000_000_000).contains(&mix(row))
    });
    let narrow = Range {
        gte: Some(1e9),
        lt: Some(1.01e9),
        ..Range::default()
    };
    expect(field("at").range(&narrow).unwrap(), &|row| {
        (1_000_000_000..1_010_000_000).contains(&mix(row))
    });
    let both = Range {
        gte: Some(0.0),
        ..Range::default()
    };
    expect(field("pair").range(&both).unwrap(), &|row| {
        mix(row).is_multiple_of(1000)
    });
    let halves = Range {
        gte: Some(0.5),
        ..Range::default()
    };
    expect(field("tags").range(&halves).unwrap(), &|row| mix(row) % 5 > 1);
}

#[test]
fn values_are_counted_without_decoding() {
    let mut builder = FilterIndexBuilder::new();
    (0..10_000).for_each(|i| add_row(&mut builder, i, i));
    let section = builder.finish(10_000);
    let mut counts = BTreeMap::new();
    let sink = &mut |value: Value<'_>, posting: Posting<'_>| {
        counts.insert(format!("{value:?}"), posting.len());
        Ok(ControlFlow::Continue(()))
    };
    view(&section).values("group", sink).unwrap();
    assert_eq!(counts.len(), 50);
    assert_eq!(counts.values().sum::<usize>(), 10_000);
    let mut first = None;
    let sink = &mut |value: Value<'_>, _: Posting<'_>| {
        assert!(first.is_none(), "it was told to stop");
        first = Some(format!("{value:?}"));
        Ok(ControlFlow::Break(()))
    };
    view(&section).values("unique", sink).unwrap();
    assert_eq!(first.as_deref(), Some(r#"Str("row 00000000")"#));
    view(&section)
        .values("no such path", &mut |_, _| panic!("there are none"))
        .unwrap();
}

#[test]
fn a_remap_that_goes_backwards_is_refused() {
    let mut builder = FilterIndexBuilder::new();
    builder.add(0, "a", Value::Int(1));
    builder.add(1, "a", Value::Int(1));
    let section = builder.finish(2);
    for remap in [
        (|old| Some(1 - old)) as fn(Ordinal) -> Option<Ordinal>,
        |_| Some(0),
        |old| Some(old + 1),
    ] {
        assert_eq!(
            merge(&[(view(&section), &remap)], 2).unwrap_err().kind,
            crate::ErrorKind::Internal
        );
    }
}

/// Reads everything there is to read; only that it returns matters.
fn read_all(section: &[u8]) -> Result<()> {
    let layout = FilterIndexLayout::parse(section)?;
    let view = layout.view(section);
    for path in ["even", "unique", "group", "at", "big", "tags", "rare.0"] {
        let Ok(Some(field)) = view.field(path) else { continue };
        _ = field.present().bitmap();
        _ = field.several();
        for value in [
            Value::Bool(true),
            Value::Str("row 00000031"),
            Value::Str("tag 2"),
            Value::Int(1 << 53),
            Value::Float(0.5),
        ] {
            _ = field.equal(value).map(|posting| posting.bitmap());
        }
        _ = field
            .range(&Range {
                gte: Some(0.5),
                ..Range::default()
            })
            .map(|posting| posting.bitmap());
        _ = field.values(&mut |_, posting| posting.bitmap().map(|_| ControlFlow::Continue(())));
    }
    _ = view.fields(&mut |_, field| field.present().bitmap().map(|_| ()));
    merge(&[(view, &Some)], layout.rows()).map(|_| ())
}

#[test]
fn damaged_bytes_are_errors_and_never_panics() {
    let mut builder = FilterIndexBuilder::new();
    (0..300).for_each(|i| add_row(&mut builder, i, i));
    let section = builder.finish(400);
    read_all(&section).unwrap();
    for len in 0..section.len().min(3000) {
        _ = read_all(&section[..len]);
        _ = read_all(&section[..section.len() - len]);
    }
    assert!(FilterIndexLayout::parse(&section[..31]).is_err());
    assert_eq!(
        read_all(&section[..section.len() - 1]).unwrap_err().kind,
        crate::ErrorKind::Damaged
    );

    let mut seed = 1u32;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (mix(seed) as usize) % below
    };
    let mut failed = 0;
    for _ in 0..6000 {
        let mut bytes = section.clone();
        for _ in 0..=random(3) {
            // Much of the damage hits the path records at the end, which everything else hangs on.
            let at = match random(8) {
                0 => random(HEADER_LEN),
                1..4 => bytes.len() - 1 - random(200),
                _ => random(bytes.len()),
            };
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
        }
        failed += usize::from(read_all(&bytes).is_err());
    }
    for at in 0..HEADER_LEN {
        let mut bytes = section.clone();
        bytes[at] ^= 0x10;
        assert!(FilterIndexLayout::parse(&bytes).is_err(), "header byte {at}");
    }
    assert!(failed > 1000, "the damage was hardly noticed: {failed}");
}
