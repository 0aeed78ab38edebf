//! Gives each operation that can be computed in several ways the one that suits
//! the device, and its weight the order that this way wants.

use crate::error::Result;
use crate::graph::{Graph, Source, ValueId};
use crate::ops::Op;
use crate::ops::conv2d::{Conv2d, Method};
use crate::ops::pad::PadMode;
use crate::ops::quantized::BlockFormat;
use crate::target::Target;
use crate::tensor::TensorDesc;

/// A choice: of the convolution, the device, source and result, and the format of its blocks, if it is to have any.
pub(crate) type Choice<'a> =
    dyn Fn(&Conv2d, &Target, &TensorDesc, &TensorDesc, Option<BlockFormat>) -> Method + 'a;

/// What was measured to be best, else what the model of costs says.
pub(crate) fn own(
    conv: &Conv2d,
    target: &Target,
    source: &TensorDesc,
    output: &TensorDesc,
    format: Option<BlockFormat>,
) -> Method {
    let tuned = conv.tuned(target, source, output, format);
    tuned.unwrap_or_else(|| conv.choose(target, source, output, format))
}

/// Gives every convolution the method that is chosen, and repacks its weight.
pub(crate) fn choose(graph: &Graph, target: &Target, method: &Choice) -> Result<Graph> {
    let (constant, while_loading) = (graph.constants(), target.while_loading());
    graph.rewrite(|new, id, value, inputs| {
        let Source::Op { op: Op::Conv2d(conv), .. } = &value.source else {
            return new.keep(value, inputs);
        };
        let target = if constant[id.index()] { &while_loading } else { target };
        let mut conv = conv.clone();
        let mut inputs = inputs.to_vec();
        let format = new.block_format(inputs[1]);
        let method = method(&conv, target, new.desc(inputs[0]), &value.desc, format);
        conv.method = Some(method);
        if matches!(method, Method::Texels(_)) {
            inputs[0] = whole_quads(new, inputs[0])?;
        }
        if let Some(packing) = conv.packing(method) {
            inputs[1] = new.push_named(value.name.clone(), packing.into(), &[inputs[1]])?;
        }
        new.push_named(value.name.clone(), conv.into(), &inputs)
    })
}

/// A feature map with channels of zeros up to a multiple of four: a texel holds four.
fn whole_quads(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let channels = g.shape(x).last();
    let after = channels.next_multiple_of(4) - channels;
    g.pad(x, &[[0, 0], [0, 0], [0, 0], [0, after]], PadMode::Constant(0.0))
}
