//! The scheduler: framework, queue, cache and plugins
