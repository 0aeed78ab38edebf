//! Scaled dot-product attention, from its definition: heads are grouped, masks added, rows without a key left empty.

use super::super::elem::Elem;
use super::super::host::Host;
use super::super::import::{Import, Node, Result, Value, ints, number, size, with_int, with_ints};
use super::Row;
use super::typed;

pub const ROWS: &[(&str, Row)] = &[("Attention", attention)];

fn call(import: &mut Import, op: &str, inputs: &[&Value]) -> Result<Value> {
    import.call(op, inputs, vec![])
}

fn dims(shape: &[usize]) -> Value {
    ints(&shape.iter().map(|&d| d as i64).collect::<Vec<_>>())
}

/// `[n, tokens, heads · d]` as `[n, heads, tokens, d]`.
fn heads(import: &mut Import, value: &Value, count: i64) -> Result<Value> {
    match *value.shape() {
        [n, tokens, width] => {
            let count = size(count)?;
            if count == 0 || !width.is_multiple_of(count) {
                return Err(format!("{width} channels are not {count} heads"));
            }
            let split = call(import, "Reshape", &[value, &dims(&[n, tokens, count, width / count])])?;
            import.call("Transpose", &[&split], vec![with_ints("perm", &[0, 2, 1, 3])])
        }
        [_, _, _, _] => Ok(value.clone()),
        _ => Err(format!("wants three or four axes, found {:?}", value.shape())),
    }
}

/// Each head so many times, one after another.
fn repeated(import: &mut Import, value: &Value, times: usize) -> Result<Value> {
    let &[n, heads, tokens, d] = value.shape() else { return Err("wants four axes".to_owned()) };
    if times == 1 {
        return Ok(value.clone());
    }
    let apart = call(import, "Reshape", &[value, &dims(&[n, heads, 1, tokens, d])])?;
    let wide = call(import, "Expand", &[&apart, &dims(&[n, heads, times, tokens, d])])?;
    call(import, "Reshape", &[&wide, &dims(&[n, heads * times, tokens, d])])
}

fn attention(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let elem = node.input(0)?.elem();
    // Half precision is specified to round between the steps.
    if elem != Elem::F32 {
        return Err(format!("{elem} is not supported"));
    }
    let flat = node.input(0)?.rank() == 3;
    let (q_heads, kv_heads) = (node.int("q_num_heads", 0), node.int("kv_num_heads", 0));
    let q = heads(import, node.input(0)?, q_heads)?;
    let mut k = heads(import, node.input(1)?, kv_heads)?;
    let mut v = heads(import, node.input(2)?, kv_heads)?;
    let past = match (node.optional(4), node.optional(5)) {
        (Some(past_k), Some(past_v)) => {
            k = import.call("Concat", &[past_k, &k], vec![with_int("axis", 2)])?;
            v = import.call("Concat", &[past_v, &v], vec![with_int("axis", 2)])?;
            past_k.shape().get(2).copied()
        }
        (None, None) => None,
        _ => return Err("past keys and values go together".to_owned()),
    };
    let (present_k, present_v) = (k.clone(), v.clone());
    let (&[n, hq, lq, d], &[_, hk, lk, _]) = (q.shape(), k.shape()) else {
        return Err("query and key must have three or four axes".to_owned());
    };
    if hk == 0 || !hq.is_multiple_of(hk) {
        return Err(format!("{hq} heads of queries do not share {hk} of keys"));
    }
    k = repeated(import, &k, hq / hk)?;
    v = repeated(import, &v, hq / hk)?;
    let scale = match node.has("scale") {
        true => f64::from(node.float("scale", 1.0)),
        false => 1.0 / (d as f64).sqrt(),
    };
    let keys = import.call("Transpose", &[&k], vec![with_ints("perm", &[0, 1, 3, 2])])?;
    let scaled = call(import, "Mul", &[&q, &number(elem, scale)])?;
    let raw = call(import, "MatMul", &[&scaled, &keys])?;
    let cap = f64::from(node.float("softcap", 0.0));
    let capped = match cap > 0.0 {
        true => {
            let x = call(import, "Div", &[&raw, &number(elem, cap)])?;
            let x = call(import, "Tanh", &[&x])?;
            call(import, "Mul", &[&x, &number(elem, cap)])?
        }
        false => raw.clone(),
    };
    let bias = bias(import, node, [n, lq, lk], past, elem)?;
    let (scores, probabilities) = match &bias {
        None => {
            let p = import.call("Softmax", &[&capped], vec![with_int("axis", 3)])?;
            (capped.clone(), p)
        }
        Some(bias) => {
            let scores = call(import, "Add", &[&capped, bias])?;
            let p = import.call("Softmax", &[&scores], vec![with_int("axis", 3)])?;
            // A query that sees no key takes nothing.
            let most = import.call("ReduceMax", &[bias], vec![with_ints("axes", &[-1])])?;
            let blind = call(import, "Equal", &[&most, &number(elem, f64::NEG_INFINITY)])?;
            let p = call(import, "Where", &[&blind, &number(elem, 0.0), &p])?;
            (scores, p)
        }
    };
    let mut y = call(import, "MatMul", &[&probabilities, &v])?;
    if flat {
        y = import.call("Transpose", &[&y], vec![with_ints("perm", &[0, 2, 1, 3])])?;
        let width = v.shape()[1] * v.shape()[3];
        y = call(import, "Reshape", &[&y, &dims(&[n, lq, width])])?;
    }
    let shown = match node.int("qk_matmul_output_mode", 0) {
        0 => raw,
        1 => capped,
        2 => scores,
        3 => probabilities,
        other => return Err(format!("qk_matmul_output_mode {other} is not known")),
    };
    Ok(vec![y, present_k, present_v, shown])
}

/// What is added to the scores: 0 or a number where a key is seen, −∞ where not.
fn bias(
    import: &mut Import,
    node: &Node,
    [n, lq, lk]: [usize; 3],
    past: Option<usize>,
    elem: Elem,
) -> Result<Option<Value>> {
    let (zero, hidden) = (number(elem, 0.0), number(elem, f64::NEG_INFINITY));
    let mut all: Vec<Value> = Vec::new();
    if let Some(mask) = node.optional(3) {
        let missing = lk.saturating_sub(*mask.shape().last().ok_or("a mask must have axes")?);
        let mut mask = match mask.elem() {
            Elem::Bool => call(import, "Where", &[mask, &zero, &hidden])?,
            _ => mask.clone(),
        };
        if missing > 0 {
            let mut shape = mask.shape().to_vec();
            *shape.last_mut().expect("checked above") = missing;
            import.room(&shape)?;
            let count = shape.iter().product();
            let rest = Value::Host(Host::floats(elem, shape, vec![f64::NEG_INFINITY; count]));
            mask = import.call("Concat", &[&mask, &rest], vec![with_int("axis", -1)])?;
        }
        all.push(mask);
    }
    let lengths = node.optional(6);
    let causal = node.int("is_causal", 0) != 0;
    let (left, right) = (node.int("left_window_size", -1), node.int("right_window_size", -1));
    let seen = |distance: i64| {
        !(causal && distance < 0) && (left < 0 || distance <= left) && (right < 0 || -distance <= right)
    };
    if causal || left >= 0 || right >= 0 || lengths.is_some() {
        import.room(&[lq, lk])?;
    }
    let limited = causal || left >= 0 || right >= 0;
    match lengths {
        None if limited => {
            let offset = past.unwrap_or(0) as i64;
            let see = (0..lq * lk).map(|i| seen((i / lk) as i64 + offset - (i % lk) as i64));
            let values = see.map(|s| if s { 0.0 } else { f64::NEG_INFINITY }).collect();
            all.push(Value::Host(Host::floats(elem, vec![lq, lk], values)));
        }
        Some(lengths) => {
            // How many keys of each sample there are is only known in a run.
            let lengths = typed::cast(import, lengths, Elem::I64)?;
            let lengths = call(import, "Reshape", &[&lengths, &dims(&[n, 1, 1, 1])])?;
            let place = |shape: Vec<usize>, f: &dyn Fn(usize) -> i64| {
                let count = shape.iter().product();
                Value::Host(Host::ints(Elem::I64, shape, (0..count).map(f).collect()))
            };
            let keys = place(vec![1, 1, 1, lk], &|j| j as i64);
            let mut see = call(import, "Less", &[&keys, &lengths])?;
            if limited {
                let from = place(vec![1, 1, lq, lk], &|i| (i / lk) as i64 - (i % lk) as i64 - lq as i64);
                let distance = call(import, "Add", &[&from, &lengths])?;
                let limits = [
                    (causal, "GreaterOrEqual", 0),
                    (left >= 0, "LessOrEqual", left),
                    (right >= 0, "GreaterOrEqual", -right),
                ];
                for (_, op, limit) in limits.into_iter().filter(|l| l.0) {
                    let within = call(import, op, &[&distance, &number(Elem::I64, limit as f64)])?;
                    see = call(import, "And", &[&see, &within])?;
                }
            }
            all.push(call(import, "Where", &[&see, &zero, &hidden])?);
        }
        None => {}
    }
    let Some(first) = all.first().cloned() else { return Ok(None) };
    all[1..].iter().try_fold(first, |sum, next| call(import, "Add", &[&sum, next])).map(Some)
}
