// dst[k, i] = in_scale · sample[i] for each copy k
//
// What the model sees of a latent: scaled as the row of the step says, once or twice (guidance).
// sample: [slots, elements], of which slot 0 is the latent; row: [32], see diffusion_step;
// dst: [copies, elements]. One thread computes one number.

alias Elem = f32;

struct Params {
    count: u32, // numbers in dst
    elements: u32,
}

@group(0) @binding(0) var<storage, read> sample: array<f32>;
@group(0) @binding(1) var<storage, read> row: array<f32>;
@group(0) @binding(2) var<storage, read_write> dst: array<Elem>;
@group(0) @binding(3) var<uniform> P: Params;

// #include lib/index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear_id(group, groups, local, 64u);
    if (i >= P.count) {
        return;
    }
    dst[i] = Elem(row[1] * sample[i % P.elements]);
}
