//! The tensors of one layer, checked against each other and against the weight that they change.

use std::collections::BTreeMap;

use super::key::{Part, Role};
use super::peft::PeftConfig;
use crate::delta::{Change, Delta, Factors};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::weights::Weights;

/// What a file has for one layer.
#[derive(Clone, Debug)]
pub struct Layer {
    pub part: Part,
    /// As the file writes it.
    pub path: String,
    /// With their names in the file.
    pub tensors: BTreeMap<Role, (String, Tensor)>,
}

/// The words in which the names of tensors that belong together differ.
const SIBLINGS: [(&str, &str); 7] = [
    ("lora_down", "lora_up"),
    ("lora_A", "lora_B"),
    ("down", "up"),
    ("w1_a", "w1_b"),
    ("w2_a", "w2_b"),
    ("hada_w1", "hada_w2"),
    ("lokr_w1", "lokr_w2"),
];

/// One layer of one file, on its way to a module of a network.
pub struct Reading<'a> {
    pub layer: &'a Layer,
    /// The file of the adapter.
    pub file: &'a str,
    pub config: Option<&'a PeftConfig>,
}

impl Reading<'_> {
    /// What the tensors add, times `strength`, to the weight and the bias of `module` of `weights`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] for half of a pair, [`Error::WrongTensor`] for shapes that do not fit and for an alpha
    /// that is no number.
    pub fn deltas(&self, module: &str, weights: &Weights, strength: f64) -> Result<Vec<(String, Delta)>> {
        let tensors = &self.layer.tensors;
        for (name, tensor) in tensors.values() {
            if tensor.desc.shape.elements() == 0 {
                return Err(self.wrong(name, "a rank of 1 or more, and no empty axis", &tensor.desc.shape));
            }
        }
        let has = |role: Role| tensors.contains_key(role);
        let name = format!("{module}.weight");
        // A scalar counts as a vector.
        let shape = weights.shape(&name).map(|shape| shape.to_vec()).filter(|shape| !shape.is_empty());
        let shape = shape.unwrap_or_else(|| vec![1]);
        let delta = |scale: f64, change| match scale as f32 {
            scale if scale.is_finite() => Ok(Delta { scale, change }),
            _ => Err(Error::Invalid {
                what: format!("what {} is multiplied by, alpha and strength together", self.layer.path),
                expected: "a number of 32 bits".to_owned(),
                found: format!("{scale:e}"),
            }),
        };
        let mut deltas = Vec::new();
        if has("down") || has("up") || has("mid") {
            let (down, up) = (self.get("down", "up")?, self.get("up", "down")?);
            let factors = self.factors(Some(&shape), up, down, tensors.get("mid"), false)?;
            let scale = strength * self.scale(module, Some(first(&down.1)))?;
            deltas.push((name.clone(), delta(scale, Change::Plain(factors))?));
        }
        if ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"].into_iter().any(has) {
            let (a, b) = (self.get("hada_w1_a", "hada_w1_b")?, self.get("hada_w1_b", "hada_w1_a")?);
            let (c, d) = (self.get("hada_w2_a", "hada_w2_b")?, self.get("hada_w2_b", "hada_w2_a")?);
            let (one, other) = (tensors.get("hada_t1"), tensors.get("hada_t2"));
            if one.is_some() != other.is_some() {
                self.get("hada_t1", "hada_t2")?;
                self.get("hada_t2", "hada_t1")?;
            }
            let scale = strength * self.scale(module, Some(first(&b.1)))?;
            let factors = [
                self.factors(Some(&shape), a, b, one, true)?,
                self.factors(Some(&shape), c, d, other, true)?,
            ];
            deltas.push((name.clone(), delta(scale, Change::Hadamard(factors))?));
        }
        if tensors.keys().any(|role| role.starts_with("lokr")) {
            let (change, rank) = self.kronecker(&shape)?;
            deltas.push((name.clone(), delta(strength * self.scale(module, rank)?, change)?));
        }
        for (role, name) in [("diff", name), ("diff_b", format!("{module}.bias"))] {
            let Some((key, tensor)) = tensors.get(role) else { continue };
            let Some(wanted) = weights.shape(&name) else {
                return Err(self.wrong(
                    key,
                    &format!("no such tensor, as the model has no {name}"),
                    &tensor.desc.shape,
                ));
            };
            if !fits(&tensor.desc.shape, wanted) {
                return Err(self.wrong(key, &format!("shape {wanted}"), &tensor.desc.shape));
            }
            deltas.push((name, delta(strength, Change::Plain(Factors::Whole(tensor.clone())))?));
        }
        match deltas.is_empty() {
            // Alpha alone, or the core of a kernel.
            true => self.get("down", "up").map(|_| deltas),
            false => Ok(deltas),
        }
    }

    /// `up · down`, with a core between them if there is one, where a weight of this shape is wanted.
    fn factors(
        &self,
        wanted: Option<&[usize]>,
        (up_name, up): &(String, Tensor),
        (down_name, down): &(String, Tensor),
        core: Option<&(String, Tensor)>,
        turned: bool,
    ) -> Result<Factors> {
        let turned = turned && core.is_some();
        let (up_shape, down_shape) = (trimmed(&up.desc.shape), trimmed(&down.desc.shape));
        let [rows, rank] = match up_shape[..] {
            [rank, rows] if turned => [rows, rank],
            [rows, rank] => [rows, rank],
            _ => return Err(self.wrong(up_name, "a matrix", &up.desc.shape)),
        };
        if let Some(wanted) = wanted.filter(|wanted| wanted.first() != Some(&rows)) {
            let rows = wanted.first().map_or("…".to_owned(), usize::to_string);
            let shape =
                if turned { format!("shape [{rank}, {rows}]") } else { format!("shape [{rows}, {rank}]") };
            return Err(self.wrong(up_name, &shape, &up.desc.shape));
        }
        let Some((core_name, core)) = core else {
            let rest = wanted.map(|wanted| &wanted[1..]);
            if down_shape[0] != rank || rest.is_some_and(|rest| !fits(&down_shape[1..], rest)) {
                let rest =
                    rest.unwrap_or(&down_shape[1..]).iter().map(|d| format!(", {d}")).collect::<String>();
                return Err(self.wrong(down_name, &format!("shape [{rank}{rest}]"), &down.desc.shape));
            }
            return Ok(Factors::Product { up: up.clone(), down: down.clone() });
        };
        let [inner, columns] = down_shape[..] else {
            return Err(self.wrong(down_name, "a matrix beside the core of a kernel", &down.desc.shape));
        };
        let kernel =
            wanted.and_then(|wanted| wanted.get(2..)).unwrap_or(core.desc.shape.get(2..).unwrap_or(&[]));
        if core.desc.shape[..] != [&[rank, inner], kernel].concat() {
            let shape = [&[rank, inner], kernel].concat();
            return Err(self.wrong(core_name, &format!("shape {shape:?}"), &core.desc.shape));
        }
        if let Some(wanted) = wanted.filter(|wanted| wanted.get(1) != Some(&columns)) {
            let columns = wanted.get(1).copied().unwrap_or(1);
            return Err(self.wrong(down_name, &format!("shape [{inner}, {columns}]"), &down.desc.shape));
        }
        Ok(Factors::Tucker { up: up.clone(), core: core.clone(), down: down.clone(), turned })
    }

    /// LoKr's factors, each whole or itself a product, and the rank of the last that is one.
    fn kronecker(&self, wanted: &[usize]) -> Result<(Change, Option<usize>)> {
        let tensors = &self.layer.tensors;
        let mut rank = None;
        let mut factor = |whole: Role, a: Role, b: Role, core: Role, other: Role| match tensors.get(whole) {
            Some((_, tensor)) => Ok(Factors::Whole(tensor.clone())),
            None if tensors.contains_key(a) || tensors.contains_key(b) => {
                let (up, down) = (self.get(a, b)?, self.get(b, a)?);
                rank = Some(first(&down.1));
                self.factors(None, up, down, tensors.get(core), true)
            }
            None => Err(self.missing(whole, other)),
        };
        let one = factor("lokr_w1", "lokr_w1_a", "lokr_w1_b", "", "lokr_w2")?;
        let other = factor("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "lokr_w1")?;
        let change = Change::Kronecker([one, other]);
        let [rows, columns] = change.size();
        let rest: usize = wanted[1..].iter().product();
        if [rows, columns] != [wanted[0], rest] {
            let (name, _) = tensors.values().next().expect("there are factors");
            return Err(Error::WrongTensor {
                file: self.file.to_owned(),
                name: name.clone(),
                expected: format!("[{}, {rest}] of both factors together", wanted[0]),
                found: format!("[{rows}, {columns}]"),
            });
        }
        Ok((change, rank))
    }

    /// What products of factors of a rank are multiplied by.
    fn scale(&self, module: &str, rank: Option<usize>) -> Result<f64> {
        let Some(rank) = rank else { return Ok(1.0) };
        let Some((name, alpha)) = self.layer.tensors.get("alpha") else {
            return Ok(self.config.map_or(1.0, |config| config.scale(module, rank)));
        };
        let values = if alpha.desc.shape.elements() == 1 { alpha.to_f32() } else { Vec::new() };
        match values[..] {
            [alpha] if alpha.is_finite() => Ok(f64::from(alpha) / rank as f64),
            [alpha] => Err(Error::WrongTensor {
                file: self.file.to_owned(),
                name: name.clone(),
                expected: "a finite number".to_owned(),
                found: alpha.to_string(),
            }),
            _ => Err(self.wrong(name, "one number", &alpha.desc.shape)),
        }
    }

    /// The tensor of a role, which must be there if that of `beside` is.
    fn get(&self, role: Role, beside: Role) -> Result<&(String, Tensor)> {
        self.layer.tensors.get(role).ok_or_else(|| self.missing(role, beside))
    }

    fn missing(&self, role: Role, beside: Role) -> Error {
        let tensors = &self.layer.tensors;
        let sibling = tensors.get(beside).and_then(|(name, _)| {
            SIBLINGS.iter().find_map(|(a, b)| {
                let (from, to) = if name.contains(a) { (a, b) } else { (b, a) };
                name.contains(from).then(|| name.replacen(from, to, 1))
            })
        });
        Error::MissingTensor {
            file: self.file.to_owned(),
            name: sibling.unwrap_or_else(|| format!("{}, {role}", self.layer.path)),
            expected: match tensors.values().next() {
                Some((name, _)) => format!("that goes with {name}"),
                None => "of this layer".to_owned(),
            },
        }
    }

    fn wrong(&self, name: &str, expected: &str, found: &[usize]) -> Error {
        Error::WrongTensor {
            file: self.file.to_owned(),
            name: name.to_owned(),
            expected: expected.to_owned(),
            found: format!("shape {found:?}"),
        }
    }
}

fn first(tensor: &Tensor) -> usize {
    tensor.desc.shape.first().copied().unwrap_or(1)
}

/// A shape without ones at its end; a matrix stays one.
fn trimmed(shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    while shape.len() < 2 {
        shape.push(1);
    }
    while shape.len() > 2 && shape.last() == Some(&1) {
        shape.pop();
    }
    shape
}

/// Whether axes are the wanted ones, but for ones at the end, or all of them as one.
fn fits(found: &[usize], wanted: &[usize]) -> bool {
    let bare = |shape: &[usize]| {
        let end = shape.iter().rposition(|d| *d != 1).map_or(0, |last| last + 1);
        shape[..end].to_vec()
    };
    bare(found) == bare(wanted) || found.len() == 1 && found[0] == wanted.iter().product::<usize>()
}
