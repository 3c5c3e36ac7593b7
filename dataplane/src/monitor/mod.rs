//! What looks at hubs from outside, through their statistics segments: nothing here touches a hub.

pub mod exporter;
