//! What end-to-end tests share: a lab of their own, clients to drive it, and a look at the host before and after.

mod host;
mod lab;
mod run;

pub use host::Host;
pub use lab::Lab;
pub use run::{Output, binary, run};
