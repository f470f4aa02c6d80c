//! Keeper protocol: being written.
