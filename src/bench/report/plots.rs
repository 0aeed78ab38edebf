//! The page's plots, as SVG.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::colour::{self, BAD, F16, F32, INK, LINE, MUTED, PARTS};
use crate::bench::record::{Canary, Group, LimitKind, Results, Row};
use crate::bench::statistics::Sorted;
use crate::units;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const FONT: &str = "sans-serif";
const SMALL: i32 = 14;

fn draw(size: (u32, u32), draw: impl FnOnce(&Area) -> Drawn) -> String {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    draw(&area).expect("a string takes whatever is drawn");
    area.present().expect("a string takes whatever is drawn");
    drop(area);
    colour::themed(&svg)
}

fn text(colour: RGBColor, horizontal: HPos) -> TextStyle<'static> {
    let mut style = TextStyle::from((FONT, SMALL)).pos(Pos::new(horizontal, VPos::Center));
    style.color = colour.to_backend_color();
    style
}

fn precision_colour(precision: &str) -> RGBColor {
    if precision == "f16" { F16 } else { F32 }
}

/// Work per byte against work per second, both in powers of ten, with the measured roofs. Points bear the numbers of the rows
/// in the table. None if no row has both rates or no roof was measured.
pub fn roofline(results: &Results) -> Option<String> {
    let points: Vec<(usize, &Row, f64, f64)> = results
        .rows
        .iter()
        .enumerate()
        .filter_map(|(i, row)| {
            let rate = row.rates?.flops.filter(|r| r.is_finite() && *r > 0.0)?;
            let intensity = row.flops? as f64 / row.bytes.filter(|&b| b > 0)? as f64;
            (intensity > 0.0).then_some((i + 1, row, intensity, rate))
        })
        .collect();
    let bandwidth = results.roof.value(LimitKind::CopyBandwidth)?;
    let kinds = [
        (LimitKind::F32Arithmetic, F32, "f32"),
        (LimitKind::F16Arithmetic, F16, "f16"),
        (LimitKind::MatrixArithmetic, MUTED, "matrix cores"),
    ];
    let roofs: Vec<(f64, RGBColor, &str)> = kinds
        .iter()
        .filter_map(|&(kind, colour, name)| Some((results.roof.value(kind)?, colour, name)))
        .collect();
    let top = roofs.iter().map(|r| r.0).max_by(f64::total_cmp)?;
    let bottom = points.iter().map(|p| p.3).min_by(f64::total_cmp)?;
    let least = points.iter().map(|p| p.2).fold(f64::INFINITY, f64::min).min(0.5 * top / bandwidth);
    let most = points.iter().map(|p| p.2).fold(0.0, f64::max).max(8.0 * top / bandwidth);
    let (x, y) = ((least / 2.0, most * 2.0), (bottom / 2.5, top * 2.2));
    // To the right of the plot, where roofs are named.
    const ROOM_FOR_NAMES: i32 = 150;
    Some(draw((1100, 500), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_top(8)
            .margin_right(ROOM_FOR_NAMES)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(MUTED)
            .x_labels(7)
            .y_labels(6)
            .x_desc("operations per byte")
            .x_label_formatter(&|v| if *v < 1.0 { format!("{v}") } else { format!("{v:.0}") })
            .y_label_formatter(&|v| units::si(*v, "FLOP/s"))
            .x_label_style(TextStyle::from((FONT, SMALL)).color(&MUTED))
            .y_label_style(TextStyle::from((FONT, SMALL)).color(&MUTED))
            .axis_desc_style(TextStyle::from((FONT, SMALL)).color(&MUTED))
            .draw()?;
        let slope = [(x.0.max(y.0 / bandwidth)), top / bandwidth].map(|i| (i, i * bandwidth));
        chart.draw_series(LineSeries::new(slope, MUTED.stroke_width(2)))?;
        for &(roof, colour, _) in &roofs {
            chart.draw_series(LineSeries::new(
                [(roof / bandwidth, roof), (x.1, roof)],
                colour.stroke_width(2),
            ))?;
        }
        for (_, row, intensity, rate) in &points {
            let (at, colour) = ((*intensity, *rate), precision_colour(&row.precision).mix(0.85).filled());
            match row.group {
                Group::Kernel => chart.plotting_area().draw(&Circle::new(at, 4, colour))?,
                Group::Network => chart.plotting_area().draw(&TriangleMarker::new(at, 6, colour))?,
                Group::Diffusion => {
                    let square = [(-4, -4), (4, 4)];
                    chart.plotting_area().draw(&(EmptyElement::at(at) + Rectangle::new(square, colour)))?;
                }
            }
        }
        // Words last, each only where there is still room.
        let mut taken: Vec<(i32, i32, i32, i32)> = Vec::new();
        let free = |taken: &mut Vec<(i32, i32, i32, i32)>, at: (i32, i32), half: (i32, i32)| {
            let own = (at.0 - half.0, at.1 - half.1, at.0 + half.0, at.1 + half.1);
            let meets = |o: &(i32, i32, i32, i32)| own.0 < o.2 && o.0 < own.2 && own.1 < o.3 && o.1 < own.3;
            let room = !taken.iter().any(meets);
            if room {
                taken.push(own);
            }
            room
        };
        let pixel: Vec<(i32, i32)> = points.iter().map(|p| chart.backend_coord(&(p.2, p.3))).collect();
        taken.extend(pixel.iter().map(|p| (p.0 - 4, p.1 - 4, p.0 + 4, p.1 + 4)));
        for &(roof, colour, name) in &roofs {
            let at = chart.backend_coord(&(x.1, roof));
            let words = format!("{name}: {}", units::si(roof, "FLOP/s"));
            area.draw(&Text::new(words, (at.0 + 8, at.1), text(colour, HPos::Left)))?;
        }
        let middle = (slope[0].0 * slope[1].0).sqrt();
        let at = chart.backend_coord(&(middle, middle * bandwidth));
        area.draw(&Text::new(units::si(bandwidth, "B/s"), (at.0 - 10, at.1 - 10), text(MUTED, HPos::Right)))?;
        for ((number, ..), at) in points.iter().zip(&pixel) {
            let places = [(11, -7), (-11, -7), (11, 8), (-11, 8), (0, -13), (0, 13)];
            for place in places.map(|(dx, dy)| (at.0 + dx, at.1 + dy)) {
                if free(&mut taken, place, (7, 6)) {
                    let style =
                        TextStyle::from((FONT, 12)).color(&MUTED).pos(Pos::new(HPos::Center, VPos::Center));
                    area.draw(&Text::new(number.to_string(), place, style))?;
                    break;
                }
            }
        }
        Ok(())
    }))
}

/// What the strips of one page have in common: how far left and right of the median they reach.
pub const STRIP_REACH: f64 = 0.15;

/// Samples of a row over its median: a mark each, the middle half as a box, the median as a line. What lies further out than
/// [`STRIP_REACH`] is drawn at the edge.
pub fn strip(row: &Row) -> Option<String> {
    const WIDTH: i32 = 260;
    const HEIGHT: i32 = 22;
    const MARKS: usize = 48;
    let samples = &row.times.as_ref()?.samples;
    let sorted = Sorted::new(samples)?;
    let median = sorted.median();
    let place = |s: f64| {
        let way = ((s / median - 1.0) / STRIP_REACH).clamp(-1.0, 1.0);
        (f64::from(WIDTH) / 2.0 + way * (f64::from(WIDTH) / 2.0 - 4.0)).round() as i32
    };
    let colour = precision_colour(&row.precision);
    Some(draw((WIDTH as u32, HEIGHT as u32), |area| {
        area.draw(&PathElement::new(vec![(2, HEIGHT / 2), (WIDTH - 2, HEIGHT / 2)], LINE.stroke_width(1)))?;
        let [q1, q3] = [0.25, 0.75].map(|p| place(sorted.quantile(p)));
        area.draw(&Rectangle::new([(q1, 4), (q3.max(q1 + 1), HEIGHT - 4)], colour.mix(0.28).filled()))?;
        // Outliers are all there; of the others as many as can be told apart.
        let kept = |i: usize| samples.len() <= MARKS || (i * MARKS) % samples.len() < MARKS;
        for (i, &s) in samples.iter().enumerate() {
            let x = place(s);
            let far = (s / median - 1.0).abs() >= STRIP_REACH;
            if far || kept(i) {
                let mark = if far { BAD.mix(0.9) } else { colour.mix(0.55) };
                let y = HEIGHT / 2 + [0, -3, 3, -1, 2, -2][i % 6];
                area.draw(&Circle::new((x, y), 2, mark.filled()))?;
            }
        }
        area.draw(&PathElement::new(vec![(WIDTH / 2, 3), (WIDTH / 2, HEIGHT - 3)], INK.stroke_width(1)))?;
        Ok(())
    }))
}

/// Kernels that have a colour of their own: those with most time over all networks.
pub fn named_kernels(results: &Results) -> Vec<String> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    for row in results.rows.iter().filter(|row| row.group != Group::Kernel) {
        // Each row counts alike: the longest would decide alone.
        let total: f64 = row.kernels.iter().map(|k| k.seconds).sum();
        for kernel in &row.kernels {
            let part = if total > 0.0 { kernel.seconds / total } else { 0.0 };
            match sums.iter_mut().find(|(name, _)| *name == kernel.kernel) {
                Some((_, sum)) => *sum += part,
                None => sums.push((kernel.kernel.clone(), part)),
            }
        }
    }
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    sums.into_iter().map(|(name, _)| name).take(PARTS.len() - 1).collect()
}

/// Where the time of a run goes, as parts of the whole; what no kernel accounts for stays empty.
pub fn kernel_bar(row: &Row, named: &[String]) -> Option<String> {
    const WIDTH: i32 = 560;
    const HEIGHT: i32 = 16;
    let whole = row.times.as_ref()?.main.median.max(row.kernels.iter().map(|k| k.seconds).sum());
    if row.kernels.is_empty() || whole <= 0.0 {
        return None;
    }
    let mut parts = vec![0.0; PARTS.len()];
    for kernel in &row.kernels {
        let at = named.iter().position(|name| *name == kernel.kernel).unwrap_or(PARTS.len() - 1);
        parts[at] += kernel.seconds / whole;
    }
    Some(draw((WIDTH as u32, HEIGHT as u32), |area| {
        area.draw(&Rectangle::new([(0, 0), (WIDTH, HEIGHT)], LINE.mix(0.5).filled()))?;
        let mut begin = 0.0;
        for (part, colour) in parts.iter().zip(PARTS) {
            let [from, to] = [begin, begin + part].map(|p| (p * f64::from(WIDTH)).round() as i32);
            if to > from {
                area.draw(&Rectangle::new([(from, 0), ((to - 1).max(from + 1), HEIGHT)], colour.filled()))?;
            }
            begin += part;
        }
        Ok(())
    }))
}

/// How the canary's time went, as percent of its median. None for fewer than two.
pub fn canary(all: &[Canary]) -> Option<String> {
    let median = Sorted::new(&all.iter().map(|c| c.seconds).collect::<Vec<_>>())?.median();
    let points: Vec<(f64, f64)> = all
        .iter()
        .map(|c| (c.at / 60.0, 100.0 * (c.seconds / median - 1.0)))
        .filter(|p| p.0.is_finite())
        .collect();
    let (first, last) = (points.first()?.0, points.last()?.0);
    let far = points.iter().map(|p| p.1.abs()).fold(2.0, f64::max) * 1.2;
    if last <= first {
        return None;
    }
    Some(draw((1100, 200), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_top(8)
            .margin_right(12)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(first..last, -far..far)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(MUTED)
            .disable_x_mesh()
            .y_labels(5)
            .x_labels(8)
            .x_desc("minutes since the start")
            .x_label_formatter(&|v| format!("{v:.1}"))
            .y_label_formatter(&|v| format!("{v:+.0} %"))
            .x_label_style(TextStyle::from((FONT, SMALL)).color(&MUTED))
            .y_label_style(TextStyle::from((FONT, SMALL)).color(&MUTED))
            .axis_desc_style(TextStyle::from((FONT, SMALL)).color(&MUTED))
            .draw()?;
        chart.draw_series(LineSeries::new(points.iter().copied(), F32.mix(0.6).stroke_width(1)))?;
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, F32.filled())))?;
        Ok(())
    }))
}
