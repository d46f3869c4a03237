//! Stored words as the wire's.

use slipway_protocol::v1;

use crate::{Intent, Kind, Placed, Role};

pub fn kind(kind: Kind) -> v1::WorkloadKind {
    match kind {
        Kind::Lrp => v1::WorkloadKind::Lrp,
        Kind::Task => v1::WorkloadKind::Task,
        Kind::Build => v1::WorkloadKind::Build,
    }
}

pub fn role(role: Role) -> v1::Role {
    match role {
        Role::Primary => v1::Role::Primary,
        Role::Suspect => v1::Role::Suspect,
        Role::Extra => v1::Role::Extra,
    }
}

pub fn intent(intent: Intent) -> v1::Intent {
    match intent {
        Intent::Run => v1::Intent::Run,
        Intent::Drain => v1::Intent::Drain,
        Intent::Stop => v1::Intent::Stop,
    }
}

/// An assignment with the crashes that it was placed with; what the cell counts since then is not told back to it.
pub fn assignment(placed: &Placed, carried: u32) -> v1::Assignment {
    v1::Assignment {
        id: placed.id.to_string(),
        group: placed.group.to_string(),
        index: placed.index,
        spec_digest: bytes::Bytes::copy_from_slice(&placed.spec),
        kind: kind(placed.kind).into(),
        role: role(placed.role).into(),
        intent: intent(placed.intent).into(),
        attempt: placed.attempt,
        slot: placed.slot.into(),
        restart: Some(v1::RestartState { crashes: carried, incarnation: 0 }),
        restart_nonce: placed.restart_nonce,
        egress_policy: bytes::Bytes::new(),
    }
}
