//! Results that come back to the host without a wait.

use aquatint::frame::ReadRing;
use aquatint::wgpu::{self, BufferUsages, TextureFormat, TextureUsages};
use aquatint::{Error, Result};

use crate::harness::*;

#[test]
fn what_is_copied_comes_back_in_order() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let source = storage(gpu, &[0.0; 8]);
    let mut ring = ReadRing::new(gpu, 3, 32)?;
    assert!(ring.is_empty() && ring.poll()?.is_none());
    let (mut pushed, mut read) = (Vec::new(), Vec::new());
    for frame in 0..40u64 {
        gpu.queue().write_buffer(&source, 0, bytemuck::cast_slice(&[frame as f32; 8]));
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        if ring.push_buffer(&mut encoder, &source, 4, 28, frame)? {
            pushed.push(frame);
        }
        gpu.queue().submit([encoder.finish()]);
        while let Some(found) = ring.poll()? {
            assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&found.bytes), [found.tag as f32; 7]);
            read.push(found.tag);
        }
    }
    gpu.wait(gpu.queue().submit([]))?;
    while let Some(found) = ring.poll()? {
        read.push(found.tag);
    }
    assert_eq!(read, pushed);
    assert!(pushed.len() >= 3 && ring.is_empty());
    Ok(())
}

#[test]
fn a_full_ring_lets_frames_go_without() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    let source = storage(gpu, &[1.0; 4]);
    let mut ring = ReadRing::new(gpu, 2, 16)?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let pushed = [0, 1, 2].map(|tag| ring.push_buffer(&mut encoder, &source, 0, 16, tag).unwrap());
    assert_eq!((pushed, ring.len()), ([true, true, false], 2));
    // An encoder that is never submitted: its buffers are free again.
    drop(encoder);
    assert_eq!(ring.poll()?, None);
    assert!(ring.is_empty());
    submit(gpu, |encoder| assert!(ring.push_buffer(encoder, &source, 0, 16, 3).unwrap()));
    let read = loop {
        if let Some(read) = ring.poll()? {
            break read;
        }
    };
    assert_eq!(read.tag, 3);
    Ok(())
}

#[test]
fn textures_come_back_without_gaps() -> Result<()> {
    let Some(gpu) = gpu() else { return Ok(()) };
    // Lines of 5 · 8 bytes, which wgpu copies at multiples of 256.
    let texture = texture(gpu, [5, 3], TextureFormat::Rgba16Float, WRITTEN);
    let given: Vec<[f64; 4]> = (0..15).map(|i| [f64::from(i), 0.5, -2.0, 1.0]).collect();
    fill(gpu, &texture, &given);
    assert_eq!(texels(gpu, &texture), given);

    let mut ring = ReadRing::new(gpu, 1, 16)?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let source = buffer(gpu, 64, BufferUsages::STORAGE);
    let right = storage(gpu, &[0.0; 16]);
    let depth = crate::harness::texture(gpu, [4, 4], TextureFormat::Depth32Float, TextureUsages::COPY_SRC);
    let wrong: [(wgpu::Buffer, u64, u64); 4] =
        [(source, 0, 16), (right.clone(), 2, 8), (right.clone(), 60, 8), (right, 0, 32)];
    for (buffer, offset, bytes) in wrong {
        let error = ring.push_buffer(&mut encoder, &buffer, offset, bytes, 0).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    for wrong in [&texture, &depth] {
        let error = ring.push_texture(&mut encoder, wrong, 0).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    assert!(ring.is_empty());
    Ok(())
}
