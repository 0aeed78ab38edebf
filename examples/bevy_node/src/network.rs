//! The plugin: a network between what a camera sees and what is shown of it.

use aquatint::frame::{Alpha, Background, Bindings, Texels};
use aquatint::models::vision::VisionModel;
use aquatint::{DType, Error, Gpu, Graph, Network, tasks};
use bevy::camera::CameraMainTextureUsages;
use bevy::core_pipeline::tonemapping::tonemapping;
use bevy::core_pipeline::{Core3d, Core3dSystems};
use bevy::prelude::*;
use bevy::render::extract_component::{ExtractComponent, ExtractComponentPlugin};
use bevy::render::render_resource::{Texture, TextureId, TextureUsages};
use bevy::render::renderer::{RenderAdapter, RenderContext, RenderDevice, RenderQueue, ViewQuery};
use bevy::render::view::ViewTarget;
use bevy::render::{GpuResourceAppExt, Render, RenderApp, RenderSystems};

/// Puts a network between the tone mapping and the target of each camera with a [`ThroughNetwork`].
pub struct NetworkPlugin(pub VisionModel);

/// On a camera: what it sees goes through the network. The camera must be [`Hdr`](bevy::camera::Hdr), so that its textures are
/// of a format that kernels write, and have [`storage`].
#[derive(Component, ExtractComponent, Clone)]
#[extract_app(RenderApp)]
pub struct ThroughNetwork;

/// Lets kernels write what a camera draws to.
pub fn storage() -> CameraMainTextureUsages {
    CameraMainTextureUsages::default().with(TextureUsages::STORAGE_BINDING)
}

impl Plugin for NetworkPlugin {
    fn build(&self, app: &mut App) {
        app.add_plugins(ExtractComponentPlugin::<ThroughNetwork>::default());
        let Some(render_app) = app.get_sub_app_mut(RenderApp) else { return };
        render_app
            .insert_resource(Model(self.0.clone()))
            // Made anew when Bevy recovers from a lost device.
            .init_gpu_resource::<ViewNetwork>()
            .add_systems(Render, prepare.in_set(RenderSystems::PrepareResources))
            .add_systems(Core3d, record.after(tonemapping).in_set(Core3dSystems::PostProcess));
    }
}

#[derive(Resource, Clone)]
struct Model(VisionModel);

/// The network on Bevy's device, for views of one size.
#[derive(Resource)]
pub struct ViewNetwork {
    gpu: Gpu,
    model: VisionModel,
    /// Of the view, width first.
    size: [u32; 2],
    state: State,
    /// From one of a view's textures to the other, and back: they change places with each effect that is applied.
    bindings: Vec<(TextureId, TextureId, Bindings)>,
}

pub enum State {
    /// No view wants it.
    Idle,
    Coming(Background<Network>),
    There(Box<Network>),
    Failed(Error),
}

impl FromWorld for ViewNetwork {
    fn from_world(world: &mut World) -> Self {
        let (adapter, device) = (world.resource::<RenderAdapter>(), world.resource::<RenderDevice>());
        let queue = world.resource::<RenderQueue>();
        ViewNetwork {
            gpu: Gpu::from_wgpu(adapter, device.wgpu_device().clone(), (**queue).clone()),
            model: world.resource::<Model>().0.clone(),
            size: [0; 2],
            state: State::Idle,
            bindings: Vec::new(),
        }
    }
}

impl ViewNetwork {
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Begins to make the network when the view has another size, and takes it when it is made.
    fn make(&mut self, size: [u32; 2]) -> aquatint::Result<()> {
        if self.size != size {
            let (gpu, model) = (self.gpu.clone(), self.model.clone());
            let make = move || Network::new(&gpu, &graph(&model, size)?);
            (self.size, self.state) = (size, State::Coming(Background::start(make)?));
            self.bindings.clear();
        }
        if let State::Coming(coming) = &mut self.state
            && let Some(network) = coming.take()
        {
            self.state = State::There(Box::new(network?));
        }
        Ok(())
    }

    fn between(&self, from: &Texture, to: &Texture) -> Option<&Bindings> {
        let found = self.bindings.iter().find(|(a, b, _)| (*a, *b) == (from.id(), to.id()));
        found.map(|(.., bindings)| bindings)
    }

    /// Binds the network to both textures of a view, unless it is.
    fn bind(&mut self, view: &ViewTarget) -> aquatint::Result<()> {
        let State::There(network) = &self.state else { return Ok(()) };
        let (one, other) = (view.main_texture(), view.main_texture_other());
        for (from, to) in [(one, other), (other, one)] {
            if self.between(from, to).is_none() {
                let written = Texels::colour(to).alpha(Alpha::Of("pictures".into()));
                let bound = [("pictures", Texels::colour(from).into()), ("picture", written.into())];
                self.bindings.push((from.id(), to.id(), network.bind(&bound)?));
            }
        }
        Ok(())
    }
}

/// The network for pictures of a size, width first: from words of sRGB to such words.
pub fn graph(model: &VisionModel, [width, height]: [u32; 2]) -> aquatint::Result<Graph> {
    let mut graph = Graph::new();
    let pictures = graph.input("pictures", [1, height as usize, width as usize], DType::U32);
    let picture = tasks::redraw(&mut graph, model, pictures)?;
    graph.output("picture", picture);
    Ok(graph)
}

/// Makes what recording takes, so that recording makes nothing.
fn prepare(views: Query<&ViewTarget, With<ThroughNetwork>>, mut network: ResMut<ViewNetwork>) {
    // Textures that are gone take their bindings with them.
    let ids = |view: &ViewTarget| [view.main_texture().id(), view.main_texture_other().id()];
    network.bindings.retain(|(from, ..)| views.iter().any(|view| ids(view).contains(from)));
    for view in &views {
        let size = [view.main_texture().width(), view.main_texture().height()];
        if let Err(error) = network.make(size).and_then(|()| network.bind(view)) {
            error!("{error}");
            network.state = State::Failed(error);
        }
    }
}

/// Records a run into the frame of a view; the frame goes without where the network is not there.
fn record(
    view: ViewQuery<&ViewTarget, With<ThroughNetwork>>,
    network: Res<ViewNetwork>,
    mut context: RenderContext,
) {
    let view = view.into_inner();
    let bindings = network.between(view.main_texture(), view.main_texture_other());
    if let (State::There(_), Some(bindings)) = (&network.state, bindings) {
        match bindings.record(context.command_encoder()) {
            // The other texture is the view's from now on.
            Ok(()) => _ = view.post_process_write(),
            Err(error) => error!("{error}"),
        }
    }
}
