//! Textures of a renderer in and out of a network, without a way over the host.

use std::sync::Arc;

use crate::engine::Network;
use crate::error::{Error, Result};
use crate::gpu::Pipeline;
use crate::shader::{Kernel, Param, Shader};
use crate::tensor::DType;

/// A copy between one texture and one picture of a network's input or output
/// `[n, height, width]`, `u32`, four bytes a pixel, red in the lowest: what
/// [`Graph::picture_to_tensor`](crate::Graph::picture_to_tensor) reads and
/// [`Graph::picture_from_tensor`](crate::Graph::picture_from_tensor) writes.
/// Made once; recording it creates nothing.
pub struct TextureCopy {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    groups: u32,
}

impl TextureCopy {
    /// From `texture`, of any format that is sampled as floats, to picture number
    /// `picture` of the input `input`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the input is no picture of the texture's size, or the
    /// texture's usage lacks `TEXTURE_BINDING`.
    pub fn to_input(network: &Network, input: &str, picture: usize, texture: &wgpu::Texture) -> Result<Self> {
        Self::new(
            network,
            "texture_to_picture",
            input,
            picture,
            texture,
            wgpu::TextureUsages::TEXTURE_BINDING,
        )
    }

    /// From picture number `picture` of the output `output` to `texture`, `Rgba8Unorm`
    /// with the usage `STORAGE_BINDING`.
    ///
    /// # Errors
    /// [`Error::Invalid`] as above, or for another format.
    pub fn from_output(
        network: &Network,
        output: &str,
        picture: usize,
        texture: &wgpu::Texture,
    ) -> Result<Self> {
        if texture.format() != wgpu::TextureFormat::Rgba8Unorm {
            return Err(invalid(output, "a texture of Rgba8Unorm", format!("{:?}", texture.format())));
        }
        Self::new(
            network,
            "picture_to_texture",
            output,
            picture,
            texture,
            wgpu::TextureUsages::STORAGE_BINDING,
        )
    }

    fn new(
        network: &Network,
        kernel: &'static str,
        port: &str,
        picture: usize,
        texture: &wgpu::Texture,
        usage: wgpu::TextureUsages,
    ) -> Result<Self> {
        let desc = network.desc(port)?;
        let (width, height) = (texture.width(), texture.height());
        let fits = desc.dtype == DType::U32
            && matches!(desc.shape[..], [n, h, w] if picture < n && [h, w] == [height as usize, width as usize]);
        if !fits {
            let expected = format!("pictures u32[more than {picture}, {height}, {width}], as the texture");
            return Err(invalid(port, &expected, desc.to_string()));
        }
        if !texture.usage().contains(usage) {
            return Err(invalid(
                port,
                &format!("a texture with usage {usage:?}"),
                format!("{:?}", texture.usage()),
            ));
        }
        let gpu = network.gpu();
        let shader = Shader::new(&Kernel::new(kernel))?;
        let params = shader.pack_params(&[
            ("width", width.into()),
            ("height", height.into()),
            ("picture", Param::from(picture)),
        ])?;
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = gpu.buffer("texture copy", params.len() as u64, uniform)?;
        gpu.queue().write_buffer(&uniforms, 0, &params);
        let pipeline = gpu.pipeline(&shader)?;
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        let entries = [
            wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::TextureView(&view) },
            wgpu::BindGroupEntry { binding: 1, resource: network.buffer(port)?.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 2, resource: uniforms.as_entire_binding() },
        ];
        let bind_group = gpu.checked(|| format!("binding {port}"), || gpu.bind_group(&pipeline, &entries))?;
        let groups = (width * height).div_ceil(64);
        gpu.target().check(
            || "workgroups of a texture copy".to_owned(),
            groups.into(),
            gpu.target().max_workgroups.into(),
        )?;
        Ok(TextureCopy { pipeline, bind_group, groups })
    }

    /// Records the copy.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.groups, 1, 1);
    }
}

fn invalid(port: &str, expected: &str, found: String) -> Error {
    Error::Invalid { what: format!("texture for \"{port}\""), expected: expected.to_owned(), found }
}
