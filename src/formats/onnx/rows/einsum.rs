//! Einsum: sums of products by the letters of axes, written out as transposes, matrix products and sums.

use std::collections::BTreeMap;

use super::super::import::{Import, Node, Result, Value, ints, with_int, with_ints};
use super::Row;
use super::indexing::computable;

pub const ROWS: &[(&str, Row)] = &[("Einsum", einsum)];

/// A letter, or, for what "…" stands for, the number of an axis counted from the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Rest(std::cmp::Reverse<usize>),
    Letter(char),
}

/// A tensor whose axes have names, none twice.
struct Term {
    value: Value,
    labels: Vec<Label>,
}

/// An equation: a list of letters for each input, and one for the result if it is written; `None` stands for "…".
type List = Vec<Option<char>>;

fn parse(text: &str) -> Result<(Vec<List>, Option<List>)> {
    let wrong = || format!("\"{text}\" is no equation");
    let list = |part: &str| -> Result<List> {
        let letters = part.replace("...", ".");
        let list: List = letters.chars().map(|c| (c != '.').then_some(c)).collect();
        let sound = list.iter().flatten().all(char::is_ascii_alphabetic);
        let rests = list.iter().filter(|c| c.is_none()).count();
        match sound && rests <= 1 && letters.len() + 2 * rests == part.len() {
            true => Ok(list),
            false => Err(wrong()),
        }
    };
    let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match bare.split_once("->") {
        Some((left, right)) => (left, Some(list(right)?)),
        None => (&bare[..], None),
    };
    Ok((left.split(',').map(list).collect::<Result<_>>()?, right))
}

/// `list` with "…" written out as so many axes.
fn written_out(list: &List, rest: usize) -> Vec<Label> {
    let axes = |c: &Option<char>| match c {
        Some(c) => vec![Label::Letter(*c)],
        None => (0..rest).rev().map(|i| Label::Rest(std::cmp::Reverse(i))).collect(),
    };
    list.iter().flat_map(axes).collect()
}

fn einsum(import: &mut Import, node: &Node) -> Result<Vec<Value>> {
    let (lists, result) = parse(&node.string("equation", ""))?;
    let inputs: Vec<&Value> = node.inputs.iter().flatten().collect();
    if lists.len() != inputs.len() {
        return Err(format!("an equation of {} inputs is given {}", lists.len(), inputs.len()));
    }
    let mut terms = Vec::new();
    let mut most = 0;
    for (list, value) in lists.iter().zip(&inputs) {
        let letters = list.iter().flatten().count();
        let rest = value.rank().checked_sub(letters).filter(|&rest| rest == 0 || list.contains(&None));
        let rest =
            rest.ok_or_else(|| format!("{letters} letters do not name the axes of {:?}", value.shape()))?;
        computable(value)?;
        if value.elements() == 0 {
            return Err(format!("empty tensors ({:?}) are not supported here", value.shape()));
        }
        most = most.max(rest);
        let labels = written_out(list, rest);
        terms.push(diagonal(import, Term { value: (*value).clone(), labels })?);
    }
    let result = match result {
        Some(list) => written_out(&list, most),
        // "…", then the letters that stand once, in their order.
        None => {
            let mut count = BTreeMap::new();
            lists.iter().flatten().for_each(|&c| *count.entry(c).or_insert(0) += 1);
            let once = count.into_iter().filter(|&(c, n)| c.is_none() || n == 1).map(|(c, _)| c);
            written_out(&once.collect(), most)
        }
    };
    let mut sizes = BTreeMap::new();
    for term in &terms {
        for (&label, &n) in term.labels.iter().zip(term.value.shape()) {
            let size = sizes.entry(label).or_insert(n);
            match (*size, n) {
                (1, _) => *size = n,
                (a, b) if a == b || b == 1 => {}
                (a, b) => return Err(format!("an axis of {a} has the same letter as one of {b}")),
            }
        }
    }
    let mut seen = result.clone();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != result.len() || !result.iter().all(|label| sizes.contains_key(label)) {
        return Err("each letter of the result must be one of an input, and stand once".to_owned());
    }
    // An axis of size one repeats along others of its letter, as if it were not there.
    for term in &mut terms {
        let thin = |(label, n): (&Label, &usize)| *n == 1 && sizes[label] != 1;
        let gone: Vec<i64> = (0..term.labels.len())
            .filter(|&d| thin((&term.labels[d], &term.value.shape()[d])))
            .map(|d| d as i64)
            .collect();
        if !gone.is_empty() {
            term.value = import.call("Squeeze", &[&term.value, &ints(&gone)], vec![])?;
            term.labels = (0..term.labels.len())
                .filter(|&d| !gone.contains(&(d as i64)))
                .map(|d| term.labels[d])
                .collect();
        }
    }
    let mut terms = terms.into_iter();
    let mut product = terms.next().ok_or("there is nothing to sum")?;
    while let Some(next) = terms.next() {
        let later = |label: &Label| {
            result.contains(label) || terms.as_slice().iter().any(|t| t.labels.contains(label))
        };
        product = multiply(import, product, next, &later)?;
    }
    product = sum(import, product, &|label| result.contains(label))?;
    Ok(vec![ordered(import, &product, &result)?])
}

/// The elements whose indices along axes of one letter are the same.
fn diagonal(import: &mut Import, mut term: Term) -> Result<Term> {
    while let Some((first, second)) = (0..term.labels.len())
        .flat_map(|a| (a + 1..term.labels.len()).map(move |b| (a, b)))
        .find(|&(a, b)| term.labels[a] == term.labels[b])
    {
        let (n, m) = (term.value.shape()[first], term.value.shape()[second]);
        if n != m {
            return Err(format!("an axis of {n} has the same letter as one of {m}"));
        }
        let others: Vec<usize> = (0..term.labels.len()).filter(|d| ![first, second].contains(d)).collect();
        let order: Vec<i64> = others.iter().chain([&first, &second]).map(|&d| d as i64).collect();
        let mut dims: Vec<i64> = others.iter().map(|&d| term.value.shape()[d] as i64).collect();
        dims.push((n * n) as i64);
        let y = import.call("Transpose", &[&term.value], vec![with_ints("perm", &order)])?;
        let y = import.call("Reshape", &[&y, &ints(&dims)], vec![])?;
        // In a flattened matrix the diagonal is every (n + 1)-th element.
        let (end, last, step) = ((n * n) as i64, others.len() as i64, n as i64 + 1);
        let y = import.call(
            "Slice",
            &[&y, &ints(&[0]), &ints(&[end]), &ints(&[last]), &ints(&[step])],
            vec![],
        )?;
        let labels = others.iter().map(|&d| term.labels[d]).chain([term.labels[first]]).collect();
        term = Term { value: y, labels };
    }
    Ok(term)
}

/// Sums over the axes that are not kept.
fn sum(import: &mut Import, term: Term, keep: &dyn Fn(&Label) -> bool) -> Result<Term> {
    let gone: Vec<i64> =
        (0..term.labels.len()).filter(|&d| !keep(&term.labels[d])).map(|d| d as i64).collect();
    if gone.is_empty() {
        return Ok(term);
    }
    let attributes = vec![with_ints("axes", &gone), with_int("keepdims", 0)];
    let value = import.call("ReduceSum", &[&term.value], attributes)?;
    Ok(Term { value, labels: term.labels.into_iter().filter(|label| keep(label)).collect() })
}

/// The value with its axes in this order.
fn ordered(import: &mut Import, term: &Term, order: &[Label]) -> Result<Value> {
    let place =
        |label: &Label| term.labels.iter().position(|l| l == label).ok_or("a letter is lost".to_owned());
    let perm = order.iter().map(|label| Ok(place(label)? as i64)).collect::<Result<Vec<_>>>()?;
    match perm.is_sorted() {
        true => Ok(term.value.clone()),
        false => import.call("Transpose", &[&term.value], vec![with_ints("perm", &perm)]),
    }
}

/// The product of two terms, summed over what they share and nobody needs later: matrices `[batch, left, shared]` and
/// `[batch, shared, right]`, each of these several axes taken together.
fn multiply(import: &mut Import, a: Term, b: Term, later: &dyn Fn(&Label) -> bool) -> Result<Term> {
    let a = sum(import, a, &|label| later(label) || b.labels.contains(label))?;
    let b = sum(import, b, &|label| later(label) || a.labels.contains(label))?;
    let (both, left): (Vec<Label>, Vec<Label>) = a.labels.iter().partition(|label| b.labels.contains(label));
    let (batch, shared): (Vec<Label>, Vec<Label>) = both.into_iter().partition(|label| later(label));
    let right: Vec<Label> = b.labels.iter().copied().filter(|label| !a.labels.contains(label)).collect();
    let matrices = |import: &mut Import, term: &Term, groups: [&[Label]; 3]| -> Result<Value> {
        let size = |label: &Label| {
            let at = term.labels.iter().position(|l| l == label).expect("an axis of the term");
            term.value.shape()[at]
        };
        let value = ordered(import, term, &groups.concat())?;
        let dims = groups.map(|group| group.iter().map(size).product::<usize>() as i64);
        // Without a batch the right side may be a layer's weight.
        let dims = if batch.is_empty() { &dims[1..] } else { &dims[..] };
        import.call("Reshape", &[&value, &ints(dims)], vec![])
    };
    let x = matrices(import, &a, [&batch, &left, &shared])?;
    let y = matrices(import, &b, [&batch, &shared, &right])?;
    let op = if shared.is_empty() { "Mul" } else { "MatMul" };
    let z = import.call(op, &[&x, &y], vec![])?;
    let labels = [batch, left, right].concat();
    let size = |label: &Label| {
        let of = if a.labels.contains(label) { &a } else { &b };
        of.value.shape()[of.labels.iter().position(|l| l == label).expect("an axis of one of them")] as i64
    };
    let dims: Vec<i64> = labels.iter().map(size).collect();
    Ok(Term { value: import.call("Reshape", &[&z, &ints(&dims)], vec![])?, labels })
}
