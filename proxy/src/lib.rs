//! The service proxy: Services and EndpointSlices become map elements of one nftables table.

pub mod types;
