//! What end-to-end tests share: a lab of their own, clients to drive it, and a look at the host before and after.

mod host;
mod lab;
mod older_kernel;
mod run;

pub use host::Host;
pub use lab::Lab;
pub use older_kernel::on_an_older_kernel;
pub use run::{Output, binary, run};
