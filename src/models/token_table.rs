//! Embeddings of tokens, looked up on the host: a text has some dozen rows of a table of some hundred megabytes, which
//! the device then need not hold.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::weights::Weights;

/// Rows of the table `name`, `[vocabulary, width]`, as `[tokens, width]`, f32.
///
/// # Errors
/// [`Error::MissingTensor`], [`Error::WrongTensor`], [`Error::Invalid`] for a token that is not in the table.
pub(super) fn embed(
    weights: &Weights,
    name: &str,
    [vocabulary, width]: [usize; 2],
    tokens: &[u32],
) -> Result<Tensor> {
    let table = weights.tensor(name, &[vocabulary, width])?;
    let mut rows = Vec::with_capacity(tokens.len() * width);
    for &token in tokens {
        let row = token as usize;
        if row >= vocabulary {
            return Err(Error::Invalid {
                what: "token".to_owned(),
                expected: format!("below {vocabulary}, the size of the encoder's vocabulary"),
                found: token.to_string(),
            });
        }
        rows.extend(table.rows(row..row + 1).to_f32());
    }
    Ok(Tensor::from_f32([tokens.len(), width], &rows))
}
