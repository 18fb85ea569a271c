//! Which rows hold a term, and how strongly: the posting lists that full text and sparse vectors share, and the search for
//! the best rows over them.
//!
//! A list holds ordinals of one segment, each with a *level* of one byte. What a level is worth is the caller's to say:
//! a term frequency, or a quantised weight. [`list`] is the bytes of a list, [`top`] finds the k best rows of several
//! lists without reading most of them, [`varint`] the numbers in both.
//!
//! Not here: dictionaries (which list belongs to which term), exact weights, ids, files.

pub mod list;
pub mod top;
pub mod varint;

#[cfg(test)]
mod tests;
