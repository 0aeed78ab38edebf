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

// Some drivers compute tanh as a quotient of exponentials: beyond 10, where it is 1 in f32, these overflow, and
// near 0 they cancel, where its series is exact.
fn tanh_safe(x: V) -> V {
    let t = x * x;
    let near = x * (V(1.0) + t * (V(-0.333333333) + t * (V(0.133333333) - t * 0.053968254)));
    return select(tanh(clamp(x, V(-10.0), V(10.0))), near, abs(x) < V(0.2));
}

// WGSL lets log be off by 5e-7 between 1/2 and 2, however small it is; there the series of 2 artanh((x − 1) / (x + 1)) is exact.
fn ln(x: V) -> V {
    let d = x - V(1.0);
    let s = d / (x + V(1.0));
    let t = s * s;
    let near = 2.0 * s * ((((t / 9.0 + V(0.142857143)) * t + V(0.2)) * t + V(0.333333333)) * t + V(1.0));
    return select(log(x), near, abs(d) < V(0.3));
}

// log(1 + exp(x)) without overflow; log(1 + u) ≈ u − u²/2 where the sum would round u away.
fn softplus(x: V) -> V {
    let u = exp(-abs(x));
    return max(x, V(0.0)) + select(ln(V(1.0) + u), u - 0.5 * u * u, u < V(1e-3));
}

// x · tanh(softplus(x)): with n = eˣ (eˣ + 2) that is x · n / (n + 2), where nothing cancels.
fn mish(x: V) -> V {
    let e = exp(min(x, V(20.0)));
    let n = e * (e + V(2.0));
    return x * (n / (n + V(2.0)));
}

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

// WGSL's pow is undefined for negative bases. Whole exponents have a value; others have none (NaN).
fn power(x: V, y: V) -> V {
    let magnitude = pow(abs(x), y);
    let odd = fract(y * 0.5) != V(0.0);
    let whole = fract(y) == V(0.0);
    let nothing = (x - x) / (x - x);
    let negative = select(nothing, select(magnitude, -magnitude, odd), whole);
    return select(magnitude, negative, x < V(0.0));
}

// Drivers may compute inverse trigonometric functions to no more than 4 digits: here by Taylor's series of the arctangent
// on the half of the half of its angle, tan(θ / 2) = t / (1 + √(1 + t²)).
fn half_angle(t: V) -> V { return t / (V(1.0) + sqrt(V(1.0) + t * t)); }
fn arctangent(x: V) -> V {
    let steep = abs(x) > V(1.0);
    let h = half_angle(half_angle(select(x, V(1.0) / x, steep)));
    let u = h * h;
    let small = 4.0 * h * (V(1.0) + u * (V(-0.333333333) + u * (V(0.2) + u * (V(-0.142857143) + u * (V(0.111111111) - u * 0.0909090909)))));
    return select(small, sign(x) * 1.5707963267948966 - small, steep);
}
fn arcsine(x: V) -> V { return 2.0 * arctangent(x / (V(1.0) + sqrt((V(1.0) - x) * (V(1.0) + x)))); }
fn arccosine(x: V) -> V { return 2.0 * arctangent(sqrt((V(1.0) - x) / (V(1.0) + x))); }
fn area_tangent(x: V) -> V { return 0.5 * ln((V(1.0) + x) / (V(1.0) - x)); }
// Beyond 1e9 the squares drown the one and would overflow: there both are ln(2 x).
fn area_cosine(x: V) -> V {
    let near = ln(x + sqrt((x - V(1.0)) * (x + V(1.0))));
    let nothing = (x - x) / (x - x);
    return select(select(near, ln(x) + V(0.693147181), x > V(1e9)), nothing, x < V(1.0));
}
fn area_sine(x: V) -> V {
    let a = abs(x);
    let rest = a + a * a / (V(1.0) + sqrt(a * a + V(1.0)));
    return sign(x) * select(ln(V(1.0) + rest), ln(a) + V(0.693147181), a > V(1e9));
}
fn hyperbolic_sine(x: V) -> V {
    let t = x * x;
    let near = x * (V(1.0) + t * (V(0.166666667) + t * (V(0.00833333333) + t * 0.000198412698)));
    return select(0.5 * (exp(x) - exp(-x)), near, abs(x) < V(0.5));
}
