// dst[i, k] = exp(src[i, k] − max_k) / Σ_k exp(src[i, k] − max_k)
//
// Softmax over the last dimension of [rows, units]. THREADS threads compute one row: first its maximum, then the sum of the
// exponentials, so that each number has one exponential and what threads join has none. Each keeps HELD of its units in
// registers, so that they are read once; what a row has beyond those is read again.

alias V = vec4<f32>;
alias Elem = vec4<f32>; // a unit: four numbers, or one
alias Part = vec2<f32>; // a maximum, a sum

const HELD: u32 = 4u;
const LOG: bool = false; // the logarithm of it
// Of nothing but −∞ the largest finite number stands for the maximum, so that no NaN arises in between.
const LOWEST: f32 = -3.4028234e38;

struct Params {
    rows: u32,
    units: u32, // in a row
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(2) var<uniform> P: Params;

// #include lib/index
// #include lib/threads

fn join(a: Part, b: Part) -> Part {
    return Part(max(a.x, b.x), a.y + b.y);
}

fn highest_of(v: V) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn sum(v: V) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// What is kept of elements less the maximum.
fn kept(x: V) -> V {
    if (LOG) {
        return x;
    }
    return exp(x);
}

// Of what is kept, and the sum of all exponentials.
fn result(x: V, total: f32) -> V {
    if (LOG) {
        return x - log(total);
    }
    return x * (1.0 / total);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = line_and_lane(local);
    let line = at.x;
    let lane = at.y;
    let index = linear_group(group, groups) * LINES + line;
    // Threads beyond the last row go along with the others to the barriers.
    let row = min(index, P.rows - 1u);
    let first = row * P.units;
    let rest = lane + HELD * THREADS;

    var x: array<V, HELD>; // #registers
    var top = V(LOWEST);
    for (var i = 0u; i < HELD; i++) { // #unroll
        // The last unit once more adds nothing to the maximum.
        x[i] = V(src[first + min(lane + i * THREADS, P.units - 1u)]);
        top = max(top, x[i]);
    }
    for (var k = rest; k < P.units; k += THREADS) {
        top = max(top, V(src[first + k]));
    }
    let highest = joined(Part(highest_of(top), 0.0), line, lane).x;
    var sums = V(0.0);
    for (var i = 0u; i < HELD; i++) { // #unroll
        let e = exp(x[i] - highest);
        sums += select(V(0.0), e, lane + i * THREADS < P.units);
        if (LOG) {
            x[i] -= highest;
        } else {
            x[i] = e;
        }
    }
    for (var k = rest; k < P.units; k += THREADS) {
        sums += exp(V(src[first + k]) - highest);
    }
    let total = joined(Part(LOWEST, sum(sums)), line, lane).y;
    if (index >= P.rows) {
        return;
    }
    for (var i = 0u; i < HELD; i++) { // #unroll
        if (lane + i * THREADS < P.units) {
            dst[first + lane + i * THREADS] = Elem(result(x[i], total));
        }
    }
    for (var k = rest; k < P.units; k += THREADS) {
        dst[first + k] = Elem(result(kept(V(src[first + k]) - highest), total));
    }
}
