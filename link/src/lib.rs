//! The kernel's network: namespaces, links, addresses and routes, and where a socket is opened
