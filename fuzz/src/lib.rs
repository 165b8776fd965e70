//! What the fuzz targets share. They depend on `fedgate-core` like anybody else; everything that runs is instrumented, and a
//! build needs neither the proxy nor the database.
//!
//! The one rule: a target states laws, not only that nothing panics; where it can, it compares with a second reading
//! that was written from the standard, slowly and apart ([`reference`]).

pub mod reference;
