//! `cairn read-pdf`: the process in which one PDF is read (`rag::extract::apart`). Whoever reads PDFs starts it; people use
//! `cairn extract`.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use cairn_server::rag::extract::apart::{self, PdfReader};

/// `cairn read-pdf`.
#[derive(Args)]
pub(super) struct ReadPdf {}

impl ReadPdf {
    pub(super) fn run() -> Result<(), Failure> {
        apart::serve(std::io::stdin().lock(), std::io::stdout().lock()).map_err(|e| Failure::new(e.to_string()))
    }
}

/// Reads PDFs in processes of this program. Where the system has a name for it that holds even after its file was replaced, by that name: an upgrade
/// must not make the old server start the new program.
pub(super) fn apart() -> Result<PdfReader, Failure> {
    let itself = PathBuf::from("/proc/self/exe");
    if itself.exists() {
        return Ok(PdfReader::apart(itself));
    }
    let itself = std::env::current_exe();
    itself
        .map(PdfReader::apart)
        .map_err(|e| Failure::new(format!("this program does not find itself: {e}")))
}
