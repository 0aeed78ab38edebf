//! Gives each operation that can be computed in several ways the one that suits
//! the device, and its weight the order that this way wants.

use std::collections::HashMap;

use crate::error::Result;
use crate::graph::{Graph, Source, Value, ValueId};
use crate::ops::Op;
use crate::ops::conv2d::{AtPoints, Conv2d, Method};
use crate::ops::pad::PadMode;
use crate::ops::quantized::BlockFormat;
use crate::target::Target;
use crate::tensor::TensorDesc;

/// Where each convolution's method comes from: what was measured to be best, else what the model of costs says.
pub(crate) fn own(
    graph: &Graph,
    target: &Target,
) -> impl Fn(ValueId, &Conv2d, &Target, &TensorDesc, &TensorDesc, Option<BlockFormat>) -> Method + use<> {
    let at_points = at_points(graph, target);
    move |id, conv, target, source, output, format| {
        match (conv.tuned(target, source, output, format), at_points.get(&id)) {
            // Winograd's way only where there is room for its weight.
            (Some(method), _) if !matches!(method, Method::Winograd(_)) => method,
            (_, Some(method)) => *method,
            _ => conv.choose(target, source, output, format),
        }
    }
}

/// How each convolution is computed by [`own`] choice; none for what is no convolution, or one of weights alone.
pub(crate) fn methods(graph: &Graph, target: &Target) -> Vec<Option<Method>> {
    let (constant, choice) = (graph.constants(), own(graph, target));
    let method = |(id, value): (ValueId, &Value)| match &value.source {
        Source::Op { op: Op::Conv2d(conv), inputs } if !constant[id.index()] => {
            let format = graph.block_format(inputs[1]);
            Some(choice(id, conv, target, graph.desc(inputs[0]), &value.desc, format))
        }
        _ => None,
    };
    graph.values().map(method).collect()
}

/// The choice for a network at another size, where these are its methods: with tiles that suit this one, and the same sums in
/// the same order.
pub(crate) fn like(
    graph: &Graph,
    target: &Target,
    methods: &[Option<Method>],
) -> impl Fn(ValueId, &Conv2d, &Target, &TensorDesc, &TensorDesc, Option<BlockFormat>) -> Method {
    let own = own(graph, target);
    move |id, conv, target, source, output, format| match methods[id.index()] {
        Some(method) => conv.like(method, target, source, output, format),
        None => own(id, conv, target, source, output, format),
    }
}

/// The convolutions that go Winograd's way: those that save most for the bytes that it takes, as long as there are some to
/// spare.
fn at_points(graph: &Graph, target: &Target) -> HashMap<ValueId, Method> {
    let constant = graph.constants();
    let mut offers: Vec<(ValueId, AtPoints)> = graph
        .values()
        .filter(|(id, _)| !constant[id.index()])
        .filter_map(|(id, value)| {
            let Source::Op { op: Op::Conv2d(conv), inputs } = &value.source else { return None };
            if graph.block_format(inputs[1]).is_some() {
                return None;
            }
            Some((id, conv.choose_at_points(target, graph.desc(inputs[0]), &value.desc)?))
        })
        .collect();
    offers.sort_by(|(_, a), (_, b)| {
        (b.saved as u128 * u128::from(a.bytes)).cmp(&(a.saved as u128 * u128::from(b.bytes)))
    });
    let mut left = target.spare;
    offers.retain(|(_, offer)| {
        let fits = offer.bytes <= left;
        if fits {
            left -= offer.bytes;
        }
        fits
    });
    offers.into_iter().map(|(id, offer)| (id, offer.method)).collect()
}

/// A choice: of the convolution and its place in the graph, the device, source and result, and the format of its blocks, if
/// it is to have any.
pub(crate) type Choice<'a> =
    dyn Fn(ValueId, &Conv2d, &Target, &TensorDesc, &TensorDesc, Option<BlockFormat>) -> Method + 'a;

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
        let method = method(id, &conv, target, new.desc(inputs[0]), &value.desc, format);
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

#[cfg(test)]
mod tests {
    use super::super::testing::{input, weight};
    use super::*;
    use crate::ops::conv2d::Conv2dOptions;
    use crate::target::DeviceClass;

    #[test]
    fn winograds_way_takes_what_there_is_to_spare() {
        let mut g = Graph::new();
        let mut x = input(&mut g, &[1, 56, 56, 64]);
        for _ in 0..2 {
            let w = weight(&mut g, &[64, 64, 3, 3]);
            x = g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap();
        }
        g.output("y", x);
        let one = 64 * 64 * (36 - 9) * 4;
        for (class, spare, expected) in [
            (DeviceClass::Cpu, 2 * one, 2),
            (DeviceClass::Cpu, 2 * one - 1, 1),
            (DeviceClass::Cpu, 0, 0),
            (DeviceClass::Discrete, 2 * one, 0),
        ] {
            let target = Target { class, spare, ..Target::typical() };
            let graph = super::super::optimise(&g, &target).unwrap();
            let by_points = |source: &Source| match source {
                Source::Op { op: Op::Conv2d(conv), .. } => matches!(conv.method, Some(Method::Winograd(_))),
                _ => false,
            };
            let found = graph.values().filter(|(_, value)| by_points(&value.source)).count();
            assert_eq!(found, expected, "{class:?}, {spare} bytes to spare");
        }
    }
}
