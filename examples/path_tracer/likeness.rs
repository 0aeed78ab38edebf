//! How like a picture is to another.

use image::RgbImage;

/// Peak signal-to-noise ratio in dB, over all channels.
pub fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares: f64 = a.iter().zip(b.iter()).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares).log10()
}

/// Side of the windows of [`ssim`].
const WINDOW: u32 = 7;

/// Structural similarity (Wang et al. 2004): the mean over channels and all squares of 7×7 pixels, as scikit-image
/// computes it by itself.
pub fn ssim(a: &RgbImage, b: &RgbImage) -> f64 {
    let [steady, lively] = [0.01, 0.03].map(|k: f64| (k * 255.0).powi(2));
    let n = f64::from(WINDOW * WINDOW);
    let (mut sum, mut windows) = (0.0, 0.0);
    for channel in 0..3 {
        for top in 0..=a.height().saturating_sub(WINDOW) {
            for left in 0..=a.width().saturating_sub(WINDOW) {
                // Sums of both, of their squares and of their product.
                let mut sums = [0.0; 5];
                for y in top..(top + WINDOW).min(a.height()) {
                    for x in left..(left + WINDOW).min(a.width()) {
                        let [p, q] = [a, b].map(|picture| f64::from(picture.get_pixel(x, y)[channel]));
                        for (sum, term) in sums.iter_mut().zip([p, q, p * p, q * q, p * q]) {
                            *sum += term;
                        }
                    }
                }
                let [p, q, pp, qq, pq] = sums.map(|sum| sum / n);
                let unbiased = n / (n - 1.0);
                let [var_p, var_q, both] = [pp - p * p, qq - q * q, pq - p * q].map(|v| unbiased * v);
                sum += (2.0 * p * q + steady) * (2.0 * both + lively)
                    / ((p * p + q * q + steady) * (var_p + var_q + lively));
                windows += 1.0;
            }
        }
    }
    sum / windows
}
