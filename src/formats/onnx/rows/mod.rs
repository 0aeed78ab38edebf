//! One function for each of ONNX's operators, grouped by what they do; the table that names them.

mod attention;
mod choosing;
mod control;
mod einsum;
mod elementwise;
mod functions;
mod indexing;
mod layers;
mod microsoft;
mod movement;
mod pools;
mod quantized;
mod reduce;
mod resize;
mod sampling;
mod typed;

use super::import::{Import, Node, Result, Value};

/// Imports a node: its outputs in ONNX's order, trailing ones left out where they are not supported.
pub type Row = fn(&mut Import, &Node) -> Result<Vec<Value>>;

/// The import of an operator.
///
/// # Errors
/// Operators that are not in the table.
pub fn find(domain: &str, op: &str) -> Result<Row> {
    let standard = [
        attention::ROWS,
        choosing::ROWS,
        control::ROWS,
        einsum::ROWS,
        elementwise::ROWS,
        functions::ROWS,
        indexing::ROWS,
        layers::ROWS,
        movement::ROWS,
        pools::ROWS,
        quantized::ROWS,
        reduce::ROWS,
        sampling::ROWS,
        typed::ROWS,
        KNOWN_ONLY,
    ];
    let tables: &[&[(&str, Row)]] = match domain {
        "" | "ai.onnx" => &standard,
        "com.microsoft" => &[microsoft::ROWS],
        _ => return Err(format!("operators of \"{domain}\" are not supported")),
    };
    tables
        .iter()
        .copied()
        .flatten()
        .find(|(name, _)| *name == op)
        .map(|(_, row)| *row)
        .ok_or_else(|| "this operator is not supported".to_owned())
}

/// Operators whose results have shapes, or are shapes, so that they must be known; `fold` evaluates them.
const KNOWN_ONLY: &[(&str, Row)] = &[
    ("Constant", known_only),
    ("ConstantOfShape", known_only),
    ("Range", known_only),
    ("Shape", known_only),
    ("Size", known_only),
];

fn known_only(_: &mut Import, _: &Node) -> Result<Vec<Value>> {
    Err("the shape of its result depends on values that are only known in a run".to_owned())
}
