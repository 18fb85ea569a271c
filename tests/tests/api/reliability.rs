//! R1 to R6 of [`cairn_tests::reliability`] at the numbers of a pull request; `make torture` runs those of a release. Where no FUSE
//! file system can be mounted, all but the first say so and test nothing.

use std::io::Write;
use std::time::Duration;

use cairn_tests::crash::Counts;
use cairn_tests::faultfs::FaultFs;
use cairn_tests::reliability::{
    self, Plan, Tally, damage, full, kill, manifests, power, refused, reopened, repaired, restored, torn, window,
};

/// Other seeds are for `make torture`: here a failure must be the fault of the change that is tested.
const SEED: u64 = 20_261_126;

fn plan(trials: usize) -> Plan {
    Plan {
        trials,
        seed: SEED,
        time: Duration::from_secs(600),
        // Tests run side by side already.
        lanes: 1,
    }
}

/// Whether to go on. Not through `println`, which is shown of tests that fail only.
pub(super) fn can_mount() -> bool {
    let available = FaultFs::available();
    if let Err(why) = &available {
        let _ = writeln!(std::io::stderr(), "\n******** SKIPPED: {why} ********\n");
    }
    available.is_ok()
}

fn all_zero(counts: &Counts, failed_opens: u32) {
    assert!(
        counts.all_zero() && failed_opens == 0,
        "{failed_opens} failed opens, {:?}\n{}",
        counts.named(),
        counts.examples.join("\n")
    );
}

fn holds(test: &str, tally: &Tally, trials: u64) {
    let (known, new): (Vec<_>, Vec<_>) = tally
        .wrong
        .iter()
        .partition(|finding| reliability::known(test, &finding.kind).is_some());
    for finding in known {
        let _ = writeln!(std::io::stderr(), "KNOWN: {test}, {}", finding.kind);
    }
    let told: Vec<String> = new.iter().map(|f| format!("{}: {}", f.kind, f.what)).collect();
    assert!(told.is_empty(), "{:#?}\n{}", tally.outcomes, told.join("\n\n"));
    assert!(tally.trials >= trials, "only {} trials of {trials}", tally.trials);
    let reached = tally.reached();
    assert!(
        reached * 10 >= trials * 8,
        "only {reached} of {trials} trials came to their place"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_killed_fifty_times_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let plan = kill::Plan {
        cycles: 50,
        seed: SEED,
        life_ms_max: 400,
        time: Duration::from_secs(600),
    };
    let totals = kill::run(dir.path(), plan).await.unwrap();
    all_zero(&totals.counts, totals.failed_opens);
    assert_eq!(totals.cycles, 50);
    // So few rows are mostly scanned.
    assert!(totals.graph_recall() >= kill::GRAPH_RECALL_MIN, "{:?}", totals.graph);
    assert!(
        totals.acked > 200 && totals.seals > 5.0 && totals.merges > 1.0,
        "too little was done to mean anything"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_without_power_twenty_times_nothing_acknowledged_is_lost() {
    if !can_mount() {
        return;
    }
    let totals = power::run(plan(20)).await.unwrap();
    all_zero(&totals.counts, totals.failed_opens);
    assert_eq!(totals.cycles, 20);
    assert!(totals.graph_recall() >= kill::GRAPH_RECALL_MIN, "{:?}", totals.graph);
    assert!(totals.acked > 100, "too little was done to mean anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_without_power_async_writes_lose_a_suffix_no_older_than_the_window() {
    if !can_mount() {
        return;
    }
    let tally = window::run(160, plan(24)).await.unwrap();
    holds("R2", &tally, 24);
    let lost: u64 = tally
        .outcomes
        .iter()
        .filter(|(k, _)| k.ends_with("a suffix is lost"))
        .map(|(_, n)| n)
        .sum();
    assert!(lost > 0, "nothing was lost, so nothing was tried: {:?}", tally.outcomes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_after_a_torn_write_a_prefix_is_there() {
    if !can_mount() {
        return;
    }
    let both_cores = Plan {
        lanes: 2,
        ..plan(usize::MAX)
    };
    let (tally, writes) = torn::run(200, torn::Ways::One, both_cores).await.unwrap();
    assert!(writes > 200, "{writes} writes of 200 operations");
    holds("R3", &tally, writes as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_loss_of_power_while_it_is_opened_again_loses_only_what_was_not_synced() {
    if !can_mount() {
        return;
    }
    holds("R3", &reopened::run(120, plan(24)).await.unwrap(), 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_after_a_failed_fsync_nothing_is_acknowledged() {
    if !can_mount() {
        return;
    }
    holds("R4", &refused::run(plan(100)).await.unwrap(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_a_manifest_that_current_names_and_the_disk_lacks_costs_nothing() {
    if !can_mount() {
        return;
    }
    holds("R4", &manifests::run(plan(0)).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_on_a_full_disk_writes_are_refused_and_reads_go_on() {
    if !can_mount() {
        return;
    }
    holds("R5", &full::run(plan(2)).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_damage_is_told_or_makes_no_difference() {
    if !can_mount() {
        return;
    }
    holds("R6", &damage::run(plan(350)).await.unwrap(), 350);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_a_loss_of_power_during_a_repair_is_repaired_by_the_same_command() {
    if !can_mount() {
        return;
    }
    holds("R6", &repaired::run(plan(24)).await.unwrap(), 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_a_loss_of_power_during_a_restore_leaves_the_copy_whole_or_none() {
    if !can_mount() {
        return;
    }
    holds("R14", &restored::run(plan(24)).await.unwrap(), 24);
}
