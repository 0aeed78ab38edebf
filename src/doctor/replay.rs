//! Replays a captured case through wgpu alone. A folder may come from anybody: kernels are compiled with all checks, and sizes
//! are looked at before there is memory for them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wgpu::util::DeviceExt as _;

use super::capture::{CaseFile, FORMAT, LaunchFile, RECORD, dtype};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::reference::Values;
use crate::tensor::{Bytes, Tensor, TensorDesc};

/// What a replay found.
#[derive(Clone, Debug, Serialize)]
pub struct Replay {
    pub operation: String,
    pub label: String,
    pub captured_on: String,
    pub device: String,
    pub compared: usize,
    /// Elements that are further off than they may be.
    pub wrong: usize,
    /// Of all compared elements, those that are bit for bit what was found when the case was captured.
    pub as_captured: usize,
    /// Index, expected and found of the first wrong one.
    pub first_wrong: Option<(usize, f64, f64)>,
}

impl Replay {
    pub fn is_right(&self) -> bool {
        self.wrong == 0
    }
}

/// Most bytes of `case.json` and of a kernel's text.
const MOST_TEXT: u64 = 4 << 20;
/// Most buffers, and most launches.
const MOST_PARTS: usize = 256;
/// Most bytes of all buffers together.
const MOST_MEMORY: u64 = 8 << 30;
/// Most bytes of a launch's parameters.
const MOST_PARAMETERS: u64 = 64 << 10;

struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn wrong(&self, file: &str, message: String) -> Error {
        Error::Format { path: self.0.join(file), message }
    }

    /// A file of the folder itself, of at most so many bytes.
    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let plain = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !name.starts_with('.');
        if !plain {
            return Err(
                self.wrong("case.json", format!("\"{name}\" is not the name of a file in the folder"))
            );
        }
        let path: PathBuf = self.0.join(name);
        let io = |source| Error::Io { path: path.clone(), source };
        let about = std::fs::symlink_metadata(&path).map_err(io)?;
        if !about.is_file() {
            return Err(self.wrong(name, "is not a plain file".to_owned()));
        }
        if about.len() > most {
            return Err(self.wrong(name, format!("has {} bytes, at most {most} are expected", about.len())));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(&path).map_err(io)?.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
        match bytes.len() as u64 > most {
            true => Err(self.wrong(name, format!("grew to more than {most} bytes"))),
            false => Ok(bytes),
        }
    }

    fn text(&self, name: &str) -> Result<String> {
        let bytes = self.read(name, MOST_TEXT)?;
        String::from_utf8(bytes).map_err(|_| self.wrong(name, "is not UTF-8".to_owned()))
    }
}

/// Runs a case on a device and compares.
///
/// # Errors
/// [`Error::Format`] for a folder that holds no sound case, [`Error::Limit`] for one that this device cannot hold, and those
/// of the device.
pub fn replay(gpu: &Gpu, folder: &Path) -> Result<Replay> {
    let folder = Folder(folder);
    let case: CaseFile = serde_json::from_str(&folder.text("case.json")?)
        .map_err(|e| folder.wrong("case.json", e.to_string()))?;
    let desc = check(gpu, &folder, &case)?;
    let records = records(&folder, &case, &desc)?;
    let buffers = case.buffers.iter().map(|b| buffer(gpu, &folder, b)).collect::<Result<Vec<_>>>()?;
    for launch in &case.launches {
        run(gpu, &folder, launch, &buffers)?;
    }
    let bytes = gpu.download(&[(&buffers[case.result.buffer], desc.bytes())])?.remove(0);
    let found = Values::of(&Tensor { desc, bytes: Bytes::Owned(bytes.into()) });
    let (mut wrong, mut as_captured, mut first_wrong) = (0, 0, None);
    for &(index, expected, allowed, captured) in &records {
        let x = found.at(index);
        as_captured += usize::from(x == captured || (x.is_nan() && captured.is_nan()));
        // What is no number is not within.
        let within = x == expected || (x - expected).abs() <= allowed;
        if !within {
            wrong += 1;
            first_wrong = first_wrong.or(Some((index, expected, x)));
        }
    }
    Ok(Replay {
        operation: case.operation,
        label: case.label,
        captured_on: format!("{} ({}, {})", case.device, case.backend, case.driver),
        device: gpu.info().name.clone(),
        compared: records.len(),
        wrong,
        as_captured,
        first_wrong,
    })
}

/// Looks at all sizes and numbers of a case; what its result is.
fn check(gpu: &Gpu, folder: &Folder, case: &CaseFile) -> Result<TensorDesc> {
    let wrong = |message: String| Err(folder.wrong("case.json", message));
    let target = gpu.target();
    if case.format != FORMAT {
        return wrong(format!("has format {}, {FORMAT} is expected", case.format));
    }
    if case.f16 && !target.f16 {
        return Err(Error::Feature {
            device: target.name.clone(),
            feature: "16-bit floats",
            advice: "replay the case on a device that has them",
        });
    }
    if case.buffers.len() > MOST_PARTS || !(1..=MOST_PARTS).contains(&case.launches.len()) {
        return wrong(format!(
            "has {} buffers and {} launches, at most {MOST_PARTS} and at least one launch are expected",
            case.buffers.len(),
            case.launches.len()
        ));
    }
    let mut all = 0u64;
    for (i, buffer) in case.buffers.iter().enumerate() {
        if !(16..=MOST_MEMORY).contains(&buffer.bytes) || buffer.bytes % 16 != 0 {
            return wrong(format!("buffer {i} has {} bytes, a multiple of 16 is expected", buffer.bytes));
        }
        target.check(
            || format!("buffer {i} of the case"),
            buffer.bytes,
            target.max_binding.min(target.max_buffer),
        )?;
        all += buffer.bytes;
    }
    if all > MOST_MEMORY {
        return wrong(format!("has buffers of {all} bytes, at most {MOST_MEMORY} are expected"));
    }
    let there = |at: usize| at < case.buffers.len();
    for (i, launch) in case.launches.iter().enumerate() {
        let groups = launch.groups.map(u64::from);
        let most = u64::from(target.max_workgroups);
        if groups.iter().any(|g| !(1..=most).contains(g)) {
            return wrong(format!("launch {i} has {:?} workgroups, 1 to {most} are expected", launch.groups));
        }
        if launch.bindings.len() + launch.textures.len() > MOST_PARTS
            || !launch.bindings.iter().all(|b| there(b.buffer))
        {
            return wrong(format!("launch {i} binds a buffer that is not there"));
        }
        for t in &launch.textures {
            let texels = u64::from(t.width) * u64::from(t.height);
            let fits = there(t.buffer)
                && (1..=target.max_texture).contains(&t.width)
                && (1..=target.max_texture).contains(&t.height)
                && u64::from(t.texels) <= texels
                && t.width % 16 == 0
                && 16 * u64::from(t.texels) <= case.buffers[t.buffer].bytes;
            if !fits {
                return wrong(format!(
                    "launch {i} shows {} texels of a buffer in {}×{}",
                    t.texels, t.width, t.height
                ));
            }
        }
    }
    let result = &case.result;
    let elements = result.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let (Some(dtype), Some(elements), true) = (dtype(&result.dtype), elements, there(result.buffer)) else {
        return wrong(format!("has a result {}{:?} in buffer {}", result.dtype, result.shape, result.buffer));
    };
    let bytes = elements.saturating_mul(dtype.bytes()) as u64;
    match (1..=case.buffers[result.buffer].bytes).contains(&bytes) {
        true => Ok(TensorDesc::new(result.shape.clone(), dtype)),
        false => wrong(format!(
            "has a result of {bytes} bytes in a buffer of {}",
            case.buffers[result.buffer].bytes
        )),
    }
}

/// Index, expected, allowed difference, and what was found.
fn records(folder: &Folder, case: &CaseFile, desc: &TensorDesc) -> Result<Vec<(usize, f64, f64, f64)>> {
    let (name, elements) = (&case.result.expected, desc.shape.elements());
    let bytes = folder.read(name, (elements as u64).saturating_mul(RECORD as u64))?;
    if bytes.is_empty() || bytes.len() % RECORD != 0 {
        return Err(
            folder.wrong(name, format!("has {} bytes, records of {RECORD} are expected", bytes.len()))
        );
    }
    let word = |record: &[u8], k: usize| <[u8; 8]>::try_from(&record[8 * k..8 * k + 8]).expect("eight bytes");
    bytes
        .chunks_exact(RECORD)
        .map(|r| {
            let index = u64::from_le_bytes(word(r, 0));
            let [expected, allowed, found] = [1, 2, 3].map(|k| f64::from_le_bytes(word(r, k)));
            match index < elements as u64 && expected.is_finite() && allowed >= 0.0 {
                true => Ok((index as usize, expected, allowed, found)),
                false => Err(folder.wrong(name, format!("has element {index}: {expected} ± {allowed}"))),
            }
        })
        .collect()
}

fn buffer(gpu: &Gpu, folder: &Folder, about: &super::capture::BufferFile) -> Result<wgpu::Buffer> {
    let mut bytes = match &about.file {
        Some(file) => folder.read(file, about.bytes)?,
        None => Vec::new(),
    };
    bytes.resize(about.bytes as usize, 0xff);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let made = gpu.buffer("captured", about.bytes, usage)?;
    gpu.checked(|| "upload".to_owned(), || gpu.queue().write_buffer(&made, 0, &bytes))?;
    Ok(made)
}

fn run(gpu: &Gpu, folder: &Folder, launch: &LaunchFile, buffers: &[wgpu::Buffer]) -> Result<()> {
    let device = gpu.device();
    let text = folder.text(&launch.wgsl)?;
    let parameters = match &launch.parameters {
        Some(p) => {
            let bytes = folder.read(&p.file, MOST_PARAMETERS)?;
            if bytes.is_empty() || bytes.len() % 4 != 0 {
                return Err(folder.wrong(&p.file, format!("has {} bytes of parameters", bytes.len())));
            }
            Some((p.binding, bytes))
        }
        None => None,
    };
    let what = || format!("kernel {} of the case", launch.kernel);
    let submission = gpu.checked(what, || {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&launch.wgsl),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&launch.wgsl),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let views: Vec<_> =
            launch.textures.iter().map(|t| show(device, &mut encoder, t, &buffers[t.buffer])).collect();
        let uniforms = parameters.as_ref().map(|(_, bytes)| {
            device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: Some("parameters"),
                contents: bytes,
                usage: wgpu::BufferUsages::UNIFORM,
            })
        });
        let mut entries: Vec<_> = launch
            .bindings
            .iter()
            .map(|b| wgpu::BindGroupEntry {
                binding: b.binding,
                resource: buffers[b.buffer].as_entire_binding(),
            })
            .collect();
        entries.extend(launch.textures.iter().zip(&views).map(|(t, view)| wgpu::BindGroupEntry {
            binding: t.binding,
            resource: wgpu::BindingResource::TextureView(view),
        }));
        if let (Some((binding, _)), Some(buffer)) = (&parameters, &uniforms) {
            entries.push(wgpu::BindGroupEntry { binding: *binding, resource: buffer.as_entire_binding() });
        }
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let [x, y, z] = launch.groups;
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(x, y, z);
        drop(pass);
        gpu.queue().submit([encoder.finish()])
    })?;
    gpu.wait(submission)
}

/// Copies a buffer's texels into a texture.
fn show(
    device: &wgpu::Device,
    encoder: &mut wgpu::CommandEncoder,
    t: &super::capture::TextureFile,
    buffer: &wgpu::Buffer,
) -> wgpu::TextureView {
    let texture = device.create_texture(&wgpu::TextureDescriptor {
        label: Some("captured"),
        size: wgpu::Extent3d { width: t.width, height: t.height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba32Float,
        usage: wgpu::TextureUsages::TEXTURE_BINDING
            | wgpu::TextureUsages::STORAGE_BINDING
            | wgpu::TextureUsages::COPY_DST,
        view_formats: &[],
    });
    let (lines, rest) = (t.texels / t.width, t.texels % t.width);
    for (line, size) in [(0, [t.width, lines]), (lines, [rest, 1])] {
        if size.contains(&0) {
            continue;
        }
        encoder.copy_buffer_to_texture(
            wgpu::TexelCopyBufferInfo {
                buffer,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: 16 * u64::from(line) * u64::from(t.width),
                    bytes_per_row: Some(16 * t.width),
                    rows_per_image: None,
                },
            },
            wgpu::TexelCopyTextureInfo {
                origin: wgpu::Origin3d { x: 0, y: line, z: 0 },
                ..texture.as_image_copy()
            },
            wgpu::Extent3d { width: size[0], height: size[1], depth_or_array_layers: 1 },
        );
    }
    texture.create_view(&Default::default())
}
