//! The demo federation: three people, two pages, one picture.

use super::import::{ClearPasswords, Import, ImportError, Kind};
use super::store::{Content, DocumentKey, List, NewDocument, Reach, Store, Window};
use fedgate_base::config::HashesConfig;
use fedgate_core::password::Cost;

const PEOPLE: &str = include_str!("../../../examples/demo/people.jsonl");
const PAGES: &str = include_str!("../../../examples/demo/pages.jsonl");
const PICTURE: &[u8] = include_bytes!("../../../examples/demo/picture-at-birth.jpg");
const PICTURE_DATA: &str =
    r#"{"doctype":"identification","format":"jpg","content_type":"image/jpeg","summary":"Picture at birth"}"#;

/// Loads the demo federation into an empty store; whether it did: a store with people in it stays as it is.
///
/// # Errors
/// The database is away or refuses.
pub async fn seed(store: &Store) -> Result<bool, ImportError> {
    let everyone = List::People { members: Vec::new() };
    if !store.ids(&everyone, &Window::default(), 1, &Reach::Global).await?.is_empty() {
        return Ok(false);
    }
    // Their hashes are bcrypt, which every rule admits.
    let hashes = HashesConfig { upgraded: Some(false), cost: Cost::DEFAULT };
    let clear_passwords = ClearPasswords::Refuse;
    let import = |kind| Import { store, kind, clear_passwords, hashes, path: None, progress: &|_| {} };
    import(Kind::People).run(|| Ok(PEOPLE.as_bytes())).await?;
    import(Kind::Pages).run(|| Ok(PAGES.as_bytes())).await?;
    let key = DocumentKey {
        person: "ESPGNU777ORG".into(),
        page: Some("119b352e-8e4f-4847-9f05-53462cf94f10".into()),
        document: "8789981f-4e31-48d5-8eb8-1774dac8b8f6".into(),
    };
    let picture = NewDocument { data: PICTURE_DATA.into(), content: Content::Whole(PICTURE.to_vec()) };
    store.create_document(&key, &picture, &Reach::Global).await?;
    Ok(true)
}
