// One index from a dispatch that may be spread over two dimensions.

// Index of this thread; `width` is the number of threads in a workgroup.
fn linear_id(group: vec3<u32>, groups: vec3<u32>, local: u32, width: u32) -> u32 {
    return (group.y * groups.x + group.x) * width + local;
}

// Index of this workgroup.
fn linear_group(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}
