//! What works on this machine, with a node or without one.

use mosaik_api::{
    SCHEMA,
    document::{Check, Doctor, Verdict},
    failure::{Code, Failure},
};

use super::{
    Failed, Place, connect,
    output::{plain, print, print_json},
};
use crate::doctor::{Disk, disk, disk_free};

/// Asks the node; where none runs, looks at what can be seen without one.
pub(super) async fn doctor(place: &Place, json: bool) -> Result<(), Failed> {
    let (found, alone) = match connect::node(place).await {
        Ok(client) => (client.doctor().await?, None),
        Err(Failed::With(failure)) if failure.code == Code::NoNode => {
            (without_node(place, &failure)?, Some(failure))
        }
        Err(failed) => return Err(failed),
    };
    if json {
        print_json(&found)?;
    } else {
        for check in &found.checks {
            show(check)?;
        }
    }
    if let Some(failure) = alone {
        return Err(Failed::Shown(failure));
    }
    let bad = found.checks.iter().filter(|check| check.verdict == Verdict::Bad);
    let bad: Vec<&str> = bad.map(|check| check.name.as_str()).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let sentence = format!("not in order: {}", bad.join(", "));
    Err(Failed::Shown(Failure::new(Code::Degraded, sentence)))
}

fn show(check: &Check) -> Result<(), Failed> {
    let (name, verdict) = (plain(&check.name), check.verdict.as_str());
    print(format!("{name:<8}{verdict:<9}{}", plain(&check.found)))?;
    match &check.advice {
        Some(advice) => print(format!("{:<17}{}", "", plain(advice))),
        None => Ok(()),
    }
}

fn without_node(place: &Place, failure: &Failure) -> Result<Doctor, Failed> {
    let node = Check {
        name: "node".to_owned(),
        verdict: Verdict::Bad,
        found: "none runs here, so the network was not looked at".to_owned(),
        advice: Some(failure.message.clone()),
    };
    // The directory may not be made yet: its disk is that of the one in which it will be.
    let data_dir = connect::spot(place)?.data_dir;
    let free = data_dir.ancestors().find_map(disk_free);
    let disk = disk(&Disk { free, refuses: None });
    Ok(Doctor { schema: SCHEMA, checks: vec![node, disk] })
}
