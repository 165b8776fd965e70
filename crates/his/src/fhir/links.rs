//! Merges in Patients: the survivor of an old record, and the records that a survivor replaces.
//!
//! The one rule: a Patient with a link says whether its record is in use (profile of PDQm, `iti-pdqm-linkstatus`).

use fedgate_fhir::patient::{LogicalId, PatientFacts};

use crate::store::RecordStore;
use fedgate_base::db::DbError;

/// Adds the links of merges to Patients.
pub(super) async fn link<'a>(
    store: &RecordStore,
    patients: impl IntoIterator<Item = &'a mut PatientFacts>,
) -> Result<(), DbError> {
    let patients: Vec<&mut PatientFacts> = patients.into_iter().collect();
    let ids: Vec<String> = patients.iter().map(|patient| patient.own_id.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let same = store.same_persons(&ids).await?;
    for patient in patients {
        let Some((_, survivor)) = same.iter().find(|(id, _)| *id == patient.own_id) else { continue };
        if *survivor == patient.own_id {
            let old = same.iter().filter(|(id, person)| person == survivor && id != survivor);
            patient.replaces = old.filter_map(|(id, _)| LogicalId::of(id)).collect();
            if !patient.replaces.is_empty() {
                patient.active = Some(patient.active.unwrap_or(true));
            }
        } else {
            patient.replaced_by = LogicalId::of(survivor);
            patient.active = Some(false);
        }
    }
    Ok(())
}
