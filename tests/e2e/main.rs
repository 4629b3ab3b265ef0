//! The product from outside: its binaries, driven as people drive them.

mod backup;
mod etcd;
mod exhaustion;
mod helm;
mod images;
mod labs;
mod mistakes;
mod network;
mod older_kernel;
mod proxy;
mod recovery;
mod registry;
mod resize;
mod restart_all;
mod story;
mod streams;
mod users;
