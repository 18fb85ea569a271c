//! Full text: how text becomes terms (`analyzer`), where terms stand (`postings`), how well they match (`bm25`).
