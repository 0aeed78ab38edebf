//! Gives each operation that can be computed in several ways the one that suits
//! the device, and its weight the order that this way wants.

use std::collections::HashMap;

use super::pack_on_host::host_has;
use crate::error::Result;
use crate::graph::{Graph, MOST_ELEMENTS, Source, Value, ValueId};
use crate::ops::conv2d::{AtPoints, Conv2d, Method};
use crate::ops::pad::PadMode;
use crate::ops::quantized::BlockFormat;
use crate::ops::{Op, Operator as _};
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
            (Some(method), _) if !matches!(method, Method::Winograd { .. }) => method,
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

/// A step that a convolution can take: to Winograd's squares, or from those of 2×2 to those of 4×4.
struct Step {
    id: ValueId,
    method: Method,
    /// Of what the graph's convolutions cost, in multiply-adds of a lane.
    saved: usize,
    bytes: u64,
}

/// The convolutions that go Winograd's way: steps are taken in the order of what they save for a byte of the weight, as long
/// as there are bytes to spare. This is Dantzig's way to pack a knapsack (1957), where an item may be packed in two sizes.
fn at_points(graph: &Graph, target: &Target) -> HashMap<ValueId, Method> {
    let constant = graph.constants();
    let mut steps: Vec<Step> = Vec::new();
    for (id, value) in graph.values().filter(|(id, _)| !constant[id.index()]) {
        let Source::Op { op: Op::Conv2d(conv), inputs } = &value.source else { continue };
        let (source, format) = (graph.desc(inputs[0]), graph.block_format(inputs[1]));
        if format.is_some() {
            continue;
        }
        let stored = host_has(graph, target, inputs[1]).is_some();
        let mut offers = conv.at_points(target, source, &value.desc, stored);
        match conv.tuned(target, source, &value.desc, None) {
            // Where one was measured, no other.
            Some(tuned) => {
                offers.retain(|offer| same_squares(offer.method, tuned));
                offers.iter_mut().for_each(|offer| offer.method = tuned);
            }
            None => offers.retain(AtPoints::is_quicker),
        }
        steps.extend(steps_of(id, &offers));
    }
    steps.sort_by(|a, b| {
        (b.saved as u128 * u128::from(a.bytes)).cmp(&(a.saved as u128 * u128::from(b.bytes)))
    });
    let mut left = target.spare;
    let mut chosen = HashMap::new();
    for step in steps {
        if step.bytes <= left {
            left -= step.bytes;
            chosen.insert(step.id, step.method);
        }
    }
    chosen
}

fn same_squares(a: Method, b: Method) -> bool {
    matches!((a, b), (Method::Winograd { squares: a, .. }, Method::Winograd { squares: b, .. }) if a == b)
}

/// One step for each offer, from the one before it; offers come with their bytes ascending. A step that would save less for
/// a byte than the one after it is none: both are one.
fn steps_of(id: ValueId, offers: &[AtPoints]) -> Vec<Step> {
    let step = |before: Option<&AtPoints>, offer: &AtPoints| {
        let (saved, bytes) = before.map_or((0, 0), |before| (before.saved(), before.bytes));
        let saved = offer.saved().checked_sub(saved).filter(|saved| *saved > 0)?;
        Some(Step { id, method: offer.method, saved, bytes: offer.bytes - bytes })
    };
    match offers {
        [two, four] => match [step(None, two), step(Some(two), four), step(None, four)] {
            [Some(first), Some(second), whole] => {
                let rises = second.saved as u128 * u128::from(first.bytes)
                    > first.saved as u128 * u128::from(second.bytes);
                if rises { whole.into_iter().collect() } else { vec![first, second] }
            }
            [first, ..] => first.into_iter().collect(),
        },
        _ => offers.iter().filter_map(|offer| step(None, offer)).collect(),
    }
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
            // No operation of the caller's: what is wrong with it is that there is no room for it.
            if let Ok(packed) = packing.infer(&[new.desc(inputs[1])]) {
                let most = MOST_ELEMENTS as u64 * packed.dtype.bytes() as u64;
                let what = || format!("the packed weight of conv2d \"{}\"", value.name);
                target.check(what, packed.bytes(), most.min(target.max_buffer))?;
            }
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
    use crate::error::Error;
    use crate::ops::conv2d::{Conv2dOptions, Squares};
    use crate::target::DeviceClass;
    use crate::tensor::DType;
    use crate::tuning::Tuning;

    #[test]
    fn a_weight_beyond_memory_once_packed_is_a_limit() {
        let mut g = Graph::new();
        let x = input(&mut g, &[1, 4, 4, 1]);
        let side = 1 << 15;
        let w = g.input("w", [1, 1, side, side], DType::F32);
        let y = g.conv2d(x, w, None, Conv2dOptions::padded(side / 2)).unwrap();
        g.output("y", y);
        let error = super::super::optimise(&g, &Target::typical()).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }

    /// How many convolutions go Winograd's way in squares of 2 × 2 and of 4 × 4.
    fn ways(g: &Graph, target: &Target) -> [usize; 2] {
        let graph = super::super::optimise(g, target).unwrap();
        let ways = graph.values().filter_map(|(_, value)| match &value.source {
            Source::Op { op: Op::Conv2d(conv), .. } => conv.method,
            _ => None,
        });
        ways.fold([0, 0], |[two, four], method| match method {
            Method::Winograd { squares: Squares::Two, .. } => [two + 1, four],
            Method::Winograd { squares: Squares::Four, .. } => [two, four + 1],
            _ => [two, four],
        })
    }

    fn two_convolutions(side: usize, channels: usize) -> Graph {
        let mut g = Graph::new();
        let mut x = input(&mut g, &[1, side, side, channels]);
        for _ in 0..2 {
            let w = weight(&mut g, &[channels, channels, 3, 3]);
            x = g.conv2d(x, w, None, Conv2dOptions::padded(1)).unwrap();
        }
        g.output("y", x);
        g
    }

    #[test]
    fn winograds_way_takes_what_there_is_to_spare() {
        for (class, side, channels) in [(DeviceClass::Cpu, 56, 64), (DeviceClass::Integrated, 32, 256)] {
            let g = two_convolutions(side, channels);
            let [two, four] = [16, 36].map(|points| (channels * channels * (points - 9) * 4) as u64);
            for (spare, expected) in [
                (2 * four, [0, 2]),
                (2 * four - 1, [1, 1]),
                (two + four - 1, [2, 0]),
                (two, [1, 0]),
                (two - 1, [0, 0]),
            ] {
                let target = Target { class, spare, ..Target::typical() };
                assert_eq!(ways(&g, &target), expected, "{class:?}, {spare} bytes to spare");
            }
        }
        // On a GPU of its own memory that is too little work.
        assert_eq!(ways(&two_convolutions(56, 64), &Target::typical()), [0, 0]);
    }

    /// The model is not asked where something was measured, but there must be room.
    #[test]
    fn winograds_way_is_taken_where_it_was_measured_to_be_quicker() {
        let g = two_convolutions(16, 32);
        let target = Target::typical();
        assert_eq!(ways(&g, &target), [0, 0]);
        let [x, y] = [(); 2].map(|()| TensorDesc::new([1, 16, 16, 32], DType::F32));
        let Some(Source::Op { op: Op::Conv2d(conv), .. }) = g
            .values()
            .map(|(_, value)| &value.source)
            .find(|s| matches!(s, Source::Op { op: Op::Conv2d(_), .. }))
        else {
            panic!("a convolution")
        };
        let mut tuning = Tuning::default();
        let candidates = conv.candidates(&target, &x, &y, None);
        let names = candidates.iter().map(Method::to_string).filter(|name| name.starts_with("winograd 4×4"));
        let names: Vec<String> = names.collect();
        assert_eq!(names.len(), 4, "{names:?}");
        for name in names {
            tuning.set(conv.key(&x, &y, None), name);
            let tuned = Target { tuning: Some(tuning.clone().into()), ..target.clone() };
            assert_eq!(ways(&g, &tuned), [0, 2]);
            assert_eq!(ways(&g, &Target { spare: 32 * 32 * 27 * 4, ..tuned.clone() }), [0, 1]);
            assert_eq!(ways(&g, &Target { spare: 0, ..tuned }), [0, 0]);
        }
    }
}
