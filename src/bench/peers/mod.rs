//! Other engines: the same work with the same numbers, here and there in turns.
//!
//! An engine is a [process](process::Peer) that is told what to do line by line. Its answer is held against the
//! reference that ours is held against, and only then timed. What came out is a [record](record::PeerResults), which
//! `aquatint bench ledger` draws.

pub mod items;
pub mod process;
pub mod race;
pub mod record;
