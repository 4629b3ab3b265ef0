//! Kubernetes client: connections, shared informers, work queue, expectations, leader lease and the driver every reconciler runs on
