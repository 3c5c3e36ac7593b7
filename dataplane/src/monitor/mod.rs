//! What looks at a hub from outside: it reads the statistics segment, and asks the hub for nothing.

pub mod exporter;
#[cfg(test)]
mod fixture;
pub mod graph;
mod place;
mod series;
pub mod top;
