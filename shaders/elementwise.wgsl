// dst[i] = expression(i), an expression of the inputs' elements at i after broadcasting
//
// All tensors row-major. `V` is f32, or vec4<f32> when every input is the
// result's shape, one number, or a row whose length is a multiple of four;
// then indices and the parameters blocks, rows and count are in quads.
// One thread computes UNITS V, so far apart that neighbouring threads compute neighbouring ones: the length of a workgroup, or
// that of a row, which is then read once for all of them. The functions are replaced by the operation.

const RANK: u32 = 6u;
const UNITS: u32 = 1u;
const WORKGROUP: u32 = 64u;
alias V = vec4<f32>;
alias T0 = vec4<f32>;
alias T1 = vec4<f32>;
alias T2 = vec4<f32>;
alias T3 = vec4<f32>;
alias Out = vec4<f32>;

struct Params {
    count: u32,
    apart: u32, // from one V of a thread to its next
    blocks: array<vec4<u32>, 1>,  // for each input
    rows: array<vec4<u32>, 1>,    // for each input
    shape: array<vec4<u32>, 2>,   // of the result; here and below the last axis first
    strides: array<vec4<u32>, 8>, // two vectors for each input
}

@group(0) @binding(0) var<storage, read_write> dst: array<Out>;
@group(0) @binding(1) var<storage, read> src0: array<T0>;
@group(0) @binding(2) var<storage, read> src1: array<T1>;
@group(0) @binding(3) var<storage, read> src2: array<T2>;
@group(0) @binding(4) var<storage, read> src3: array<T3>;
@group(0) @binding(5) var<uniform> P: Params;
@group(0) @binding(6) var texture0: texture_storage_2d<rgba32float, read>; // where a tensor is better read so
@group(0) @binding(7) var texture1: texture_storage_2d<rgba32float, read>;
@group(0) @binding(8) var texture2: texture_storage_2d<rgba32float, read>;
@group(0) @binding(9) var texture3: texture_storage_2d<rgba32float, read>;

// #include lib/index
// #include lib/math
// #include lib/texels

// Index into an input whose dimensions of size one have stride zero.
fn strided(i: u32, input: u32) -> u32 {
    var rest = i;
    var at = 0u;
    for (var k = 0u; k < RANK; k++) { // #unroll
        let split = divide(rest, P.shape[k / 4u][k % 4u]);
        at += split.y * P.strides[input * 2u + k / 4u][k % 4u];
        rest = split.x;
    }
    return at;
}

// Index into an input that is a row, of all samples or of each.
fn row(i: u32, input: u32) -> u32 {
    return divide(i, P.blocks[0][input]).x * P.rows[0][input] + divide(i, P.rows[0][input]).y;
}

fn load0(i: u32) -> V { return V(src0[i]); }
fn load1(i: u32) -> V { return V(0.0); }
fn load2(i: u32) -> V { return V(0.0); }
fn load3(i: u32) -> V { return V(0.0); }

// What a thread reads once.
var<private> held: array<V, 4>;

fn hold(i: u32) {}

fn expression(i: u32) -> V {
    return load0(i);
}

// The first V of a thread.
fn first_of(thread: u32) -> u32 {
    return thread / WORKGROUP * WORKGROUP * UNITS + thread % WORKGROUP;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = first_of(linear_id(group, groups, local, WORKGROUP));
    if (first >= P.count) {
        return;
    }
    hold(first);
    for (var k = 0u; k < UNITS; k++) { // #unroll
        let i = first + k * P.apart;
        if (i < P.count) {
            dst[i] = Out(expression(i));
        }
    }
}
