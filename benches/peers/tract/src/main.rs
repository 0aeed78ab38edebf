//! tract on the CPU as a peer of `benches/peers.rs`: FOLDER/ITEM.onnx, made by `benches/peers/export.py`.

#[path = "../../serve.rs"]
mod serve;

use std::sync::Arc;

use serve::{Prepared, Trouble, serve};
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::*;

struct Loaded {
    model: Arc<TypedRunnableModel>,
    inputs: TVec<TValue>,
}

impl Prepared for Loaded {
    fn run(&mut self, runs: u32) -> Result<(), String> {
        (0..runs).try_for_each(|_| self.model.run(self.inputs.clone()).map(drop)).map_err(|e| format!("{e:#}"))
    }

    fn answer(&mut self) -> Result<Vec<f32>, String> {
        let outputs = self.model.run(self.inputs.clone()).map_err(|error| format!("{error:#}"))?;
        let output = outputs[0].to_plain_array_view::<f32>().map_err(|error| format!("{error:#}"))?;
        Ok(output.iter().copied().collect())
    }
}

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    set_default_executor(Executor::multithread(threads));
    serve(("tract 0.23.9", &format!("CPU, {threads} threads for products"), false), |items, item| {
        let load = || -> TractResult<Loaded> {
            let mut model = tract_onnx::onnx().model_for_path(items.path(item, "onnx"))?;
            let mut inputs = tvec!();
            let given = items.inputs(item);
            for at in 0..model.input_outlets()?.len() {
                let name = model.node(model.input_outlets()?[at].node).name.clone();
                let x = &given.iter().find(|(known, _)| *known == name).expect("inputs are called as in the file").1;
                model.set_input_fact(at, f32::fact(&x.shape).into())?;
                inputs.push(Tensor::from_shape(&x.shape, &x.values)?.into_tvalue());
            }
            let model = model.into_optimized()?.into_runnable()?;
            Ok(Loaded { model, inputs })
        };
        match load() {
            Ok(loaded) => Ok(Box::new(loaded)),
            Err(error) => Err(Trouble::Failed(format!("{error:#}"))),
        }
    });
}
