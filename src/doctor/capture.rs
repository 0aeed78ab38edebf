//! A wrong operation as files that need nothing of this crate: its launches' WGSL, buffers, and what should come out.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::judge::allowed;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::{BufferId, Operation, Plan, TextureId};
use crate::reference::{Approx, Values};
use crate::shader::Access;
use crate::tensor::{DType, Tensor};

/// [`CaseFile::format`] of this version.
pub(crate) const FORMAT: u32 = 1;

/// Bytes of an element of `expected.bin`: index (u64), expected, allowed difference, found (f64 each), all little-endian.
pub(crate) const RECORD: usize = 32;

/// `case.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFile {
    pub format: u32,
    pub device: String,
    pub driver: String,
    pub backend: String,
    pub operation: String,
    pub label: String,
    /// WGSL's `enable f16` is needed.
    pub f16: bool,
    pub buffers: Vec<BufferFile>,
    pub launches: Vec<LaunchFile>,
    pub result: ResultFile,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BufferFile {
    pub bytes: u64,
    /// Its first bytes before the first launch; the rest, or all, is 0xff.
    pub file: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaunchFile {
    pub kernel: String,
    pub variant: String,
    pub wgsl: String,
    pub groups: [u32; 3],
    pub bindings: Vec<BindingFile>,
    pub textures: Vec<TextureFile>,
    pub parameters: Option<ParameterFile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingFile {
    pub binding: u32,
    pub name: String,
    pub buffer: usize,
    pub writes: bool,
}

/// A buffer shown as `rgba32float` texels, line by line, copied before the launch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextureFile {
    pub binding: u32,
    pub buffer: usize,
    pub width: u32,
    pub height: u32,
    pub texels: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParameterFile {
    pub binding: u32,
    pub file: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultFile {
    pub buffer: usize,
    pub dtype: String,
    pub shape: Vec<usize>,
    pub expected: String,
}

/// A buffer that an operation reads, with its contents.
pub(crate) type Memory<'a> = (BufferId, &'a Tensor);

/// The case of a wrong operation, ready to be written.
#[derive(Clone, Debug)]
pub struct Capture {
    pub(crate) case: CaseFile,
    files: Vec<(String, Vec<u8>)>,
}

impl Capture {
    /// Puts together the launches of an operation, what they read, and what they should give.
    pub(crate) fn of(
        gpu: &Gpu,
        plan: &Plan,
        operation: &Operation,
        memory: &[Memory],
        output: BufferId,
        found: &Tensor,
        (places, expected): (&[usize], &[Approx]),
    ) -> Result<Capture> {
        let dispatches = match operation.loading {
            true => &plan.load[operation.launches.clone()],
            false => &plan.run[operation.launches.clone()],
        };
        let mut capture = Collected { memory, ids: HashMap::new(), buffers: Vec::new(), files: Vec::new() };
        let shown = if operation.loading { HashMap::new() } else { shown(plan, operation.launches.start) };
        let (mut launches, mut f16) = (Vec::new(), false);
        let mut shown = shown;
        for (i, dispatch) in dispatches.iter().enumerate() {
            shown.extend(dispatch.fills.iter().map(|fill| (fill.texture, (fill.buffer, fill.texels))));
            let shader = &dispatch.shader;
            let (text, _) = gpu.text(&shader.kernel)?;
            f16 |= text.contains("enable f16;");
            let bindings = shader.bindings.iter().zip(dispatch.buffers.iter().zip(&dispatch.extents));
            let bindings = bindings
                .map(|(binding, (&id, &bytes))| BindingFile {
                    binding: binding.binding,
                    name: binding.name.clone(),
                    buffer: capture.buffer(id, bytes),
                    writes: binding.access == Access::ReadWrite,
                })
                .collect();
            let textures = shader.texels.iter().zip(&dispatch.textures);
            let textures = textures
                .map(|((_, binding), id)| {
                    let (buffer, texels) = shown[id];
                    let texture = &plan.textures[*id];
                    TextureFile {
                        binding: *binding,
                        buffer: capture.buffer(buffer, 16 * u64::from(texels)),
                        width: texture.width,
                        height: texture.height,
                        texels,
                    }
                })
                .collect();
            let parameters = shader.params_binding.map(|binding| {
                let file = format!("launch{i}.params.bin");
                capture.files.push((file.clone(), dispatch.params.clone()));
                ParameterFile { binding, file }
            });
            let wgsl = format!("launch{i}.wgsl");
            capture.files.push((wgsl.clone(), text.into_bytes()));
            launches.push(LaunchFile {
                kernel: shader.kernel.name.to_owned(),
                variant: shader.kernel.variant(),
                wgsl,
                groups: dispatch.groups,
                bindings,
                textures,
                parameters,
            });
        }
        let numbers = Values::of(found);
        let mut records = Vec::with_capacity(places.len() * RECORD);
        for (&place, &exact) in places.iter().zip(expected) {
            if let Some(allowed) = allowed(exact, found.desc.dtype) {
                records.extend((place as u64).to_le_bytes());
                for number in [exact.value, allowed, numbers.at(place)] {
                    records.extend(number.to_le_bytes());
                }
            }
        }
        capture.files.push(("expected.bin".to_owned(), records));
        let result = ResultFile {
            buffer: capture.buffer(output, found.desc.bytes()),
            dtype: found.desc.dtype.to_string(),
            shape: found.desc.shape.to_vec(),
            expected: "expected.bin".to_owned(),
        };
        let info = gpu.info();
        let case = CaseFile {
            format: FORMAT,
            device: info.name.clone(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            backend: info.backend.to_string(),
            operation: dispatches.first().map_or("", |d| d.op).to_owned(),
            label: dispatches.first().map_or_else(String::new, |d| d.label.clone()),
            f16,
            buffers: capture.buffers,
            launches,
            result,
        };
        Ok(Capture { case, files: capture.files })
    }

    /// Writes the case into a folder, which is made, or is empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a folder that holds something, [`Error::Io`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::Invalid {
                what: format!("folder {}", folder.display()),
                expected: "a new or an empty one".to_owned(),
                found: "one with files in it".to_owned(),
            });
        }
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let json = serde_json::to_vec_pretty(&self.case).expect("plain data");
        let readme = self.readme().into_bytes();
        // What tells that the case is whole comes last.
        let last = [("README.md".to_owned(), readme), ("case.json".to_owned(), json)];
        for (name, bytes) in self.files.iter().chain(&last) {
            let path = folder.join(name);
            let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io(&path))?;
            std::io::Write::write_all(&mut file, bytes).map_err(io(&path))?;
            file.persist(&path).map_err(|e| Error::Io { path: path.clone(), source: e.error })?;
        }
        Ok(())
    }

    fn readme(&self) -> String {
        let case = &self.case;
        let launches: Vec<String> = case
            .launches
            .iter()
            .map(|l| format!("- `{}`: {} [{}], workgroups {:?}", l.wgsl, l.kernel, l.variant, l.groups))
            .collect();
        format!(
            "# A wrong answer of {op}\n\n`{label}` on {device} ({backend}, {driver}) gave what `expected.bin` has as found \
             and not what it has as expected.\n\n{launches}\n\nReplay it, on this device or another:\n\n    \
             aquatint doctor --replay FOLDER\n\nWithout this program: make the buffers of `case.json`, filled with 0xff and \
             then from their files; copy those that are shown as textures into `rgba32float` ones, line by line; bind them as \
             listed (group 0), with the parameters as uniforms; dispatch the launches in order; read the result's buffer. \
             `expected.bin` has for each compared element its index (u64), the exact value, what the difference may be, and \
             what was found (f64 each, little-endian). The result is {dtype}{shape:?}.\n",
            op = case.operation,
            label = case.label,
            device = case.device,
            backend = case.backend,
            driver = case.driver,
            launches = launches.join("\n"),
            dtype = case.result.dtype,
            shape = case.result.shape,
        )
    }
}

/// Buffers and files on their way into a case.
struct Collected<'a> {
    memory: &'a [Memory<'a>],
    ids: HashMap<BufferId, usize>,
    buffers: Vec<BufferFile>,
    files: Vec<(String, Vec<u8>)>,
}

impl Collected<'_> {
    /// The number of a buffer in the case, which is at least so large.
    fn buffer(&mut self, id: BufferId, bytes: u64) -> usize {
        let bytes = bytes.max(16).next_multiple_of(16);
        if let Some(&at) = self.ids.get(&id) {
            self.buffers[at].bytes = self.buffers[at].bytes.max(bytes);
            return at;
        }
        let at = self.buffers.len();
        let file = self.memory.iter().find(|(other, _)| *other == id).map(|(_, tensor)| {
            let file = format!("buffer{at}.bin");
            self.files.push((file.clone(), tensor.bytes.to_vec()));
            file
        });
        let held =
            self.memory.iter().find(|(other, _)| *other == id).map_or(0, |(_, t)| t.bytes.len() as u64);
        self.buffers.push(BufferFile { bytes: bytes.max(held.next_multiple_of(16)), file });
        self.ids.insert(id, at);
        at
    }
}

/// What each texture shows before a launch of the run.
fn shown(plan: &Plan, launch: usize) -> HashMap<TextureId, (BufferId, u32)> {
    let run = plan.run[..launch].iter().flat_map(|d| &d.fills);
    plan.load_fills.iter().chain(run).map(|fill| (fill.texture, (fill.buffer, fill.texels))).collect()
}

/// The type of this name.
pub(crate) fn dtype(name: &str) -> Option<DType> {
    [DType::F32, DType::F16, DType::U32, DType::I32].into_iter().find(|d| d.to_string() == name)
}
