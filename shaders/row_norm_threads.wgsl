// dst[row, k] = activation((src − mean) / √(variance + eps) · weight[k] + bias[k])
//
// Layer norm of each row; with CENTRED off, RMS norm (Zhang and Sennrich, 2019); with other places, the group norm of
// groups that have few numbers. THREADS threads normalise one row. Each keeps HELD of its units in registers, so that
// they are read once; what a row has beyond those is read again. The mean comes first, then what is left of each number
// when it is taken away: the sum of the squares of that, and its own sum, which corrects the mean for the rounding of the
// first one (Chan, Golub and LeVeque, 1983).

alias V = vec4<f32>;
alias Elem = vec4<f32>; // a unit: four numbers, or one
alias Part = vec2<f32>;

const HELD: u32 = 4u;
const CENTRED: bool = true;

struct Params {
    rows: u32,
    units: u32, // in a row
    size: f32, // numbers in a row
    eps: f32,
    // Of group norm; of others one pixel with one group.
    pixels: u32,
    groups: u32,
    group_units: u32,
}

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read> weight: array<Elem>;
@group(0) @binding(2) var<storage, read> bias: array<Elem>;
@group(0) @binding(3) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index
// #include lib/math
// #include lib/threads

fn join(a: Part, b: Part) -> Part {
    return a + b;
}

// Where the k-th unit of a row is.
fn place(row: u32, k: u32) -> u32 {
    return row * P.units + k;
}

// Which unit of the channels that is.
fn channel(row: u32, k: u32) -> u32 {
    return k;
}

fn weight_of(unit: u32) -> V {
    return V(weight[unit]);
}

fn bias_of(unit: u32) -> V {
    return V(bias[unit]);
}

fn activation(x: V) -> V {
    return x;
}

fn sum(v: V) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn load(row: u32, k: u32) -> V {
    return V(src[place(row, k)]);
}

fn store(row: u32, k: u32, x: V, factor: f32) {
    let unit = channel(row, k);
    dst[place(row, k)] = Elem(activation(x * factor * weight_of(unit) + bias_of(unit)));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = line_and_lane(local);
    let line = at.x;
    let lane = at.y;
    let index = linear_group(group, groups) * LINES + line;
    // Threads beyond the last row go along with the others to the barriers.
    let row = min(index, P.rows - 1u);
    let rest = lane + HELD * THREADS;

    var x: array<V, HELD>; // #registers
    for (var i = 0u; i < HELD; i++) { // #unroll
        x[i] = load(row, min(lane + i * THREADS, P.units - 1u));
    }
    var mean = 0.0;
    if (CENTRED) {
        var total = V(0.0);
        for (var i = 0u; i < HELD; i++) { // #unroll
            total += select(V(0.0), x[i], lane + i * THREADS < P.units);
        }
        for (var k = rest; k < P.units; k += THREADS) {
            total += load(row, k);
        }
        mean = joined(Part(sum(total), 0.0), line, lane).x / P.size;
    }
    var left = V(0.0);
    var squares = V(0.0);
    for (var i = 0u; i < HELD; i++) { // #unroll
        x[i] -= mean;
        let d = select(V(0.0), x[i], lane + i * THREADS < P.units);
        left += d;
        squares += d * d;
    }
    for (var k = rest; k < P.units; k += THREADS) {
        let d = load(row, k) - mean;
        left += d;
        squares += d * d;
    }
    let moments = joined(Part(sum(left), sum(squares)), line, lane) / P.size;
    var correction = 0.0;
    if (CENTRED) {
        correction = moments.x;
    }
    let factor = 1.0 / sqrt(moments.y - correction * correction + P.eps);
    if (index >= P.rows) {
        return;
    }
    for (var i = 0u; i < HELD; i++) { // #unroll
        if (lane + i * THREADS < P.units) {
            store(row, lane + i * THREADS, x[i] - correction, factor);
        }
    }
    for (var k = rest; k < P.units; k += THREADS) {
        store(row, k, load(row, k) - mean - correction, factor);
    }
}
