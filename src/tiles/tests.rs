use super::*;
use crate::models::{bundled, path_denoise::path_denoise, upscale};
use crate::target::DeviceClass;
use crate::tensor::DType;

fn family(build: &dyn Fn(Size) -> Result<Graph>, target: &Target) -> (Family, Vec<Option<Method>>) {
    let build = |size: Size| passes::before_methods(&build(size)?, target);
    let family = Family::new(&build, [1080, 1921]).unwrap().unwrap();
    let methods = choose::methods(&family.graph, target);
    (family, methods)
}

fn vision(model: &crate::models::vision::VisionModel, [height, width]: Size) -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", [1, height, width, 3], DType::F32);
    let outputs = model.build(&mut g, x)?;
    g.output("picture", outputs[0].1);
    Ok(g)
}

#[test]
fn reaches_of_the_bundled_networks() {
    let gpu = Target::typical();
    let model = upscale::upscale_x2().unwrap();
    let (found, methods) = family(&|size| vision(&model, size), &gpu);
    for side in [0, 1] {
        // 5×5, six times 3×3 and one 3×3: 2 + 6 + 1; the enlargement reaches one pixel. Four for whole quads of three channels.
        let reach = reach(&found, &methods, side).unwrap();
        assert_eq!([reach.before, reach.after], [9, 9]);
        assert!(reach.period <= 4, "{reach:?}");
    }
    let (found, methods) = family(&|[h, w]| path_denoise(w, h, DType::F32), &gpu);
    let reach_of = reach(&found, &methods, 0).unwrap();
    assert_eq!(reach_of.period, 16);
    assert!(reach_of.before < 200 && reach_of.after < 200, "{reach_of:?}");

    // Squares of Winograd's convolution begin at multiples of four, at each resolution.
    let lanes = Target { class: DeviceClass::Cpu, ..gpu };
    let (found, methods) = family(&|size| vision(&model, size), &lanes);
    let squares = methods.iter().flatten().filter(|method| matches!(method, Method::Winograd { .. })).count();
    let reach_of = reach(&found, &methods, 1).unwrap();
    assert!(squares > 0 && reach_of.period == 4 && reach_of.before > 9, "{squares}, {reach_of:?}");

    // Means over the picture.
    let model = bundled::bundled("style-engraving").unwrap().unwrap();
    let build = |[h, w]: Size| vision(&model, [h.next_multiple_of(4), w.next_multiple_of(4)]);
    let (found, methods) = family(&build, &lanes);
    let unfit = reach(&found, &methods, 0).unwrap_err();
    assert_eq!((unfit.op, unfit.node.as_str()), ("Norm", "in1"), "{unfit:?}");
}
