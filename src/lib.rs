//! fedgate
