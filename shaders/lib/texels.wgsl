// A tensor of f32 shown as a texture: element 4i … 4i+3 is texel i, in lines of this many. A storage texture, though nothing is
// stored: of others Mesa's software adapter looks up the level for each lane, which takes it three times as long.

const TEXELS_LINE: u32 = 4096u;

fn texel(i: u32) -> vec2<u32> {
    return vec2<u32>(i % TEXELS_LINE, i / TEXELS_LINE);
}
