//! Every wrong request gets the right status, a code, and a message that helps; and the server still serves.

use cairn_tests::bad_requests::{POINTS, cases, check, prepare};
use cairn_tests::{Method, Request, TestServer};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_requests_are_refused_with_place_and_reason() {
    let server = TestServer::start().await;
    let (rest, grpc) = (server.rest(), server.grpc().await);
    prepare(&rest).await.unwrap();
    let cases = cases();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(check(case, &rest, &grpc).await);
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );

    let query = Request::new(Method::Query, POINTS, json!({"nearest": {"vector": [1, 0, 0, 0]}}));
    for answer in [rest.send(&query).await.unwrap(), grpc.send(&query).await.unwrap()] {
        let ids: Vec<_> = answer["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|h| h["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["a", "b"], "nothing of what was refused was written");
    }
    server.stop().await.unwrap();
}

#[test]
fn no_two_cases_have_the_same_name_and_protocol() {
    let mut names: Vec<_> = cases().into_iter().map(|c| c.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    // One pair is meant: an unnamed vector, when written and when asked.
    assert_eq!(names.len(), all - 1);
}
