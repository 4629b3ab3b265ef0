//! The pod network: CNI plugin and node routes
