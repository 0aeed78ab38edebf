//! WGSL text → specialised, validated, reflected [`Shader`].
//!
//! A kernel file is plain valid WGSL with visible defaults. A variant replaces
//! - the value of a top-level `const NAME: T = value;` (tile sizes, flags),
//! - the type of a top-level `alias NAME = type;` (storage types),
//! - a whole function, by its name (epilogues, element-wise expressions),
//!
//! `// #include lib/name` lines pull in shared functions, and loops marked
//! `// #unroll` are written out (`src/unroll.rs`). An unknown name
//! is an error. Bindings and the layout of the `params` uniform are read back
//! from the parsed module, so that they are stated in the WGSL alone.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::error::{Error, Result};
use crate::invert::invert;
use crate::unroll::unroll;

include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// One kernel with the choices that make it a variant; the key of the pipeline cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// File stem under `shaders/`; its name everywhere.
    pub name: &'static str,
    constants: Vec<(&'static str, String)>,
    aliases: Vec<(&'static str, &'static str)>,
    functions: Vec<(&'static str, Cow<'static, str>)>,
    inverted: bool,
}

impl Kernel {
    pub fn new(name: &'static str) -> Self {
        Kernel { name, constants: Vec::new(), aliases: Vec::new(), functions: Vec::new(), inverted: false }
    }

    /// Replaces the value of `const name`.
    pub fn constant(mut self, name: &'static str, value: impl ToString) -> Self {
        self.constants.push((name, value.to_string()));
        self
    }

    /// Replaces the type of `alias name`.
    pub fn alias(mut self, name: &'static str, wgsl: &'static str) -> Self {
        self.aliases.push((name, wgsl));
        self
    }

    /// Replaces the whole function `name` by `text`, which must define it.
    pub fn function(mut self, name: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        self.functions.push((name, text.into()));
        self
    }

    /// Whether its loops test after their turns, which is quicker on adapters that are processors.
    pub fn inverted(mut self, inverted: bool) -> Self {
        self.inverted = inverted;
        self
    }

    /// Short text that tells variants apart in plans and profiles.
    pub fn variant(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.constants {
            let number = value.strip_suffix('u').filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
            let _ = write!(text, " {}={}", name.to_lowercase(), number.unwrap_or(value));
        }
        for (_, ty) in &self.aliases {
            if ty.contains("f16") && !text.contains("f16") {
                text.push_str(" f16");
            }
        }
        text.trim_start().to_owned()
    }

    /// Specialised source text.
    pub fn source(&self) -> Result<String> {
        let fail = |message: String| Error::Shader { kernel: self.name.to_owned(), message };
        let find = |name: &str| SOURCES.iter().find(|(n, _)| *n == name).map(|(_, text)| *text);
        let text = find(self.name).ok_or_else(|| fail("no such file in shaders/".to_owned()))?;

        let mut source = String::with_capacity(text.len());
        if self.aliases.iter().any(|(_, ty)| ty.contains("f16")) {
            source.push_str("enable f16;\n");
        }
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("// #include ") {
                let name = name.trim();
                source.push_str(find(name).ok_or_else(|| fail(format!("includes unknown file {name}")))?);
            } else {
                source.push_str(line);
                source.push('\n');
            }
        }
        for (name, value) in &self.constants {
            source = replace_value(&source, "const", name, value)
                .ok_or_else(|| fail(format!("has no const {name}")))?;
        }
        for (name, ty) in &self.aliases {
            source = replace_value(&source, "alias", name, ty)
                .ok_or_else(|| fail(format!("has no alias {name}")))?;
        }
        for (name, function) in &self.functions {
            source =
                replace_function(&source, name, function).ok_or_else(|| fail(format!("has no fn {name}")))?;
        }
        let source = unroll(&source).map_err(fail)?;
        Ok(if self.inverted { invert(&source) } else { source })
    }
}

/// Replaces what stands between `=` and `;` on the line that defines `name`.
fn replace_value(source: &str, keyword: &str, name: &str, value: &str) -> Option<String> {
    let mut start = 0;
    for line in source.split_inclusive('\n') {
        let is_definition = line
            .strip_prefix(keyword)
            .and_then(|rest| rest.strip_prefix(' '))
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with([' ', ':', '=']));
        if is_definition {
            let equals = start + line.find('=')?;
            let end = start + line.find(';')?;
            return Some(format!("{}= {value}{}", &source[..equals], &source[end..]));
        }
        start += line.len();
    }
    None
}

/// Replaces the text from `fn name(` to its closing brace.
fn replace_function(source: &str, name: &str, text: &str) -> Option<String> {
    let start = source.find(&format!("fn {name}("))?;
    let mut depth = 0;
    for (i, c) in source[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => {
                let end = start + i + 1;
                return Some(format!("{}{text}{}", &source[..start], &source[end..]));
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// How a kernel uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    ReadWrite,
}

/// What a buffer's elements, or the components of its vectors, are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    F32,
    F16,
    Other,
}

impl Scalar {
    fn of(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Self {
        match module.types[ty].inner {
            naga::TypeInner::Array { base, .. } => Self::of(module, base),
            naga::TypeInner::Scalar(scalar) | naga::TypeInner::Vector { scalar, .. } => {
                match (scalar.kind, scalar.width) {
                    (naga::ScalarKind::Float, 4) => Self::F32,
                    (naga::ScalarKind::Float, 2) => Self::F16,
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

/// One buffer binding of a kernel, as declared in its WGSL.
#[derive(Clone, Debug)]
pub struct Binding {
    pub name: String,
    pub binding: u32,
    pub access: Access,
    pub scalar: Scalar,
}

/// One member of the `params` uniform.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    offset: usize,
    /// Number of 32-bit slots (array elements for an array, else 1) and the bytes from one to the next.
    count: usize,
    stride: usize,
}

/// A specialised kernel that naga accepts, with what its WGSL says about itself.
#[derive(Clone, Debug)]
pub struct Shader {
    pub kernel: Kernel,
    /// What naga made of the specialised source.
    pub module: naga::Module,
    /// Storage buffers that the entry point uses.
    pub bindings: Vec<Binding>,
    /// Textures that the entry point reads: name and binding number.
    pub textures: Vec<(String, u32)>,
    /// Tensors shown as textures that it reads (`shaders/lib/texels.wgsl`): name and binding number.
    pub texels: Vec<(String, u32)>,
    /// Textures that the entry point writes: binding number and format.
    pub storage_textures: Vec<(u32, naga::StorageFormat)>,
    /// Binding number of the `params` uniform, if there is one.
    pub params_binding: Option<u32>,
    pub workgroup_size: [u32; 3],
    /// Workgroup memory that the entry point uses, bytes.
    pub shared_memory: u32,
    members: Vec<Member>,
    params_bytes: usize,
}

/// A value of the `params` uniform.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    U32(u32),
    I32(i32),
    F32(f32),
    /// Fills an `array<vec4<u32>, N>`; missing elements are zero.
    Array(Vec<u32>),
}

impl From<u32> for Param {
    fn from(v: u32) -> Self {
        Param::U32(v)
    }
}
impl From<usize> for Param {
    fn from(v: usize) -> Self {
        Param::U32(u32::try_from(v).expect("sizes are checked to fit 32 bits"))
    }
}
impl From<i32> for Param {
    fn from(v: i32) -> Self {
        Param::I32(v)
    }
}
impl From<f32> for Param {
    fn from(v: f32) -> Self {
        Param::F32(v)
    }
}
impl From<Vec<u32>> for Param {
    fn from(v: Vec<u32>) -> Self {
        Param::Array(v)
    }
}

impl Shader {
    /// Specialises, parses, validates and reflects `kernel`. Needs no GPU.
    pub fn new(kernel: &Kernel) -> Result<Self> {
        let source = kernel.source()?;
        let fail = |message: String| Error::Shader { kernel: kernel.name.to_owned(), message };
        let module = naga::front::wgsl::parse_str(&source)
            .map_err(|e| fail(e.emit_to_string_with_path(&source, kernel.name)))?;
        let info = Self::validator()
            .validate(&module)
            .map_err(|e| fail(e.emit_to_string_with_path(&source, kernel.name)))?;

        let [entry] = module.entry_points.as_slice() else {
            return Err(fail("must have one entry point".to_owned()));
        };
        let used = info.get_entry_point(0);
        let mut shader = Shader {
            kernel: kernel.clone(),
            bindings: Vec::new(),
            textures: Vec::new(),
            texels: Vec::new(),
            storage_textures: Vec::new(),
            params_binding: None,
            workgroup_size: entry.workgroup_size,
            shared_memory: 0,
            members: Vec::new(),
            params_bytes: 0,
            module: naga::Module::default(),
        };
        for (handle, global) in module.global_variables.iter() {
            if global.space == naga::AddressSpace::WorkGroup && !used[handle].is_empty() {
                shader.shared_memory +=
                    module.types[global.ty].inner.size(module.to_ctx()).next_multiple_of(16);
            }
            let Some(binding) = &global.binding else {
                continue;
            };
            if used[handle].is_empty() {
                continue;
            }
            let name = global.name.clone().unwrap_or_default();
            match global.space {
                naga::AddressSpace::Storage { access } => shader.bindings.push(Binding {
                    name,
                    binding: binding.binding,
                    access: match access.contains(naga::StorageAccess::STORE) {
                        true => Access::ReadWrite,
                        false => Access::Read,
                    },
                    scalar: Scalar::of(&module, global.ty),
                }),
                naga::AddressSpace::Uniform => {
                    shader.params_binding = Some(binding.binding);
                    shader.reflect_params(&module, global.ty).map_err(&fail)?;
                }
                naga::AddressSpace::Handle => match &module.types[global.ty].inner {
                    naga::TypeInner::Image {
                        class: naga::ImageClass::Storage { format, access }, ..
                    } => match access.contains(naga::StorageAccess::STORE) {
                        true => shader.storage_textures.push((binding.binding, *format)),
                        false => shader.texels.push((name, binding.binding)),
                    },
                    _ => shader.textures.push((name, binding.binding)),
                },
                _ => return Err(fail(format!("binding {name} is neither storage, texture nor uniform"))),
            }
        }
        shader.module = module;
        Ok(shader)
    }

    /// What knows all that kernels may use.
    pub(crate) fn validator() -> naga::valid::Validator {
        naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::SHADER_FLOAT16
                | naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32
                | naga::valid::Capabilities::SUBGROUP
                | naga::valid::Capabilities::SUBGROUP_BARRIER
                | naga::valid::Capabilities::COOPERATIVE_MATRIX,
        )
    }

    /// Whether any of it is computed or stored in f16.
    pub(crate) fn has_halves(&self) -> bool {
        use naga::{ScalarKind, TypeInner};
        let mut types = self.module.types.iter();
        types.any(|(_, ty)| match ty.inner {
            TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => {
                (scalar.kind, scalar.width) == (ScalarKind::Float, 2)
            }
            _ => false,
        })
    }

    /// Whether it multiplies cooperative matrices.
    pub(crate) fn has_matrices(&self) -> bool {
        let mut types = self.module.types.iter();
        types.any(|(_, ty)| matches!(ty.inner, naga::TypeInner::CooperativeMatrix { .. }))
    }

    fn reflect_params(&mut self, module: &naga::Module, ty: naga::Handle<naga::Type>) -> Result<(), String> {
        let naga::TypeInner::Struct { members, span } = &module.types[ty].inner else {
            return Err("the uniform must be a struct".to_owned());
        };
        self.params_bytes = *span as usize;
        for member in members {
            let name = member.name.clone().unwrap_or_default();
            let (count, stride) = match &module.types[member.ty].inner {
                naga::TypeInner::Scalar(scalar) if scalar.width == 4 => (1, 4),
                naga::TypeInner::Array { size: naga::ArraySize::Constant(n), stride: 16, .. } => {
                    (n.get() as usize * 4, 4)
                }
                _ => return Err(format!("params.{name} must be a 32-bit scalar or array<vec4<u32>, N>")),
            };
            self.members.push(Member { name, offset: member.offset as usize, count, stride });
        }
        Ok(())
    }

    /// Lays `values` out as the `params` uniform; every member must be given once.
    pub fn pack_params(&self, values: &[(&'static str, Param)]) -> Result<Vec<u8>> {
        let fail = |message: String| Error::Shader { kernel: self.kernel.name.to_owned(), message };
        let mut bytes = vec![0; self.params_bytes];
        for (name, _) in values {
            if !self.members.iter().any(|m| m.name == *name) {
                return Err(fail(format!("has no parameter {name}")));
            }
        }
        for member in &self.members {
            let (_, value) = values
                .iter()
                .find(|(name, _)| *name == member.name)
                .ok_or_else(|| fail(format!("parameter {} is not given", member.name)))?;
            let words: Vec<u32> = match value {
                Param::U32(v) => vec![*v],
                Param::I32(v) => vec![*v as u32],
                Param::F32(v) => vec![v.to_bits()],
                Param::Array(v) => v.clone(),
            };
            if words.len() > member.count {
                return Err(fail(format!(
                    "parameter {} has {} elements, room for {}",
                    member.name,
                    words.len(),
                    member.count
                )));
            }
            for (i, word) in words.iter().enumerate() {
                let at = member.offset + i * member.stride;
                bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kernel file is valid as it stands, with its defaults.
    #[test]
    fn every_file_is_valid_with_its_defaults() {
        for (name, _) in SOURCES.iter().filter(|(n, _)| !n.starts_with("lib/")) {
            let shader = Shader::new(&Kernel::new(name)).unwrap_or_else(|e| panic!("{e}"));
            assert!(!shader.bindings.is_empty(), "{name} binds nothing");
        }
    }

    /// And so it is with its loops inverted, of which most kernels have some; those with cooperative matrices run on GPUs alone.
    #[test]
    fn every_file_is_valid_with_its_loops_inverted() {
        let kernels = SOURCES.iter().filter(|(n, text)| !n.starts_with("lib/") && !text.contains("coopLoad"));
        let inverted = kernels.filter(|(name, _)| {
            let kernel = Kernel::new(name).inverted(true);
            Shader::new(&kernel).unwrap_or_else(|e| panic!("{e}"));
            kernel.source().unwrap() != Kernel::new(name).source().unwrap()
        });
        assert!(inverted.count() > SOURCES.len() / 2);
    }

    #[test]
    fn unknown_names_are_errors() {
        let name = SOURCES.iter().find(|(n, _)| !n.starts_with("lib/")).expect("a kernel").0;
        for kernel in [
            Kernel::new("no_such_kernel"),
            Kernel::new(name).constant("NO_SUCH", 1),
            Kernel::new(name).alias("NoSuch", "f16"),
            Kernel::new(name).function("no_such", "fn no_such() {}"),
        ] {
            assert!(matches!(Shader::new(&kernel), Err(Error::Shader { .. })));
        }
    }

    #[test]
    fn values_and_functions_are_replaced() {
        let text = "const TILE: u32 = 4u; // why\nalias Elem = f32;\nfn f(x: f32) -> f32 { if (x > 0.0) { return x; } return 0.0; }\nfn g() {}\n";
        assert!(replace_value(text, "const", "TILE", "8u").unwrap().contains("const TILE: u32 = 8u; // why"));
        assert!(replace_value(text, "const", "TIL", "8u").is_none());
        let replaced = replace_function(text, "f", "fn f(x: f32) -> f32 { return -x; }").unwrap();
        assert!(replaced.contains("return -x; }\nfn g() {}"));
    }
}
