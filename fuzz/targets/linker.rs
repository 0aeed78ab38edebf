//! Variants of kernels out of bytes: constants, types and functions are replaced by what they should be and by anything
//! else. The text is an error or it is not; naga decides what is sound, and what it takes has a layout.

use std::sync::OnceLock;

use aquatint::shader::{Kernel, Param, Shader};

use super::draw::Draw;

/// Kernels with loops that are written out, tiles in registers, types and functions that are replaced.
const KERNELS: [&str; 12] = [
    "conv2d_rows",
    "conv2d_texels",
    "conv2d_direct",
    "conv2d_depthwise",
    "conv2d_blocks",
    "matmul",
    "attention",
    "elementwise",
    "winograd_source",
    "row_norm",
    "concat",
    "scatter",
];

/// What a kernel lets be replaced.
struct Names {
    constants: Vec<&'static str>,
    aliases: Vec<&'static str>,
    functions: Vec<&'static str>,
    /// The lines of the file as it stands.
    source: String,
}

/// Read off the kernels once; names are for good.
fn names(kernel: usize) -> &'static Names {
    static ALL: OnceLock<Vec<Names>> = OnceLock::new();
    &ALL.get_or_init(|| KERNELS.map(read).into())[kernel]
}

fn read(kernel: &'static str) -> Names {
    let source = Kernel::new(kernel).source().expect("kernels are sound as they stand");
    let after = |word: &str| -> Vec<&'static str> {
        let lines = source.lines().filter_map(|line| line.strip_prefix(word));
        let name = |rest: &str| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned()
        };
        lines.map(|rest| &*name(rest).leak()).collect()
    };
    Names {
        constants: after("const "),
        aliases: after("alias "),
        functions: after("fn "),
        source: source.clone(),
    }
}

pub fn linker(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let at = draw.below(KERNELS.len());
    let names = names(at);
    let mut kernel = Kernel::new(if draw.one_in(50) { "none" } else { KERNELS[at] });
    let mut arbitrary = false;
    for _ in 0..draw.below(5) {
        match draw.below(4) {
            0 | 1 => {
                let name = one(&mut draw, &names.constants);
                let (value, known) = value(&mut draw);
                arbitrary |= !known;
                kernel = kernel.constant(name, value);
            }
            2 => {
                let name = one(&mut draw, &names.aliases);
                kernel = kernel
                    .alias(name, draw.of(&["f32", "f16", "vec4<f32>", "vec4<f16>", "u32", "Other", ""]));
            }
            _ => {
                let name = one(&mut draw, &names.functions);
                arbitrary = true;
                kernel = kernel.function(name, text(&mut draw, &names.source));
            }
        }
    }
    let _ = kernel.variant();
    let Ok(source) = kernel.source() else { return };
    // Ten seconds are enough for what is written out to be read again.
    assert!(source.len() <= 64 << 20, "{} bytes of text", source.len());
    if source.len() > 1 << 20 {
        return;
    }
    let Ok(shader) = Shader::new(&kernel) else { return };
    // What was not given, and what there is not, is an error.
    assert!(shader.pack_params(&[("no such parameter", Param::U32(1))]).is_err());
    let _ = shader.pack_params(&[("count", Param::Array(vec![1; draw.below(200)]))]);
    assert!(arbitrary || !shader.bindings.is_empty(), "{}", KERNELS[at]);
}

fn one(draw: &mut Draw, names: &[&'static str]) -> &'static str {
    match names.is_empty() || draw.one_in(50) {
        true => "NOTHING",
        false => draw.of(names),
    }
}

/// A value of a constant, and whether it is a number.
fn value(draw: &mut Draw) -> (String, bool) {
    const NUMBERS: [&str; 12] =
        ["0u", "1u", "2u", "3u", "4u", "8u", "16u", "true", "false", "64u", "65537u", "4294967295u"];
    match draw.below(16) {
        0 => (String::from_utf8_lossy(draw.take(24)).into_owned(), false),
        known => (NUMBERS[known % NUMBERS.len()].to_owned(), true),
    }
}

/// The text of a function: of marks and brackets, of the kernel's own lines, or of bytes.
fn text(draw: &mut Draw, source: &str) -> String {
    const WORDS: [&str; 24] = [
        "fn f() {\n",
        "}\n",
        "{",
        "for (var i = 0u; i < 4u; i++) { // #unroll\n",
        "for (var j = 0u; j < N; j++) { // #unroll\n",
        "for (var i = 0u; i < 4000000000u; i++) { // #unroll\n",
        "var s: array<array<f32, 4>, 3u>; // #registers\n",
        "var s: array<f32, 18446744073709551615>; // #registers\n",
        "s[i][",
        "s[1u + 2u * (3u % 2u)]",
        "18446744073709551615u",
        " + ",
        " * ",
        " / 0u",
        "(",
        ")",
        "]",
        "i",
        " = ",
        "const N: u32 = 3u;\n",
        "// #unroll\n",
        "// #registers\n",
        "é",
        ";\n",
    ];
    let mut made = String::new();
    for _ in 0..draw.byte() {
        match draw.below(40) {
            word @ 0..24 => made.push_str(WORDS[word]),
            // Something many times over.
            24 | 25 => {
                let (word, times) = (WORDS[draw.below(WORDS.len())], 1 << draw.below(11));
                made.push_str(&word.repeat(times));
            }
            26..34 => {
                let line = draw.below(256) * 2 + draw.below(2);
                made.extend(source.lines().nth(line).map(|line| format!("{line}\n")));
            }
            _ => made.push_str(&String::from_utf8_lossy(draw.take(8))),
        }
        if made.len() > 1 << 15 || draw.is_done() {
            break;
        }
    }
    made
}
