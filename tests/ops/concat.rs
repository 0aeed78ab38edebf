use crate::harness::{Array, Case, Rng};

fn concat(inputs: &[Array], axis: usize) -> Array {
    let mut shape = inputs[0].shape.clone();
    shape[axis] = inputs.iter().map(|a| a.shape[axis]).sum();
    Array::from_fn(&shape, |index| {
        let mut index = index.to_vec();
        let mut inputs = inputs.iter();
        loop {
            let input = inputs.next().expect("the index is inside");
            if index[axis] < input.shape[axis] {
                return input.at(&index);
            }
            index[axis] -= input.shape[axis];
        }
    })
}

#[test]
fn along_every_axis() {
    let mut rng = Rng::new("concat");
    for shape in [vec![2, 3, 5, 8], vec![2, 3, 5, 7], vec![1, 1], vec![4], vec![2, 1, 3, 1, 2, 4]] {
        for axis in 0..shape.len() {
            // From two inputs, in one dispatch, to nine, in three.
            for count in [2, 3, 4, 5, 9] {
                let mut case = Case::new(format!("concat {count} of {shape:?} along {axis}"));
                for _ in 0..count {
                    let mut own = shape.clone();
                    own[axis] = match shape[axis] % 4 {
                        0 => 4 * (1 + rng.below(3)),
                        _ => 1 + rng.below(6),
                    };
                    case = case.input(&rng.array(&own));
                }
                case.check(|g, v| g.concat(v, axis), |a| concat(a, axis));
            }
        }
    }
}

#[test]
fn of_indices_and_of_one_tensor_twice() {
    let mut rng = Rng::new("concat twice");
    let x = rng.indices(&[3, 4], 1 << 20);
    Case::new("u32")
        .indices(&x)
        .check(|g, v| g.concat(&[v[0], v[0]], 1), |a| concat(&[a[0].clone(), a[0].clone()], 1));
}

/// Large enough to be read as texels on software adapters, in two dispatches.
#[test]
fn of_many_large_maps() {
    let mut rng = Rng::new("concat large");
    let mut case = Case::new("concat of six maps");
    for channels in [8, 4, 12, 8, 4, 16] {
        case = case.input(&rng.array(&[1, 64, 48, channels]));
    }
    case.check(|g, v| g.concat(v, 3), |a| concat(a, 3));
}
