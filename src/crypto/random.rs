//! Where random bytes come from.

use ring::rand::SecureRandom as _;

use crate::{id::urn_uuid, time::Timestamp};

/// A source of unpredictable bytes.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// What callers use: arrays and identifiers from any [`Random`].
pub trait RandomExt: Random {
    /// `N` fresh bytes.
    fn array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A fresh `urn:uuid:` of version 7.
    fn urn(&self, now: Timestamp) -> String {
        urn_uuid(now, &self.array())
    }
}

impl<R: Random + ?Sized> RandomExt for R {}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // A system without working getrandom(2) can make no keys: there is nothing to go on with.
        ring::rand::SystemRandom::new().fill(bytes).expect("the operating system has randomness");
    }
}
