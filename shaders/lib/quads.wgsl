// sum + x · w0 + y · w1 + z · w2 + w · w3 of a quad (x, y, z, w), in this order.
fn add_products(quad: V, w0: V, w1: V, w2: V, w3: V, sum: V) -> V { // #inline
    return fma(V(quad.w), w3, fma(V(quad.z), w2, fma(V(quad.y), w1, fma(V(quad.x), w0, sum))));
}
