//! The recipe language seen from outside: a corpus of submissions with what they give, and properties
//! that hold for every submission.

mod corpus;
mod properties;
mod runtime;
