// Functions of one element. The kernel that includes this defines
// `alias V` as f32 or vec4<f32>.

fn square(x: V) -> V { return x * x; }
fn reciprocal(x: V) -> V { return V(1.0) / x; }
fn sigmoid(x: V) -> V { return V(1.0) / (V(1.0) + exp(-x)); }
fn silu(x: V) -> V { return x / (V(1.0) + exp(-x)); }
fn relu(x: V) -> V { return max(x, V(0.0)); }
fn quick_gelu(x: V) -> V { return x / (V(1.0) + exp(-1.702 * x)); }
fn hard_sigmoid(x: V) -> V { return clamp(x / 6.0 + V(0.5), V(0.0), V(1.0)); }
fn hard_swish(x: V) -> V { return x * hard_sigmoid(x); }
fn leaky_relu(x: V, alpha: f32) -> V { return select(alpha * x, x, x > V(0.0)); }
fn elu(x: V, alpha: f32) -> V { return select(alpha * (exp(min(x, V(0.0))) - V(1.0)), x, x > V(0.0)); }

// Some drivers compute tanh as a quotient of exponentials and overflow; beyond 10 it is 1 in f32.
fn tanh_safe(x: V) -> V { return tanh(clamp(x, V(-10.0), V(10.0))); }

// log(1 + exp(x)) without overflow.
fn softplus(x: V) -> V { return max(x, V(0.0)) + log(V(1.0) + exp(-abs(x))); }
fn mish(x: V) -> V { return x * tanh_safe(softplus(x)); }

// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7, the spacing of f32 near 1.
fn erf(x: V) -> V {
    let a = abs(x);
    let t = V(1.0) / (V(1.0) + 0.3275911 * a);
    let p = ((((1.061405429 * t - V(1.453152027)) * t + V(1.421413741)) * t - V(0.284496736)) * t + V(0.254829592)) * t;
    return sign(x) * (V(1.0) - p * exp(-a * a));
}
fn gelu(x: V) -> V { return 0.5 * x * (V(1.0) + erf(x * 0.7071067811865476)); }
fn gelu_tanh(x: V) -> V {
    return 0.5 * x * (V(1.0) + tanh_safe(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// WGSL's pow is undefined for negative bases; whole exponents are not.
fn power(x: V, y: V) -> V {
    let magnitude = pow(abs(x), y);
    let odd = fract(y * 0.5) != V(0.0);
    return select(magnitude, -magnitude, (x < V(0.0)) & odd);
}
