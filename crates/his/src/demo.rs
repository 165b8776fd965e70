//! The demo federation: three people, two pages, one picture.

use super::import::{ClearPasswords, ImportError, ImportKind, ImportRun};
use super::store::{DocumentContent, DocumentKey, ListQuery, ListWindow, NewDocument, RecordReach, RecordStore};
use fedgate_base::config::HashesConfig;
use fedgate_core::password::HashCost;

const PEOPLE: &str = include_str!("../../../examples/demo/people.jsonl");
const PAGES: &str = include_str!("../../../examples/demo/pages.jsonl");
const PICTURE: &[u8] = include_bytes!("../../../examples/demo/picture-at-birth.jpg");
const PICTURE_DATA: &str =
    r#"{"doctype":"identification","format":"jpg","content_type":"image/jpeg","summary":"Picture at birth"}"#;

/// Loads the demo federation into an empty store, and returns whether it did. A store that has people is not
/// changed.
///
/// # Errors
/// The database cannot be reached, or refuses.
pub async fn seed(store: &RecordStore) -> Result<bool, ImportError> {
    let everyone = ListQuery::People { members: Vec::new() };
    if !store.ids(&everyone, &ListWindow::default(), 1, &RecordReach::Global).await?.is_empty() {
        return Ok(false);
    }
    // The demo's hashes are bcrypt, which every rule accepts.
    let hashes = HashesConfig { upgraded: Some(false), cost: HashCost::DEFAULT };
    let clear_passwords = ClearPasswords::Refuse;
    let import = |kind| ImportRun { store, kind, clear_passwords, hashes, path: None, progress: &|_| {} };
    import(ImportKind::People).run(|| Ok(PEOPLE.as_bytes())).await?;
    import(ImportKind::Pages).run(|| Ok(PAGES.as_bytes())).await?;
    let key = DocumentKey {
        person: "ESPGNU777ORG".into(),
        page: Some("119b352e-8e4f-4847-9f05-53462cf94f10".into()),
        document: "8789981f-4e31-48d5-8eb8-1774dac8b8f6".into(),
    };
    let picture = NewDocument { data: PICTURE_DATA.into(), content: DocumentContent::Whole(PICTURE.to_vec()) };
    store.create_document(&key, &picture, &RecordReach::Global).await?;
    Ok(true)
}
