//! Waiting for a device, each time for as long as its owner has patience, and what is read back after that.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Gpu, NO_WORK};
use crate::error::{Error, Result};

/// No submission may take longer than this before the device counts as lost, unless its owner says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

impl Gpu {
    /// How long a submission may take before the device counts as lost: five minutes, unless this says otherwise.
    pub fn set_patience(&self, patience: Duration) {
        let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).max(1);
        self.0.patience.store(milliseconds, Ordering::Relaxed);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.0.patience.load(Ordering::Relaxed))
    }

    /// Lets wgpu look at what is done. It panics where the driver has just lost the device, and where a wait ran out of time
    /// while another thread found all work done.
    pub(crate) fn poll(
        &self,
        poll: wgpu::PollType,
    ) -> Result<std::result::Result<wgpu::PollStatus, wgpu::PollError>> {
        if !matches!(poll, wgpu::PollType::Poll) && self.is_silent() {
            return Ok(Err(wgpu::PollError::Timeout));
        }
        let device = &self.0.device;
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| device.poll(poll))).or_else(|panic| {
            match panic.downcast_ref::<String>() {
                Some(text) if text.contains("If the queue is empty") => Ok(Ok(wgpu::PollStatus::QueueEmpty)),
                Some(reason) if reason.contains("Device::poll") => {
                    self.set_lost(reason);
                    Err(Error::DeviceLost { reason: reason.clone() })
                }
                // Callbacks of others, which it calls, may panic on their own account.
                _ => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Waits for a submission.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] when the device went away, or gave no answer for [so long](Gpu::set_patience).
    pub fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let poll = self.poll(wgpu::PollType::Wait {
            submission_index: Some(submission),
            timeout: Some(self.patience()),
        });
        self.check_lost()?;
        match poll? {
            Ok(_) => Ok(()),
            // wgpu says nothing else of what is submitted to a lost device.
            Err(wgpu::PollError::WrongSubmissionIndex(..)) => {
                let _ = self.poll(wgpu::PollType::Poll)?;
                self.set_lost(NO_WORK);
                self.check_lost()
            }
            Err(wgpu::PollError::Timeout) => Err(self.no_answer()),
        }
    }

    /// Waits for all that was submitted; what was dropped while it was under way is given back.
    pub(crate) fn settle(&self) -> Result<()> {
        // Uploads are given back a submission later.
        for _ in 0..2 {
            let submission = self.checked(|| "waiting".to_owned(), || self.queue().submit([]))?;
            self.wait(submission)?;
        }
        Ok(())
    }

    /// Waits until a buffer is mapped that nothing under way uses: `done` gets what wgpu says.
    pub(crate) fn mapped(
        &self,
        done: &Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.is_silent() {
                return Err(self.no_answer());
            }
            let _ = self.poll(wgpu::PollType::Poll)?;
            self.check_lost()?;
            match done.recv_timeout(Duration::from_millis(1)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(self.not_mapped(&error)),
                Err(RecvTimeoutError::Timeout) if start.elapsed() < self.patience() => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.no_answer()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.not_mapped(&"the buffer was never mapped"));
                }
            }
        }
    }

    fn no_answer(&self) -> Error {
        Error::DeviceLost { reason: format!("no answer for {:.1} s", self.patience().as_secs_f64()) }
    }

    /// Why a buffer of ours could not be mapped.
    pub(crate) fn not_mapped(&self, message: &dyn std::fmt::Display) -> Error {
        self.failure("mapping a buffer".to_owned(), message.to_string())
    }

    /// Copies the first `bytes` of each buffer to the host.
    pub(crate) fn download(&self, sources: &[(&wgpu::Buffer, u64)]) -> Result<Vec<Vec<u8>>> {
        self.download_from(&sources.iter().map(|&(buffer, bytes)| (buffer, 0, bytes)).collect::<Vec<_>>())
    }

    /// Copies `bytes` of each buffer to the host, from the offset before them on.
    pub(crate) fn download_from(&self, sources: &[(&wgpu::Buffer, u64, u64)]) -> Result<Vec<Vec<u8>>> {
        let padded = |bytes: u64| bytes.next_multiple_of(16);
        let total: u64 = sources.iter().map(|(_, _, bytes)| padded(*bytes)).sum();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer("read-back", total, usage)?;
        let mut encoder = self.0.device.create_command_encoder(&Default::default());
        let mut end = 0;
        for (buffer, offset, bytes) in sources {
            encoder.copy_buffer_to_buffer(buffer, *offset, &staging, end, bytes.next_multiple_of(4));
            end += padded(*bytes);
        }
        let submission =
            self.checked(|| "read-back".to_owned(), || self.0.queue.submit([encoder.finish()]))?;
        self.wait(submission.clone())?;
        let (done, mapped) = std::sync::mpsc::channel();
        let map = || {
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                let _ = done.send(result);
            });
        };
        self.checked(|| "mapping a read-back".to_owned(), map)?;
        self.wait(submission)?;
        self.mapped(&mapped)?;
        let view = staging.get_mapped_range(..).map_err(|e| self.not_mapped(&e))?;
        let mut offset = 0;
        Ok(sources
            .iter()
            .map(|(_, _, bytes)| {
                let at = offset as usize;
                offset += padded(*bytes);
                view[at..at + *bytes as usize].to_vec()
            })
            .collect())
    }
}
