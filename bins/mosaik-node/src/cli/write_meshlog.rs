//! Taking in the log of a meshlogd.

use std::{io::BufReader, path::Path};

use mosaik_api::{
    SCHEMA,
    client::Client,
    document::{ImportedMeshlog, RefusedRow},
    failure::Code,
    request::{IMPORT_ROWS_MAX, ImportMeshlog, MeshlogLine},
};

use super::{
    Failed,
    output::{count, note, print, print_json},
    write::{BATCH_LEN_MAX, REFUSED_SHOWN, open},
};
use crate::import::{BadRow, MeshlogLines};

/// Checks every line of a log, then sends the good ones to the node, batch by batch. What can't be read to
/// its end is not begun with.
pub(super) async fn import(client: &Client, path: &Path, json: bool) -> Result<(), Failed> {
    if path == Path::new("-") {
        return Err(Failed::usage("the log of a meshlogd is read twice; give a file, not -"));
    }
    let mut total = ImportedMeshlog { schema: SCHEMA, ..ImportedMeshlog::default() };
    let mut good = 0;
    each_line(path, |line| {
        match line {
            Ok(_) => good += 1,
            Err(BadRow { line, reason }) => total.refused.push(RefusedRow { line, reason }),
        }
        Ok(())
    })?;
    let sent = if good > 0 { send_lines(client, path, &mut total).await } else { Ok(()) };
    total.refused.sort_by_key(|row| row.line);
    report(&total, json)?;
    sent?;
    match total.refused.len() as u64 {
        0 => Ok(()),
        bad => Err(Failed::new(
            Code::Failed,
            format!("{} refused; the other lines are kept", count(bad, "line")),
        )),
    }
}

fn each_line(
    path: &Path,
    mut each: impl FnMut(Result<MeshlogLine, BadRow>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let (source, progress) = open(path)?;
    for line in MeshlogLines::new(BufReader::new(progress.wrap_read(source))) {
        let cannot =
            |error| Failed::usage(format!("cannot read {} to its end: {error}", path.display()));
        each(line.map_err(cannot)?)?;
    }
    progress.finish_and_clear();
    Ok(())
}

async fn send_lines(
    client: &Client,
    path: &Path,
    total: &mut ImportedMeshlog,
) -> Result<(), Failed> {
    let (source, progress) = open(path)?;
    let (mut events, mut len): (Vec<MeshlogLine>, usize) = (Vec::new(), 0);
    for line in MeshlogLines::new(BufReader::new(progress.wrap_read(source))) {
        let cannot = |error| Failed::new(Code::Failed, format!("{}: {error}", path.display()));
        // What is bad was told after the first reading.
        let Ok(line) = line.map_err(cannot)? else { continue };
        let is_full = events.len() == IMPORT_ROWS_MAX || len + line.event.len() > BATCH_LEN_MAX;
        if is_full && !events.is_empty() {
            send(client, std::mem::take(&mut events), total).await?;
            progress.set_message(count(total.imported + total.known, "event"));
            len = 0;
        }
        len += line.event.len();
        events.push(line);
    }
    if !events.is_empty() {
        send(client, events, total).await?;
    }
    progress.finish_and_clear();
    Ok(())
}

async fn send(
    client: &Client,
    events: Vec<MeshlogLine>,
    total: &mut ImportedMeshlog,
) -> Result<(), Failed> {
    let done = client.import_meshlog(&ImportMeshlog { events }).await?;
    total.imported += done.imported;
    total.known += done.known;
    total.translated += done.translated;
    total.unverified += done.unverified;
    total.unsigned += done.unsigned;
    total.refused.extend(done.refused);
    total.notices.extend(done.notices);
    Ok(())
}

fn report(total: &ImportedMeshlog, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(total);
    }
    let told = [&total.refused, &total.notices];
    for row in told.iter().flat_map(|rows| rows.iter().take(REFUSED_SHOWN)) {
        note(format!("line {}: {}", row.line, row.reason));
    }
    let more: usize = told.iter().map(|rows| rows.len().saturating_sub(REFUSED_SHOWN)).sum();
    if more > 0 {
        note(format!("... and {more} more; --json lists all"));
    }
    if total.unverified > 0 {
        note(format!(
            "{} not verified: no key of the author",
            count(total.unverified, "signature")
        ));
    }
    if total.translated > 0 {
        let own = count(total.translated, "event");
        note(format!("{own} of this program, as a bridge translated them: not taken"));
    }
    print(format!(
        "{} imported, {} here already, {} refused",
        total.imported,
        total.known,
        total.refused.len()
    ))
}
