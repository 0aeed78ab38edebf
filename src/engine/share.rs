//! Networks that share weights and the memory of intermediate results: other resolutions, other views.

use std::sync::Arc;

use super::load::{Given, Loaded};
use super::{Network, Scratch};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::plan::{Plan, Shared};

/// What a network has in common with others on its device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares<'a> {
    /// Weights that are the same there, by their bytes and by what is made of them, are not uploaded again.
    pub weights_of: Option<&'a Network>,
    /// Memory of intermediate results; its own if there is none.
    pub scratch: Option<&'a Scratch>,
}

/// Bytes that a network holds on its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// By itself alone.
    pub own: u64,
    /// In buffers and textures of weights that other networks may hold too.
    pub weights: u64,
    /// In memory of intermediate results that was [given](Scratch).
    pub scratch: u64,
}

impl Network {
    /// Loads a plan beside other networks. Weights are the same as there if they are the same bytes of the same file (or,
    /// of small ones that are computed, equal) and kernels read them in the same order; for that, build both graphs from
    /// one [`Weights`](crate::Weights). What is not the same is loaded as always.
    ///
    /// # Errors
    /// As [`Network::from_plan`]; [`Error::Invalid`] for scratch memory that is too small or a network on another device.
    pub fn sharing(gpu: &Gpu, plan: Plan, shares: Shares) -> Result<Network> {
        let mut given = vec![None; plan.buffers.len()];
        if let Some(scratch) = shares.scratch {
            scratch.assign(&plan)?.into_iter().for_each(|(id, buffer)| given[id] = Some(buffer));
        }
        let mut network = Self::around(gpu, plan, given)?;
        if let Some(scratch) = shares.scratch {
            network.turn = scratch.turn().clone();
            network.shared[1] = network.plan.scratch_bytes();
        }
        match shares.weights_of {
            Some(other) => network.load_beside(other)?,
            None => drop(network.loaded()?),
        }
        Ok(network)
    }

    /// Loads a plan whose weights are those of another network, as at another resolution: [`Network::sharing`].
    pub fn with_weights_of(other: &Network, plan: Plan) -> Result<Network> {
        Self::sharing(&other.gpu, plan, Shares { weights_of: Some(other), scratch: None })
    }

    fn load_beside(&mut self, other: &Network) -> Result<()> {
        if !self.gpu.is(&other.gpu) {
            return Err(Error::Invalid {
                what: "a network to share weights with".to_owned(),
                expected: "one on the same device, made with a clone of the same `Gpu`".to_owned(),
                found: format!("{other:?}"),
            });
        }
        let there = other.loaded()?;
        let shared = Shared::between(&other.plan, &self.plan);
        let mut buffers = self.ports.clone();
        let mut bytes = 0;
        for (id, of) in shared.buffers.iter().enumerate() {
            if let Some(of) = of {
                buffers[id] = there.buffers[*of].clone();
                bytes += self.plan.buffers[id].bytes;
            }
        }
        let texture = |(id, of): (usize, &Option<usize>)| {
            of.map(|of| {
                bytes += self.plan.textures[id].bytes();
                there.textures[of].clone()
            })
        };
        let textures = shared.textures.iter().enumerate().map(texture).collect();
        let family = match bytes {
            0 => Arc::default(),
            _ => there.family.clone(),
        };
        let given = Given { buffers, textures, load: &shared.load, family };
        let loaded = Loaded::new(&self.gpu, &self.plan, given)?;
        self.shared[0] = bytes;
        *self.lock() = Some(Arc::new(loaded));
        Ok(())
    }

    /// What the network holds on its device while it is ready to run.
    pub fn held(&self) -> Held {
        let [weights, scratch] = self.shared;
        Held { own: self.plan.resident_bytes() - weights - scratch, weights, scratch }
    }

    /// The same network on another device, as after the loss of this one's: everything is loaded anew from the weights,
    /// which the plan still has on the host or in mapped files. States are what they were at first.
    ///
    /// # Errors
    /// As [`Network::from_plan`]; [`Error::Lacking`] where the other device is a lesser one: make the network anew from
    /// its graph then.
    pub fn rebuild(&self, gpu: &Gpu) -> Result<Network> {
        Self::from_plan(gpu, self.plan.clone())
    }

    /// The same beside others, which were rebuilt before it.
    ///
    /// # Errors
    /// As [`Network::sharing`].
    pub fn rebuild_sharing(&self, gpu: &Gpu, shares: Shares) -> Result<Network> {
        Self::sharing(gpu, self.plan.clone(), shares)
    }
}
