// Where attention finds the heads of its tokens, for kernels whose parameters have `heads`, `query_heads`, `key_heads`,
// `first_key` and `first_value`.
//
// A token of a tensor has `width` heads side by side, each of `size` units. Of queries, keys and values that lie side by side in
// one tensor those of the queries come first.

fn place(token: u32, width: u32, head: u32, size: u32, unit: u32) -> u32 {
    return (token * width + head) * size + unit;
}

fn query_place(token: u32, head: u32, size: u32, unit: u32) -> u32 {
    return place(token, P.query_heads, head, size, unit);
}

fn key_place(token: u32, head: u32, size: u32, unit: u32) -> u32 {
    return place(token, P.key_heads, P.first_key + head, size, unit);
}

fn value_place(token: u32, head: u32, size: u32, unit: u32) -> u32 {
    return place(token, P.key_heads, P.first_value + head, size, unit);
}
