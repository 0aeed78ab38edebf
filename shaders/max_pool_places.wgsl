// dst[n, y, x, c] = where in its plane the maximum of src[n, v, u, c] over the window of (y, x) is, the first of equals
//
// src [n, h, w, c], dst [n, oh, ow, c]. The window of y is the rows y · stride − pad + dilation · k, k < kernel; taps outside
// src count for nothing. A place is v · w + u, or u · h + v (COLUMNS_FIRST). One thread computes one place.

const COLUMNS_FIRST: bool = false;
alias Elem = f32;

struct Params {
    count: u32,
    h: u32,
    w: u32,
    c: u32,
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
@group(0) @binding(1) var<storage, read_write> dst: array<i32>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let c = id % P.c;
    let pixel = id / P.c;
    let y = i32((pixel / P.ow) % P.oh * P.stride_y) - i32(P.top);
    let x = i32(pixel % P.ow * P.stride_x) - i32(P.left);
    let n = pixel / (P.ow * P.oh);
    var best = 0.0;
    var found = false;
    var place = 0u;
    for (var j = 0u; j < P.kernel_y; j++) {
        let v = y + i32(j * P.dilation_y);
        if (v >= 0 && v < i32(P.h)) {
            for (var i = 0u; i < P.kernel_x; i++) {
                let u = x + i32(i * P.dilation_x);
                if (u >= 0 && u < i32(P.w)) {
                    let value = f32(src[((n * P.h + u32(v)) * P.w + u32(u)) * P.c + c]);
                    if (!found || value > best) {
                        best = value;
                        found = true;
                        place = select(u32(v) * P.w + u32(u), u32(u) * P.h + u32(v), COLUMNS_FIRST);
                    }
                }
            }
        }
    }
    dst[id] = i32(place);
}
