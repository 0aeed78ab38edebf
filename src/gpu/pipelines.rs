//! Kernels, compiled: each once for a device, on all cores; by drivers that can, out of a file of an earlier process.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Gpu;
use crate::cache::{self, Cache, Identity, checksum};
use crate::error::Result;
use crate::parallel;
use crate::shader::{Access, Kernel, Shader};
use crate::spirv;

/// A compiled kernel.
pub(crate) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// All that were made on a device.
pub(super) struct Pipelines {
    made: Mutex<HashMap<Kernel, Arc<Pipeline>>>,
    kept: Option<Kept>,
}

impl Pipelines {
    pub fn new(device: &wgpu::Device, info: &wgpu::AdapterInfo, cache: &Cache) -> Pipelines {
        Pipelines { made: Mutex::default(), kept: Kept::open(device, info, cache) }
    }

    fn made(&self) -> MutexGuard<'_, HashMap<Kernel, Arc<Pipeline>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kernels are compiled anew from now on.
    pub fn forget(&self) {
        self.made().clear();
    }

    /// Writes what the driver made to disk, where that is wanted and there is anything new.
    pub fn keep(&self) {
        self.kept.iter().for_each(Kept::keep);
    }
}

const KIND: &[u8; 4] = b"pipe";
const PREFIX: &str = "pipelines-";

/// Bytes of a file at most; a driver's data only ever grow, so past this they are begun anew.
const MOST_BYTES: u64 = 128 << 20;

/// The driver's own data of pipelines, and the file that they are kept in.
struct Kept {
    data: wgpu::PipelineCache,
    cache: Cache,
    name: String,
    identity: String,
    /// Of what the file had.
    read: Option<u32>,
    /// Whether pipelines were made since the file was read or written.
    used: AtomicBool,
}

impl Kept {
    /// None where nothing is to be kept, or the device cannot.
    #[expect(unsafe_code)]
    fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, cache: &Cache) -> Option<Kept> {
        if !cache.is_on() || !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        // The key stands for the adapters that wgpu would let share their data.
        let identity = Identity::new(info, wgpu::util::pipeline_cache_key(info)?);
        let name = format!("{PREFIX}{}.bin", identity.stem());
        let identity = identity.text();
        let file = cache.read(&name, MOST_BYTES);
        let found = file.as_ref().and_then(|file| cache::open(file, KIND, &identity));
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data: found, fallback: true };
        // SAFETY: wgpu asks for what `get_data` returned, of the same kind of adapter: all that this crate puts into such a
        // file. That it is what was put there cannot be proven of a file, so: it was written by the same version of this
        // crate for the same adapter and version of the driver, is as long as it says and has its checksum, and on Unix
        // nobody but its owner may write to it. wgpu then looks at its own header and the driver at its: other drivers
        // and other versions are told by it. Whoever can write to the user's files can do as he likes without this one.
        let data = unsafe { device.create_pipeline_cache(&descriptor) };
        let scopes = [validation, internal, memory];
        // None is left open, so all are looked at.
        let errors = scopes.map(|scope| pollster::block_on(scope.pop()));
        errors.iter().all(Option::is_none).then(|| Kept {
            data,
            cache: cache.clone(),
            name,
            identity,
            read: found.map(|bytes| checksum(&[bytes])),
            used: AtomicBool::new(false),
        })
    }

    fn keep(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            return;
        }
        let Some(data) = self.data.get_data() else { return };
        if data.len() as u64 + 4096 > MOST_BYTES {
            self.cache.remove(&self.name);
        } else if self.read != Some(checksum(&[&data])) {
            self.cache.write(&self.name, &cache::seal(KIND, &self.identity, &data));
            self.cache.thin_out(PREFIX);
        }
    }
}

impl Gpu {
    /// Writes the compiled pipelines to disk, if the device was opened with a [cache](crate::cache::Cache) and its driver
    /// gives them; also done when the last clone of this is dropped.
    pub fn keep_pipelines(&self) {
        self.0.pipelines.keep();
    }

    /// Compiles the pipelines of these shaders that are not there yet, on all cores.
    pub(crate) fn compile_all<'a>(&self, shaders: impl Iterator<Item = &'a Shader>) -> Result<()> {
        let mut seen = HashSet::new();
        let distinct: Vec<&Shader> = shaders.filter(|s| seen.insert(&s.kernel)).collect();
        parallel::map(&distinct, |shader| self.pipeline(shader).map(|_| ())).into_iter().collect()
    }

    /// The compiled form of a kernel; compiled at most once for a device.
    pub(crate) fn pipeline(&self, shader: &Shader) -> Result<Arc<Pipeline>> {
        let pipelines = &self.0.pipelines;
        if let Some(pipeline) = pipelines.made().get(&shader.kernel) {
            return Ok(pipeline.clone());
        }
        // Not under the lock: other threads may compile other kernels meanwhile.
        self.0.counters.pipelines.fetch_add(1, Ordering::Relaxed);
        let name = shader.kernel.name;
        let changed = match self.text(&shader.kernel)? {
            (_, true) => None,
            (text, false) => Some(text),
        };
        let checks = self.0.checks_bounds.load(Ordering::Relaxed);
        let passes = changed.is_none() && shader.has_matrices() && self.passes_spirv();
        let words = passes.then(|| spirv::words(shader)).transpose()?;
        let compile = || {
            let module = match changed {
                None if passes => spirv_module(&self.0.device, shader, words.as_deref().unwrap_or_default()),
                None if checks => self.0.device.create_shader_module(descriptor(shader)),
                None => trusted_module(&self.0.device, shader),
                Some(text) => self.0.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                    label: Some(name),
                    source: wgpu::ShaderSource::Wgsl(Cow::Owned(text)),
                }),
            };
            self.compile(shader, &module)
        };
        let pipeline = Arc::new(self.checked(|| format!("kernel {name}"), compile)?);
        // Another thread may have been quicker: then there is one still.
        Ok(pipelines.made().entry(shader.kernel.clone()).or_insert(pipeline).clone())
    }

    /// Whether the driver can be given SPIR-V of ours.
    fn passes_spirv(&self) -> bool {
        let vulkan = self.0.info.backend == wgpu::Backend::Vulkan;
        vulkan && self.0.device.features().contains(wgpu::Features::PASSTHROUGH_SHADERS)
    }

    fn compile(&self, shader: &Shader, module: &wgpu::ShaderModule) -> Pipeline {
        let device = &self.0.device;
        let label = Some(shader.kernel.name);
        let entry = |binding: u32, ty: wgpu::BindingType| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty,
            count: None,
        };
        let buffer = |ty| wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
        let texture = wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable: false },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        };
        let mut entries: Vec<_> = shader
            .bindings
            .iter()
            .map(|b| {
                let read_only = b.access == Access::Read;
                entry(b.binding, buffer(wgpu::BufferBindingType::Storage { read_only }))
            })
            .collect();
        entries.extend(shader.textures.iter().map(|(_, b)| entry(*b, texture)));
        let storage_texture = |access, format| wgpu::BindingType::StorageTexture {
            access,
            format,
            view_dimension: wgpu::TextureViewDimension::D2,
        };
        let texels = storage_texture(wgpu::StorageTextureAccess::ReadOnly, TEXELS);
        entries.extend(shader.texels.iter().map(|(_, b)| entry(*b, texels)));
        entries.extend(shader.storage_textures.iter().map(|&(b, format)| {
            entry(b, storage_texture(wgpu::StorageTextureAccess::WriteOnly, texture_format(format)))
        }));
        entries.extend(shader.params_binding.map(|b| entry(b, buffer(wgpu::BufferBindingType::Uniform))));
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let kept = self.0.pipelines.kept.as_ref();
        kept.iter().for_each(|kept| kept.used.store(true, Ordering::Relaxed));
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: kept.map(|kept| &kept.data),
        });
        Pipeline { pipeline, layout }
    }
}

/// Of a tensor shown as a texture.
pub(super) const TEXELS: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Float;

/// The formats that kernels write.
fn texture_format(format: naga::StorageFormat) -> wgpu::TextureFormat {
    match format {
        naga::StorageFormat::Rgba8Unorm => wgpu::TextureFormat::Rgba8Unorm,
        naga::StorageFormat::Bgra8Unorm => wgpu::TextureFormat::Bgra8Unorm,
        naga::StorageFormat::Rgba16Float => wgpu::TextureFormat::Rgba16Float,
        naga::StorageFormat::Rgba32Float => wgpu::TextureFormat::Rgba32Float,
        naga::StorageFormat::R32Float => wgpu::TextureFormat::R32Float,
        other => unreachable!("no kernel writes {other:?}"),
    }
}

fn descriptor(shader: &Shader) -> wgpu::ShaderModuleDescriptor<'_> {
    wgpu::ShaderModuleDescriptor {
        label: Some(shader.kernel.name),
        source: wgpu::ShaderSource::Naga(Cow::Owned(shader.module.clone())),
    }
}

/// Compiles without the bounds checks and loop counters that wgpu adds for
/// shaders from strangers; they cost up to half of a small kernel's time.
#[expect(unsafe_code)]
fn trusted_module(device: &wgpu::Device, shader: &Shader) -> wgpu::ShaderModule {
    // SAFETY: every kernel is this crate's own, checked against shapes that were
    // verified when the graph was built; each checks its own end of the grid and
    // its loops are bounded by parameters. The tests run every variant with
    // buffers of exactly the planned size, and with checks to the same bits.
    unsafe { device.create_shader_module_trusted(descriptor(shader), wgpu::ShaderRuntimeChecks::unchecked()) }
}

/// For kernels with cooperative matrices, whose barriers wgpu gets wrong.
#[expect(unsafe_code)]
fn spirv_module(device: &wgpu::Device, shader: &Shader, words: &[u32]) -> wgpu::ShaderModule {
    let entry = wgpu::PassthroughShaderEntryPoint {
        name: Cow::Borrowed("main"),
        workgroup_size: shader.workgroup_size.into(),
    };
    let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
        label: Some(shader.kernel.name),
        entry_points: Cow::Owned(vec![entry]),
        spirv: Some(Cow::Borrowed(words)),
        ..Default::default()
    };
    // SAFETY: the words are what naga makes of a kernel that it has validated, with its bindings in the order that wgpu
    // gives those of a layout, and nothing changed but the order of accesses to memory, which is made stricter. As for
    // the kernel, see `trusted_module`.
    unsafe { device.create_shader_module_passthrough(descriptor) }
}
