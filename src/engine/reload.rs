//! Other weights for a network that is loaded: only what is made of those that changed is made again.

use std::sync::Arc;

use super::load::Loaded;
use super::{Network, submit_steps};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::passes;
use crate::plan::{Change, Plan};

/// What a [`Network::reload`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Bytes that came from the host: the files' weights that changed, with what adapters add to them.
    pub uploaded: u64,
    /// The most bytes that the network held meanwhile, as was known before.
    pub peak: u64,
    /// Whether everything was loaded anew, as the runs of the graphs are not the same, or will be when the network,
    /// which was not on the device, is needed.
    pub whole: bool,
}

/// A reload, planned.
pub(crate) struct Reload {
    pub plan: Plan,
    /// `None` if all has to be loaded anew.
    change: Option<Change>,
}

impl Reload {
    /// The most bytes that the network holds meanwhile.
    pub fn peak_bytes(&self) -> u64 {
        self.change.as_ref().map_or_else(|| self.plan.peak_bytes(), Change::peak_bytes)
    }
}

impl Network {
    /// Makes this the network of another graph with the same inputs, states and outputs, as that of the same layers with
    /// other [adapters](crate::Weights::with_adapters): to the last bit the network that [`Network::new`] makes of that
    /// graph, with the inputs and states of this one.
    ///
    /// The graph is planned on the host, where no weight is read. Then the part of the plan's load that makes what is
    /// different now runs, from the files' own numbers, into the buffers that there are; what both graphs have in common
    /// is neither read nor computed again. Pipelines, bind groups and buffers of the runs stay, as long as both graphs
    /// run the same kernels on the same shapes; those of adapters of other ranks are compiled for the load alone. Of a
    /// graph with other runs everything is loaded anew, and so of a network that [shares](Network::sharing) its weights:
    /// [`Reloaded::whole`]. Then [bindings](crate::frame::Bindings) made before still run the old network.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other inputs, states or outputs, and what else [`Network::new`] refuses: then nothing has
    /// changed. Those of the device: then the next [`Network::submit`] loads all of it, and must come before
    /// [`Network::encode`].
    pub fn reload(&mut self, graph: &Graph) -> Result<Reloaded> {
        let reload = self.prepare_reload(graph)?;
        self.finish_reload(reload)
    }

    /// What [`Network::reload`] would do; changes nothing.
    pub(crate) fn prepare_reload(&self, graph: &Graph) -> Result<Reload> {
        let plan = self.plan.again(&passes::optimise(graph, &self.plan.target)?)?;
        Ok(Reload { change: Change::between(&self.plan, &plan), plan })
    }

    pub(crate) fn finish_reload(&mut self, Reload { plan, change }: Reload) -> Result<Reloaded> {
        let ports = self.ports_of(&plan)?;
        if let Some(change) = &change {
            self.gpu.compile_all(change.load.load.iter().map(|launch| &*launch.shader))?;
        }
        let before = self.lock().take().and_then(Arc::into_inner);
        self.ports = ports;
        self.plan = plan;
        let Some(before) = before else {
            return Ok(Reloaded { uploaded: 0, peak: self.plan.port_bytes(), whole: true });
        };
        // Others that share its weights keep theirs.
        let change = change.filter(|_| Arc::strong_count(&before.family) == 1);
        let Some(change) = change else {
            // Before the new network comes, the old one goes.
            drop(before);
            self.gpu.settle()?;
            self.loaded()?;
            let uploaded = self.plan.uploaded_bytes();
            return Ok(Reloaded { uploaded, peak: self.plan.peak_bytes(), whole: true });
        };
        let Loaded { buffers, textures, steps, uniforms, family } = before;
        let buffer = |of: &Option<usize>| of.and_then(|of| buffers[of].clone());
        let mut loaded = Loaded {
            buffers: change.buffers.iter().map(buffer).collect(),
            textures: change.textures.iter().map(|&of| textures[of].clone()).collect(),
            steps,
            uniforms,
            family,
        };
        loaded.load(&self.gpu, &change.load, &mut |_, _, steps, range, after| {
            submit_steps(&self.gpu, steps, &change.load.load[range], 1, None, after)
        })?;
        *self.lock() = Some(Arc::new(loaded));
        Ok(Reloaded { uploaded: change.load.uploaded_bytes(), peak: change.peak_bytes(), whole: false })
    }

    /// The buffers of this network's ports where those of a plan are, which must be the same.
    fn ports_of(&self, plan: &Plan) -> Result<Vec<Option<wgpu::Buffer>>> {
        let mut ports = vec![None; plan.buffers.len()];
        let own = &self.plan;
        for (what, new, old) in [
            // States last: what they hold must stay, should an output be one of them.
            ("outputs", &plan.outputs, &own.outputs),
            ("inputs", &plan.inputs, &own.inputs),
            ("states", &plan.states, &own.states),
        ] {
            let names = |ports: &[crate::plan::Port]| {
                ports.iter().map(|port| format!("{} {}", port.name, port.desc)).collect::<Vec<_>>().join(", ")
            };
            let (expected, found) = (names(old), names(new));
            if expected != found {
                return Err(Error::Invalid { what: format!("{what} of a network"), expected, found });
            }
            for (new, old) in new.iter().zip(old) {
                ports[new.buffer] = Some(self.port(old.buffer).clone());
            }
        }
        Ok(ports)
    }
}
