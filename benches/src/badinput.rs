//! Wrong requests, through REST and gRPC: each is refused with the right status, a stable code and a message that helps, and the server
//! serves on. The table is the tests' own ([`cairn_tests::bad_requests`]); here it meets the real process.

use anyhow::{Context, ensure};
use cairn_tests::bad_requests::{self, POINTS, Send};
use cairn_tests::{Grpc, Method, Request, Rest};
use serde_json::json;

use crate::report::{Report, Table, Verdict};
use cairn_tests::process::Launch;

/// `cairn-bench badinput` has no options.
#[derive(clap::Args)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn short() -> Self {
        Self {}
    }
}

/// Fewer would not deserve the name.
const CASES_MIN: usize = 60;

pub(crate) async fn run(_: Args) -> anyhow::Result<Verdict> {
    let mut report = Report::begin("badinput")?;
    let dir = tempfile::tempdir()?;
    let launch = Launch::new(dir.path(), &[]);
    let mut server = launch.start()?;
    let addr = server.addr.parse().context("the server's address")?;
    let rest = Rest::new(addr);
    let grpc = Grpc::connect(addr)
        .await
        .map_err(|e| anyhow::anyhow!("cannot connect: {e}"))?;
    bad_requests::prepare(&rest)
        .await
        .map_err(|e| anyhow::anyhow!("cannot make the collections: {e:?}"))?;

    let cases = bad_requests::cases();
    ensure!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let (mut requests, mut wrong, mut unserved) = (0u32, Vec::new(), Vec::new());
    for case in &cases {
        requests += if matches!(case.send, Send::Both(_)) { 2 } else { 1 };
        wrong.extend(bad_requests::check(case, &rest, &grpc).await);
        if let Err(why) = still_serves(&rest, &grpc).await {
            unserved.push(format!("after {:?}: {why}", case.name));
        }
        ensure!(
            server.is_alive(),
            "the server ended after {:?}; its log:\n{}",
            case.name,
            launch.log_tail()
        );
    }

    let mut table = Table::new([
        "wrong requests",
        "cases",
        "sent",
        "not as promised",
        "not serving after",
    ]);
    let row = [
        "rest and grpc".to_owned(),
        cases.len().to_string(),
        requests.to_string(),
        wrong.len().to_string(),
        unserved.len().to_string(),
    ];
    table.row(row.to_vec());
    table.print();
    for (metric, value) in [
        ("cases", cases.len() as f64),
        ("requests", f64::from(requests)),
        ("wrong_answers", wrong.len() as f64),
        ("not_serving_after", unserved.len() as f64),
    ] {
        report.record("both", metric, value, "count")?;
    }
    Ok(Verdict::of(wrong.into_iter().chain(unserved).collect()))
}

/// A right request is answered rightly, by both protocols.
async fn still_serves(rest: &Rest, grpc: &Grpc) -> Result<(), String> {
    let query = Request::new(
        Method::Query,
        POINTS,
        json!({"nearest": {"vector": [1, 0, 0, 0], "using": "v"}, "limit": 1}),
    );
    for (api, answer) in [("rest", rest.send(&query).await), ("grpc", grpc.send(&query).await)] {
        let answer = answer.map_err(|e| format!("{api}: {e:?}"))?;
        let best = answer.pointer("/hits/0/id").and_then(|id| id.as_str());
        if best != Some("a") {
            return Err(format!("{api}: the nearest point is \"a\", got {answer}"));
        }
    }
    Ok(())
}
