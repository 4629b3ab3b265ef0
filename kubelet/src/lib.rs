//! The node agent: pod workers over CRI, probes, volumes, node status and the node's HTTP server
