//! Requests that make no sense.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Cases, assert_error, expected, to_one, unprocessable};
use crate::support::TestController;

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let (_, space) = controller.dev().await;
    let parse =
        |text: &str| expected(400, 1001, "CF-MessageParseError", format!("Request invalid due to parse error: {text}"));
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    for (body, refusal) in [
        ("{\"name\": ".to_owned(), parse("EOF while parsing a value at line 1 column 9")),
        ("nonsense".to_owned(), parse("expected ident at line 1 column 2")),
        (String::new(), parse("the body is empty")),
        (large, expected(400, 1004, "CF-BadRequest", "The request body is larger than 1048576 bytes.")),
        (
            "{\"name\": 7}".to_owned(),
            unprocessable("'name' is not as expected: invalid type: integer `7`, expected a string"),
        ),
    ] {
        let request = admin.request(Method::POST, "/v3/apps").header("content-type", "application/json").body(body);
        assert_error(&admin.send(request).await, &refusal);
    }
    // What `cf` takes as the sign of an older platform.
    let mut cases = Cases::default();
    let body = json!({ "name": "x", "options": {}, "relationships": { "space": to_one(space) } });
    cases.add(&admin, ("POST", "/v3/apps"), Some(body), unprocessable("Unknown field(s): 'options'"));
    cases.check().await;
    assert_eq!(admin.get("/v3/apps").await.1["pagination"]["total_results"], 0);
}

#[tokio::test]
async fn invalid_paths_and_queries() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    let mut cases = Cases::default();
    let query =
        |text: &str| expected(400, 10005, "CF-BadQueryParameter", format!("The query parameter is invalid: {text}"));
    let (_, domains) = admin.get("/v3/domains").await;
    let domain = domains["resources"][0]["guid"].as_str().expect("a domain");
    for (path, error) in [
        (
            "/v3/apps?order_by=nonsense".to_owned(),
            query("Order by can only be: 'created_at', 'updated_at', 'name', 'state'"),
        ),
        ("/v3/apps?per_page=5001".to_owned(), query("Per page must be between 1 and 5000")),
        (
            format!("/v3/domains/{domain}/route_reservations?host=a&host=b"),
            query("Failed to deserialize query string: duplicate field `host`"),
        ),
        // Bytes that are no text, where a guid and where a name should be.
        ("/v3/apps/%ff".to_owned(), expected(400, 10004, "CF-InvalidRequest", "The request is invalid")),
        ("/v3/apps?names=%ff".to_owned(), expected(400, 10004, "CF-InvalidRequest", "The request is invalid")),
    ] {
        cases.add(&admin, ("GET", &path), None, error);
    }
    cases.check().await;
    assert_eq!(admin.get("/v3/apps?names=%25ff,%C3%A4").await.0, StatusCode::OK, "a percent sign is text");
}
