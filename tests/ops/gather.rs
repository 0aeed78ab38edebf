use crate::harness::{Array, Case, Rng};

fn gather(table: &Array, indices: &Array, axis: usize) -> Array {
    let rank = indices.shape.len();
    let shape = [&table.shape[..axis], &indices.shape, &table.shape[axis + 1..]].concat();
    Array::from_fn(&shape, |i| {
        let row = (indices.at(&i[axis..axis + rank]) as usize).min(table.shape[axis] - 1);
        table.at(&[&i[..axis], &[row], &i[axis + rank..]].concat())
    })
}

#[test]
fn along_every_axis_past_the_end_too() {
    let mut rng = Rng::new("gather");
    for shape in [vec![37, 96], vec![10, 7], vec![5], vec![2, 3, 5, 8], vec![1, 1, 3]] {
        for indices in [vec![1], vec![2, 9], vec![3, 1, 2]] {
            for axis in 0..shape.len() {
                let table = rng.array(&shape);
                // A quarter of the indices lies past the end.
                let k = rng.indices(&indices, (shape[axis] * 4).div_ceil(3));
                Case::new(format!("gather {shape:?} {indices:?} {axis}"))
                    .weight(&table)
                    .indices(&k)
                    .check(|g, v| g.gather(v[0], v[1], axis), |a| gather(&a[0], &a[1], axis));
            }
        }
    }
}

/// The clamp to the last row has nowhere to go in a table without rows.
#[test]
fn an_empty_table_is_an_error() {
    let mut graph = aquatint::Graph::new();
    let table = graph.input("table", [0, 4], aquatint::DType::F32);
    let indices = graph.input("indices", [3], aquatint::DType::U32);
    let result = graph.gather(table, indices, 0);
    assert!(result.is_err_and(|e| e.to_string().contains("empty")));
}
