//! Domiciliary units and institutions.

use serde_json::json;

use crate::support::{own, professional};

crate::on_both_stores! {
    async fn units_are_created_read_changed_listed_and_deleted(his) {
        for path in ["/domiciliary-units", "/institutions"] {
            assert_eq!(his.get(&own("ANA"), path).await.text(), "[]");
            let one = format!("{path}/u%201");
            for _ in 0..2 {
                assert_eq!(his.post(&professional(), &one, r#"{"name":"Hospital","n":1}"#).await.text(), "null");
            }
            assert_eq!(his.post(&professional(), &one, r#"{"name":"Other"}"#).await.error().2, "unit_exists");
            assert_eq!(his.post(&professional(), &one, r#"{"id":"other"}"#).await.error().0, 422);
            assert_eq!(his.patch(&professional(), &one, r#"{"id":"u 1","n":null}"#).await.text(), "null");
            assert_eq!(his.patch(&professional(), &one, r#"{"id":"u 2"}"#).await.error().0, 422);
            let unit = json!({"id": "u 1", "name": "Hospital", "n": null});
            let read = his.get(&own("ANA"), &one).await;
            assert_eq!(read.json(), unit);
            assert_eq!(his.get(&own("ANA"), path).await.json(), json!([[unit]]));
            let stale = his.request(&professional(), "DELETE", &one).header("if-match", "\"x\"").send().await;
            assert_eq!(stale.status, 412);
            let fresh = his.request(&professional(), "DELETE", &one).header("if-match", read.header("etag").unwrap());
            assert_eq!(fresh.send().await.text(), "null");
            for method in ["GET", "DELETE"] {
                assert_eq!(his.request(&professional(), method, &one).send().await.error().0, 404);
            }
            assert_eq!(his.patch(&professional(), &one, "{}").await.error().1, "Unit not found");
        }
    }
}
