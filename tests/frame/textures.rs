//! Textures in and out against the same network with the same numbers in buffers, converted in f64 on the host.

use aquatint::frame::{Alpha, Bound, Texels, Transfer};
use aquatint::wgpu::TextureFormat::{
    Bgra8Unorm, R32Float, Rgba8Unorm, Rgba8UnormSrgb, Rgba16Float, Rgba32Float,
};
use aquatint::wgpu::{self, TextureFormat};
use aquatint::{DType, Error, Graph, Network, Result, Tensor};

use crate::harness::*;

/// A texture in, one out, and what lies between.
struct Case {
    from: TextureFormat,
    to: TextureFormat,
    view: Option<TextureFormat>,
    size: [usize; 2],
    channels: usize,
    dtype: DType,
    network: Transfer,
    exposure: Option<f32>,
    /// Of the texture's colours.
    largest: f64,
    scale: f32,
    shift: f32,
}

impl Default for Case {
    fn default() -> Self {
        Case {
            from: Rgba8Unorm,
            to: Rgba8Unorm,
            view: None,
            size: [37, 29],
            channels: 3,
            dtype: DType::F32,
            network: Transfer::Srgb,
            exposure: None,
            largest: 1.0,
            scale: 1.0,
            shift: 0.0,
        }
    }
}

fn held(format: TextureFormat) -> Transfer {
    match format {
        Rgba8Unorm | Bgra8Unorm => Transfer::Srgb,
        _ => Transfer::Linear,
    }
}

/// From the number of a kind to that of another, with a factor of light between.
fn convert(x: f64, from: Transfer, to: Transfer, factor: f64) -> f64 {
    match from == to && factor == 1.0 {
        true => x,
        false => to.encode(factor * from.decode(x)),
    }
}

impl Case {
    fn hold(&self) -> Result<()> {
        let Some(gpu) = gpu() else { return Ok(()) };
        let [width, height] = self.size;
        let side = [width as u32, height as u32];
        let network = Network::new(gpu, &filter([height, width], self.channels, self.dtype))?;
        let source = texture(gpu, side, self.from, READ);
        let goal = texture(gpu, side, self.to, WRITTEN);
        let chance = noise(width * height * 4, 3);
        let given: Vec<[f64; 4]> = chance
            .chunks_exact(4)
            .map(|c| std::array::from_fn(|i| f64::from(c[i]) * if i < 3 { self.largest } else { 1.0 }))
            .collect();
        fill(gpu, &source, &given);

        let stored = given.iter().map(|&texel| unpack(self.from, &pack(self.from, texel)));
        let factor = f64::from(self.exposure.unwrap_or(1.0));
        let seen = |texel: [f64; 4], c: usize| {
            let light = match self.view {
                Some(_) => Transfer::Srgb.decode(texel[c]),
                None => texel[c],
            };
            let kind = if self.view.is_some() { Transfer::Linear } else { held(self.from) };
            let number = if c < 3 { convert(light, kind, self.network, factor) } else { texel[c] };
            (f64::from(self.scale) * number + f64::from(self.shift)) as f32
        };
        let input: Vec<f32> =
            stored.flat_map(|texel| (0..self.channels).map(move |c| seen(texel, c))).collect();
        let input = Tensor::from_f32([1, height, width, self.channels], &input).to_dtype(self.dtype);
        let output = network.run(&[("x", &input)])?.remove(0).to_f32();

        let normalised = [(self.scale, self.shift); 4];
        let back = [(1.0 / self.scale, -self.shift / self.scale); 4];
        let mut texels_in = Texels::colour(&source).network(self.network).normalised(&normalised);
        let mut texels_out = Texels::colour(&goal).network(self.network).normalised(&back);
        if let Some(view) = self.view {
            texels_in = texels_in.view(view);
        }
        if let Some(exposure) = self.exposure {
            let exposure = storage(gpu, &[exposure]);
            (texels_in, texels_out) = (texels_in.exposure(&exposure), texels_out.exposure(&exposure));
        }
        let bindings = network.bind(&[("x", texels_in.into()), ("y", texels_out.into())])?;
        network.poison()?;
        submit(gpu, |encoder| bindings.record(encoder).unwrap());
        let found = texels(gpu, &goal);

        for (pixel, found) in found.iter().enumerate() {
            let numbers = &output[pixel * self.channels..][..self.channels];
            for c in 0..4 {
                // One channel is grey; what a tensor has not is 0, and alpha 1.
                let number = match (self.channels, c) {
                    (1, 0..=2) => Some(numbers[0]),
                    (channels, c) if c < channels => Some(numbers[c]),
                    _ => None,
                };
                let wanted = match (number, c) {
                    (None, 3) => 1.0,
                    (None, _) => convert(f64::from(back[c].1), self.network, held(self.to), 1.0 / factor),
                    (Some(number), _) => {
                        let number = f64::from(number) * f64::from(back[c].0) + f64::from(back[c].1);
                        if c < 3 {
                            convert(number, self.network, held(self.to), 1.0 / factor)
                        } else {
                            number
                        }
                    }
                };
                let wanted = unpack(self.to, &pack(self.to, [wanted; 4]))[0];
                if self.to == R32Float && c > 0 {
                    continue;
                }
                let off = (found[c] - wanted).abs();
                assert!(
                    off <= tolerance(self.to, wanted),
                    "{:?} to {:?}, {:?}: pixel {pixel}, channel {c} is {}, not {wanted}",
                    self.from,
                    self.to,
                    self.network,
                    found[c]
                );
            }
        }
        Ok(())
    }
}

#[test]
fn textures_are_as_buffers() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let hdr = Case { from: Rgba16Float, to: Rgba16Float, largest: 40.0, ..Case::default() };
    let log = Case { network: Transfer::Log, exposure: Some(0.37), ..hdr };
    let mut cases = vec![
        Case::default(),
        Case { size: [1, 1], ..Case::default() },
        Case { size: [64, 5], channels: 4, ..Case::default() },
        Case { channels: 1, ..Case::default() },
        Case { channels: 2, network: Transfer::Linear, ..Case::default() },
        Case { network: Transfer::Linear, ..Case::default() },
        Case { view: Some(Rgba8UnormSrgb), network: Transfer::Linear, ..Case::default() },
        Case { view: Some(Rgba8UnormSrgb), ..Case::default() },
        Case { scale: 2.0, shift: -1.0, ..Case::default() },
        Case { from: Rgba16Float, to: Rgba8Unorm, ..Case::default() },
        Case { from: Rgba8Unorm, to: Rgba32Float, network: Transfer::Linear, ..Case::default() },
        Case {
            from: Rgba32Float,
            to: Rgba32Float,
            largest: 1000.0,
            network: Transfer::Log,
            ..Case::default()
        },
        Case {
            from: R32Float,
            to: R32Float,
            channels: 1,
            network: Transfer::Linear,
            largest: 9.0,
            ..Case::default()
        },
        Case { exposure: Some(2.0), network: Transfer::Linear, ..Case::default() },
        Case {
            network: Transfer::Linear,
            ..Case { from: Rgba16Float, to: Rgba16Float, largest: 40.0, ..Case::default() }
        },
        log,
    ];
    if gpu.target().f16 {
        cases.push(Case { dtype: DType::F16, ..Case::default() });
        cases.push(Case { dtype: DType::F16, channels: 4, size: [5, 3], ..Case::default() });
    }
    if gpu.device().features().contains(wgpu::Features::BGRA8UNORM_STORAGE) {
        cases.push(Case { from: Bgra8Unorm, to: Bgra8Unorm, ..Case::default() });
    } else {
        eprintln!("no BGRA8UNORM_STORAGE: textures of Bgra8Unorm are not written");
    }
    cases.iter().try_for_each(Case::hold)
}

/// A network that gives back what it gets.
fn identity([height, width]: [usize; 2], channels: usize) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", [1, height, width, channels], DType::F32);
    let y = g.affine(x, 1.0, 0.0).unwrap();
    g.output("y", y);
    g
}

#[test]
fn what_is_not_finite_becomes_so() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let network = Network::new(gpu, &identity([1, 5], 3))?;
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -0.0];
    let given: Vec<[f64; 4]> = odd.iter().map(|&x| [x, 0.5, x, f64::NAN]).collect();
    for (format, transfer) in [
        (Rgba16Float, Transfer::Linear),
        (Rgba32Float, Transfer::Linear),
        (Rgba32Float, Transfer::Log),
        (Rgba16Float, Transfer::Srgb),
    ] {
        let source = texture(gpu, [5, 1], format, READ);
        fill(gpu, &source, &given);
        let goal = texture(gpu, [5, 1], Rgba16Float, WRITTEN);
        let bindings = network.bind(&[
            ("x", Texels::colour(&source).network(transfer).into()),
            ("y", Texels::colour(&goal).network(transfer).alpha(Alpha::Of("x".to_owned())).into()),
        ])?;
        submit(gpu, |encoder| bindings.record(encoder).unwrap());
        let most = transfer.encode(65504.0) as f32;
        let wanted = [0.0, most, transfer.encode(-65504.0) as f32, most, 0.0];
        let found = network.read("y")?.to_f32();
        for (found, wanted) in found.chunks_exact(3).zip(wanted) {
            assert!(found.iter().all(|x| x.is_finite()), "{format:?}, {transfer:?}: {found:?}");
            let off = (found[0] - wanted).abs();
            assert!(off <= 1e-4 * wanted.abs(), "{format:?}, {transfer:?}: {} is not {wanted}", found[0]);
        }
        let shown = texels(gpu, &goal);
        assert!(shown.iter().flatten().all(|x| x.is_finite()), "{shown:?}");
        assert!(shown.iter().all(|texel| texel[3] == 0.0), "alpha was NaN: {shown:?}");
    }
    // What the network makes of its own accord, too.
    let mut g = Graph::new();
    let x = g.input("x", [1, 1, 5, 3], DType::F32);
    let y = g.unary(aquatint::ops::expr::Unary::Log, x)?;
    g.output("y", y);
    let network = Network::new(gpu, &g)?;
    network.write("x", &Tensor::from_f32([1, 1, 5, 3], &[-1.0, 0.0, 1.0, 2.0, 3.0].repeat(3)))?;
    let goal = texture(gpu, [5, 1], Rgba32Float, WRITTEN);
    let bindings = network.bind(&[("y", Texels::data(&goal).into())])?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    let found = texels(gpu, &goal);
    assert!(found.iter().flatten().all(|x| x.is_finite()), "{found:?}");
    assert_eq!(found[0][..2], [0.0, -65504.0]);
    Ok(())
}

#[test]
fn parts_of_textures() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let [height, width] = [11, 13];
    let network = Network::new(gpu, &filter([height, width], 3, DType::F32))?;
    let (whole, origin) = ([30u32, 25u32], [9u32, 4u32]);
    let at = |x: u32, y: u32| (y * whole[0] + x) as usize;
    let pixels = (whole[0] * whole[1]) as usize;
    // As large as the network's picture, and smaller.
    for size in [[13u32, 11u32], [7, 10], [1, 1]] {
        let source = texture(gpu, whole, Rgba32Float, READ);
        let chance = noise(pixels * 4, 5);
        let mut given: Vec<[f64; 4]> =
            chance.chunks_exact(4).map(|c| std::array::from_fn(|i| f64::from(c[i]))).collect();
        // Nothing beyond the part is read.
        let inside = |x: u32, y: u32| {
            (origin[0]..origin[0] + size[0]).contains(&x) && (origin[1]..origin[1] + size[1]).contains(&y)
        };
        for y in 0..whole[1] {
            for x in (0..whole[0]).filter(|&x| !inside(x, y)) {
                given[at(x, y)] = [5e4; 4];
            }
        }
        fill(gpu, &source, &given);
        let goal = texture(gpu, whole, Rgba32Float, WRITTEN);
        let before = vec![[0.25; 4]; pixels];
        fill(gpu, &goal, &before);

        let mut input = Vec::new();
        for y in 0..height as u32 {
            for x in 0..width as u32 {
                let place = at(origin[0] + x.min(size[0] - 1), origin[1] + y.min(size[1] - 1));
                input.extend(given[place][..3].iter().map(|&v| v as f32));
            }
        }
        let wanted =
            network.run(&[("x", &Tensor::from_f32([1, height, width, 3], &input))])?.remove(0).to_f32();

        let bindings = network.bind(&[
            ("x", Texels::data(&source).rect(origin, size).into()),
            ("y", Texels::data(&goal).rect([2, 3], size).alpha(Alpha::Fill(0.5)).into()),
        ])?;
        submit(gpu, |encoder| bindings.record(encoder).unwrap());
        let found = texels(gpu, &goal);
        for y in 0..whole[1] {
            for x in 0..whole[0] {
                let found = found[at(x, y)];
                let place = [x.wrapping_sub(2), y.wrapping_sub(3)];
                if place[0] >= size[0] || place[1] >= size[1] {
                    assert_eq!(found, [0.25; 4], "({x}, {y}) is beyond the part");
                    continue;
                }
                let first = (place[1] as usize * width + place[0] as usize) * 3;
                for c in 0..3 {
                    let off = (found[c] - f64::from(wanted[first + c])).abs();
                    assert!(off <= 1e-6, "({x}, {y}): {found:?}");
                }
                assert_eq!(found[3], 0.5);
            }
        }
    }
    Ok(())
}

#[test]
fn layers_and_levels() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let network = Network::new(gpu, &identity([5, 9], 4))?;
    let usage = READ | WRITTEN;
    let array = textures(gpu, [18, 10], [3, 2], Rgba8Unorm, usage);
    for layer in 0..3 {
        for (mip, pixels) in [(0, 180), (1, 45)] {
            fill_at(
                gpu,
                &array,
                [layer, mip],
                &vec![[0.2 * f64::from(layer) + 0.2 * f64::from(mip); 4]; pixels],
            );
        }
    }
    let goal = texture(gpu, [9, 5], Rgba8Unorm, WRITTEN);
    let bindings = network
        .bind(&[("x", Texels::colour(&array).layer(2).mip(1).into()), ("y", Texels::colour(&goal).into())])?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    assert!(texels(gpu, &goal).iter().flatten().all(|x| (x - 0.6).abs() < 1e-6));
    Ok(())
}

#[test]
fn several_inputs_and_alpha() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let [height, width] = [6, 7];
    let mut g = Graph::new();
    let colour = g.input("colour", [1, height, width, 3], DType::F32);
    let albedo = g.input("albedo", [1, height, width, 3], DType::F32);
    let motion = g.input("motion", [1, height, width, 2], DType::F32);
    let all = g.concat(&[colour, albedo, motion], 3)?;
    let y = convolved(&mut g, all, [8, 3], 4);
    let y = g.unary(aquatint::ops::expr::Unary::Abs, y)?;
    g.output("out", y);
    let network = Network::new(gpu, &g)?;
    let side = [width as u32, height as u32];
    let textures =
        [Rgba16Float, Rgba8Unorm, Rgba32Float].map(|format| texture(gpu, side, format, READ | WRITTEN));
    let mut tensors = Vec::new();
    for (i, texture) in textures.iter().enumerate() {
        let chance = noise(width * height * 4, 6 + i as u32);
        let given: Vec<[f64; 4]> =
            chance.chunks_exact(4).map(|c| std::array::from_fn(|i| f64::from(c[i]))).collect();
        fill(gpu, texture, &given);
        let stored = given.iter().map(|&texel| unpack(texture.format(), &pack(texture.format(), texel)));
        let stored: Vec<[f64; 4]> = stored.collect();
        let channels = if i == 2 { 2 } else { 3 };
        let numbers: Vec<f32> = stored.iter().flat_map(|t| t[..channels].iter().map(|&v| v as f32)).collect();
        tensors.push((Tensor::from_f32([1, height, width, channels], &numbers), stored));
    }
    let wanted =
        network.run(&[("colour", &tensors[0].0), ("albedo", &tensors[1].0), ("motion", &tensors[2].0)])?;
    let wanted = wanted[0].to_f32();
    // In place: what is read goes into tensors before anything is written.
    let bindings = network.bind(&[
        ("colour", Texels::data(&textures[0]).into()),
        ("albedo", Texels::data(&textures[1]).into()),
        ("motion", Texels::data(&textures[2]).into()),
        ("out", Texels::data(&textures[0]).alpha(Alpha::Of("colour".to_owned())).into()),
    ])?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    for (i, found) in texels(gpu, &textures[0]).iter().enumerate() {
        for c in 0..3 {
            let wanted = f64::from(wanted[3 * i + c]);
            assert!((found[c] - wanted).abs() <= tolerance(Rgba16Float, wanted), "pixel {i}: {found:?}");
        }
        assert_eq!(found[3], tensors[0].1[i][3], "alpha is that of the input");
    }
    Ok(())
}

/// Packed pictures: from one texture through a network that inverts them to another.
#[test]
fn packed_pictures() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let (width, height) = (64, 5);
    let mut g = Graph::new();
    let pictures = g.input("pictures", [2, height, width], DType::U32);
    let x = g.picture_to_tensor(pictures, [height, width], &[(1.0, 0.0); 3], DType::F32)?;
    let inverted = g.affine(x, -1.0, 1.0)?;
    let out = g.picture_from_tensor(inverted, 0, 1.0, 0.0)?;
    g.output("out", out);
    let network = Network::new(gpu, &g)?;
    let side = [width as u32, height as u32];
    let given = |seed: u32| -> Vec<[f64; 4]> {
        let bytes = (0..width * height).map(|i| (i as u32).wrapping_mul(37 + seed));
        bytes.map(|i| std::array::from_fn(|c| f64::from((i >> c) % 256) / 255.0)).collect()
    };
    let sources = [0, 1].map(|i| {
        let source = texture(gpu, side, Rgba8Unorm, READ);
        fill(gpu, &source, &given(i));
        source
    });
    let goals = [0, 1].map(|_| texture(gpu, side, Rgba8Unorm, WRITTEN));
    let mut bound: Vec<(&str, Bound)> = Vec::new();
    for i in 0..2 {
        bound.push(("pictures", Texels::colour(&sources[i]).picture(i).into()));
        bound.push(("out", Texels::colour(&goals[i]).picture(i).into()));
    }
    let bindings = network.bind(&bound)?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    for (i, goal) in goals.iter().enumerate() {
        for (found, given) in texels(gpu, goal).iter().zip(given(i as u32)) {
            let wanted: [f64; 3] = std::array::from_fn(|c| 1.0 - given[c]);
            assert!(
                (0..3).all(|c| (found[c] - wanted[c]).abs() < 1e-9) && found[3] == 1.0,
                "{found:?} {wanted:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn exposure_changes_without_anything_new() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let network = Network::new(gpu, &identity([3, 4], 3))?;
    let source = texture(gpu, [4, 3], Rgba16Float, READ);
    fill(gpu, &source, &[[2.0, 4.0, 8.0, 1.0]; 12]);
    let goal = texture(gpu, [4, 3], Rgba32Float, WRITTEN);
    let exposure = storage(gpu, &[1.0]);
    let bindings = network.bind(&[
        ("x", Texels::colour(&source).network(Transfer::Log).exposure(&exposure).into()),
        ("y", Texels::colour(&goal).network(Transfer::Log).exposure(&exposure).into()),
    ])?;
    let made = gpu.counts();
    for factor in [1.0f32, 0.5, 3.0] {
        gpu.queue().write_buffer(&exposure, 0, &factor.to_le_bytes());
        submit(gpu, |encoder| bindings.record(encoder).unwrap());
        let seen = network.read("y")?.to_f32();
        let wanted = (1.0 + 2.0 * factor).log2();
        assert!((seen[0] - wanted).abs() < 1e-5, "{} {wanted}", seen[0]);
    }
    assert_eq!(gpu.counts().bind_groups, made.bind_groups);
    let back = texels(gpu, &goal);
    assert!((back[0][0] - 2.0).abs() < 1e-3 && (back[0][2] - 8.0).abs() < 1e-3, "{:?}", back[0]);
    Ok(())
}

#[test]
fn what_does_not_fit_is_named() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let network = Network::new(gpu, &identity([5, 9], 3))?;
    let make = |size, format, usage| texture(gpu, size, format, usage);
    let right = make([9, 5], Rgba8Unorm, READ);
    let goal = make([9, 5], Rgba8Unorm, WRITTEN);
    let wrong: [(&str, Texels, &str); 11] = [
        ("x", Texels::colour(&make([8, 5], Rgba8Unorm, READ)), "[9, 5]"),
        ("x", Texels::colour(&goal), "TEXTURE_BINDING"),
        ("y", Texels::colour(&right), "STORAGE_BINDING"),
        ("x", Texels::colour(&make([9, 5], TextureFormat::Rgba8Uint, READ)), "Rgba8Uint"),
        ("x", Texels::colour(&right).rect([1, 0], [9, 5]), "part of a texture"),
        ("x", Texels::colour(&right).rect([u32::MAX, 0], [2, 2]), "part of a texture"),
        ("x", Texels::colour(&right).rect([0, 0], [0, 5]), "part of a texture"),
        ("x", Texels::colour(&make([20, 20], Rgba8Unorm, READ)).rect([0, 0], [10, 5]), "at most [9, 5]"),
        ("x", Texels::colour(&right).picture(1), "number 1"),
        ("x", Texels::colour(&right).mip(3), "level 3"),
        ("y", Texels::colour(&goal).alpha(Alpha::Of("x".to_owned())), "\"x\""),
    ];
    for (name, texels, text) in wrong {
        let error = network.bind(&[(name, texels.into())]).unwrap_err();
        let found = error.to_string();
        assert!(matches!(error, Error::Invalid { .. }) && found.contains(text), "{found} has no {text}");
    }
    let formats = make([9, 5], TextureFormat::Rgba8Snorm, WRITTEN);
    let error = network.bind(&[("y", Texels::colour(&formats).into())]).unwrap_err().to_string();
    assert!(error.contains("Rgba16Float") && error.contains("Rgba8Snorm"), "{error}");
    let error = network.bind(&[("z", Texels::colour(&right).into())]).unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }) && error.to_string().contains("x, y"), "{error}");
    // A view that the texture does not allow is wgpu's refusal, as an error.
    let error = network.bind(&[("x", Texels::colour(&right).view(Rgba16Float).into())]).unwrap_err();
    assert!(matches!(error, Error::Gpu { .. }), "{error}");
    Ok(())
}
