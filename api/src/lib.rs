//! The Kubernetes object model: schemas, Status, selectors, quantities, patches and printing, without I/O
