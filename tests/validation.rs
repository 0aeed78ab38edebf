//! Whether Vulkan's validation layers are on and heard: scripts/validation.sh runs this before all that must give them no reason
//! to speak.

use std::borrow::Cow;

use aquatint::AdapterOptions;
use aquatint::wgpu;

#[test]
#[ignore = "says something wrong on purpose, for scripts/validation.sh to hear"]
fn a_module_that_is_none() {
    let adapter = aquatint::gpu::choose_adapter(&AdapterOptions::from_env()).unwrap();
    let (device, _queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: wgpu::Features::PASSTHROUGH_SHADERS,
        ..Default::default()
    }))
    .unwrap();
    // A header of SPIR-V and nothing behind it: the memory model is missing.
    let words = [0x0723_0203, 0x0001_0000, 0, 1, 0];
    let descriptor =
        wgpu::ShaderModuleDescriptorPassthrough { spirv: Some(Cow::Borrowed(&words)), ..Default::default() };
    // SAFETY: nothing is done with it.
    let _module = unsafe { device.create_shader_module_passthrough(descriptor) };
}
