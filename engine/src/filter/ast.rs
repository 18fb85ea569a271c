//! What a caller may say about payloads and ids.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits;
use crate::types::PointId;

/// A boolean tree. Empty means everything. All four parts must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// Every condition holds.
    pub must: Vec<Condition>,
    /// At least `min_should` of these hold (1 if there are any and it is not given).
    pub should: Vec<Condition>,
    /// None of these holds.
    pub must_not: Vec<Condition>,
    /// How many of `should` must hold.
    pub min_should: Option<u32>,
}

/// A leaf, or a tree again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Condition {
    /// The field (or one element of its array) equals one of the values.
    Any {
        /// Dotted path.
        field: String,
        /// Allowed values; `match` is a list of one.
        values: Vec<Scalar>,
    },
    /// The field has an element that is none of the values: `["a", "b"]` passes an exclusion of `a`, and a missing field
    /// passes nothing. To demand that no element is in the list, put an `Any` into `must_not`.
    Except {
        /// Dotted path.
        field: String,
        /// Excluded values.
        values: Vec<Scalar>,
    },
    /// The field (or one element of its array) is a number in the range.
    Range {
        /// Dotted path.
        field: String,
        /// Bounds.
        range: Range,
    },
    /// The field has no indexed value: missing, null, an empty array, or an object (only its leaves have values).
    IsEmpty {
        /// Dotted path.
        field: String,
    },
    /// The point's id is one of these.
    HasId {
        /// Ids.
        ids: Vec<PointId>,
    },
    /// The point is a chunk of one of these documents.
    HasDocument {
        /// Document ids.
        ids: Vec<PointId>,
    },
    /// A filter as a condition.
    Nested(Box<Filter>),
}

/// A value a field can equal. Numbers compare by value: `1` matches `1.0`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    /// Exact string.
    Str(String),
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// Boolean.
    Bool(bool),
}

/// Numeric bounds; at least one must be given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Greater than.
    pub gt: Option<f64>,
    /// Greater than or equal.
    pub gte: Option<f64>,
    /// Less than.
    pub lt: Option<f64>,
    /// Less than or equal.
    pub lte: Option<f64>,
}

impl Filter {
    /// A filter of one condition that must hold.
    pub fn must(condition: Condition) -> Self {
        Self {
            must: vec![condition],
            ..Self::default()
        }
    }

    /// True if it says nothing.
    pub fn is_empty(&self) -> bool {
        self.must.is_empty() && self.should.is_empty() && self.must_not.is_empty()
    }

    /// Bounds the tree: depth, number of conditions and values, finite numbers. Errors carry a JSON pointer.
    pub fn check(&self) -> Result<()> {
        let mut nodes = 0;
        self.check_at(1, &mut nodes)
    }

    fn check_at(&self, depth: usize, nodes: &mut usize) -> Result<()> {
        if depth > limits::FILTER_DEPTH_MAX {
            return Err(Error::invalid(
                "filter_too_deep",
                format!("a filter may nest {} levels", limits::FILTER_DEPTH_MAX),
            ));
        }
        if let Some(n) = self.min_should
            && (n as usize > self.should.len() || n == 0)
        {
            return Err(Error::invalid(
                "bad_filter",
                format!(
                    "min_should must be 1 to the number of should conditions ({}), got {n}",
                    self.should.len()
                ),
            )
            .at("/min_should"));
        }
        for (part, conditions) in [
            ("must", &self.must),
            ("should", &self.should),
            ("must_not", &self.must_not),
        ] {
            for (i, condition) in conditions.iter().enumerate() {
                condition
                    .check_at(depth, nodes)
                    .map_err(|e| e.at(format!("/{part}/{i}")))?;
            }
        }
        Ok(())
    }
}

impl Condition {
    fn check_at(&self, depth: usize, nodes: &mut usize) -> Result<()> {
        let mut take = |n: usize| {
            *nodes += n;
            if *nodes > limits::FILTER_NODES_MAX {
                return Err(Error::invalid(
                    "filter_too_large",
                    format!("a filter may hold {} conditions and values", limits::FILTER_NODES_MAX),
                ));
            }
            Ok(())
        };
        match self {
            Self::Any { field, values } | Self::Except { field, values } => {
                check_field(field)?;
                take(1 + values.len())?;
                if values.is_empty() {
                    return Err(Error::invalid("bad_filter", "a list of values must not be empty"));
                }
                if values.iter().any(|v| matches!(v, Scalar::Float(f) if !f.is_finite())) {
                    return Err(Error::invalid("bad_filter", "a number to match must be finite"));
                }
            }
            Self::Range { field, range } => {
                check_field(field)?;
                take(1)?;
                let bounds = [range.gt, range.gte, range.lt, range.lte];
                if bounds.iter().all(Option::is_none) {
                    return Err(
                        Error::invalid("bad_filter", "a range needs at least one of gt, gte, lt, lte").at("/range"),
                    );
                }
                if bounds.iter().flatten().any(|b| b.is_nan()) {
                    return Err(Error::invalid("bad_filter", "a range bound must not be NaN").at("/range"));
                }
            }
            Self::IsEmpty { field } => {
                check_field(field)?;
                take(1)?;
            }
            Self::HasId { ids } | Self::HasDocument { ids } => {
                take(1 + ids.len())?;
            }
            Self::Nested(filter) => {
                take(1)?;
                filter.check_at(depth + 1, nodes)?;
            }
        }
        Ok(())
    }
}

fn check_field(field: &str) -> Result<()> {
    if field.is_empty() || field.len() > limits::NAME_BYTES_MAX {
        return Err(Error::invalid(
            "bad_filter",
            format!("a field is a dotted path of 1 to {} bytes", limits::NAME_BYTES_MAX),
        )
        .at("/field"));
    }
    Ok(())
}
