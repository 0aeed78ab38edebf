//! The device: which one, what it can do, and the objects made on it.

mod matrices;
mod memory;
mod pipelines;
mod requirements;
mod trouble;
mod wait;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::as_if::{Abilities, AsIf};
use crate::cache::{Cache, Identity};
use crate::error::{Error, Result};
use crate::shader::Kernel;
use crate::target::{DeviceClass, Target, spare};
use crate::tuning::Tuning;

use matrices::{MATRIX_FEATURES, matrices};
use memory::device_memory;
pub(crate) use pipelines::Pipeline;
use pipelines::Pipelines;
#[doc(hidden)]
pub use trouble::Trouble;
use wait::PATIENCE;

/// Name of the environment variable that chooses the adapter.
pub const ADAPTER_VARIABLE: &str = "AQUATINT_ADAPTER";
/// Name of the environment variable that chooses the backends.
pub const BACKEND_VARIABLE: &str = "AQUATINT_BACKEND";
/// Name of the environment variable that makes the device a weaker one.
pub const AS_IF_VARIABLE: &str = "AQUATINT_AS_IF";

/// Which adapter to use.
#[derive(Clone, Debug, Default)]
pub struct AdapterOptions {
    /// Index in [`adapters`], or a part of the name, whatever its case; the most capable one when `None`.
    pub adapter: Option<String>,
    /// `vulkan`, `metal` or `dx12`; all of them when `None`.
    pub backend: Option<String>,
    /// What to take away from the device, as [`AsIf`] reads it; nothing when `None`.
    pub as_if: Option<String>,
    /// Also open what wgpu calls experimental and some kernel can use: cooperative matrices. Drivers may misbehave.
    pub experimental: bool,
    /// Where compiled pipelines are kept between processes, and what was measured to be fastest; nowhere by default.
    pub cache: Cache,
    /// Choose kernels by what [`crate::tune`] measured on this device, where the cache has it.
    pub tuned: bool,
}

impl AdapterOptions {
    /// From `AQUATINT_ADAPTER`, `AQUATINT_BACKEND` and `AQUATINT_AS_IF`; with the user's [cache](Cache::from_env).
    pub fn from_env() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        AdapterOptions {
            adapter: variable(ADAPTER_VARIABLE),
            backend: variable(BACKEND_VARIABLE),
            as_if: variable(AS_IF_VARIABLE),
            experimental: false,
            cache: Cache::from_env(),
            tuned: false,
        }
    }

    /// What an adapter is opened with: all that it has and this crate can use, less what the options take away.
    ///
    /// # Errors
    /// [`Error::Unknown`] and [`Error::Invalid`] for what cannot be taken away from this adapter.
    pub fn abilities(&self, adapter: &wgpu::Adapter) -> Result<Abilities> {
        let as_if: AsIf = self.as_if.as_deref().unwrap_or_default().parse()?;
        let experimental = if self.experimental { MATRIX_FEATURES } else { wgpu::Features::empty() };
        let features = adapter.features() & (used_features(&adapter.get_info()) | experimental);
        as_if.apply(&adapter.get_info().name, features, adapter.limits())
    }

    /// What the planner will see of an adapter that is opened with these options.
    ///
    /// # Errors
    /// As [`AdapterOptions::abilities`].
    pub fn target(&self, adapter: &wgpu::Adapter) -> Result<Target> {
        let Abilities { features, limits, class } = self.abilities(adapter)?;
        let target = target(adapter, features, &limits);
        Ok(self.tuned(Target { class: class.unwrap_or(target.class), ..target }, &adapter.get_info()))
    }

    /// The device with what was measured on it, if that is wanted.
    fn tuned(&self, target: Target, info: &wgpu::AdapterInfo) -> Target {
        let kept = self.tuned.then(|| Tuning::kept(&self.cache, &identity(info, &target)));
        Target { tuning: kept.filter(|tuning| !tuning.is_empty()).map(Arc::new), ..target }
    }

    fn backends(&self) -> Result<wgpu::Backends> {
        match self.backend.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None => Ok(wgpu::Backends::all()),
            Some("vulkan") => Ok(wgpu::Backends::VULKAN),
            Some("metal") => Ok(wgpu::Backends::METAL),
            Some("dx12") => Ok(wgpu::Backends::DX12),
            Some(other) => Err(Error::Unknown {
                what: "backend",
                found: other.to_owned(),
                expected: "vulkan, metal, dx12".to_owned(),
            }),
        }
    }
}

/// The adapters of this machine that can run compute shaders, most capable first.
pub fn adapters(options: &AdapterOptions) -> Result<Vec<wgpu::Adapter>> {
    let backends = options.backends()?;
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
    adapters.retain(|a| {
        let flags = a.get_downlevel_capabilities().flags;
        flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
    });
    adapters.sort_by_key(|a| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    Ok(adapters)
}

/// The adapter that the options name.
pub fn choose_adapter(options: &AdapterOptions) -> Result<wgpu::Adapter> {
    let mut found = adapters(options)?;
    let index = choose_index(&found, options)?;
    Ok(found.swap_remove(index))
}

/// Which of the [`adapters`] the options name.
///
/// # Errors
/// [`Error::NoAdapter`] when there are none, [`Error::Unknown`] for a name that none of them has.
pub fn choose_index(found: &[wgpu::Adapter], options: &AdapterOptions) -> Result<usize> {
    if found.is_empty() {
        return Err(Error::NoAdapter {
            detail: match &options.backend {
                Some(backend) => format!("backend {backend}"),
                None => "Vulkan, Metal and DirectX 12 were tried".to_owned(),
            },
        });
    }
    let Some(wanted) = &options.adapter else {
        return Ok(0);
    };
    let position = match wanted.parse::<usize>() {
        Ok(index) => (index < found.len()).then_some(index),
        Err(_) => {
            let wanted = wanted.to_lowercase();
            found.iter().position(|a| a.get_info().name.to_lowercase().contains(&wanted))
        }
    };
    position.ok_or_else(|| Error::Unknown {
        what: "adapter",
        found: wanted.clone(),
        expected: found
            .iter()
            .enumerate()
            .map(|(i, a)| format!("{i} ({})", a.get_info().name))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// How many objects were made on a device so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Buffers and textures.
    pub buffers: u64,
    pub bind_groups: u64,
    pub pipelines: u64,
}

#[derive(Default)]
struct Counters {
    buffers: AtomicU64,
    bind_groups: AtomicU64,
    pipelines: AtomicU64,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    /// Of the cooperative matrices that it can multiply, whatever plans use.
    #[cfg(feature = "bench")]
    matrix_sides: Vec<u32>,
    /// Why the device was lost, once it was. For devices of others only known if they [say so](Gpu::set_lost).
    lost: Arc<OnceLock<String>>,
    /// Milliseconds that a submission may take before the device counts as lost.
    patience: AtomicU64,
    pipelines: Pipelines,
    counters: Counters,
    /// Changes to kernels' texts: kernel, text, and what stands there instead.
    faults: Mutex<Vec<[String; 3]>>,
    /// Whether kernels are compiled with bounds checks, see [`Gpu::check_bounds`].
    checks_bounds: AtomicBool,
    trouble: trouble::Planted,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.lost.get().is_none() {
            self.pipelines.keep();
        }
    }
}

/// A device with its queue, its limits and its compiled kernels. Cheap to clone.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>, Arc<Target>);

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.1.name)
    }
}

/// Optional features that are used where they exist.
fn used_features(info: &wgpu::AdapterInfo) -> wgpu::Features {
    let used = wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::BGRA8UNORM_STORAGE;
    match info.device_type {
        // Elsewhere memory that the host can map may be slow for the device.
        wgpu::DeviceType::Cpu => used | wgpu::Features::MAPPABLE_PRIMARY_BUFFERS,
        _ => used,
    }
}

/// What is known of a device that was lost without a word.
const NO_WORK: &str = "it takes no work any more";

impl Gpu {
    /// The best adapter of this machine, or the one that `AQUATINT_ADAPTER` and
    /// `AQUATINT_BACKEND` name, with all of its limits but for what `AQUATINT_AS_IF` takes away.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] without a driver, [`Error::Unknown`] for a name that no adapter has.
    pub fn headless() -> Result<Gpu> {
        Self::with_options(&AdapterOptions::from_env())
    }

    /// A device on the adapter that the options name.
    #[expect(unsafe_code)]
    pub fn with_options(options: &AdapterOptions) -> Result<Gpu> {
        let adapter = choose_adapter(options)?;
        let Abilities { mut features, limits, class } = options.abilities(&adapter)?;
        if options.cache.is_on() {
            features |= adapter.features() & wgpu::Features::PIPELINE_CACHE;
        }
        let request = wgpu::DeviceDescriptor {
            label: Some("aquatint"),
            required_features: features,
            required_limits: limits,
            experimental_features: match features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
                // SAFETY: the caller of `with_options` asked for them, and the kernels that use them keep to wgpu's rules.
                true => unsafe { wgpu::ExperimentalFeatures::enabled() },
                false => wgpu::ExperimentalFeatures::disabled(),
            },
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&request)).map_err(|e| Error::Gpu {
                what: format!("opening the device \"{}\"", adapter.get_info().name),
                message: e.to_string(),
            })?;
        let lost = Arc::new(OnceLock::new());
        let reason = lost.clone();
        device.set_device_lost_callback(move |kind, message| {
            let _ = reason.set(format!("{kind:?}: {message}"));
        });
        // Errors are caught in scopes; one that slips through must not abort the process.
        device.on_uncaptured_error(Arc::new(|error: wgpu::Error| {
            eprintln!("aquatint: uncaptured GPU error: {error}");
        }));
        let gpu = Self::assemble(&adapter, device, queue, class, lost, &options.cache);
        let target = options.tuned(gpu.target().clone(), gpu.info());
        Ok(Gpu(gpu.0, Arc::new(target)))
    }

    /// The caller's own device. Its error handler and lost callback stay the caller's: that should call
    /// [`Gpu::set_lost`]. Nothing is kept on disk.
    pub fn from_wgpu(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Gpu {
        Self::from_wgpu_cached(adapter, device, queue, &Cache::off())
    }

    /// The same with compiled pipelines kept between processes, where the device has [`wgpu::Features::PIPELINE_CACHE`].
    pub fn from_wgpu_cached(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        cache: &Cache,
    ) -> Gpu {
        Self::assemble(adapter, device, queue, None, Arc::default(), cache)
    }

    /// The same device with kernels chosen by what was measured on it, for plans that are made from now on.
    pub fn tuned(&self, tuning: Tuning) -> Gpu {
        Gpu(self.0.clone(), Arc::new(Target { tuning: Some(Arc::new(tuning)), ..Target::clone(&self.1) }))
    }

    /// The same device without cooperative matrices, for plans that are made from now on.
    pub fn without_matrices(&self) -> Gpu {
        Gpu(self.0.clone(), Arc::new(Target { matrices: None, ..Target::clone(&self.1) }))
    }

    /// Sides of the cooperative matrices of f16, with sums of f32, that the device can multiply.
    #[cfg(feature = "bench")]
    pub(crate) fn matrix_sides(&self) -> &[u32] {
        &self.0.matrix_sides
    }

    /// Whether both are clones of one, or [tuned](Gpu::tuned) from it: what is made on one can be used with the other.
    pub(crate) fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whose measurements these are: this device with its driver and all that plans know of it.
    pub fn identity(&self) -> Identity {
        identity(self.info(), self.target())
    }

    fn assemble(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        class: Option<DeviceClass>,
        lost: Arc<OnceLock<String>>,
        cache: &Cache,
    ) -> Gpu {
        let info = adapter.get_info();
        let target = target(adapter, device.features(), &device.limits());
        let target = Target { class: class.unwrap_or(target.class), ..target };
        let inner = Inner {
            pipelines: Pipelines::new(&device, &info, cache),
            #[cfg(feature = "bench")]
            matrix_sides: match device.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
                true => matrices::sides(adapter),
                false => Vec::new(),
            },
            device,
            queue,
            info,
            lost,
            patience: AtomicU64::new(PATIENCE.as_millis() as u64),
            counters: Counters::default(),
            faults: Mutex::default(),
            checks_bounds: AtomicBool::new(false),
            trouble: trouble::Planted::default(),
        };
        Gpu(Arc::new(inner), Arc::new(target))
    }

    /// Replaces `text` in what becomes of a kernel's source, wherever it is there, to see that faults are found. Kernels that
    /// are changed are compiled with bounds checks. For tests.
    #[doc(hidden)]
    pub fn plant_fault(&self, kernel: &str, text: &str, instead: &str) {
        let fault = [kernel, text, instead].map(str::to_owned);
        self.0.faults.lock().unwrap_or_else(|e| e.into_inner()).push(fault);
        self.0.pipelines.forget();
    }

    /// Compiles kernels with the bounds checks that wgpu adds for shaders from strangers: what they compute must not change. For tests.
    #[doc(hidden)]
    pub fn check_bounds(&self) {
        self.0.checks_bounds.store(true, Ordering::Relaxed);
        self.0.pipelines.forget();
    }

    /// The text of a kernel as this device compiles it, and whether it is its own.
    pub(crate) fn text(&self, kernel: &Kernel) -> Result<(String, bool)> {
        let mut text = kernel.source()?;
        let faults = self.0.faults.lock().unwrap_or_else(|e| e.into_inner());
        let mut own = true;
        for [_, from, to] in faults.iter().filter(|[name, ..]| name == kernel.name) {
            if text.contains(from.as_str()) {
                text = text.replace(from.as_str(), to);
                own = false;
            }
        }
        Ok((text, own))
    }

    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.0.info
    }

    /// Capabilities and limits, as the planner sees them.
    pub fn target(&self) -> &Target {
        &self.1
    }

    /// Objects made so far.
    pub fn counts(&self) -> Counts {
        let c = &self.0.counters;
        Counts {
            buffers: c.buffers.load(Ordering::Relaxed),
            bind_groups: c.bind_groups.load(Ordering::Relaxed),
            pipelines: c.pipelines.load(Ordering::Relaxed),
        }
    }

    /// Whether timestamps can be written.
    pub fn has_timestamps(&self) -> bool {
        self.0.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Work that one submission may hold, floating-point operations: well under
    /// a second on a slow device of the class, so that no driver's watchdog (two
    /// seconds on Windows) takes it for a hang.
    pub(crate) fn submission_flops(&self) -> u64 {
        match self.1.class {
            DeviceClass::Discrete => 500_000_000_000,
            DeviceClass::Integrated => 50_000_000_000,
            DeviceClass::Cpu => 5_000_000_000,
        }
    }

    /// Runs `make` and turns the errors that wgpu reports for it into ours.
    pub(crate) fn checked<T>(&self, what: impl Fn() -> String, make: impl FnOnce() -> T) -> Result<T> {
        let device = &self.0.device;
        if self.refuses() {
            return Err(Error::OutOfMemory { what: what(), bytes: 0 });
        }
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make();
        self.meet_loss();
        let validation = pollster::block_on(validation.pop());
        let internal = pollster::block_on(internal.pop());
        let memory = pollster::block_on(memory.pop());
        self.check_lost()?;
        if memory.is_some() {
            return Err(Error::OutOfMemory { what: what(), bytes: 0 });
        }
        match validation.or(internal) {
            Some(error) => Err(self.failure(what(), error.to_string())),
            None => Ok(made),
        }
    }

    /// What wgpu's refusal means: on a lost device everything is refused, but the news of the loss may still be on its way,
    /// or be the caller's alone.
    fn failure(&self, what: String, message: String) -> Error {
        let _ = self.poll(wgpu::PollType::Poll);
        if !self.is_lost() {
            let wait = wgpu::PollType::Wait {
                submission_index: Some(self.0.queue.submit([])),
                timeout: Some(Duration::ZERO),
            };
            if let Ok(Err(wgpu::PollError::WrongSubmissionIndex(..))) = self.poll(wait) {
                self.set_lost(NO_WORK);
            }
        }
        match self.check_lost() {
            Err(lost) => lost,
            Ok(()) => Error::Gpu { what, message },
        }
    }

    /// Says that the device was lost, from the callback of a device of one's own: what is asked of it afterwards is
    /// [`Error::DeviceLost`] at once. The first reason stays.
    pub fn set_lost(&self, reason: &str) {
        let _ = self.0.lost.set(reason.to_owned());
    }

    /// Whether the device is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.0.lost.get().is_some()
    }

    pub(crate) fn check_lost(&self) -> Result<()> {
        match self.0.lost.get() {
            Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// A buffer, or what it was for and how large when there is no memory for it.
    pub(crate) fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let size = bytes.max(16).next_multiple_of(16);
        self.1.check(|| format!("buffer {label}"), size, self.1.max_buffer)?;
        self.0.counters.buffers.fetch_add(1, Ordering::Relaxed);
        let buffer = self.checked(
            || format!("buffer {label}"),
            || {
                self.0.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            },
        );
        buffer.map_err(|error| match error {
            Error::OutOfMemory { what, .. } => Error::OutOfMemory { what, bytes: size },
            other => other,
        })
    }

    /// A texture of `vec4<f32>` texels.
    pub(crate) fn texture(&self, label: &str, [width, height]: [u32; 2]) -> Result<wgpu::Texture> {
        let bytes = 16 * u64::from(width) * u64::from(height);
        self.0.counters.buffers.fetch_add(1, Ordering::Relaxed);
        let texture = self.checked(
            || format!("texture {label}"),
            || {
                self.0.device.create_texture(&wgpu::TextureDescriptor {
                    label: Some(label),
                    size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
                    mip_level_count: 1,
                    sample_count: 1,
                    dimension: wgpu::TextureDimension::D2,
                    format: pipelines::TEXELS,
                    usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
                    view_formats: &[],
                })
            },
        );
        texture.map_err(|error| match error {
            Error::OutOfMemory { what, .. } => Error::OutOfMemory { what, bytes },
            other => other,
        })
    }

    pub(crate) fn bind_group(
        &self,
        pipeline: &Pipeline,
        entries: &[wgpu::BindGroupEntry],
    ) -> wgpu::BindGroup {
        self.0.counters.bind_groups.fetch_add(1, Ordering::Relaxed);
        self.0.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries,
        })
    }
}

/// What measurements hold for: abilities that were taken away change which kernels there are.
fn identity(info: &wgpu::AdapterInfo, target: &Target) -> Identity {
    Identity::new(info, serde_json::to_string(target).expect("plain data"))
}

/// What the planner needs to know of an adapter.
pub fn target(adapter: &wgpu::Adapter, features: wgpu::Features, limits: &wgpu::Limits) -> Target {
    let info = &adapter.get_info();
    let class = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => DeviceClass::Discrete,
        wgpu::DeviceType::Cpu => DeviceClass::Cpu,
        _ => DeviceClass::Integrated,
    };
    Target {
        name: info.name.clone(),
        class,
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features.contains(wgpu::Features::SUBGROUP),
        subgroup_size: match features.contains(wgpu::Features::SUBGROUP) {
            true => info.subgroup_min_size,
            false => 1,
        },
        matrices: matrices(adapter, info, features),
        max_buffer: limits.max_buffer_size,
        max_binding: limits.max_storage_buffer_binding_size,
        max_texture: limits.max_texture_dimension_2d,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_workgroups: limits.max_compute_workgroups_per_dimension,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        shared_memory: limits.max_compute_workgroup_storage_size,
        uniform_alignment: limits.min_uniform_buffer_offset_alignment,
        spare: spare(class, device_memory(adapter)),
        mappable: info.device_type == wgpu::DeviceType::Cpu
            && features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
        tuning: None,
    }
}
