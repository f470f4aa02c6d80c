//! Every choice the host makes, as functions of state, event and time: which job runs next and where
//! ([`queue`]), which incarnation of an instance is the present one ([`instance`]), what a composition does next ([`composition`]), which adapters fit a capability ([`adapters`]), and
//! why a worker is held to have died ([`death`]).
//!
//! This crate performs nothing. It has no runtime, files, clock, threads or randomness (its own `clippy.toml`
//! bans them): the shell in `cjm-engine` feeds events with the time they happened, performs the effects that
//! come back, and feeds their outcomes as further events. The same events give the same effects, always.

pub mod adapters;
pub mod composition;
pub mod death;
pub mod instance;
pub mod queue;

#[cfg(test)]
mod tests {
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "an unfulfilled expectation here means that the bans are off"
    )]
    fn clippy_would_see_a_clock_a_file_an_id_or_a_variable() {
        let _ = std::time::Instant::now();
        let _ = std::fs::read("/nonexistent");
        let _ = cjm_wire::JobId::new();
        let _ = std::env::var("NONEXISTENT");
    }

    #[test]
    #[expect(
        clippy::disallowed_types,
        reason = "an unfulfilled expectation here means that the bans are off"
    )]
    fn clippy_would_see_a_map_with_random_order() {
        assert!(std::collections::HashMap::<u8, u8>::new().is_empty());
    }
}
