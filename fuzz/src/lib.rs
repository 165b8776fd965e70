//! Code that the fuzz targets share. The targets depend on `fedgate-core` like any other package. All code that
//! runs is instrumented, and a build needs neither the proxy nor the database.
//!
//! The one rule: a target states laws, and not only that nothing panics. Where it can, it compares with a second
//! reading ([`reference`]), which was written slowly and separately from the standard.

pub mod reference;
