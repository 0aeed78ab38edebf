//! A few lit solids on a table.

use std::f32::consts::FRAC_PI_4;

use bevy::camera::{Hdr, RenderTarget};
use bevy::core_pipeline::tonemapping::Tonemapping;
use bevy::prelude::*;

use crate::network::{ThroughNetwork, storage};

/// Where the picture goes, if not into a window.
#[derive(Resource, Clone)]
pub struct Target(pub Handle<Image>);

/// What stands on the table.
#[derive(Component)]
pub struct Solid;

pub fn spawn(
    mut commands: Commands,
    mut meshes: ResMut<Assets<Mesh>>,
    mut materials: ResMut<Assets<StandardMaterial>>,
    target: Option<Res<Target>>,
) {
    let mut material = |colour: Color| {
        materials.add(StandardMaterial { base_color: colour, perceptual_roughness: 0.6, ..default() })
    };
    let solids: [(Handle<Mesh>, Color, Vec3); 4] = [
        (meshes.add(Cuboid::from_length(1.5)), Color::srgb(0.80, 0.35, 0.25), Vec3::new(-2.4, 0.75, 0.3)),
        (
            meshes.add(Sphere::new(0.9).mesh().uv(48, 24)),
            Color::srgb(0.85, 0.75, 0.45),
            Vec3::new(-0.4, 0.9, -0.8),
        ),
        (meshes.add(Cylinder::new(0.6, 1.8)), Color::srgb(0.35, 0.55, 0.40), Vec3::new(1.5, 0.9, -0.4)),
        (meshes.add(Torus::new(0.35, 0.85)), Color::srgb(0.40, 0.45, 0.75), Vec3::new(0.6, 0.25, 1.4)),
    ];
    for (mesh, colour, place) in solids {
        let turned = Transform::from_translation(place).with_rotation(Quat::from_rotation_y(0.6));
        commands.spawn((Mesh3d(mesh), MeshMaterial3d(material(colour)), turned, Solid));
    }
    let table = meshes.add(Circle::new(5.0));
    let flat = Transform::from_rotation(Quat::from_rotation_x(-2.0 * FRAC_PI_4));
    commands.spawn((Mesh3d(table), MeshMaterial3d(material(Color::srgb(0.75, 0.72, 0.68))), flat));
    commands.spawn((
        DirectionalLight { illuminance: 9000.0, shadow_maps_enabled: true, ..default() },
        Transform::from_xyz(4.0, 6.0, 3.0).looking_at(Vec3::ZERO, Vec3::Y),
    ));

    let mut camera = commands.spawn((
        Camera3d::default(),
        Hdr,
        storage(),
        // It needs no table of colours.
        Tonemapping::AcesFitted,
        Transform::from_xyz(0.0, 4.2, 6.5).looking_at(Vec3::new(0.0, 0.5, 0.0), Vec3::Y),
    ));
    match target {
        Some(target) => camera.insert(RenderTarget::from(target.0.clone())),
        None => camera.insert(ThroughNetwork),
    };
}

/// For a scene that is watched.
#[cfg(feature = "window")]
pub fn turn(time: Res<Time>, mut solids: Query<&mut Transform, With<Solid>>) {
    for mut solid in &mut solids {
        solid.rotate_y(0.5 * time.delta_secs());
    }
}
