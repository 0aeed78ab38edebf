//! A window for the examples: the event loop, the surface, and the way of a texture onto it.
//!
//! The device is made as an embedding program makes its own: on an adapter that can show on the surface, with all of its
//! features and limits that aquatint can use.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use aquatint::wgpu::{self, CurrentSurfaceTexture};
use aquatint::{AdapterOptions, Gpu};
use winit::application::ApplicationHandler;
use winit::dpi::PhysicalSize;
use winit::event::WindowEvent;
use winit::event_loop::{ActiveEventLoop, EventLoop};
use winit::keyboard::{Key, NamedKey};
use winit::window::{Window, WindowId};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is drawn frame by frame into a texture.
pub trait Animation {
    /// In sRGB, with the usage `TEXTURE_BINDING`, shown as large as the window is.
    fn picture(&self) -> &wgpu::Texture;

    /// Records the commands of the frame that is due so many seconds after the first.
    fn record(&mut self, encoder: &mut wgpu::CommandEncoder, seconds: f32) -> Result<()>;
}

/// Opens a window of so many pixels and shows what `make` makes, until it is closed or Escape is pressed.
///
/// # Errors
/// Where there is no display, or none that the adapter can show on; and what the animation fails with.
pub fn show<A: Animation>(title: &str, size: [u32; 2], make: impl FnOnce(&Gpu) -> Result<A>) -> Result<()> {
    let events = EventLoop::new()
        .map_err(|error| format!("no window can be opened: {error} (without --window none is needed)"))?;
    let mut program = Program { title, size, make: Some(make), stage: None, failed: None };
    events.run_app(&mut program)?;
    program.failed.map_or(Ok(()), Err)
}

struct Program<'a, A, M> {
    title: &'a str,
    size: [u32; 2],
    make: Option<M>,
    stage: Option<Stage<A>>,
    failed: Option<Box<dyn Error>>,
}

impl<A: Animation, M: FnOnce(&Gpu) -> Result<A>> ApplicationHandler for Program<'_, A, M> {
    fn resumed(&mut self, events: &ActiveEventLoop) {
        let Some(make) = self.make.take() else { return };
        match Stage::new(events, self.title, self.size, make) {
            Ok(stage) => self.stage = Some(stage),
            Err(error) => self.fail(events, error),
        }
    }

    fn window_event(&mut self, events: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        let Some(stage) = &mut self.stage else { return };
        match event {
            WindowEvent::CloseRequested => events.exit(),
            WindowEvent::KeyboardInput { event, .. } if event.logical_key == Key::Named(NamedKey::Escape) => {
                events.exit();
            }
            WindowEvent::Resized(size) => stage.resize(size),
            WindowEvent::RedrawRequested => {
                if let Err(error) = stage.draw() {
                    self.fail(events, error);
                }
            }
            _ => {}
        }
    }
}

impl<A, M> Program<'_, A, M> {
    fn fail(&mut self, events: &ActiveEventLoop, error: Box<dyn Error>) {
        self.failed = Some(error);
        events.exit();
    }
}

/// A window and what is shown there.
struct Stage<A> {
    animation: A,
    start: Instant,
    gpu: Gpu,
    blitter: wgpu::util::TextureBlitter,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    window: Arc<Window>,
}

impl<A: Animation> Stage<A> {
    fn new(
        events: &ActiveEventLoop,
        title: &str,
        [width, height]: [u32; 2],
        make: impl FnOnce(&Gpu) -> Result<A>,
    ) -> Result<Stage<A>> {
        let display = Box::new(events.owned_display_handle());
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_with_display_handle(display));
        let attributes = Window::default_attributes().with_title(title);
        let window =
            Arc::new(events.create_window(attributes.with_inner_size(PhysicalSize::new(width, height)))?);
        let surface = instance.create_surface(window.clone())?;

        // An adapter for this surface, and of it all that aquatint can use; add what your renderer needs.
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            compatible_surface: Some(&surface),
            ..Default::default()
        }))?;
        let abilities = AdapterOptions::from_env().abilities(&adapter)?;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_features: abilities.features,
            required_limits: abilities.limits,
            ..Default::default()
        }))?;
        let gpu = Gpu::from_wgpu(&adapter, device, queue);

        // Pictures are in sRGB already: the surface's format must not encode them again.
        let formats = surface.get_capabilities(&adapter).formats;
        let format =
            *formats.iter().find(|format| !format.is_srgb()).ok_or("the surface has no plain format")?;
        let size = window.inner_size();
        let config = surface.get_default_config(&adapter, size.width.max(1), size.height.max(1));
        let config = config.ok_or("the adapter cannot show on this surface")?;
        let config = wgpu::SurfaceConfiguration { format, ..config };
        surface.configure(gpu.device(), &config);
        let blitter = wgpu::util::TextureBlitterBuilder::new(gpu.device(), format)
            .sample_type(wgpu::FilterMode::Linear)
            .build();
        let animation = make(&gpu)?;
        window.request_redraw();
        Ok(Stage { animation, start: Instant::now(), gpu, blitter, surface, config, window })
    }

    fn resize(&mut self, size: PhysicalSize<u32>) {
        // A window that is put away has no pixels, a surface has at least one.
        (self.config.width, self.config.height) = (size.width.max(1), size.height.max(1));
        self.surface.configure(self.gpu.device(), &self.config);
    }

    /// A frame: the animation and the way onto the surface, in one submission.
    fn draw(&mut self) -> Result<()> {
        self.window.request_redraw();
        let shown = match self.surface.get_current_texture() {
            CurrentSurfaceTexture::Success(texture) | CurrentSurfaceTexture::Suboptimal(texture) => texture,
            CurrentSurfaceTexture::Timeout | CurrentSurfaceTexture::Occluded => return Ok(()),
            CurrentSurfaceTexture::Outdated => {
                self.surface.configure(self.gpu.device(), &self.config);
                return Ok(());
            }
            lost @ (CurrentSurfaceTexture::Lost | CurrentSurfaceTexture::Validation) => {
                return Err(format!("the surface gives no texture: {lost:?}").into());
            }
        };
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.animation.record(&mut encoder, self.start.elapsed().as_secs_f32())?;
        let view = |texture: &wgpu::Texture| texture.create_view(&Default::default());
        let (from, to) = (view(self.animation.picture()), view(&shown.texture));
        self.blitter.copy(self.gpu.device(), &mut encoder, &from, &to);
        self.gpu.queue().submit([encoder.finish()]);
        self.window.pre_present_notify();
        self.gpu.queue().present(shown);
        Ok(())
    }
}
