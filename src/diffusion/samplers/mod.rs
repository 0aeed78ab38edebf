//! The samplers, a family a file: noise levels in, rows out, those of the levels from `begin` on.
//!
//! DDPM, DDIM, PNDM, LCM, TCD and the exponential integrators keep the latent scaled as the model
//! sees it (signal² + sigma² = 1), those of flow models so that signal + sigma = 1, those of score models as their
//! process has it (but for the ODE), the others at signal 1, as diffusers does, so that latents can be compared step by
//! step.

pub(super) mod consistency;
pub(super) mod ddim;
pub(super) mod ddpm;
pub(super) mod deis;
pub(super) mod dpm2;
pub(super) mod dpm_single;
pub(super) mod dpm_solver;
pub(super) mod euler;
pub(super) mod flow;
pub(super) mod heun;
pub(super) mod lms;
pub(super) mod plms;
pub(super) mod score;
pub(super) mod unipc;
