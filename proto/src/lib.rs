//! Cairn's gRPC contract as Rust types: everything here is generated from `proto/cairn/v1/*.proto`.
//!
//! No logic lives here. Servers convert these messages in one file, clients wrap them; nothing else names them.

/// Package `cairn.v1`.
pub mod v1 {
    #![expect(
        clippy::allow_attributes,
        unused_qualifications,
        reason = "generated code follows its generator's style"
    )]
    tonic::include_proto!("cairn.v1");

    /// The encoded `FileDescriptorSet` of this package, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cairn.v1.fds"));
}
