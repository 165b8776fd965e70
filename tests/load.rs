//! The gateway under hostile load: password floods, crowds of idle connections, and a long run with faults. Figures
//! are printed. Only what holds on every machine is asserted.

#[path = "load/crowd.rs"]
mod crowd;
#[path = "load/soak.rs"]
mod soak;
#[path = "load/flood.rs"]
mod flood;
