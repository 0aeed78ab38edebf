//! RRDBNet, the generator of ESRGAN (Wang et al. 2018) and Real-ESRGAN: pictures at four times their
//! size, or twice where the file's first layer reads 2×2 pixels at once. In BasicSR's naming and in
//! that of the first release.

use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::nn::Source;
use crate::ops::expr::Unary;

const LEAKY: Unary = Unary::LeakyRelu(0.2);

/// Where a release keeps the parts of the network.
struct Names {
    first: &'static str,
    /// Convolution `j` of dense block `r` of residual block `i`.
    dense: fn(usize, usize, usize) -> String,
    /// After the blocks, of which there are so many.
    trunk: fn(usize) -> String,
    enlarge: [&'static str; 2],
    last: [&'static str; 2],
}

const BASIC_SR: Names = Names {
    first: "conv_first",
    dense: |i, r, j| format!("body.{i}.rdb{r}.conv{j}"),
    trunk: |_| "conv_body".to_owned(),
    enlarge: ["conv_up1", "conv_up2"],
    last: ["conv_hr", "conv_last"],
};

const FIRST_RELEASE: Names = Names {
    first: "model.0",
    dense: |i, r, j| format!("model.1.sub.{i}.RDB{r}.conv{j}.0"),
    trunk: |blocks| format!("model.1.sub.{blocks}"),
    enlarge: ["model.3", "model.6"],
    last: ["model.8", "model.10"],
};

/// The picture `[n, 4h, 4w, 3]` (or `2h`, `2w`), 0 to 1, for `x` `[n, h, w, 3]`, 0 to 1.
pub fn rrdb(g: &mut Graph, w: Source, x: ValueId) -> Result<ValueId> {
    let names = if w.has("conv_first.weight") { BASIC_SR } else { FIRST_RELEASE };
    let [_, c_in, _, _] = w.stored(names.first)?;
    let x = match c_in == 4 * g.shape(x).last() {
        true => g.pixel_unshuffle(x, 2)?,
        false => x,
    };
    let features = w.stored_conv(g, names.first, x, 1)?;
    let mut body = features;
    let mut blocks = 0;
    while w.has(&format!("{}.weight", (names.dense)(blocks, 1, 1))) {
        body = residual_block(g, w, &names, blocks, body)?;
        blocks += 1;
    }
    let body = w.stored_conv(g, &(names.trunk)(blocks), body, 1)?;
    let mut x = g.add(features, body)?;
    for name in names.enlarge {
        let h = g.upsample_nearest(x, 2)?;
        let h = w.stored_conv(g, name, h, 1)?;
        x = g.unary(LEAKY, h)?;
    }
    let h = w.stored_conv(g, names.last[0], x, 1)?;
    let h = g.unary(LEAKY, h)?;
    w.stored_conv(g, names.last[1], h, 1)
}

/// Three dense blocks, a fifth of whose result is added to what they read.
fn residual_block(g: &mut Graph, w: Source, names: &Names, i: usize, x: ValueId) -> Result<ValueId> {
    let mut h = x;
    for r in 1..=3 {
        h = dense_block(g, w, |j| (names.dense)(i, r, j), h)?;
    }
    added(g, h, x)
}

/// Five convolutions, each reading what all before it made.
fn dense_block(g: &mut Graph, w: Source, name: impl Fn(usize) -> String, x: ValueId) -> Result<ValueId> {
    let mut known = vec![x];
    for j in 1..=4 {
        let all = g.concat(&known, 3)?;
        let h = w.stored_conv(g, &name(j), all, 1)?;
        known.push(g.unary(LEAKY, h)?);
    }
    let all = g.concat(&known, 3)?;
    let h = w.stored_conv(g, &name(5), all, 1)?;
    added(g, h, x)
}

/// `h / 5 + x`
fn added(g: &mut Graph, h: ValueId, x: ValueId) -> Result<ValueId> {
    let part = g.affine(h, 0.2, 0.0)?;
    g.add(part, x)
}
