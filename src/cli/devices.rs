//! `aquatint devices`: what there is to compute on.

use std::io::Write;

use anyhow::Result;
use aquatint::units::bytes;
use aquatint::{AdapterOptions, Target, gpu};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Devices {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One adapter. Sizes are in bytes.
#[derive(Serialize)]
struct Row {
    index: usize,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    backend: String,
    driver: String,
    vendor: u32,
    device: u32,
    /// Whether this is the one that `--adapter` names, or the default.
    chosen: bool,
    /// What was taken away of features and limits.
    as_if: Option<String>,
    features: Features,
    limits: Limits,
}

#[derive(Serialize)]
struct Features {
    f16: bool,
    subgroups: bool,
    subgroup_size: [u32; 2],
    timestamps: bool,
    cooperative_matrix: bool,
    /// What matrices can be multiplied.
    cooperative_matrices: Vec<Matrices>,
}

/// Cooperative matrices of m × k and k × n.
#[derive(Serialize)]
struct Matrices {
    m: u32,
    n: u32,
    k: u32,
    factors: String,
    sums: String,
    saturating: bool,
    /// Whether kernels use them on a device that is opened with `--experimental`.
    used: bool,
}

impl Matrices {
    fn all(adapter: &wgpu::Adapter, target: &Target) -> Vec<Matrices> {
        let scalar = |ty: wgpu::CooperativeScalarType| format!("{ty:?}").to_lowercase();
        let sides = target.matrices.iter().flat_map(|m| m.sides.clone()).collect::<Vec<u32>>();
        let row = |p: &wgpu::CooperativeMatrixProperties| {
            let (factors, sums) = (scalar(p.ab_type), scalar(p.cr_type));
            let (m, n, k, saturating) = (p.m_size, p.n_size, p.k_size, p.saturating_accumulation);
            let mixed = factors == "f16" && sums == "f32" && !saturating;
            let used = mixed && m == n && n == k && sides.contains(&m);
            Matrices { m, n, k, factors, sums, saturating, used }
        };
        adapter.cooperative_matrix_properties().iter().map(row).collect()
    }
}

impl std::fmt::Display for Matrices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Matrices { m, n, k, factors, sums, .. } = self;
        let saturating = if self.saturating { ", saturating" } else { "" };
        let used = if self.used { " (used with --experimental)" } else { "" };
        write!(f, "{m}×{n}×{k} {factors} to {sums}{saturating}{used}")
    }
}

#[derive(Serialize)]
struct Limits {
    max_buffer: u64,
    max_binding: u64,
    max_storage_buffers: u32,
    shared_memory: u32,
    max_invocations: u32,
    max_workgroups: u32,
}

impl Row {
    fn new(index: usize, chosen: bool, adapter: &wgpu::Adapter, options: &AdapterOptions) -> Result<Row> {
        let info = adapter.get_info();
        // All that there is, whether or not it is used without being asked for.
        let options = AdapterOptions { experimental: true, ..options.clone() };
        let abilities = options.abilities(adapter)?;
        let has = |feature| abilities.features.contains(feature);
        let target = options.target(adapter)?;
        Ok(Row {
            index,
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete",
                wgpu::DeviceType::IntegratedGpu => "integrated",
                wgpu::DeviceType::VirtualGpu => "virtual",
                wgpu::DeviceType::Cpu => "software",
                wgpu::DeviceType::Other => "other",
            },
            backend: info.backend.to_str().to_owned(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            vendor: info.vendor,
            device: info.device,
            chosen,
            as_if: options.as_if,
            features: Features {
                f16: target.f16,
                subgroups: target.subgroups,
                subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
                timestamps: has(wgpu::Features::TIMESTAMP_QUERY),
                cooperative_matrix: has(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
                cooperative_matrices: match has(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
                    true => Matrices::all(adapter, &target),
                    false => Vec::new(),
                },
            },
            limits: Limits {
                max_buffer: target.max_buffer,
                max_binding: target.max_binding,
                max_storage_buffers: target.max_storage_buffers,
                shared_memory: target.shared_memory,
                max_invocations: target.max_invocations,
                max_workgroups: target.max_workgroups,
            },
            name: info.name,
        })
    }

    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let Row { features: f, limits: l, .. } = self;
        let yes = |b: bool| if b { "yes" } else { "no" };
        let subgroups = match (f.subgroups, f.subgroup_size) {
            (false, _) => "no".to_owned(),
            (true, [min, max]) if min == max => format!("of {min}"),
            (true, [min, max]) => format!("of {min} to {max}"),
        };
        let mark = if self.chosen { "  (chosen)" } else { "" };
        writeln!(out, "{}  {}{mark}", self.index, self.name)?;
        writeln!(out, "   type      {}, {}", self.kind, self.backend)?;
        writeln!(out, "   driver    {}", self.driver)?;
        if let Some(as_if) = &self.as_if {
            writeln!(out, "   as if     {as_if}")?;
        }
        writeln!(
            out,
            "   features  f16 {}, subgroups {subgroups}, timestamps {}, cooperative matrices {}",
            yes(f.f16),
            yes(f.timestamps),
            yes(f.cooperative_matrix),
        )?;
        if !f.cooperative_matrices.is_empty() {
            let matrices: Vec<String> = f.cooperative_matrices.iter().map(ToString::to_string).collect();
            writeln!(out, "   matrices  {}", matrices.join(", "))?;
        }
        writeln!(
            out,
            "   limits    buffer {}, binding {}, {} storage buffers, shared memory {}, {} invocations",
            bytes(l.max_buffer),
            bytes(l.max_binding),
            l.max_storage_buffers,
            bytes(u64::from(l.shared_memory)),
            l.max_invocations,
        )
    }
}

pub fn run(args: &Devices, options: &AdapterOptions, out: &mut dyn Write) -> Result<()> {
    let adapters = gpu::adapters(options)?;
    let chosen = gpu::choose_index(&adapters, options)?;
    let mut rows: Vec<Row> = Vec::with_capacity(adapters.len());
    for (i, adapter) in adapters.iter().enumerate() {
        let row = Row::new(i, i == chosen, adapter, options);
        rows.push(match (row, i == chosen) {
            // What is too much to ask of another device is shown as it is.
            (Err(_), false) => {
                Row::new(i, false, adapter, &AdapterOptions { as_if: None, ..options.clone() })?
            }
            (row, _) => row?,
        });
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(());
    }
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        row.print(out)?;
    }
    Ok(())
}
