//! Buffers of the caller's, bound where they are.

use aquatint::frame::Bound;
use aquatint::wgpu::{self, BufferUsages};
use aquatint::{DType, Error, Graph, Network, Result, Tensor};

use crate::harness::*;

const SIZE: [usize; 2] = [9, 14];
const COUNT: usize = 9 * 14 * 3;

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_f32([1, SIZE[0], SIZE[1], 3], values)
}

#[test]
fn buffers_are_read_and_written_where_they_are() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let network = Network::new(gpu, &filter(SIZE, 3, DType::F32))?;
    let inputs = [noise(COUNT, 1), noise(COUNT, 2)];
    let wanted = [
        network.run(&[("x", &tensor(&inputs[0]))])?.remove(0).to_f32(),
        network.run(&[("x", &tensor(&inputs[1]))])?.remove(0).to_f32(),
    ];
    // Two pairs, as in ping-pong; the second input from the middle of a buffer.
    let mut shifted = vec![9.0; 64];
    shifted.extend(&inputs[1]);
    let sources = [storage(gpu, &inputs[0]), storage(gpu, &shifted)];
    let goals = [storage(gpu, &[0.0; COUNT]), storage(gpu, &[0.0; COUNT])];
    let both = [0, 1].map(|i| {
        let source = Bound::Buffer { buffer: sources[i].clone(), offset: 256 * i as u64 };
        network.bind(&[("x", source), ("y", (&goals[i]).into())]).unwrap()
    });
    network.poison()?;
    for i in [0, 1, 0, 1] {
        submit(gpu, |encoder| both[i].record(encoder).unwrap());
        assert_eq!(numbers(gpu, &goals[i], 0, COUNT), wanted[i], "pair {i}");
    }
    // They stay without the network.
    drop(network);
    submit(gpu, |encoder| both[0].record(encoder).unwrap());
    assert_eq!(numbers(gpu, &goals[0], 0, COUNT), wanted[0]);
    Ok(())
}

#[test]
fn a_network_in_place_where_it_can_be() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let values = noise(COUNT, 3);
    // The input is read by the first convolution alone.
    let network = Network::new(gpu, &filter(SIZE, 3, DType::F32))?;
    let wanted = network.run(&[("x", &tensor(&values))])?.remove(0).to_f32();
    let place = storage(gpu, &values);
    let bindings = network.bind(&[("x", (&place).into()), ("y", (&place).into())])?;
    submit(gpu, |encoder| bindings.record(encoder).unwrap());
    assert_eq!(numbers(gpu, &place, 0, COUNT), wanted);

    // Here it is read when the output is written, or by the launch that writes it.
    let mut g = filter(SIZE, 3, DType::F32);
    let x = g.values().find(|(_, value)| value.name == "x").map(|(id, _)| id).unwrap();
    let y = g.outputs()[0].1;
    let sum = g.add(x, y)?;
    g.output("sum", sum);
    let network = Network::new(gpu, &g)?;
    let error = network.bind(&[("x", (&place).into()), ("sum", (&place).into())]).unwrap_err();
    assert!(
        matches!(error, Error::Invalid { .. }) && error.to_string().contains("\"x\" and \"sum\""),
        "{error}"
    );
    Ok(())
}

#[test]
fn an_output_that_is_a_state_or_an_input_is_copied() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let mut g = Graph::new();
    let step = g.input("step", [5], DType::F32);
    let sum = g.state("sum", Tensor::from_f32([5], &[1.0, 2.0, 3.0, 4.0, 5.0]));
    let next = g.add(sum, step)?;
    g.update(sum, next)?;
    g.output("now", sum);
    g.output("same", step);
    let network = Network::new(gpu, &g)?;
    let (step, [now, same]) = (storage(gpu, &[1.0; 5]), [0, 1].map(|_| storage(gpu, &[0.0; 5])));
    let bound = [("step", (&step).into()), ("now", (&now).into()), ("same", (&same).into())];
    let bindings = network.bind(&bound)?;
    submit(gpu, |encoder| (0..10).for_each(|_| bindings.record(encoder).unwrap()));
    assert_eq!(numbers(gpu, &same, 0, 5), [1.0; 5]);
    assert_eq!(numbers(gpu, &now, 0, 5), [11.0, 12.0, 13.0, 14.0, 15.0]);
    assert_eq!(network.read("sum")?.to_f32()[0], 11.0);
    Ok(())
}

#[test]
fn buffers_that_do_not_fit_are_named() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let network = Network::new(gpu, &filter(SIZE, 3, DType::F32))?;
    let bytes = (4 * COUNT as u64).next_multiple_of(16);
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    let right = buffer(gpu, bytes, usage);
    let at = |offset| Bound::Buffer { buffer: right.clone(), offset };
    for (bound, text) in [
        (Bound::from(&buffer(gpu, bytes - 16, usage)), "bytes"),
        (Bound::from(&buffer(gpu, bytes, BufferUsages::COPY_DST)), "STORAGE"),
        (at(4), "multiple of"),
        (at(256), "bytes from the offset 256"),
        (at(u64::MAX - 255), "bytes from the offset"),
    ] {
        let error = network.bind(&[("x", bound)]).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(text), "{error}");
    }
    let twice = network.bind(&[("x", at(0)), ("x", (&buffer(gpu, bytes, usage)).into())]).unwrap_err();
    assert!(twice.to_string().contains("one buffer"), "{twice}");
    Ok(())
}

/// A plan says what it needs before there is a device; a device that has it runs it, one that has not is refused.
#[test]
fn devices_are_made_for_plans() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let adapter = aquatint::gpu::choose_adapter(&aquatint::AdapterOptions::from_env())?;
    let options = aquatint::AdapterOptions { as_if: None, ..aquatint::AdapterOptions::from_env() };
    let graph = filter(SIZE, 3, DType::F32);
    let plan = aquatint::Plan::compile(&graph, &options.target(&adapter)?)?;
    plan.check_adapter(&adapter)?;
    let request = |required_features, required_limits| {
        let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
        pollster::block_on(adapter.request_device(&descriptor)).unwrap()
    };
    let (device, queue) = request(plan.required_features(), plan.required_limits());
    aquatint::Gpu::check(&device)?;
    plan.check_device(&device)?;
    let own = aquatint::Gpu::from_wgpu(&adapter, device, queue);
    let network = Network::from_plan(&own, plan.clone())?;
    let values = noise(COUNT, 7);
    let found = network.run(&[("x", &tensor(&values))])?.remove(0).to_f32();
    let wanted = Network::new(gpu, &graph)?.run(&[("x", &tensor(&values))])?.remove(0).to_f32();
    assert_eq!(found, wanted);

    let least = wgpu::Limits { max_compute_invocations_per_workgroup: 16, ..wgpu::Limits::defaults() };
    let (device, queue) = request(wgpu::Features::empty(), least);
    let lesser = aquatint::Gpu::from_wgpu(&adapter, device, queue);
    for error in
        [plan.check_device(lesser.device()).unwrap_err(), Network::from_plan(&lesser, plan).unwrap_err()]
    {
        assert!(matches!(error, Error::Lacking { .. }), "{error}");
    }
    assert!(matches!(aquatint::Gpu::check(lesser.device()), Err(Error::Lacking { .. })));
    Ok(())
}
