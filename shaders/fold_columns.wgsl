// dst[n, y, x, c] = Σ_j Σ_i src[n, v, u, c, j, i] over the blocks (v, u) of which tap (j, i) is pixel (y, x)
//
// src [n, rows, columns, c, kh, kw], dst [n, h, w, c]. Tap (j, i) of block (v, u) is the pixel v · stride − top + j · dilation, u · stride
// − left + i · dilation. One thread computes one pixel of a channel.

alias Elem = f32;

struct Params {
    count: u32,
    h: u32,
    w: u32,
    c: u32,
    rows: u32,
    columns: u32,
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
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index

// The block whose tap `away` pixels after its beginning is pixel `at`, `blocks` for none.
fn block(at: u32, away: u32, stride: u32, blocks: u32) -> u32 {
    if (away > at || (at - away) % stride != 0u) {
        return blocks;
    }
    return min((at - away) / stride, blocks);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let c = id % P.c;
    let pixel = id / P.c;
    let y = (pixel / P.w) % P.h + P.top;
    let x = pixel % P.w + P.left;
    let n = pixel / (P.w * P.h);
    var sum = 0.0;
    for (var j = 0u; j < P.kernel_y; j++) {
        let v = block(y, j * P.dilation_y, P.stride_y, P.rows);
        if (v < P.rows) {
            for (var i = 0u; i < P.kernel_x; i++) {
                let u = block(x, i * P.dilation_x, P.stride_x, P.columns);
                if (u < P.columns) {
                    let place = ((n * P.rows + v) * P.columns + u) * P.c + c;
                    sum += f32(src[(place * P.kernel_y + j) * P.kernel_x + i]);
                }
            }
        }
    }
    dst[id] = Elem(sum);
}
