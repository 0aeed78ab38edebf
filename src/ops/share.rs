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

/// `share(held, lane)`: what `lane` holds. `lane` is a constant wherever this is called, and one of the cases is left;
/// WGSL wants each lane spelt out.
pub const LANES: &str = "fn share(held: V, lane: u32) -> V {
    switch lane {
        case 1u: { return subgroupBroadcast(held, 1u); }
        case 2u: { return subgroupBroadcast(held, 2u); }
        case 3u: { return subgroupBroadcast(held, 3u); }
        case 4u: { return subgroupBroadcast(held, 4u); }
        case 5u: { return subgroupBroadcast(held, 5u); }
        case 6u: { return subgroupBroadcast(held, 6u); }
        case 7u: { return subgroupBroadcast(held, 7u); }
        default: { return subgroupBroadcast(held, 0u); }
    }
}";

/// The same for a lane that is no constant, but the same for all.
pub const ANY_LANE: &str = "fn share(held: V, lane: u32) -> V {
    return subgroupShuffle(held, lane);
}";
