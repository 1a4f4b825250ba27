//! Who may do what on NATS, tried on a real server.

mod attacks;
mod bounds;
mod customers;
mod party;
mod revoked;
mod roles;
