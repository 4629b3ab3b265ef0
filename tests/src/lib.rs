//! What end-to-end tests share: a lab of their own, clients to drive it, and a look at the host before and after.
