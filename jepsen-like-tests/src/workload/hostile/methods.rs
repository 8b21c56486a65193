//! What a hostile client may call: every method of every service in the `.proto` files, found by reflection.
//!
//! **Owns** the list of methods that are not called as they are, with the reason of each. **Must never** list what exists: a new method is called
//! without anybody touching this. **Read next**: [`super::values`].

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};

/// How a method of the Admin service is called. A new one has to be put here: it may destroy what the checkers rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admin {
    /// As any other.
    Freely,
    /// With an expected generation that no cluster has: it is decoded and checked, and then refused.
    Guarded,
    /// Of a node that is no member of any cluster.
    OfNobody,
}

const ADMIN: [(&str, Admin); 11] = [
    // The node is a member already: both must be refused, or say what is so anyway.
    ("Init", Admin::Freely),
    ("Join", Admin::Freely),
    // A member on an empty disk has to stay out until its operator brings it back.
    ("Rejoin", Admin::OfNobody),
    ("NodeStatus", Admin::Freely),
    ("Audit", Admin::Freely),
    ("Digests", Admin::Freely),
    ("TransferLeader", Admin::Freely),
    ("Snapshot", Admin::Freely),
    ("GetSettings", Admin::Freely),
    // It moves no ledger time; it only lets clocks that jumped do so.
    ("AcceptClock", Admin::Freely),
    // A retention of another client's choice would make the checkers' model wrong.
    ("SetSettings", Admin::Guarded),
];

/// All descriptors.
pub(super) fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(ledger_proto::DESCRIPTORS).expect("our own descriptors"))
}

/// A message by its name in the package.
pub(super) fn message(name: &str) -> MessageDescriptor {
    pool().get_message_by_name(&format!("holdfast.v1.{name}")).expect("a message of the .proto files")
}

/// Every method there is.
pub(super) fn all() -> Vec<MethodDescriptor> {
    pool().services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// A method by name.
pub(super) fn method(name: &str) -> MethodDescriptor {
    all().into_iter().find(|method| method.name() == name).expect("a method of the .proto files")
}

/// Its path in a request.
pub(super) fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// How it is called; none: an Admin method that nobody has decided on.
pub(super) fn admin(method: &MethodDescriptor) -> Option<Admin> {
    if method.parent_service().name() != "Admin" {
        return Some(Admin::Freely);
    }
    ADMIN.iter().find(|(name, _)| *name == method.name()).map(|(_, how)| *how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_admin_method_is_decided_on() {
        for method in all() {
            assert!(admin(&method).is_some(), "{}: may a hostile client call it as it is?", method.name());
        }
        assert!(ADMIN.iter().all(|(name, _)| all().iter().any(|method| method.name() == *name)));
    }

    #[test]
    fn methods_of_all_services_are_found() {
        let names: Vec<String> = all().iter().map(path).collect();
        for path in ["/holdfast.v1.Ledger/SubmitStream", "/holdfast.v1.Orders/GetQueue", "/holdfast.v1.Admin/Digests"] {
            assert!(names.iter().any(|name| name == path), "{path} is not in {names:?}");
        }
    }
}
