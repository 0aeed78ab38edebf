// dst[r, y, x, c] = mean or maximum over the samples of bin (y, x) of region r of src, bilinear between pixels
//
// src [n, h, w, c], regions [r, 4] (left, top, right, bottom), pictures [r], dst [r, oh, ow, c], c in units of V. A bin has
// `ratio` samples along each axis, or one for each pixel begun. Samples more than a pixel outside count as zero. A
// maximum is that of the four neighbours, each times its weight, as ONNX defines it. One thread computes one V.

const MAX: bool = false;
alias V = vec4<f32>;
alias Elem = vec4<f32>;
alias Place = f32;

struct Params {
    count: u32,
    n: u32,
    h: u32,
    w: u32,
    c: u32,
    oh: u32,
    ow: u32,
    ratio: u32, // 0: as large as the bin
    scale: f32, // pixels of src in a unit of the regions
    offset: f32, // of pixel centres
    least: f32, // size of a region, pixels
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> regions: array<Place>;
@group(0) @binding(2) var<storage, read> pictures: array<i32>;
@group(0) @binding(3) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index

// Samples of a bin along an axis.
struct Samples {
    start: f32, // of the bin
    size: f32,
    all: f32,
    first: u32, // of those that may be within src
    end: u32,
}

fn samples(low: f32, high: f32, bin: u32, bins: u32, extent: u32) -> Samples {
    let origin = low * P.scale - P.offset;
    let region = max(high * P.scale - P.offset - origin, P.least);
    let size = region / f32(bins);
    let all = select(f32(P.ratio), max(ceil(size), 0.0), P.ratio == 0u);
    let start = origin + f32(bin) * size;
    // A region may be of any size: only those samples are visited that lie within src, or nearly.
    let each = size / all;
    let one = (-1.0 - start) / each;
    let other = (f32(extent) - start) / each;
    let most = min(all, 2e9);
    let first = clamp(floor(min(one, other)) - 1.0, 0.0, most);
    let end = clamp(ceil(max(one, other)) + 1.0, 0.0, most);
    // Those of a region without extent lie all in one place.
    let apart = abs(each) > 0.0;
    return Samples(start, size, all, select(0u, u32(first), apart), select(u32(min(all, 256.0)), u32(end), apart));
}

struct Neighbours {
    low: u32,
    high: u32,
    fraction: f32,
    inside: bool,
}

fn neighbours(s: Samples, i: u32, extent: u32) -> Neighbours {
    let at = s.start + (f32(i) + 0.5) * s.size / s.all;
    let last = extent - 1u;
    let held = max(at, 0.0);
    let low = min(u32(min(held, 2e9)), last);
    return Neighbours(low, min(low + 1u, last), select(held - f32(low), 0.0, low == last), at >= -1.0 && at <= f32(extent));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let id = linear_id(group, groups, local, 64u);
    if (id >= P.count) {
        return;
    }
    let at = coordinates(id, P.oh, P.ow, P.c);
    let c = at.w;
    let r = at.x;
    let n = min(from_end(pictures[r], P.n), P.n - 1u);
    let columns = samples(f32(regions[r * 4u]), f32(regions[r * 4u + 2u]), at.z, P.ow, P.w);
    let rows = samples(f32(regions[r * 4u + 1u]), f32(regions[r * 4u + 3u]), at.y, P.oh, P.h);
    var sum = V(0.0);
    var best = V(-3.4028234e38);
    var visited = 0.0;
    for (var j = rows.first; j < rows.end; j++) {
        let y = neighbours(rows, j, P.h);
        if (y.inside) {
            for (var i = columns.first; i < columns.end; i++) {
                let x = neighbours(columns, i, P.w);
                if (x.inside) {
                    let above = (n * P.h + y.low) * P.w;
                    let below = (n * P.h + y.high) * P.w;
                    let a = (1.0 - y.fraction) * (1.0 - x.fraction) * V(src[(above + x.low) * P.c + c]);
                    let b = (1.0 - y.fraction) * x.fraction * V(src[(above + x.high) * P.c + c]);
                    let d = y.fraction * (1.0 - x.fraction) * V(src[(below + x.low) * P.c + c]);
                    let e = y.fraction * x.fraction * V(src[(below + x.high) * P.c + c]);
                    if (MAX) {
                        best = max(best, max(max(a, b), max(d, e)));
                    } else {
                        sum += (a + b) + (d + e);
                    }
                    visited += 1.0;
                }
            }
        }
    }
    let all = rows.all * columns.all;
    if (MAX) {
        dst[id] = Elem(select(best, max(best, V(0.0)), visited < all || visited == 0.0));
    } else {
        dst[id] = Elem(sum / max(all, 1.0));
    }
}
