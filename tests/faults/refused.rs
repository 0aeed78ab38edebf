//! What a device has not, or not so much of: said before anything is made, by its name, and the device goes on.

use aquatint::cache::Cache;
use aquatint::limits::Limits;
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{AdapterOptions, DType, Gpu, Graph, Network, Plan, Result, Tensor};

use crate::harness::*;

/// A device that plays a weaker one.
fn as_if(abilities: &str) -> Result<Gpu> {
    let as_if = Some(abilities.to_owned());
    Gpu::with_options(&AdapterOptions { as_if, cache: Cache::off(), ..AdapterOptions::from_env() })
}

fn in_halves() -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", SHAPE, DType::F16);
    let w = g.weight("w", Tensor::from_f32([8, 8, 3, 3], &noise(8 * 8 * 9, 1)).to_dtype(DType::F16));
    let y = g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap();
    g.output("y", y);
    g
}

#[test]
fn what_a_device_lacks_is_said() -> Result<()> {
    let Some(whole) = open() else { return Ok(()) };
    let answer = |gpu: &Gpu| -> Result<Vec<f32>> {
        Ok(Network::new(gpu, &network(1))?.run(&[("x", &input())])?.remove(0).to_f32())
    };
    let wanted = answer(&whole)?;
    let mut cells: Vec<(&str, &str, &str, String)> = Vec::new();
    let mut cell = |when, what, expected, found: Result<()>| {
        let text = found.as_ref().err().map_or_else(String::new, ToString::to_string);
        cells.push((when, what, expected, format!("{}: {text}", kind(&found))));
    };

    // Opening.
    let with = |adapter: Option<&str>, backend: Option<&str>| {
        let [adapter, backend] = [adapter, backend].map(|text| text.map(str::to_owned));
        Gpu::with_options(&AdapterOptions { adapter, backend, ..AdapterOptions::default() }).map(drop)
    };
    cell("opening", "an adapter that is not there", "Unknown", with(Some("no such adapter"), None));
    cell("opening", "an interface that is none", "Unknown", with(None, Some("glide")));
    let foreign = if cfg!(windows) { "metal" } else { "dx12" };
    cell("opening", "an interface without adapters", "NoAdapter", with(None, Some(foreign)));
    cell("opening", "more than it has", "Invalid", as_if("storage-buffers=1000000").map(drop));

    // Loading, on devices that lack a feature or are too small.
    let mut too_small =
        |what: &'static str, abilities: &str, expected: &'static str, plan: Option<Plan>| -> Result<()> {
            let gpu = as_if(abilities)?;
            let before = on_device(gpu.device());
            let result = match plan {
                Some(plan) => Network::from_plan(&gpu, plan).map(drop),
                None => Network::new(&gpu, &network(1)).map(drop),
            };
            cell("loading", what, expected, result);
            assert_eq!(on_device(gpu.device()), before, "{what}: nothing is made");
            Ok(())
        };
    too_small("a buffer beyond the device's", "max-buffer=2KiB", "Limit", None)?;
    too_small("a binding beyond the device's", "max-binding=2KiB", "Limit", None)?;
    too_small("bindings beyond the device's", "storage-buffers=2", "Limit", None)?;
    too_small("invocations beyond the device's", "invocations=1", "Limit", None)?;
    let plan = Plan::compile(&network(1), whole.target())?;
    too_small("a plan of a larger device", "max-buffer=2KiB", "Lacking", Some(plan))?;
    if whole.target().f16 {
        let plan = Plan::compile(&in_halves(), whole.target())?;
        too_small("a plan in halves without the feature", "no-f16", "Lacking", Some(plan))?;
    }
    let before = on_device(whole.device());
    let limits: Limits = "device=1KiB".parse().expect("a bound");
    cell(
        "loading",
        "more than the caller allows",
        "Bound",
        limits.within(|| Network::new(&whole, &network(1)).map(drop)),
    );
    assert_eq!(on_device(whole.device()), before);

    // Compiling: a kernel that the front end or the driver refuses.
    let broken = as_if("")?;
    broken.plant_fault("group_norm_apply", "dst[", "destination[");
    broken.plant_fault("group_norm_apply_scalar", "dst[", "destination[");
    broken.plant_fault("row_norm_threads", "dst[", "destination[");
    cell("compiling", "a kernel that does not compile", "Gpu", Network::new(&broken, &network(1)).map(drop));

    // Measuring.
    let plain = as_if("no-timestamps")?;
    let own = Network::new(&plain, &network(1))?;
    cell("profiling", "timestamps", "Feature", own.profile(1).map(drop));
    let time = own.time(1)?;
    assert!(time.device.is_none() && time.wall > 0.0);

    // Reading back more than a buffer may hold, and what is not there.
    cell("reading back", "an output that is none", "Unknown", own.read("z").map(drop));
    cell(
        "in flight",
        "an input of another shape",
        "Invalid",
        own.write("x", &Tensor::from_f32([3], &[0.0; 3])),
    );

    println!("figure faults refused: | while | what | error |");
    println!("figure faults refused: |---|---|---|");
    let mut failures = Vec::new();
    for (when, what, expected, found) in &cells {
        println!("figure faults refused: | {when} | {what} | `{expected}` |");
        if !found.starts_with(&format!("{expected}:")) {
            failures.push(format!("{when}, {what}: {expected} expected, found {found}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    // All of them go on.
    for gpu in [&whole, &plain] {
        assert_eq!(answer(gpu)?, wanted);
    }
    Ok(())
}
