// dst[n, y, x, g, k, c] = mask[n, y, x, s, k] · src[n, v, u, g, c], v = y · stride − top + row(k) · dilation + offset[n, y, x, s, k, 0], u
// likewise with offset 1; bilinear between pixels, zero outside
//
// src [n, h, w, channels], its channels in groups g of the convolution and in sets s that share offsets; k the taps of
// the kernel, row by row. Channels in units of V. One thread computes one V.

alias V = vec4<f32>;
alias Elem = vec4<f32>;
alias Place = f32;

struct Params {
    count: u32,
    h: u32,
    w: u32,
    channels: u32,
    each: u32, // channels of a group
    shared_by: u32, // channels with the same offsets
    sets: u32,
    oh: u32,
    ow: u32,
    kernel_y: u32,
    kernel_x: u32,
    stride_y: u32,
    stride_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    top: u32,
    left: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> offset: array<Place>;
@group(0) @binding(2) var<storage, read> mask: array<Place>;
@group(0) @binding(3) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index

fn part(tap: u32) -> f32 {
    return f32(mask[tap]);
}

// A pixel, or nothing outside.
fn at(n: u32, v: i32, u: i32, c: u32) -> V {
    if (v < 0 || v >= i32(P.h) || u < 0 || u >= i32(P.w)) {
        return V(0.0);
    }
    return V(src[((n * P.h + u32(v)) * P.w + u32(u)) * P.channels + c]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let taps = P.kernel_y * P.kernel_x;
    let of_group = divide(id, P.each);
    let of_taps = divide(of_group.x, taps);
    let groups_of = divide(of_taps.x, P.channels / P.each);
    let k = of_taps.y;
    let pixel = groups_of.x;
    let c = groups_of.y * P.each + of_group.y;
    let line = divide(pixel, P.ow);
    let picture = divide(line.x, P.oh);
    let y = picture.y;
    let x = line.y;
    let n = picture.x;
    let tap = (pixel * P.sets + divide(c, P.shared_by).x) * taps + k;
    let of_kernel = divide(k, P.kernel_x);
    let v = f32(i32(y * P.stride_y + of_kernel.x * P.dilation_y) - i32(P.top)) + f32(offset[tap * 2u]);
    let u = f32(i32(x * P.stride_x + of_kernel.y * P.dilation_x) - i32(P.left)) + f32(offset[tap * 2u + 1u]);
    // Farther out there is nothing, however far.
    let below = clamp(floor(v), -2.0, f32(P.h));
    let before = clamp(floor(u), -2.0, f32(P.w));
    let fy = v - floor(v);
    let fx = u - floor(u);
    let j = i32(below);
    let i = i32(before);
    let upper = (1.0 - fx) * at(n, j, i, c) + fx * at(n, j, i + 1, c);
    let lower = (1.0 - fx) * at(n, j + 1, i, c) + fx * at(n, j + 1, i + 1, c);
    dst[id] = Elem(((1.0 - fy) * upper + fy * lower) * part(tap));
}
