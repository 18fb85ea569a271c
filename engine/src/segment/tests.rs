//! Segments: what is written is what is read, merged or damaged.
