//! The embedded networks: trained on real digits, converted and recorded by PyTorch.

/// Name and export of each.
pub const NETWORKS: [(&str, &[u8]); 2] = [
    ("cnn_bn", include_bytes!("../networks/cnn_bn.safetensors")),
    ("mlp", include_bytes!("../networks/mlp.safetensors")),
];
