// dst[n, y, x, c] = max or mean of src[n, v, u, c] over the window of (y, x)
//
// src [n, h, w, c], dst [n, oh, ow, c], c in units of V. The window of y is the rows
// y · stride − pad + dilation · k, k < kernel, or (ADAPTIVE) floor(y · h / oh) to ceil((y + 1) · h / oh).
// Taps outside src count for nothing; a mean's divisor counts those within the padding if asked to.
// One thread computes RUN units of a pixel.

const MAX: bool = true;
const ADAPTIVE: bool = false;
const RUN: u32 = 1u;
alias V = vec4<f32>;
alias Elem = vec4<f32>;

struct Params {
    count: u32, // threads
    h: u32,
    w: u32,
    runs: u32, // in a pixel
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
    bottom: u32,
    right: u32,
    include_pad: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;
@group(0) @binding(3) var src_texture: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/texels

fn load(i: u32) -> V {
    return V(src[i]);
}

struct Window {
    first: i32,
    taps: u32,
}

fn adaptive(i: u32, size: u32, out: u32) -> Window {
    let first = i * size / out;
    return Window(i32(first), ((i + 1u) * size + out - 1u) / out - first);
}

// Taps of a window that begin before `end`, the end of the input with its padding.
fn within(window: Window, dilation: u32, end: u32) -> u32 {
    let room = i32(end) - window.first;
    return min(window.taps, (u32(max(room, 0)) + dilation - 1u) / dilation);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let at = coordinates(id, P.oh, P.ow, P.runs);
    let n = at.x;
    let y = at.y;
    let x = at.z;
    var rows = Window(i32(y * P.stride_y) - i32(P.top), P.kernel_y);
    var columns = Window(i32(x * P.stride_x) - i32(P.left), P.kernel_x);
    if (ADAPTIVE) {
        rows = adaptive(y, P.h, P.oh);
        columns = adaptive(x, P.w, P.ow);
    }
    var result: array<V, RUN>; // #registers
    for (var r = 0u; r < RUN; r++) { // #unroll
        result[r] = V(select(0.0, -3.4028234e38, MAX));
    }
    var taps = 0u;
    for (var j = 0u; j < rows.taps; j++) {
        let v = rows.first + i32(j * P.dilation_y);
        if (v >= 0 && v < i32(P.h)) {
            for (var i = 0u; i < columns.taps; i++) {
                let u = columns.first + i32(i * P.dilation_x);
                if (u >= 0 && u < i32(P.w)) {
                    let tap = (((n * P.h + u32(v)) * P.w + u32(u)) * P.runs + at.w) * RUN;
                    for (var r = 0u; r < RUN; r++) { // #unroll
                        let value = load(tap + r);
                        if (MAX) {
                            result[r] = max(result[r], value);
                        } else {
                            result[r] += value;
                        }
                    }
                    taps++;
                }
            }
        }
    }
    if (!MAX && P.include_pad != 0u) {
        taps = within(rows, P.dilation_y, P.h + P.bottom) * within(columns, P.dilation_x, P.w + P.right);
    }
    let divisor = select(f32(max(taps, 1u)), 1.0, MAX);
    for (var r = 0u; r < RUN; r++) { // #unroll
        dst[id * RUN + r] = Elem(result[r] / divisor);
    }
}
