//! Exit codes of a worker process of ours. 0 to 3 mean what they mean for the ancestor's worker; ours start at 20.

/// Ended as asked.
pub const OK: u8 = 0;
/// The tool could not be loaded; the host was told why.
pub const LOAD_FAILED: u8 = 1;
/// Started with the wrong arguments, or by hand without the descriptors a host gives.
pub const USAGE: u8 = 2;
/// The listening socket cannot be used.
pub const LISTEN: u8 = 3;
/// The tool's process ended; the host was told how.
pub const TOOL_DIED: u8 = 20;
/// The host link ended: the host is gone, and everything below this process was killed.
pub const HOST_GONE: u8 = 21;
/// The lifeline ended: the keeper is gone, and everything below this process was killed.
pub const KEEPER_GONE: u8 = 22;
/// The host link said something that is no frame, or no specification.
pub const LINK_BROKEN: u8 = 23;
/// The grace of a shutdown was over before the tool had ended; it was killed.
pub const GRACE_OVER: u8 = 24;
