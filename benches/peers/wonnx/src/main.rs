//! wonnx as a peer of `benches/peers.rs`: FOLDER/ITEM.onnx, made by `benches/peers/export.py`.
//!
//! wonnx takes its input from the host and gives its output to the host in each run. It takes the adapter that
//! WGPU_ADAPTER_NAME names, or the first.

#[path = "../../serve.rs"]
mod serve;

use std::collections::HashMap;

use serve::{Numbers, Prepared, Trouble, serve};

struct Loaded {
    session: wonnx::Session,
    inputs: Vec<(&'static str, Numbers)>,
}

impl Prepared for Loaded {
    fn run(&mut self, runs: u32) -> Result<(), String> {
        (0..runs).try_for_each(|_| self.answer().map(drop))
    }

    fn answer(&mut self) -> Result<Vec<f32>, String> {
        let inputs: HashMap<_, _> =
            self.inputs.iter().map(|(name, x)| ((*name).to_owned(), x.values.as_slice().into())).collect();
        let outputs = pollster::block_on(self.session.run(&inputs)).map_err(|error| format!("{error:?}"))?;
        let output = outputs.into_values().next().ok_or("no output")?;
        output.try_into().map_err(|error| format!("{error:?}"))
    }
}

fn main() {
    serve(("wonnx 0.5.1", "wgpu's first adapter", true), |items, item| {
        let path = items.path(item, "onnx");
        let session = pollster::block_on(wonnx::Session::from_path(&path));
        let session = session.map_err(|error| Trouble::Failed(error.to_string()))?;
        Ok(Box::new(Loaded { session, inputs: items.inputs(item) }))
    });
}
