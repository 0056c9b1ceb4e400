//! A store looked at as a whole, as a document.

use std::path::Path;

use mosaik_api::{
    SCHEMA,
    work::{Checked, Finding, Progress, ViewCheck},
};
use mosaik_store::{CheckError, Reader, ViewState};

/// Looks at all that `reader` holds; the fold to compare with goes to a file in `directory`. `go_on` is
/// told how far it is, and ends it by returning false.
///
/// # Errors
///
/// [`CheckError`]. What is damaged is no error but stands in the document.
pub fn check(
    reader: &Reader,
    directory: &Path,
    go_on: &mut dyn FnMut(Progress) -> bool,
) -> Result<Checked, CheckError> {
    let report = reader.check(directory, |progress| {
        let phase = progress.phase.as_str().to_owned();
        go_on(Progress { phase, done: progress.done, total: progress.total })
    })?;
    let finding = |finding: &mosaik_store::Finding| Finding {
        table: finding.table.to_owned(),
        what: finding.what.clone(),
    };
    Ok(Checked {
        schema: SCHEMA,
        branches: report.branches,
        blocks: report.blocks,
        events: report.events,
        signatures: report.signatures,
        arrivals: report.arrivals,
        missing: report.missing,
        pruned: report.pruned,
        held_back: report.held_back,
        cells: report.cells,
        view_digest: report.digest.map(|digest| data_encoding::HEXLOWER.encode(&digest)),
        view: match report.view {
            ViewState::Compared => ViewCheck::Compared,
            ViewState::NotFolded => ViewCheck::NotFolded,
            ViewState::NotCompared => ViewCheck::NotCompared,
        },
        findings: report.findings.iter().map(finding).collect(),
        findings_more: report.findings_more,
    })
}
