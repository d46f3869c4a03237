//! How many instances of a process are wanted.

use serde::{Deserialize, Serialize};

/// A number of instances, between 0 and [`InstanceCount::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "i32", into = "i32")]
pub struct InstanceCount(u16);

impl InstanceCount {
    /// The most that one process may have.
    pub const MAX: u16 = 10_000;
    /// No instance.
    pub const ZERO: Self = Self(0);
    /// What `web` begins with.
    pub const ONE: Self = Self(1);

    /// The number that somebody asks for; none when it is out of bounds.
    #[must_use]
    pub fn new(asked: i64) -> Option<Self> {
        u16::try_from(asked).ok().filter(|count| *count <= Self::MAX).map(Self)
    }

    /// As many, and [`Self::MAX`] at most.
    #[must_use]
    pub fn at_most(count: u32) -> Self {
        Self(u16::try_from(count).map_or(Self::MAX, |count| count.min(Self::MAX)))
    }

    /// As many, and not more than `most`.
    #[must_use]
    pub fn capped(self, most: u32) -> Self {
        self.min(Self::at_most(most))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.into()
    }

    /// The number as the database has it.
    #[must_use]
    pub fn stored(self) -> i32 {
        self.0.into()
    }
}

/// What is stored was within bounds when it was written; anything else would be a damaged row.
impl From<i32> for InstanceCount {
    fn from(stored: i32) -> Self {
        Self::at_most(u32::try_from(stored).unwrap_or(0))
    }
}

impl From<InstanceCount> for i32 {
    fn from(count: InstanceCount) -> Self {
        count.stored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_within_bounds_are_taken() {
        for (asked, taken) in [(0, Some(0)), (1, Some(1)), (10_000, Some(10_000)), (10_001, None), (-1, None)] {
            assert_eq!(InstanceCount::new(asked).map(InstanceCount::get), taken, "{asked}");
        }
        assert_eq!(InstanceCount::new(i64::MAX), None);
        assert_eq!(InstanceCount::at_most(u32::MAX).get(), 10_000);
        assert_eq!(InstanceCount::at_most(7).capped(3).get(), 3);
        assert_eq!(InstanceCount::ONE.capped(u32::MAX), InstanceCount::ONE);
        let read: InstanceCount = serde_json::from_str("3").expect("a number");
        assert_eq!((read.stored(), serde_json::json!(read)), (3, serde_json::json!(3)));
    }
}
