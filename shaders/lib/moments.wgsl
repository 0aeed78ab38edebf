// Mean and squared deviations of a line of numbers. The kernel that includes this defines `alias V`, and
// `number(start, i)`, the i-th of the line that begins at `start`.
//
// BLOCK numbers are read at a time, whose mean and squares join those before by Chan's formula (1979), which does not cancel however
// far the mean is from zero; with one number at a time that mean would be rounded as often as there are numbers. A
// block's mean is counted from its first number, so that it is that number where all are the same.

const BLOCK: u32 = 8u;

struct Moments {
    mean: V,
    squares: V, // Σ (number − mean)²
}

fn moments_of(start: u32, length: u32) -> Moments {
    var mean = V();
    var squares = V();
    for (var first = 0u; first < length; first += BLOCK) {
        let before = f32(first);
        let count = f32(min(BLOCK, length - first));
        let all = before + count;
        var held: array<V, BLOCK>; // #registers
        var total = V();
        for (var i = 0u; i < BLOCK; i++) { // #unroll
            held[i] = number(start, min(first + i, length - 1u));
            total += select(V(), held[i] - held[0], first + i < length);
        }
        let of_block = held[0] + total * (1.0 / count);
        let delta = of_block - mean;
        squares += delta * delta * (before * count / all);
        for (var i = 0u; i < BLOCK; i++) { // #unroll
            let apart = select(V(), held[i] - of_block, first + i < length);
            squares += apart * apart;
        }
        mean += delta * (count / all);
    }
    return Moments(mean, squares);
}
