// dst[i] = element(i), a function of the inputs' elements at i after broadcasting, each of its own type
//
// All tensors row-major; strides are of the inputs along the result's axes, zero where these are
// broadcast. One thread computes one element. The function is replaced by the operation.

const RANK: u32 = 6u;
alias A = f32;
alias B = f32;
alias C = f32;
alias Out = f32;

struct Params {
    count: u32,
    shape: array<vec4<u32>, 2>,   // of the result; here and below the last axis first
    strides: array<vec4<u32>, 6>, // two vectors for each input
}

@group(0) @binding(0) var<storage, read_write> dst: array<Out>;
@group(0) @binding(1) var<storage, read> src0: array<A>;
@group(0) @binding(2) var<storage, read> src1: array<B>;
@group(0) @binding(3) var<storage, read> src2: array<C>;
@group(0) @binding(4) var<uniform> P: Params;

// #include lib/index
// #include lib/quotient

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

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

// Modules are compiled without checks, and a processor stops at a division that it cannot
// do: a / 0 is a and the quotient of the smallest integer and -1 wraps to itself.
fn divisor(a: i32, b: i32) -> i32 {
    return select(b, 1, b == 0 || (b == -1 && a == -2147483647 - 1));
}

// With the sign of the divisor.
fn integer_modulo(a: i32, b: i32) -> i32 {
    let rest = a % b;
    return select(rest, rest + b, rest != 0 && (rest < 0) != (b < 0));
}

// Wraps as integers do; a negative exponent leaves nothing but of 1 and -1.
fn integer_power(base: i32, exponent: i32) -> i32 {
    if (exponent < 0) {
        if (base == 1) { return 1; }
        if (base == -1) { return select(1, -1, (exponent & 1) != 0); }
        return 0;
    }
    var result = 1;
    var square = base;
    var rest = exponent;
    while (rest > 0) {
        if ((rest & 1) != 0) { result *= square; }
        square *= square;
        rest >>= 1u;
    }
    return result;
}

fn element(i: u32) -> Out {
    return src0[strided(i, 0u)];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    dst[i] = element(i);
}
