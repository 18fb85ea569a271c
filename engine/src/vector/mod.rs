//! Dense vectors: distances, exact scan and graph search over ordinals and bytes.
