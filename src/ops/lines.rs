//! A tensor seen as lines along one of its dimensions: what norms, softmax and the reductions share.

use crate::lower::Grid;
use crate::shader::Kernel;
use crate::target::{DeviceClass, Target};
use crate::tensor::{DType, Shape};

/// `[outer, size, inner]` of a shape whose dimensions `first..end` are one line.
pub fn split(shape: &Shape, first: usize, end: usize) -> [usize; 3] {
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    [product(&shape[..first]), product(&shape[first..end]), product(&shape[end..])]
}

/// Kernel types for `inner` neighbouring numbers: the alias `V`, the storage type
/// and how many numbers it holds.
pub fn packed(inner: usize, dtype: DType) -> (&'static str, &'static str, usize) {
    match (inner.is_multiple_of(4), dtype) {
        (true, DType::F16) => ("vec4<f32>", "vec4<f16>", 4),
        (true, _) => ("vec4<f32>", "vec4<f32>", 4),
        (false, dtype) => ("f32", dtype.wgsl(), 1),
    }
}

/// Storage type of four neighbouring numbers.
pub fn quad(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "vec4<f16>",
        _ => "vec4<f32>",
    }
}

/// Reads the source of a kernel as a texture, a quad at a time.
pub const LOAD_TEXEL: &str = "fn load(i: u32) -> V {
    return textureLoad(src_texture, texel(i));
}";

/// How many neighbours of a line of `n` a thread handles, at most so many, that would otherwise spend its time on where they are.
/// Where neighbouring threads' reads go together it is one.
pub fn run(target: &Target, n: usize, most: usize) -> usize {
    match target.class {
        DeviceClass::Cpu => (1..=most).rev().find(|run| n.is_multiple_of(*run)).unwrap_or(1),
        _ => 1,
    }
}

/// How the threads of a workgroup share lines, see `shaders/lib/threads.wgsl`. It is chosen by the length of a line alone, so that a
/// line's result does not depend on how many there are.
#[derive(Clone, Copy, Debug)]
pub struct Team {
    threads: usize,
    lines: usize,
    across: bool,
}

/// Threads of a workgroup, where they are not all needed for one line.
const WORKGROUP: usize = 128;
/// WebGPU promises as many to every device.
const MOST: usize = 256;
/// Neighbouring lines that are read together: of quads of f16, a cache line.
const ABREAST: usize = 8;

impl Team {
    /// For lines of `units` neighbouring units, of which a thread is to have about `each`.
    pub fn along(units: usize, each: usize) -> Self {
        let threads = units.div_ceil(each).next_power_of_two().min(MOST);
        Team { threads, lines: (WORKGROUP / threads).max(1), across: false }
    }

    /// For lines of `units` units that do not neighbour one another; those of neighbouring lines do.
    pub fn across(units: usize, each: usize) -> Self {
        let threads = units.div_ceil(each).next_power_of_two().min(MOST / ABREAST);
        Team { threads, lines: (WORKGROUP / threads).max(ABREAST), across: true }
    }

    /// Units that each thread keeps of a line, if it cannot keep more than `most`.
    pub fn held(&self, units: usize, most: usize) -> usize {
        units.div_ceil(self.threads).min(most)
    }

    pub fn kernel(&self, name: &'static str) -> Kernel {
        let fan = 1usize << self.threads.ilog2().div_ceil(2);
        let kernel = Kernel::new(name)
            .constant("THREADS", format!("{}u", self.threads))
            .constant("LINES", format!("{}u", self.lines))
            .constant("FAN", format!("{fan}u"));
        if self.across { kernel.constant("ACROSS", true) } else { kernel }
    }

    pub fn grid(&self, lines: usize) -> Grid {
        Grid::Groups(lines.div_ceil(self.lines))
    }
}
