// One index from a dispatch that may be spread over two dimensions.

// Index of this thread; `width` is the number of threads in a workgroup.
fn linear_id(group: vec3<u32>, groups: vec3<u32>, local: u32, width: u32) -> u32 {
    return (group.y * groups.x + group.x) * width + local;
}

// Index of this workgroup.
fn linear_group(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// Quotient and remainder for i < 2^31 and d > 0. Division of integers is one lane at a time on CPUs
// and dozens of instructions on GPUs. The first estimate is off by at most some 2^-22 of itself, the
// second by one.
fn divide(i: u32, d: u32) -> vec2<u32> {
    let inverse = 1.0 / f32(i32(d));
    var quotient = i32(f32(i32(i)) * inverse);
    var rest = i32(i) - quotient * i32(d);
    quotient += i32(f32(rest) * inverse);
    rest = i32(i) - quotient * i32(d);
    let low = rest < 0;
    quotient -= i32(low);
    rest += select(0, i32(d), low);
    let high = rest >= i32(d);
    return vec2<u32>(vec2<i32>(quotient + i32(high), rest - select(0, i32(d), high)));
}

// Coordinates (n, y, x, c) of the i-th unit of a tensor [n, h, w, c].
fn coordinates(i: u32, h: u32, w: u32, c: u32) -> vec4<u32> {
    let pixel = divide(i, c);
    let line = divide(pixel.x, w);
    let picture = divide(line.x, h);
    return vec4<u32>(picture.x, picture.y, line.y, pixel.y);
}

// The place of a signed index in an axis of `size`: negative ones count from the end. What lies outside the axis is
// at least `size`, as numbers below zero are the largest without a sign.
fn from_end(i: i32, size: u32) -> u32 {
    return u32(select(i, i + i32(size), i < 0));
}
