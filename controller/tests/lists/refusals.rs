//! Queries that no list understands, with the words in which Cloud Foundry refuses them.

use reqwest::StatusCode;

use crate::spec::LISTS;
use crate::support::{TestController, error};

#[tokio::test]
async fn every_list_refuses_unknown_parameters() {
    let controller = TestController::start().await;
    let admin = controller.admin().await;
    for list in LISTS {
        for (query, words) in [
            ("nonsense=1", "Unknown query parameter(s): 'nonsense'. Valid parameters are: "),
            ("page=0", "Page must be a positive integer"),
            ("page=-1", "Page must be a positive integer"),
            ("page=x", "Page must be a positive integer"),
            ("per_page=0", "Per page must be a positive integer"),
            ("per_page=5001", "Per page must be between 1 and 5000"),
            ("per_page=x", "Per page must be a positive integer"),
            ("order_by=nonsense", "Order by can only be: "),
            ("created_ats=yesterday", "Created ats has an invalid timestamp format"),
            ("created_ats[near]=2026-01-01T00:00:00Z", "Invalid relational operator: 'near'"),
            (
                "updated_ats[lt]=2026-01-01T00:00:00Z,2026-01-02T00:00:00Z",
                "Updated ats only accepts one value when using a relational operator",
            ),
        ] {
            let (status, body) = admin.get(&format!("{}?{query}", list.path)).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{}?{query}: {body}", list.path);
            let (code, detail) = error(&body);
            assert_eq!(code, 10005, "{detail}");
            assert!(detail.starts_with("The query parameter is invalid: "), "{detail}");
            assert!(detail.contains(words), "{}?{query}: {detail}", list.path);
        }
        if !list.includes.is_empty() {
            let (status, body) = admin.get(&format!("{}?include=nonsense", list.path)).await;
            assert_eq!((status, error(&body).0), (StatusCode::BAD_REQUEST, 10005), "{}: {body}", list.path);
            assert!(error(&body).1.contains("Invalid included resource: 'nonsense'. Valid included resources are: "));
        }
        for selector in ["a b", "a in", "a in (b", "=b", "a>1", "!", ""] {
            let path = format!("{}?label_selector={}", list.path, selector.replace(' ', "%20"));
            let (status, body) = admin.get(&path).await;
            assert_eq!((status, error(&body).0), (StatusCode::BAD_REQUEST, 10005), "{path}: {body}");
        }
    }
}
