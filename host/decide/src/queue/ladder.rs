//! The ladder of admission: rules asked in order, of which the first that objects decides. Rules about the job
//! itself stand before rules about the whole queue, so that a waiting job names what is nearest to it and its
//! reason does not flap when others come and go.
//!
//! What is to come (exclusivity of what was never measured, reserved and live GPU memory, main memory, disk)
//! is another rule in [`RULES`] and another number in [`Facts`].

use cjm_wire::InstanceId;

/// Most candidates looked at in one decision before giving up. A candidate is the head of a line whose
/// instances have room, so that fully busy lines cost nothing and hide nobody.
pub const SKIP_AHEAD_MAX: usize = 32;

/// What a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockReason {
    /// Nothing is loaded that could run it.
    NoInstance,
    /// All that could run it are being killed and loaded again.
    InstanceReloading,
    /// All that could run it work at their cap.
    InstanceBusy,
    /// The store takes no rows.
    AdmissionClosed,
    /// All lanes are in use.
    LanesFull,
}

impl BlockReason {
    /// The text in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoInstance => "no_instance",
            Self::InstanceReloading => "instance_reloading",
            Self::InstanceBusy => "instance_busy",
            Self::AdmissionClosed => "admission_closed",
            Self::LanesFull => "lanes_full",
        }
    }
}

/// All that the rules may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts<'a> {
    /// The instance it would get.
    pub(super) free: Option<&'a InstanceId>,
    /// Why there is none.
    pub(super) shortage: BlockReason,
    /// The store takes no rows.
    pub(super) admission_closed: bool,
    pub(super) lanes_in_use: u32,
    pub(super) lanes_max: u32,
}

/// What the ladder says of one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    Admit,
    /// Not this one; another may.
    Skip(BlockReason),
    /// Nobody now.
    Stop(BlockReason),
}

impl Ruling {
    pub(super) fn reason(self) -> Option<BlockReason> {
        match self {
            Self::Admit => None,
            Self::Skip(reason) | Self::Stop(reason) => Some(reason),
        }
    }
}

type Rule = fn(&Facts<'_>) -> Option<Ruling>;

/// In this order.
const RULES: [Rule; 3] = [instance_has_room, admission_is_open, lane_is_free];

/// The first objection, or admission.
pub(super) fn climb(facts: &Facts<'_>) -> Ruling {
    RULES.iter().find_map(|rule| rule(facts)).unwrap_or(Ruling::Admit)
}

fn instance_has_room(facts: &Facts<'_>) -> Option<Ruling> {
    facts.free.is_none().then_some(Ruling::Skip(facts.shortage))
}

fn admission_is_open(facts: &Facts<'_>) -> Option<Ruling> {
    facts.admission_closed.then_some(Ruling::Stop(BlockReason::AdmissionClosed))
}

fn lane_is_free(facts: &Facts<'_>) -> Option<Ruling> {
    (facts.lanes_in_use >= facts.lanes_max).then_some(Ruling::Stop(BlockReason::LanesFull))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_objection_decides() {
        let instance = InstanceId::from_text("a");
        let room = Facts {
            free: Some(&instance),
            shortage: BlockReason::InstanceBusy,
            admission_closed: false,
            lanes_in_use: 3,
            lanes_max: 4,
        };
        let full = Facts { lanes_in_use: 4, ..room };
        let closed = Facts { admission_closed: true, ..full };
        let busy = Facts { free: None, ..closed };
        let absent = Facts { shortage: BlockReason::NoInstance, ..busy };
        for (facts, ruling) in [
            (room, Ruling::Admit),
            (full, Ruling::Stop(BlockReason::LanesFull)),
            (closed, Ruling::Stop(BlockReason::AdmissionClosed)),
            (busy, Ruling::Skip(BlockReason::InstanceBusy)),
            (absent, Ruling::Skip(BlockReason::NoInstance)),
        ] {
            assert_eq!(climb(&facts), ruling, "{facts:?}");
        }
    }
}
