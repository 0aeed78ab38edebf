//! What a painter will take of a device's memory, known before anything is made; and how it makes do with less.

use std::cell::Cell;

use super::canvas::EncoderPlan;
use super::control::Control;
use super::parts::Parts;
use super::show::DecoderPlan;
use crate::diffusion::{Start, Table};
use crate::error::{Error, Result};
use crate::models::autoencoder_tiny::AutoencoderTinyConfig;
use crate::models::latent_diffusion::{Given, Part};
use crate::plan::{NetworkMemory, Plan};
use crate::target::Target;
use crate::tasks::paint::StartFrom;
use crate::tasks::sampling::start_graph;
use crate::tensor::DType;
use crate::text::TextEncoders;
use crate::units;

/// Which of a painter's networks are on the device at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turns {
    /// All; the encoder of pictures only while a run begins.
    Together,
    /// The decoder only while pictures are shown.
    DecoderInTurn,
    /// One: the UNet is dropped while pictures are encoded or shown, and loaded again for the next step.
    OneAtATime,
}

impl Turns {
    const ALL: [Turns; 3] = [Turns::Together, Turns::DecoderInTurn, Turns::OneAtATime];
}

/// Device memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Of each encoder of text, alone on the device and before all else.
    pub text_encoders: Vec<NetworkMemory>,
    /// Of a step: the UNet with guidance and sampler.
    pub step: NetworkMemory,
    /// Of what draws the first noise.
    pub start: NetworkMemory,
    /// Of the autoencoder's first half, for painters that begin with a picture.
    pub encoder: Option<NetworkMemory>,
    /// Of its second half.
    pub decoder: NetworkMemory,
    /// Of the tiny autoencoder for previews, where there is one.
    pub preview: Option<NetworkMemory>,
    /// Whether that one stays on the device.
    pub preview_kept: bool,
    pub turns: Turns,
    /// In so many bands pictures are encoded and shown, see [`PaintOptions::memory_budget`](super::PaintOptions).
    pub encoder_bands: usize,
    pub decoder_bands: usize,
    /// The most that is held at any time.
    pub peak: u64,
}

impl Memory {
    /// What a painter holds while it does nothing.
    pub fn held(&self) -> u64 {
        let preview = self.preview.filter(|_| self.preview_kept).map_or(0, |memory| memory.held);
        let networks = match self.turns {
            Turns::Together => self.step.held + self.decoder.held,
            Turns::DecoderInTurn => self.step.held,
            Turns::OneAtATime => self.step.ports,
        };
        self.start.held + networks + preview
    }

    /// The most that is held without previews: while the UNet is loaded, and while pictures are encoded or shown.
    fn most(&self) -> u64 {
        let kept = if self.turns == Turns::Together { self.decoder.held } else { 0 };
        let begun = kept + self.encoder.map_or(0, |memory| memory.peak);
        (self.step.peak + self.start.held).max(self.beside_pictures() + self.decoder.peak.max(begun))
    }

    /// What is held beside the networks for pictures.
    fn beside_pictures(&self) -> u64 {
        self.start.held + if self.turns == Turns::OneAtATime { self.step.ports } else { self.step.held }
    }

    /// The same with another plan of the step.
    pub(super) fn with_step(&self, step: NetworkMemory) -> Memory {
        let mut memory = Memory { step, ..self.clone() };
        memory.peak = memory.most();
        if let Some(preview) = self.preview {
            let kept = if self.preview_kept { preview.held } else { 0 };
            memory.peak = (memory.peak + kept).max(memory.held() - kept + preview.peak);
        }
        memory
    }

    /// What is held beside the step's network.
    pub(super) fn beside_step(&self) -> u64 {
        let step = if self.turns == Turns::OneAtATime { self.step.ports } else { self.step.held };
        self.held() - step
    }

    /// The same with an autoencoder for previews: kept where there is room for it beside all else, otherwise there only
    /// while it shows something.
    pub(super) fn with_preview(mut self, preview: NetworkMemory, budget: Option<u64>) -> Memory {
        let shown = self.held() + preview.peak;
        let kept = (self.peak + preview.held).max(shown);
        self.preview_kept = self.turns == Turns::Together && budget.is_none_or(|budget| kept <= budget);
        self.peak = if self.preview_kept { kept } else { self.peak.max(shown) };
        self.preview = Some(preview);
        self
    }
}

/// Smaller parts of a load save little.
const LEAST_CHUNK: u64 = 4 << 20;

/// What there is beside a painter's own networks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// Of text, before all else.
    pub encoders: Option<&'a TextEncoders>,
    /// As [`Painter::controlled`](super::Painter::controlled) is given them.
    pub controls: &'a [Control],
    /// As [`Painter::preview_with`](super::Painter::preview_with) is given it.
    pub preview: Option<&'a Part<AutoencoderTinyConfig>>,
}

/// A painter's networks, planned.
pub(super) struct Layout {
    pub step: Plan,
    pub encoder: Option<EncoderPlan>,
    pub decoder: DecoderPlan,
    pub memory: Memory,
}

/// `None` for what is too large for a binding of the device.
fn possible<T>(plan: Result<T>) -> Result<Option<T>> {
    match plan {
        Ok(plan) => Ok(Some(plan)),
        Err(Error::Limit { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Parts<'_> {
    /// The networks such that they keep within the device's limits and the budget: at once as much as fits, then in
    /// turn, then in bands.
    pub(super) fn layout(&self, start: &Start, target: &Target) -> Result<Layout> {
        self.layout_from(Turns::ALL[0], start, target)
    }

    /// The device, with nothing to spare where there is a budget.
    fn thrifty(&self, target: &Target) -> Target {
        let spare = if self.options.memory_budget.is_some() { 0 } else { target.spare };
        Target { spare, ..target.clone() }
    }

    /// The same with turns as these or with fewer networks at a time.
    fn layout_from(&self, first: Turns, start: &Start, target: &Target) -> Result<Layout> {
        let budget = self.options.memory_budget.unwrap_or(u64::MAX);
        let target = &self.thrifty(target);
        let step = self.step(&start.table)?;
        let mut plan = Plan::compile(&self.step_graph(step)?, target)?;
        let noise = Plan::compile(&start_graph(step)?, target)?.memory();
        // Weights in smaller parts: the load waits for each.
        while plan.peak_bytes() + noise.held > budget && plan.load_chunk > LEAST_CHUNK {
            plan.load_chunk /= 4;
        }
        let unet = plan.memory();
        if unet.peak + noise.held > budget {
            return Err(self.too_much(target, unet.peak + noise.held, &[("UNet", unet.peak)]));
        }
        let whole_decoder = possible(self.decoder(&start.table, target))?;
        let whole_encoder = match self.canvas {
            StartFrom::Noise => None,
            _ => possible(self.encoder(start, target))?,
        };
        // The least of what was too much.
        let refused = Cell::new(u64::MAX);
        for bands in [false, true] {
            for turns in Turns::ALL.into_iter().skip_while(|turns| *turns != first) {
                let beside = noise.held + if turns == Turns::OneAtATime { unet.ports } else { unet.held };
                let fits = |bytes: u64| {
                    beside + bytes <= budget || {
                        refused.set(refused.get().min(beside + bytes));
                        false
                    }
                };
                let mut decoder = whole_decoder.clone().filter(|plan| fits(plan.memory().peak));
                // Bands are made anew for each picture.
                if decoder.is_none() && bands && turns != Turns::Together {
                    decoder = self.decoder_in_bands(&start.table, target, &fits)?;
                }
                let Some(decoder) = decoder else { continue };
                let shown = decoder.memory();
                let kept = if turns == Turns::Together { shown.held } else { 0 };
                let fits = |bytes: u64| fits(kept + bytes);
                let mut encoder = whole_encoder.clone().filter(|plan| fits(plan.memory().peak));
                if encoder.is_none() && bands && self.canvas != StartFrom::Noise {
                    encoder = self.encoder_in_bands(start, target, &fits)?;
                }
                if encoder.is_none() && self.canvas != StartFrom::Noise {
                    continue;
                }
                let encoded = encoder.as_ref().map(EncoderPlan::memory);
                let mut memory = Memory {
                    text_encoders: Vec::new(),
                    step: unet,
                    start: noise,
                    encoder: encoded,
                    decoder: shown,
                    preview: None,
                    preview_kept: false,
                    turns,
                    encoder_bands: encoder.as_ref().and_then(EncoderPlan::bands).unwrap_or(1),
                    decoder_bands: decoder.bands.as_ref().map_or(1, |bands| bands.count()),
                    peak: 0,
                };
                memory.peak = memory.most();
                return Ok(Layout { step: plan, encoder, decoder, memory });
            }
        }
        let mut parts = vec![("UNet", unet.peak)];
        parts.extend(whole_decoder.map(|plan| ("decoder at once", plan.memory().peak)));
        parts.extend(whole_encoder.map(|plan| ("encoder at once", plan.memory().peak)));
        Err(self.too_much(target, refused.get(), &parts))
    }

    /// A tiny autoencoder for previews.
    pub(super) fn preview(
        &self,
        table: &Table,
        target: &Target,
        tiny: &Part<AutoencoderTinyConfig>,
    ) -> Result<DecoderPlan> {
        let [_, _, channels] = self.latent();
        if tiny.config.latent_channels != channels {
            return Err(Error::Invalid {
                what: "latent_channels of the autoencoder for previews".to_owned(),
                expected: format!("{channels}, as {} has", self.model.name),
                found: tiny.config.latent_channels.to_string(),
            });
        }
        let tiny = Part { config: tiny.config.clone().into(), weights: tiny.weights.clone() };
        let first = Plan::compile(&self.show_graph(table, &tiny)?, &self.thrifty(target))?;
        Ok(DecoderPlan { first, bands: None })
    }

    /// The networks such that there is room for previews too.
    pub(super) fn layout_with_preview(
        &self,
        start: &Start,
        target: &Target,
        preview: NetworkMemory,
    ) -> Result<Layout> {
        let budget = self.options.memory_budget;
        let mut least = u64::MAX;
        for turns in Turns::ALL {
            let mut layout = match self.layout_from(turns, start, target) {
                // Without previews there would be room.
                Err(Error::Budget { .. }) if turns != Turns::ALL[0] => continue,
                layout => layout?,
            };
            layout.memory = layout.memory.with_preview(preview, budget);
            if budget.is_none_or(|budget| layout.memory.peak <= budget) {
                return Ok(layout);
            }
            least = least.min(layout.memory.peak);
        }
        Err(self.too_much(target, least, &[("decoder of previews", preview.peak)]))
    }

    /// `needed` at least, of which the parts alone take so much.
    pub(super) fn too_much(&self, target: &Target, needed: u64, parts: &[(&str, u64)]) -> Error {
        let parts: Vec<_> =
            parts.iter().map(|(part, bytes)| format!("{part} {}", units::bytes(*bytes))).collect();
        Error::Budget {
            budget: self.options.memory_budget.unwrap_or(u64::MAX),
            needed,
            parts: parts.join(", "),
            advice: self.advice(target),
        }
    }

    /// What would lower it.
    fn advice(&self, target: &Target) -> String {
        let mut advice = Vec::new();
        if self.options.dtype == DType::F32 && target.f16 {
            advice.push("f16");
        }
        if self.options.weights.is_none() {
            advice.push("weights in blocks of 8 or 4 bits");
        }
        if self.batch > 1 {
            advice.push("a smaller batch");
        }
        if self.is_guided() && self.given() == Given::Text {
            advice.push("no guidance");
        }
        advice.push("a smaller picture");
        format!("try {}", advice.join(", "))
    }
}
