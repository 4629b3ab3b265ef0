//! Certificates: the cluster's authority, what it issues, and certificate requests
