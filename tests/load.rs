//! The gateway under load that is meant to hurt it: password floods, crowds of idle connections, and a long run with
//! faults. Figures are printed; what is asserted is what holds on any machine.

#[path = "load/crowd.rs"]
mod crowd;
#[path = "load/soak.rs"]
mod soak;
#[path = "load/flood.rs"]
mod flood;
