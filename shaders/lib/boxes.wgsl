// Boxes as left, top, right, bottom.

fn area(b: vec4<f32>) -> f32 {
    let size = max(b.zw - b.xy, vec2<f32>(0.0));
    return size.x * size.y;
}

fn intersection_over_union(a: vec4<f32>, b: vec4<f32>) -> f32 {
    let shared_area = area(vec4<f32>(max(a.xy, b.xy), min(a.zw, b.zw)));
    return shared_area / max(area(a) + area(b) - shared_area, 1e-12);
}
