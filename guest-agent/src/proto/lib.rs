//! What the agent in the guest and the VMM on the host say to each other.
