//! Branches and loops whose course is known when the network is loaded: they are written out.

use super::super::elem::Elem;
use super::super::import::{Import, Node, Result, Value, ints, number, with_int};
use super::Row;

pub const ROWS: &[(&str, Row)] = &[("If", branch), ("Loop", repeat)];

fn truth(value: &Value) -> Result<bool> {
    match value {
        Value::Host(host) => {
            host.to_floats().first().map(|&v| v != 0.0).ok_or("a condition is empty".to_owned())
        }
        Value::Device(_) => Err("its condition depends on values that are only known in a run".to_owned()),
    }
}

fn branch(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let name = if truth(node.input(0)?)? { "then_branch" } else { "else_branch" };
    let body = node.graph(name).ok_or_else(|| format!("{name} is missing"))?;
    import.body(body, &[])
}

fn repeat(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let body = node.graph("body").ok_or("its body is missing")?;
    let most = match node.optional(0) {
        Some(_) => node.ints(0)?.first().copied().unwrap_or(0),
        None => i64::MAX,
    };
    let mut go = number(Elem::Bool, 1.0);
    if let Some(condition) = node.optional(1) {
        go = condition.clone();
    }
    let mut state: Vec<Value> =
        (2..node.inputs.len()).map(|i| node.input(i).cloned()).collect::<Result<_>>()?;
    let mut rows: Vec<Vec<Value>> = vec![Vec::new(); body.output.len().saturating_sub(1 + state.len())];
    let mut turn = 0;
    while turn < most && truth(&go)? {
        let given = [vec![number(Elem::I64, turn as f64), go], state.clone()].concat();
        let mut results = import.body(body, &given)?.into_iter();
        go = results.next().ok_or("its body gives nothing")?;
        state = results.by_ref().take(state.len()).collect();
        for (rows, row) in rows.iter_mut().zip(results) {
            rows.push(import.call("Unsqueeze", &[&row, &ints(&[0])], vec![])?);
        }
        turn += 1;
    }
    for rows in rows {
        if rows.is_empty() {
            return Err("a loop that never runs is not supported".to_owned());
        }
        state.push(import.call("Concat", &rows.iter().collect::<Vec<_>>(), vec![with_int("axis", 0)])?);
    }
    Ok(state)
}
