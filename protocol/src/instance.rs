//! Who an instance is for its own program and for people.

use uuid::Uuid;

/// The guid of one start of an instance: `CF_INSTANCE_GUID` inside, `instance_guid` in the API. The assignment's id stays
/// the same for as long as the instance has its place, and routers know it by that; the guid is another one after each
/// start, as on Cloud Foundry, where programs tell by it that they were started again. Both sides compute it alike.
#[must_use]
pub fn instance_guid(assignment: Uuid, incarnation: u64) -> Uuid {
    Uuid::new_v5(&assignment, &incarnation.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_stable_guid_of_its_own() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_ne!(instance_guid(one, 1), instance_guid(one, 2));
        assert_ne!(instance_guid(one, 1), instance_guid(other, 1));
        // Cell and controller of different versions must agree.
        assert_eq!(instance_guid(one, 1).to_string(), "1c073e3d-9846-5018-a425-c09afedb3421");
    }
}
