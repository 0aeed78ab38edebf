//! What a thread has fetched, for the other threads of its subgroup.

use crate::target::Target;

/// How many threads fetch for one another: as many as a subgroup has at least, of 8, 4 and 1.
pub fn lanes(target: &Target) -> usize {
    match target.subgroup_size {
        8.. => 8,
        4.. => 4,
        _ => 1,
    }
}

/// `share(held, lane)`: what `lane` holds. WGSL wants the lane to be a constant, which it is wherever this is called.
pub const LANES: &str = "fn share(held: V, lane: u32) -> V { // #inline
    return subgroupBroadcast(held, lane);
}";

/// The same for a lane that is no constant, but the same for all.
pub const ANY_LANE: &str = "fn share(held: V, lane: u32) -> V { // #inline
    return subgroupShuffle(held, lane);
}";
