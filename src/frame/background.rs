//! Things that are made on another thread.

use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// Something that takes long to make, a network with its pipelines as a rule, made on a thread of its own while frames go on:
/// [`Gpu`](crate::Gpu), [`Network`](crate::Network) and all of [`frame`](crate::frame) may go from thread to thread.
///
/// Dropping it does not wait; what is made then is dropped there.
#[derive(Debug)]
pub struct Background<T>(Option<JoinHandle<Result<T>>>);

impl<T: Send + 'static> Background<T> {
    /// Begins.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the system gives no thread.
    pub fn start(make: impl FnOnce() -> Result<T> + Send + 'static) -> Result<Background<T>> {
        let thread = std::thread::Builder::new().name("aquatint".to_owned()).spawn(make);
        thread
            .map(|thread| Background(Some(thread)))
            .map_err(|error| Error::Gpu { what: "starting a thread".to_owned(), message: error.to_string() })
    }

    /// Whether [`Background::take`] has something to give.
    pub fn is_ready(&self) -> bool {
        self.0.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// What was made, once, if it is ready.
    pub fn take(&mut self) -> Option<Result<T>> {
        match self.is_ready() {
            true => self.0.take().map(join),
            false => None,
        }
    }

    /// Waits for it; none if it was taken.
    pub fn wait(mut self) -> Option<Result<T>> {
        self.0.take().map(join)
    }
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
