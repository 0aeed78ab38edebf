//! Colours that are multiplied by their alpha, against the same in f64 on the host.

use aquatint::frame::{Alpha, Texels, Transfer};
use aquatint::wgpu::TextureFormat;
use aquatint::wgpu::TextureFormat::{Rgba8Unorm, Rgba8UnormSrgb, Rgba16Float, Rgba32Float};
use aquatint::{DType, Error, Graph, Network, Result};

use crate::harness::*;

/// Numbers of the network from those of a texture, and back.
struct Case {
    format: TextureFormat,
    view: Option<TextureFormat>,
    network: Transfer,
    channels: usize,
}

/// Twice the colours, and alpha as it is.
fn brighter(channels: usize) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", [1, 4, 16, channels], DType::F32);
    let scale: Vec<f32> = (0..channels).map(|c| if c < 3 { 2.0 } else { 1.0 }).collect();
    let scale = g.weight("scale", aquatint::Tensor::from_f32([channels], &scale));
    let y = g.mul(x, scale).unwrap();
    g.output("y", y);
    g
}

#[test]
fn networks_see_colours_without_alpha() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let (srgb, linear) = (Transfer::Srgb, Transfer::Linear);
    for case in [
        Case { format: Rgba8Unorm, view: None, network: srgb, channels: 3 },
        Case { format: Rgba8Unorm, view: Some(Rgba8UnormSrgb), network: linear, channels: 4 },
        Case { format: Rgba16Float, view: None, network: linear, channels: 3 },
        Case { format: Rgba32Float, view: None, network: srgb, channels: 4 },
        Case { format: Rgba32Float, view: None, network: Transfer::Log, channels: 3 },
    ] {
        let network = Network::new(gpu, &brighter(case.channels))?;
        let source = texture(gpu, [16, 4], case.format, READ);
        let goal = texture(gpu, [16, 4], Rgba32Float, WRITTEN);
        let chance = noise(16 * 4 * 4, 21);
        let given: Vec<[f64; 4]> = chance
            .chunks_exact(4)
            .enumerate()
            .map(|(i, c)| {
                // None, all, little and some.
                let alpha = [0.0, 1.0, 3.0 / 255.0, f64::from(c[3])][i % 4];
                std::array::from_fn(|k| if k < 3 { 0.4 * f64::from(c[k]) * alpha } else { alpha })
            })
            .collect();
        fill(gpu, &source, &given);
        let mut texels_in = Texels::colour(&source).network(case.network).premultiplied();
        if let Some(view) = case.view {
            texels_in = texels_in.view(view);
        }
        let kept = if case.channels == 4 { Alpha::Along } else { Alpha::Of("x".into()) };
        let texels_out = Texels::colour(&goal).network(case.network).alpha(kept).premultiplied();
        let bindings = network.bind(&[("x", texels_in.into()), ("y", texels_out.into())])?;
        submit(gpu, |encoder| bindings.record(encoder).unwrap());
        let (numbers, found) = (network.read("y")?.to_f32(), texels(gpu, &goal));
        for (i, texel) in given.iter().enumerate() {
            let stored = unpack(case.format, &pack(case.format, *texel));
            let alpha = stored[3];
            assert!((found[i][3] - alpha).abs() <= 1e-6, "pixel {i}: alpha {} for {alpha}", found[i][3]);
            // Drivers may decode sRGB by a table.
            let close = if case.view.is_some() { 1e-2 } else { 2e-4 };
            for c in 0..3 {
                let light = |x: f64| if case.view.is_some() { srgb.decode(x) } else { x };
                let straight = if alpha > 0.0 { light(stored[c]) / alpha } else { 0.0 };
                let held = if case.format == Rgba8Unorm && case.view.is_none() { srgb } else { linear };
                let seen =
                    |x: f64| if held == case.network { x } else { case.network.encode(held.decode(x)) };
                let wanted = 2.0 * seen(straight);
                let number = f64::from(numbers[i * case.channels + c]);
                assert!(
                    (number - wanted).abs() <= close * wanted.abs().max(1.0),
                    "pixel {i}, {c}: {number} for {wanted}"
                );
                // The goal holds light.
                let back = if case.network == linear { wanted } else { case.network.decode(wanted) };
                let shown = back * alpha;
                assert!(
                    (found[i][c] - shown).abs() <= 2.0 * close * shown.abs().max(1.0),
                    "pixel {i}, {c}: {} for {shown}",
                    found[i][c]
                );
            }
        }
    }
    Ok(())
}

/// What was taken out comes back: a network that changes nothing gives back the texture.
#[test]
fn there_and_back() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut g = Graph::new();
    let x = g.input("x", [1, 16, 16, 3], DType::F32);
    let y = g.affine(x, 1.0, 0.0)?;
    g.output("y", y);
    let network = Network::new(gpu, &g)?;
    let source = texture(gpu, [16, 16], Rgba8Unorm, READ);
    let goal = texture(gpu, [16, 16], Rgba8Unorm, WRITTEN);
    let given: Vec<[f64; 4]> = (0..256)
        .map(|i| {
            let alpha = f64::from(i);
            [alpha, (alpha / 2.0).floor(), (alpha / 7.0).floor(), alpha].map(|byte| byte / 255.0)
        })
        .collect();
    fill(gpu, &source, &given);
    let bindings = network.bind(&[
        ("x", Texels::colour(&source).premultiplied().into()),
        ("y", Texels::colour(&goal).alpha(Alpha::Of("x".into())).premultiplied().into()),
    ])?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    assert_eq!(texels(gpu, &goal), given);

    let nonsense = network.bind(&[("x", Texels::depth(&source).distances(1.0, 9.0).premultiplied().into())]);
    assert!(matches!(nonsense, Err(Error::Invalid { .. })));
    Ok(())
}
