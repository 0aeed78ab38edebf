use aquatint::ops::conv_transpose2d::ConvTranspose2dOptions;
use proptest::prelude::*;

use crate::harness::{Array, Case, Rng};

/// Scatters each source pixel over the result, by the definition.
pub fn conv_transpose2d(x: &Array, w: &Array, bias: Option<&Array>, o: &ConvTranspose2dOptions) -> Array {
    let [n, height, width, c_in] = x.shape[..] else { panic!() };
    let [_, group_out, kh, kw] = w.shape[..] else { panic!() };
    let size = |axis: usize, size: usize, k: usize| {
        (size - 1) * o.stride[axis] + o.dilation[axis] * (k - 1) + 1 + o.output_padding[axis]
            - o.padding[axis]
            - o.padding[axis + 2]
    };
    let (oh, ow, c_out) = (size(0, height, kh), size(1, width, kw), group_out * o.groups);
    let mut dst = Array::from_fn(&[n, oh, ow, c_out], |i| bias.map_or(0.0, |b| b.at(&[i[3]])));
    for b in 0..n {
        for v in 0..height {
            for u in 0..width {
                for ky in 0..kh {
                    for kx in 0..kw {
                        let y = (v * o.stride[0] + ky * o.dilation[0]).wrapping_sub(o.padding[0]);
                        let x_at = (u * o.stride[1] + kx * o.dilation[1]).wrapping_sub(o.padding[1]);
                        if y >= oh || x_at >= ow {
                            continue;
                        }
                        for c in 0..c_in {
                            let group = c / (c_in / o.groups);
                            for k in 0..group_out {
                                let at = ((b * oh + y) * ow + x_at) * c_out + group * group_out + k;
                                dst.data[at] += x.at(&[b, v, u, c]) * w.at(&[c, k, ky, kx]);
                            }
                        }
                    }
                }
            }
        }
    }
    dst
}

fn check(x: [usize; 4], w: [usize; 4], options: ConvTranspose2dOptions, bias: bool) {
    let name = format!("conv_transpose2d {x:?} {w:?} {options:?} bias {bias}");
    let mut rng = Rng::new(&name);
    let mut case = Case::new(name).input(&rng.array(&x)).weight(&rng.array(&w)).played();
    if bias {
        case = case.weight(&rng.array(&[w[1] * options.groups]));
    }
    case.check(
        |g, v| g.conv_transpose2d(v[0], v[1], v.get(2).copied(), options),
        |a| conv_transpose2d(&a[0], &a[1], a.get(2), &options),
    );
}

#[test]
fn upsampling_layers() {
    let double = ConvTranspose2dOptions { stride: [2; 2], ..Default::default() };
    check([2, 8, 8, 32], [32, 16, 2, 2], double, true);
    check([1, 7, 5, 16], [16, 8, 4, 4], ConvTranspose2dOptions { padding: [1; 4], ..double }, false);
    let odd = ConvTranspose2dOptions { padding: [1; 4], output_padding: [1; 2], ..double };
    check([1, 7, 5, 6], [6, 3, 3, 3], odd, true);
}

/// Computed as one product: every pixel with every tap, few pixels and many, taps that overlap, leave gaps or are cut off.
#[test]
fn as_a_product() {
    let double = ConvTranspose2dOptions { stride: [2; 2], ..Default::default() };
    check([1, 33, 17, 16], [16, 12, 2, 2], double, true);
    check([2, 9, 6, 12], [12, 20, 4, 4], ConvTranspose2dOptions { padding: [1; 4], ..double }, true);
    let odd = ConvTranspose2dOptions { padding: [1, 0, 2, 1], output_padding: [1; 2], ..double };
    check([1, 7, 5, 8], [8, 4, 3, 3], odd, false);
    check([1, 2, 3, 64], [64, 36, 3, 4], ConvTranspose2dOptions { stride: [1, 3], ..double }, true);
    check(
        [1, 5, 4, 20],
        [20, 8, 2, 1],
        ConvTranspose2dOptions { stride: [3, 2], output_padding: [2, 1], ..double },
        true,
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_attributes(
        n in 1usize..3, h in 2usize..6, w in 2usize..6, groups in 1usize..4, c in 1usize..9, k in 1usize..9,
        kernel in (1usize..4, 1usize..4), stride in (1usize..4, 1usize..4), dilation in (1usize..3, 1usize..3),
        pads in any::<[usize; 4]>(), more in any::<[usize; 2]>(), bias in any::<bool>(),
    ) {
        let reach = |d: usize, k: usize| d * (k - 1) + 1;
        let (ry, rx) = (reach(dilation.0, kernel.0), reach(dilation.1, kernel.1));
        let options = ConvTranspose2dOptions {
            stride: [stride.0, stride.1],
            // Less than half of the window and of a stride's room, so that something is left.
            padding: [pads[0] % ry.div_ceil(2), pads[1] % rx.div_ceil(2), pads[2] % ry.div_ceil(2), pads[3] % rx.div_ceil(2)],
            output_padding: [more[0] % stride.0.max(dilation.0), more[1] % stride.1.max(dilation.1)],
            dilation: [dilation.0, dilation.1],
            groups,
        };
        check([n, h, w, c * groups], [c * groups, k, kernel.0, kernel.1], options, bias);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let mut graph = aquatint::Graph::new();
    let x = graph.input("x", [1, 4, 4, 6], aquatint::DType::F32);
    let w = graph.input("w", [6, 2, 3, 3], aquatint::DType::F32);
    let good = ConvTranspose2dOptions::default();
    assert!(graph.conv_transpose2d(x, w, None, good).is_ok());
    for options in [
        ConvTranspose2dOptions { groups: 4, ..good },
        ConvTranspose2dOptions { stride: [0, 1], ..good },
        ConvTranspose2dOptions { output_padding: [1, 0], ..good },
        ConvTranspose2dOptions { padding: [3; 4], ..good },
    ] {
        assert!(graph.conv_transpose2d(x, w, None, options).is_err(), "{options:?}");
    }
    assert!(graph.conv_transpose2d(w, x, None, good).is_err());
    assert!(graph.conv_transpose2d(x, w, Some(w), good).is_err());
}
