//! SPIR-V of kernels with cooperative matrices, with what Vulkan's memory model asks for and naga leaves out, and factors that
//! are of f16 whatever the memory is of that holds them.
//!
//! A module with such matrices declares Vulkan's memory model. There a barrier makes nothing available to other threads, nor
//! visible to its own, unless it says so, and orders only what is accessed as not private to a thread (SPIR-V specification,
//! sections "Memory Semantics" and "Memory Operands"; Vulkan specification, appendix "Memory Model"). naga 30 writes barriers
//! and accesses as for the older GLSL450 model, where both go without saying. So every barrier is given MakeAvailable and
//! MakeVisible here, those of a subgroup workgroup memory instead of the subgroup's own, which Vulkan has not and where kernels
//! have nothing, and every access to workgroup memory NonPrivatePointer. Arrays in workgroup memory lose their strides,
//! which naga gives them too: they have no layout there (VUID-StandaloneSpirv-None-10684).

mod elements;

use std::collections::{HashMap, HashSet};

use naga::back::spv;

use crate::error::{Error, Result};
use crate::shader::Shader;

/// Version of SPIR-V that cooperative matrices came with; of Vulkan 1.3.
const VERSION: (u8, u8) = (1, 6);

/// The kernel without bounds checks. Its bindings are numbered from zero in the order of those that it uses, as wgpu numbers
/// them for a layout.
pub fn words(shader: &Shader) -> Result<Vec<u32>> {
    let fail = |message: String| Error::Shader { kernel: shader.kernel.name.to_owned(), message };
    let info = Shader::validator().validate(&shader.module).map_err(|e| fail(e.as_inner().to_string()))?;
    let mut used: Vec<u32> = shader.bindings.iter().map(|b| b.binding).collect();
    used.extend(shader.textures.iter().chain(&shader.texels).map(|(_, binding)| *binding));
    used.extend(shader.storage_textures.iter().map(|(binding, _)| *binding));
    used.extend(shader.params_binding);
    used.sort_unstable();
    let numbered = used.iter().zip(0..).map(|(&own, binding)| {
        let resource = naga::ResourceBinding { group: 0, binding: own };
        (resource, spv::BindingInfo { descriptor_set: 0, binding, binding_array_size: None })
    });
    let unchecked = naga::proc::BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: VERSION,
        // Names of functions, by which `elements` finds those that it writes.
        flags: spv::WriterFlags::DEBUG,
        binding_map: numbered.collect(),
        bounds_check_policies: naga::proc::BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        use_storage_input_output_16: false,
        emit_int_div_checks: false,
        ..spv::Options::default()
    };
    let words = spv::write_vec(&shader.module, &info, &options, None).map_err(|e| fail(e.to_string()))?;
    Ok(ordered(&elements::written(&of_halves(&words))))
}

/// Opcodes, by their numbers in the specification.
mod op {
    pub const NAME: u32 = 5;
    pub const MEMBER_NAME: u32 = 6;
    pub const DECORATE: u32 = 71;
    pub const CAPABILITY: u32 = 17;
    pub const TYPE_VOID: u32 = 19;
    pub const TYPE_FLOAT: u32 = 22;
    pub const TYPE_POINTER: u32 = 32;
    pub const CONSTANT: u32 = 43;
    pub const FUNCTION: u32 = 54;
    pub const FUNCTION_PARAMETER: u32 = 55;
    pub const FUNCTION_END: u32 = 56;
    pub const VARIABLE: u32 = 59;
    pub const LOAD: u32 = 61;
    pub const STORE: u32 = 62;
    pub const ACCESS_CHAIN: u32 = 65;
    pub const IN_BOUNDS_ACCESS_CHAIN: u32 = 66;
    pub const F_CONVERT: u32 = 115;
    pub const CONTROL_BARRIER: u32 = 224;
    pub const MEMORY_BARRIER: u32 = 225;
    pub const LABEL: u32 = 248;
    pub const RETURN: u32 = 253;
    pub const RETURN_VALUE: u32 = 254;
    pub const TYPE_COOPERATIVE_MATRIX: u32 = 4456;
    pub const COOPERATIVE_MATRIX_LOAD: u32 = 4457;
    pub const COOPERATIVE_MATRIX_STORE: u32 = 4458;
    pub const COOPERATIVE_MATRIX_LENGTH: u32 = 4460;
}

/// Words before the first instruction, the fourth of which is one more than the largest id.
const HEADER: usize = 5;
const BOUND: usize = 3;

const WORKGROUP: u32 = 4;
const ARRAY_STRIDE: u32 = 6;
const NON_PRIVATE_POINTER: u32 = 0x20;
const SUBGROUP_MEMORY: u32 = 0x80;
const WORKGROUP_MEMORY: u32 = 0x100;
const MAKE_AVAILABLE_AND_VISIBLE: u32 = 0x2000 | 0x4000;

/// Instructions of a module: opcode and all words.
fn instructions(words: &[u32]) -> impl Iterator<Item = (u32, &[u32])> {
    let mut rest = &words[HEADER..];
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let (instruction, after) = rest.split_at((first >> 16) as usize);
        rest = after;
        Some((first & 0xffff, instruction))
    })
}

/// Where a pointer stands in an instruction that accesses memory, and where its memory operands begin.
fn access(opcode: u32) -> Option<(usize, usize)> {
    match opcode {
        op::LOAD => Some((3, 4)),
        op::STORE => Some((1, 3)),
        op::COOPERATIVE_MATRIX_LOAD => Some((3, 6)),
        op::COOPERATIVE_MATRIX_STORE => Some((1, 5)),
        _ => None,
    }
}

/// The same module with factors of f16, where they are of f32. naga takes matrices to be of what the memory is of that they are
/// loaded from; SPIR-V only wants that memory to be of numbers, and so kernels can hold eight numbers of f16 in a vector of four
/// of f32, which drivers move at once.
fn of_halves(words: &[u32]) -> Vec<u32> {
    const FLOAT16: u32 = 9;
    let of_float = |bits: u32| {
        let mut types = instructions(words).filter(|(opcode, _)| *opcode == op::TYPE_FLOAT);
        types.find(|(_, words)| words[2] == bits).map(|(_, words)| words[1])
    };
    let (Some(f32), found) = (of_float(32), of_float(16)) else { return words.to_vec() };
    let uses: HashMap<u32, u32> = instructions(words)
        .filter(|(opcode, _)| *opcode == op::CONSTANT)
        .map(|(_, words)| (words[2], words[3]))
        .collect();
    let has_halves =
        instructions(words).any(|(opcode, words)| opcode == op::CAPABILITY && words[1] == FLOAT16);
    let f16 = found.unwrap_or(words[BOUND]);
    let mut changed = words[..HEADER].to_vec();
    changed[BOUND] = words[BOUND].max(f16 + 1);
    if !has_halves {
        changed.extend([2 << 16 | op::CAPABILITY, FLOAT16]);
    }
    let mut declared = false;
    for (opcode, words) in instructions(words) {
        // Before all types that could be made of it, instead of where it was.
        if !declared && (op::TYPE_VOID..=op::TYPE_POINTER).contains(&opcode) {
            changed.extend([3 << 16 | op::TYPE_FLOAT, f16, 16]);
            declared = true;
        }
        let at = changed.len();
        if opcode == op::TYPE_FLOAT && words[1] == f16 {
            continue;
        }
        changed.extend(words);
        // Its uses: 0 and 1 are factors, 2 is a sum.
        if opcode == op::TYPE_COOPERATIVE_MATRIX
            && words[2] == f32
            && uses.get(&words[6]).is_some_and(|&u| u < 2)
        {
            changed[at + 2] = f16;
        }
    }
    changed
}

/// The same module with barriers and accesses as the memory model wants them.
fn ordered(words: &[u32]) -> Vec<u32> {
    // Storage classes of types of pointers, then of pointers; types and values of constants.
    let (mut classes, mut pointers, mut constants) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut without_layout = HashSet::new();
    for (opcode, words) in instructions(words) {
        match opcode {
            op::TYPE_POINTER => {
                classes.insert(words[1], words[2]);
                if words[2] == WORKGROUP {
                    without_layout.insert(words[3]);
                }
            }
            op::CONSTANT => {
                constants.insert(words[2], (words[1], words[3]));
            }
            op::VARIABLE | op::FUNCTION_PARAMETER | op::ACCESS_CHAIN | op::IN_BOUNDS_ACCESS_CHAIN => {
                if let Some(&class) = classes.get(&words[1]) {
                    pointers.insert(words[2], class);
                }
            }
            _ => {}
        }
    }
    // Constants that are new: what they are instead of, and their own words.
    let (mut semantics, mut bound) = (HashMap::new(), words[BOUND]);
    let mut head = words[..HEADER].to_vec();
    let (mut declarations, mut functions) = (Vec::new(), Vec::new());
    let mut in_functions = false;
    for (opcode, words) in instructions(words) {
        in_functions |= opcode == op::FUNCTION;
        if opcode == op::DECORATE && words[2] == ARRAY_STRIDE && without_layout.contains(&words[1]) {
            continue;
        }
        let mut words = words.to_vec();
        let barrier = match opcode {
            op::CONTROL_BARRIER => Some(3),
            op::MEMORY_BARRIER => Some(2),
            _ => None,
        };
        if let Some(place) = barrier {
            let old = words[place];
            words[place] = *semantics.entry(old).or_insert_with(|| {
                let (ty, value): (u32, u32) = constants[&old];
                let value = value & !SUBGROUP_MEMORY | WORKGROUP_MEMORY | MAKE_AVAILABLE_AND_VISIBLE;
                declarations.extend([4 << 16 | op::CONSTANT, ty, bound, value]);
                bound += 1;
                bound - 1
            });
        }
        if let Some((pointer, operands)) = access(opcode)
            && pointers.get(&words[pointer]) == Some(&WORKGROUP)
        {
            if words.len() == operands {
                words.push(0);
            }
            words[operands] |= NON_PRIVATE_POINTER;
            words[0] = (words.len() as u32) << 16 | opcode;
        }
        if in_functions { &mut functions } else { &mut head }.extend(words);
    }
    head[BOUND] = bound;
    [head, declarations, functions].concat()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::graph::Graph;
    use crate::ops::attention::AttentionOptions;
    use crate::ops::matrices::Block;
    use crate::plan::Plan;
    use crate::shader::Kernel;
    use crate::target::{Matrices, Target};
    use crate::tensor::DType;

    /// Kernels with cooperative matrices, with every block that some device takes.
    fn shaders() -> Vec<Shader> {
        let mut shaders = Vec::new();
        for subgroup_size in [8, 32, 64] {
            let matrices = Some(Matrices { sides: vec![16, 8], subgroup_size });
            let target = Target { matrices, ..Target::typical() };
            for length in [8, 16, 64] {
                for block in Block::all(&target, DType::F16, length) {
                    for turned in [[false, false], [false, true], [true, false], [true, true]] {
                        let kernel = block.kernel("matmul_matrices", &target, turned);
                        shaders.push(Shader::new(&kernel).unwrap_or_else(|e| panic!("{block}: {e}")));
                    }
                    let kernel = block.kernel("conv2d_matrices", &target, [false; 2]);
                    shaders.push(Shader::new(&kernel).unwrap_or_else(|e| panic!("{block}: {e}")));
                }
            }
        }
        for name in ["attention_matrices", "attention_subgroups"] {
            shaders.push(Shader::new(&Kernel::new(name)).unwrap_or_else(|e| panic!("{e}")));
        }
        shaders.extend(attention());
        shaders
    }

    /// Those of attention as they are lowered, both ways.
    fn attention() -> Vec<Shader> {
        let (mut shaders, mut names) = (Vec::new(), HashSet::new());
        for (side, subgroup_size, channels) in
            [(8, 8, 80), (8, 32, 80), (8, 64, 40), (16, 32, 80), (16, 32, 72), (16, 64, 128)]
        {
            let mut graph = Graph::new();
            let x = graph.input("x", [1, 256, channels], DType::F16);
            let y = graph.attention(x, x, x, 2, AttentionOptions::default()).unwrap();
            graph.output("y", y);
            let matrices = Some(Matrices { sides: vec![side], subgroup_size });
            let target = Target { matrices, subgroup_size, ..Target::typical() };
            let plan = Plan::compile(&graph, &target).unwrap();
            for launch in &plan.run {
                let kernel = &launch.shader.kernel;
                if kernel.name.starts_with("attention_") && names.insert((kernel.name, kernel.variant())) {
                    shaders.push(Shader::new(kernel).unwrap());
                }
            }
        }
        for name in ["attention_matrices", "attention_subgroups"] {
            assert!(names.iter().any(|(found, _)| *found == name), "{name}: {names:?}");
        }
        shaders
    }

    #[test]
    fn barriers_and_shared_memory_are_as_the_memory_model_wants_them() {
        for shader in shaders() {
            let words = words(&shader).unwrap();
            let constants: HashMap<u32, u32> = instructions(&words)
                .filter(|(opcode, _)| *opcode == op::CONSTANT)
                .map(|(_, words)| (words[2], words[3]))
                .collect();
            let barriers: Vec<u32> = instructions(&words)
                .filter(|(opcode, _)| *opcode == op::CONTROL_BARRIER)
                .map(|(_, words)| constants[&words[3]])
                .collect();
            // AcquireRelease, WorkgroupMemory, MakeAvailable, MakeVisible.
            assert!(barriers.len() >= 4 && barriers.iter().all(|&s| s == 0x8 | 0x100 | 0x2000 | 0x4000));
            let count = |wanted: u32| instructions(&words).filter(|(opcode, _)| *opcode == wanted).count();
            assert!(count(op::COOPERATIVE_MATRIX_LOAD) >= 2 && count(op::COOPERATIVE_MATRIX_STORE) >= 1);
            for (opcode, words) in instructions(&words) {
                // All of these matrices are in workgroup memory.
                let operands = match opcode {
                    op::COOPERATIVE_MATRIX_LOAD => 6,
                    op::COOPERATIVE_MATRIX_STORE => 5,
                    _ => continue,
                };
                assert_eq!(words.get(operands), Some(&NON_PRIVATE_POINTER));
            }
            let ids: Vec<u32> = constants.keys().copied().collect();
            assert!(ids.iter().all(|&id| id < words[BOUND]));
        }
    }

    #[test]
    fn factors_are_of_halves_and_sums_of_f32() {
        for shader in shaders() {
            let words = words(&shader).unwrap();
            let of = |wanted: u32| instructions(&words).filter(move |(opcode, _)| *opcode == wanted);
            let bits: HashMap<u32, u32> = of(op::TYPE_FLOAT).map(|(_, words)| (words[1], words[2])).collect();
            let constants: HashMap<u32, u32> =
                of(op::CONSTANT).map(|(_, words)| (words[2], words[3])).collect();
            let matrices: Vec<[u32; 2]> = of(op::TYPE_COOPERATIVE_MATRIX)
                .map(|(_, words)| [constants[&words[6]], bits[&words[2]]])
                .collect();
            assert_eq!(bits.len(), of(op::TYPE_FLOAT).count());
            // Sums of f16 are those that are stored so.
            assert!((3..=4).contains(&matrices.len()));
            assert!(matrices.iter().all(|m| [[0, 16], [1, 16], [2, 32], [2, 16]].contains(m)));
        }
    }

    /// By the validator of SPIRV-Tools, where there is one that knows these matrices.
    #[test]
    fn they_are_valid() {
        let Ok(found) = Command::new("spirv-val").arg("--version").output() else {
            eprintln!("SKIPPED: no spirv-val");
            return;
        };
        let version = String::from_utf8_lossy(&found.stdout).into_owned();
        let year = version.split('v').find_map(|word| word.get(..4)?.parse::<u32>().ok());
        if year.is_none_or(|year| year < 2024) {
            eprintln!("SKIPPED: spirv-val is too old: {version}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for (i, shader) in shaders().iter().enumerate() {
            let path = folder.path().join(format!("{i}.spv"));
            let words = words(shader).unwrap();
            std::fs::write(&path, bytemuck::cast_slice::<u32, u8>(&words)).unwrap();
            let found =
                Command::new("spirv-val").args(["--target-env", "vulkan1.3"]).arg(&path).output().unwrap();
            let variant = shader.kernel.variant();
            assert!(found.status.success(), "{variant}: {}", String::from_utf8_lossy(&found.stderr));
        }
    }
}
