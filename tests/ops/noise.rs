use aquatint::diffusion::{Row, cuda_normal, philox_block};
use aquatint::{DType, Graph, Network, Tensor, ValueId};

use crate::harness::{Array, Rng, compare, examined, gpu};

/// Runs one operation on seeds.
fn run(seeds: &[u64], build: impl FnOnce(&mut Graph, ValueId) -> ValueId) -> Option<Tensor> {
    let mut graph = Graph::new();
    let input = graph.input("seeds", [seeds.len(), 2], DType::U32);
    let result = build(&mut graph, input);
    graph.output("result", result);
    let network = Network::new(gpu()?, &graph).unwrap();
    network.poison().unwrap();
    let words: Vec<u32> = seeds.iter().flat_map(|&s| [s as u32, (s >> 32) as u32]).collect();
    let seeds = Tensor::from_u32([seeds.len(), 2], &words);
    examined(gpu()?, "noise", &graph, &[("seeds", &seeds)]);
    Some(network.run(&[("seeds", &seeds)]).unwrap().remove(0))
}

const SHAPES: [[usize; 3]; 4] = [[32, 32, 1], [1, 1, 1], [5, 7, 3], [16, 16, 4]];

fn seeds(rng: &mut Rng) -> Vec<u64> {
    vec![0, u64::MAX, 1 << 32, rng.bits()]
}

#[test]
fn bits_are_those_of_philox() {
    let mut rng = Rng::new("noise bits");
    let seeds = seeds(&mut rng);
    for [h, w, c] in SHAPES {
        for (word, draw) in [0, 1, 1000, u32::MAX].into_iter().enumerate() {
            let Some(found) = run(&seeds, |g, s| g.noise_bits(s, [h, w, c], draw, word).unwrap()) else {
                return;
            };
            let found: Vec<u32> = bytemuck::pod_collect_to_vec(&found.bytes);
            let mut at = found.iter();
            for &seed in &seeds {
                for pixel in 0..h * w {
                    for channel in 0..c {
                        // Numbered channels first, written channels last.
                        let index = (channel * h * w + pixel) as u32;
                        assert_eq!(
                            *at.next().unwrap(),
                            philox_block(seed, draw, index)[word],
                            "{seed} {draw} {index}"
                        );
                    }
                }
            }
            assert!(at.next().is_none());
        }
    }
}

#[test]
fn normals_are_those_of_pytorch_on_cuda() {
    let mut rng = Rng::new("noise");
    let seeds = seeds(&mut rng);
    for [h, w, c] in SHAPES {
        for draw in [0, 7] {
            let Some(found) = run(&seeds, |g, s| g.noise(s, [h, w, c], draw).unwrap()) else { return };
            let expected = Array::from_fn(&[seeds.len(), h, w, c], |i| {
                let index = ((i[3] * h + i[1]) * w + i[2]) as u32;
                f64::from(cuda_normal(seeds[i[0]], draw, index))
            });
            compare(&format!("noise {h}×{w}×{c}, draw {draw}"), &found.to_f32(), &expected, 1e-5);
        }
    }
}

#[test]
fn a_row_says_which_draw() {
    let mut rng = Rng::new("noise of a row");
    let seeds = seeds(&mut rng);
    for ([h, w, c], draw) in SHAPES.into_iter().zip([1, 2, 77, 4000]) {
        let row = Row { draw, ..Row::default() }.to_f32();
        let found = run(&seeds, |g, s| {
            let row = g.weight("row", Tensor::from_f32([1, row.len()], &row));
            g.noise_of_row(s, [h, w, c], row).unwrap()
        });
        let fixed = run(&seeds, |g, s| g.noise(s, [h, w, c], draw).unwrap());
        let (Some(found), Some(fixed)) = (found, fixed) else { return };
        assert_eq!(found.to_f32(), fixed.to_f32(), "draw {draw}");
    }
}
