//! The Kubernetes API server: store, watch cache, resource registry and HTTP
