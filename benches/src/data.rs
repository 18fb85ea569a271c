//! Reading data sets: `.npy` arrays, JSON lines, gzip.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;
use serde::de::DeserializeOwned;

/// A little-endian array of two dimensions, as bytes.
pub(crate) struct Npy {
    kind: String,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// How many numbers the next row, and the next column, are away.
    strides: (usize, usize),
    bytes: Vec<u8>,
}

impl Npy {
    /// Format 1.0: `\x93NUMPY`, two version bytes, a u16 header length, a Python dict as text, then the numbers.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let parse = || -> anyhow::Result<Self> {
            let mut bytes = std::fs::read(path)?;
            ensure!(bytes.starts_with(b"\x93NUMPY\x01\x00"), "not a .npy of format 1.0");
            let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
            let head = bytes.get(10..10 + length).context("cut off")?;
            let head = String::from_utf8_lossy(head).into_owned();
            let value = |key: &str| head.split_once(&format!("'{key}':")).map(|(_, v)| v.trim_start());
            let kind = value("descr")
                .and_then(|v| v.split('\'').nth(1))
                .context("no descr")?
                .to_owned();
            let by_columns = value("fortran_order").context("no order")?.starts_with("True");
            let shape = value("shape")
                .and_then(|v| v.trim_start_matches('(').split(')').next())
                .context("no shape")?;
            let shape: Vec<usize> = shape
                .split(',')
                .map(str::trim)
                .filter(|t| !t.is_empty())
                .map(str::parse)
                .collect::<Result<_, _>>()?;
            let &[rows, columns] = shape.as_slice() else {
                bail!("{shape:?} is not two-dimensional")
            };
            let width = match kind.as_str() {
                "<f2" => 2,
                "<f4" | "<i4" => 4,
                other => bail!("numbers of kind {other} are not read here"),
            };
            bytes.drain(..10 + length);
            ensure!(
                bytes.len() == rows * columns * width,
                "{} bytes for {rows} x {columns}",
                bytes.len()
            );
            Ok(Self {
                kind,
                rows,
                columns,
                strides: if by_columns { (1, rows) } else { (columns, 1) },
                bytes,
            })
        };
        parse().with_context(|| path.display().to_string())
    }

    /// One row of numbers, widened to f32.
    pub(crate) fn row_f32(&self, row: usize) -> Vec<f32> {
        let numbers = self.numbers(row);
        if self.kind == "<f2" {
            numbers
                .map(|i| f16_to_f32(u16::from_le_bytes([self.bytes[2 * i], self.bytes[2 * i + 1]])))
                .collect()
        } else {
            numbers.map(|i| f32::from_le_bytes(self.word(i))).collect()
        }
    }

    /// One row of integers.
    pub(crate) fn row_i32(&self, row: usize) -> Vec<i32> {
        self.numbers(row).map(|i| i32::from_le_bytes(self.word(i))).collect()
    }

    /// Which numbers a row has.
    fn numbers(&self, row: usize) -> impl Iterator<Item = usize> {
        let (down, right) = self.strides;
        (0..self.columns).map(move |column| row * down + column * right)
    }

    fn word(&self, i: usize) -> [u8; 4] {
        let b = &self.bytes[4 * i..4 * i + 4];
        [b[0], b[1], b[2], b[3]]
    }
}

/// IEEE half precision. Every half is a single exactly.
fn f16_to_f32(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((half >> 10) & 0x1f);
    let fraction = f32::from(half & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1.0 + fraction) * 2f32.powi(e - 15),
    }
}

/// Every line of a JSON lines file, gzipped if its name says so.
pub(crate) fn json_lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let reader: Box<dyn Read> = if path.extension().is_some_and(|e| e == "gz") {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut all = Vec::new();
    for line in BufReader::new(reader).lines() {
        all.push(serde_json::from_str(&line?).with_context(|| path.display().to_string())?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_widened_exactly() {
        let cases = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65_504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
        ];
        for (half, single) in cases {
            assert_eq!(f16_to_f32(half), single, "{half:#x}");
        }
        assert!(f16_to_f32(0x7c00).is_infinite() && f16_to_f32(0x7e00).is_nan());
    }

    #[test]
    fn an_array_is_read_row_by_row_in_either_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let write = |by_columns: &str, numbers: &[i32]| {
            let head = format!("{{'descr': '<i4', 'fortran_order': {by_columns}, 'shape': (2, 3), }}");
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend(u16::try_from(head.len()).unwrap().to_le_bytes());
            bytes.extend(head.as_bytes());
            bytes.extend(numbers.iter().copied().flat_map(i32::to_le_bytes));
            std::fs::write(&path, &bytes).unwrap();
            bytes
        };
        for (by_columns, numbers) in [("False", [0, 1, 2, 3, 4, 5]), ("True", [0, 3, 1, 4, 2, 5])] {
            write(by_columns, &numbers);
            let array = Npy::read(&path).unwrap();
            assert_eq!((array.rows, array.columns), (2, 3));
            assert_eq!([array.row_i32(0), array.row_i32(1)], [[0, 1, 2], [3, 4, 5]]);
        }
        let mut bytes = write("False", &[0; 6]);
        bytes.pop();
        std::fs::write(&path, &bytes).unwrap();
        assert!(Npy::read(&path).is_err(), "cut off");
    }
}
