//! How many descriptors the process may open.
//!
//! **Owns** the one system call that raises the limit. **Must never** be called by a library:
//! programs decide about their process.
//! **Read next**: [`crate::gate`], which is given its share.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::DESCRIPTORS_WANTED;

/// Raises the soft limit of descriptors as far as the hard one allows. Answers the limit that is in
/// force then.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(DESCRIPTORS_WANTED).min(DESCRIPTORS_WANTED);
    let Some(current) = limit.current.filter(|current| *current < wanted) else {
        return limit.current.unwrap_or(DESCRIPTORS_WANTED);
    };
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, current, wanted, "the limit of open files cannot be raised");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_after_raise_is_what_the_system_says() {
        let raised = raise();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS_WANTED), raised);
        assert_eq!(raise(), raised, "a second time changes nothing");
    }
}
