//! Colours that tell classes apart.

use image::Rgb;

/// The colour of a class: hues a golden section of the circle apart, so that neighbours differ however many there are.
pub fn colour(class: usize) -> Rgb<u8> {
    let hue = (class as f64 * 0.618_033_988_75 + 0.02).fract() * 6.0;
    let value = [0.85, 0.65, 0.95][class / 7 % 3];
    // HSV with saturation 0.8.
    let channel = |n: f64| {
        let k = (n + hue) % 6.0;
        let shade = k.min(4.0 - k).clamp(0.0, 1.0);
        (255.0 * value * (1.0 - 0.8 * shade)).round() as u8
    };
    Rgb([channel(5.0), channel(3.0), channel(1.0)])
}
